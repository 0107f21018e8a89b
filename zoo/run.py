"""`python -m zoo.run`: pictures and videos in, results out."""

from __future__ import annotations

import functools
import inspect
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli import (
    Fp16,
    Heuristic,
    Json,
    Level,
    ModelOrFile,
    Names,
    NoPlugins,
    PluginsOption,
    Size,
    Together,
    Verbose,
    WeightsOption,
    Workspace,
    command,
    extended,
    json_text,
    note,
    plugin_policy,
    precision_name,
    print_json,
    progress,
    size_of,
)
from zoo.device import named_gpus
from zoo.engine.effort import parse_workspace
from zoo.errors import ZooError
from zoo.labels import given_names
from zoo.registry import get_cascade, get_model
from zoo.tasks import CLASSES, Option, Task, all_tasks, get_task
from zoo.text import clean

if TYPE_CHECKING:
    import numpy as np

WRITERS = min(os.cpu_count() or 1, 32)  # threads that draw and encode
AHEAD = 2 * WRITERS  # drawn frames that may wait to be written
RANDOM = "warning: the weights are random, and so are the answers"
Show = Callable[[Any, Any, "Path | None"], None]  # (frame, prediction, where its picture went)


def run(
    model: ModelOrFile,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Image and video files, folders, globs, streams (rtsp://…), a pipe or - for it, webcam index.",
        ),
    ],
    weights: WeightsOption = None,
    size: Size = None,
    save: Annotated[
        Path, typer.Option("--save", "--save-dir", help="Folder for drawn pictures and results.json.")
    ] = Path("runs"),
    no_save: Annotated[bool, typer.Option("--no-save", help="Draw nothing: results.json only.")] = False,
    as_json: Json = False,
    batch: Together = 1,
    frames: Annotated[
        int | None,
        typer.Option("--frames", min=1, help="The most to read of each video, stream or webcam.", show_default=False),
    ] = None,
    device: Annotated[
        str, typer.Option("--device", help="cpu, gpu, auto, a certain GPU (1), or several that take turns (0,1).")
    ] = "auto",
    fp16: Fp16 = False,
    level: Level = None,
    heuristic: Heuristic = False,
    workspace: Workspace = None,
    plugins: PluginsOption = "auto",
    no_plugins: NoPlugins = False,
    host_code: Annotated[
        bool, typer.Option("--host-code", help="Allow a self-contained engine to run the library that it carries.")
    ] = False,
    cuda: Annotated[str, typer.Option("--cuda", help="How to reach the GPU: cuda-python or pycuda.")] = "cuda-python",
    cuda_graph: Annotated[
        bool, typer.Option("--cuda-graph/--no-cuda-graph", help="Replay the network as a CUDA graph.")
    ] = True,
    auto_rebuild: Annotated[
        bool, typer.Option("--auto-rebuild", help="Rebuild an engine that this machine cannot load.")
    ] = False,
    threads: Annotated[int, typer.Option("--threads", min=0, help="Threads on the CPU. Default: one a core.")] = 0,
    warmup: Annotated[
        int, typer.Option("--warmup", "--warmUp", min=0, help="Runs on a black picture before the first source.")
    ] = 0,
    names: Names = None,
    verbose: Verbose = False,
    **chosen: Any,
) -> None:
    """Runs MODEL on every SOURCE: prints a line for each, and saves drawn pictures (or a video) and JSON.

    With --verbose every object that was found has a line too. Every run says which executor answered. Exit status 1
    when some of several sources could not be read, 2 when none could.
    """
    from zoo.api import is_engine, load, model_in
    from zoo.engine.shapes import ranged_shapes
    from zoo.images.gallery import Gallery
    from zoo.images.sources import open_sources
    from zoo.runtime.predict import share_out

    devices = _devices(device)
    labels = given_names(names) if names is not None else None
    options = {name: value for name, value in chosen.items() if value is not None}
    if weights is None:
        model, weights = model_in(model)
    cascade = None
    if not is_engine(model):  # before an engine is built
        cascade = get_cascade(model)
        entry = cascade or get_model(model)
        get_task(entry.task).settings(entry.options, options)
    ranged = size is not None and "-" in size and cascade is None and not is_engine(model)
    shapes = ranged_shapes(get_model(model), 1, size) if ranged else None
    wanted = None if ranged else size_of(size)
    batches = None if ranged or cascade or is_engine(model) else (1, batch, batch) if batch > 1 else 1
    with ExitStack() as opened:
        with progress() as say:  # an engine may have to be built
            sessions: list[Any] = [
                opened.enter_context(load(
                    model, weights=weights, size=wanted, device=each, precision=precision_name(fp16, False),
                    batch=batches, shapes=shapes, level=level, heuristic=heuristic, cuda=cuda, graphs=cuda_graph,
                    plugins=plugin_policy(plugins, no_plugins), host_code=host_code, auto_rebuild=auto_rebuild,
                    workspace=parse_workspace(workspace) if workspace is not None else None, threads=threads,
                    progress=say,
                ))
                for each in devices
            ]  # type: ignore[arg-type]  # fmt: skip
        if labels is not None:
            sessions = [_named(each, labels) for each in sessions]
        session, executors = sessions[0], " and ".join(dict.fromkeys(each.runs_on for each in sessions))
        runs_on = executors if len(sessions) == 1 else f"{executors} ({', '.join(devices)})"
        note(f"{session.model.name} with {session.weights}: {runs_on}")
        if session.weights.startswith("random"):
            note(RANDOM)
        with share_out(sessions, batch=batch, **options) as predictor:
            predictor.warm_up(warmup)
            show = None if as_json else functools.partial(_print, task=predictor.task, verbose=verbose)
            _tell_passed_over(sources)
            outcome = _predict_all(predictor, open_sources(sources, frames), Gallery(save, sources), not no_save, show)
            together = predictor.task.compare(outcome.items)
        results = {
            "model": session.model.name,
            "weights": session.weights,
            "executor": runs_on,
            "results": outcome.items,
            "errors": outcome.bad,
        }
    if not outcome.items and not outcome.stopped:
        sys.exit(2)
    path = outcome.gallery.claim("results.json")
    _save_json(path, results)
    if as_json:
        print_json(results)
    else:
        for line in together:
            print(clean(line))
        print(f"results: {clean(str(path))}")
    if results["weights"].startswith("random"):  # the first one is far above by now
        note(RANDOM)
    sys.exit(130 if outcome.stopped else 1 if outcome.bad else 0)


def _devices(device: str) -> list[str]:
    """`device`, or where it names several GPUs, each of them. Raises ZooError where one of several is not there."""
    gpus = named_gpus(device)
    if len(gpus) < 2:
        return [device]
    from zoo.runtime.engines import require_gpu

    for gpu in gpus:  # before an engine is built for the first
        require_gpu(gpu)
    return [f"gpu:{gpu}" for gpu in gpus]


def _named(session: Any, labels: list[str]) -> Any:
    """`session` with other names of its classes. Raises ZooError where results have none."""
    task = get_task(session.model.task)
    if not any(CLASSES in axes for axes in task.outputs.values()):
        raise ZooError(f"the task '{task.name}' of {session.model.name} has no classes; leave --names away")
    return replace(session, labels=labels)


@dataclass
class _Outcome:
    """What a run gave: a record per picture, what could not be read or written, and the folder of its files."""

    gallery: Any
    items: list[dict[str, Any]] = field(default_factory=list)
    bad: list[dict[str, str]] = field(default_factory=list)
    stopped: bool = False


def _tell_passed_over(sources: list[str]) -> None:
    """Says which files of folders are not looked at."""
    from zoo.images.sources import passed_over

    for source in sources:
        if names := passed_over(source):
            shown = ", ".join(Path(name).name for name in names[:3]) + (", …" if names[3:] else "")
            note(f"{source}: {len(names)} files passed over, which are no pictures or videos by their suffix: {shown}")


def _predict_all(predictor: Any, frames: Iterable[Any], gallery: Any, draws: bool, show: Show | None) -> _Outcome:
    """Results and errors, one JSON record per picture; pictures and videos go drawn into the gallery if it `draws`, and
    `show` tells of each. Ctrl-C ends the reading; what was read until then is finished.

    Threads decode ahead, draw and write, while this one predicts, and one writes the frames of videos in their order.
    What is told and recorded keeps the order of the sources.
    """
    from concurrent.futures import ThreadPoolExecutor

    from zoo.images.sources import BadSource
    from zoo.runtime.predict import ahead

    underway: deque[tuple[Any, Any]] = deque()  # (frame, its pending prediction)
    pending: deque[tuple[Any, Any, Any, Any]] = deque()  # (frame, its prediction, where it goes, its writing)

    def refuse(name: str, message: str) -> None:
        outcome.bad.append({"source": name, "error": message})
        note(f"error: {message}")

    def draw(frame: Any, prediction: Any) -> np.ndarray:
        return predictor.task.draw(frame.image, prediction.result)

    def picture(frame: Any, prediction: Any, path: Path) -> None:
        gallery.write(frame, draw(frame, prediction), path)

    def film(frame: Any, drawn: Any, path: Path) -> None:
        gallery.write(frame, drawn.result(), path)

    def save(frame: Any, prediction: Any) -> None:
        """Starts the drawing and writing of a picture."""
        if not draws:
            pending.append((frame, prediction, None, None))
            return
        path = gallery.place(frame)
        if frame.is_video:
            job = filming.submit(film, frame, drawing.submit(draw, frame, prediction), path)
        else:
            job = drawing.submit(picture, frame, prediction, path)
        pending.append((frame, prediction, path, job))

    def settle(most: int) -> None:
        """Passes predictions on to the drawing threads until at most `most` are under way."""
        while len(underway) > most:
            frame, prediction = underway.popleft()
            try:
                save(frame, prediction.result())
            except ZooError as error:  # one picture's trouble is not that of the others
                refuse(frame.name, f"{frame.name}: {error}")

    def collect(most: int) -> None:
        """Takes what was written until at most `most` are waited for."""
        while len(pending) > most:
            frame, prediction, path, job = pending.popleft()
            try:
                if job is not None:
                    job.result()
                record = _record(frame, prediction, predictor.task, path)
            except (ZooError, MemoryError) as error:
                refuse(frame.name, f"{frame.name}: {error or 'there is not enough memory to draw it'}")
                continue
            if show is not None:
                show(frame, prediction, path)
            outcome.items.append(record)

    outcome = _Outcome(gallery)
    try:
        with (
            gallery,
            ThreadPoolExecutor(WRITERS) as drawing,
            ThreadPoolExecutor(1) as filming,
            _interrupt_noted() as stopped,
        ):
            for frame in ahead(frames, ended=stopped):
                if isinstance(frame, BadSource):
                    refuse(frame.name, frame.message)
                    continue
                try:
                    underway.append((frame, predictor.submit(frame.image)))
                except ZooError as error:
                    refuse(frame.name, f"{frame.name}: {error}")
                settle(predictor.underway - 1)
                collect(AHEAD)  # a slow disk must not fill the memory with frames
            settle(0)
            collect(0)
            outcome.stopped = stopped.is_set()
    except ZooError as error:  # a video that could not be written whole
        refuse(str(gallery.folder), str(error))
    return outcome


@contextmanager
def _interrupt_noted() -> Iterator[threading.Event]:
    """Ctrl-C sets the event, so that what is under way can be finished. A second one interrupts as usual."""
    noted = threading.Event()

    def take_note(*_: Any) -> None:
        noted.set()
        signal.signal(signal.SIGINT, previous)
        note("stopped; what was read is being finished")

    previous = signal.signal(signal.SIGINT, take_note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, previous)


def _record(frame: Any, prediction: Any, task: Any, path: Path | None) -> dict[str, Any]:
    position = {"frame": frame.index} if frame.is_video else {}
    steps = {name: round(value, 3) for name, value in prediction.ms.items()}
    size = {"width": frame.image.shape[1], "height": frame.image.shape[0]}
    return {
        "source": frame.name,
        **position,
        **size,
        **task.to_json(prediction.result),
        **({} if path is None else {"picture": str(path)}),
        "ms": steps,
    }


def _print(frame: Any, prediction: Any, path: Path | None, *, task: Task, verbose: bool) -> None:
    """A line for a picture or a frame, with what was found in a few words, then a line for each thing; where these may
    be many, only if `verbose`."""
    steps = " + ".join(f"{value:.1f}" for value in prediction.ms.values()) + " ms"
    details = verbose or not (task.finds_many or frame.is_video)
    summary = "" if details and not task.finds_many else f": {task.summarize(prediction.result)}"
    if frame.is_video:
        where = f"{frame.name} frame {frame.index}{summary} ({steps})"
    else:
        where = f"{frame.name}{summary} ({frame.image.shape[1]}x{frame.image.shape[0]}, {steps})" + (
            f" -> {path}" if path else ""
        )
    print(clean(where))
    for line in task.describe(prediction.result) if details else ():
        print(f"  {clean(line)}")


def _save_json(path: Path, results: dict[str, Any]) -> None:
    from zoo.files import replacing

    with replacing(path) as file:
        file.write((json_text(results) + "\n").encode())


def with_task_options(function: Callable[..., None]) -> Callable[..., None]:
    """`function` with a parameter for each option of each task; None when it was not given."""
    own = inspect.signature(function).parameters
    owners: dict[str, list[tuple[Task, Option]]] = {}
    for task in all_tasks():
        for option in task.options:
            owners.setdefault(option.name, []).append((task, option))
            first, known = owners[option.name][0]
            if option.name in own or option.type is not known.type:
                other = "zoo.run itself" if option.name in own else f"the task '{first.name}'"
                raise ZooError(
                    f"the task '{task.name}' cannot have an option '{option.name}' of the type {option.type.__name__}: "
                    f"{other} has another of that name"
                )

    return extended(function, [_parameter(pairs) for pairs in owners.values()], function)


def _parameter(pairs: list[tuple[Task, Option]]) -> inspect.Parameter:
    """The flag of an option that all these tasks have."""
    option = pairs[0][1]
    defaults = " or ".join(dict.fromkeys(str(other.default) for _, other in pairs))
    name = option.name.replace("_", "-")
    flag = typer.Option(
        f"--{name}/--no-{name}" if option.type is bool else f"--{name}",
        *dict.fromkeys(spelling for _, other in pairs for spelling in other.flags),
        help=f"{option.help} Default: {defaults}, or the model's own.",
        show_default=False,
        rich_help_panel=f"Options of {', '.join(task.name for task, _ in pairs)}",
    )
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(option.name, kind, default=None, annotation=Annotated[option.type | None, flag])


main = command(run, extend=with_task_options)

if __name__ == "__main__":
    main()
