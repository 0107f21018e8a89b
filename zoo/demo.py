"""`python -m zoo.demo`: a page on this machine to try models on pictures."""

from __future__ import annotations

import inspect
import os
import sys
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli import Size, WeightsOption, command, note, size_of
from zoo.device import parse_device
from zoo.errors import ZooError
from zoo.registry import get_model, list_models

if TYPE_CHECKING:
    import numpy as np

    from zoo.session import Session

LOADED = 4  # models that are kept; the one unused for longest goes first


def run(
    models: Annotated[
        list[str] | None,
        typer.Argument(help="Names of python -m zoo.list. Default: those whose weights are here.", show_default=False),
    ] = None,
    weights: WeightsOption = None,
    size: Size = None,
    device: Annotated[str, typer.Option("--device", help="cpu, gpu, auto, or a certain GPU: gpu:1 or 1.")] = "auto",
    host: Annotated[str, typer.Option("--host", help="Who can reach it: 0.0.0.0 is everybody.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Where it listens.")] = 7860,
) -> None:
    """Opens a page: a picture and a model give the drawn result, what was found, the times and the network's source."""
    parse_device(device)
    names = [get_model(name).name for name in models] if models else available()
    if weights is not None and len(names) > 1:
        raise ZooError(f"--weights is for one model, and the page would have {len(names)}; name one")
    page = make_page(names, Models(weights, size_of(size), device))
    try:
        _, address, _ = page.launch(
            server_name=host, server_port=port, share=False, quiet=True, prevent_thread_lock=True
        )
    except OSError as error:
        raise ZooError(f"the page cannot listen on {host}:{port} ({error}); give another --port") from None
    note(f"{address} with {', '.join(names)}; Ctrl-C ends it")
    page.block_thread()


def available() -> list[str]:
    """The models whose weights are on this machine, which needs no download."""
    from zoo.api import weights_file

    return [name for name in list_models() if weights_file(get_model(name)) is not None]


class Models:
    """Answers for pictures; models are loaded when they are first asked, and a few are kept."""

    def __init__(self, weights: str | None, size: tuple[int, int] | None, device: str) -> None:
        self._options = {"weights": weights, "size": size, "device": device}
        self._lock = threading.Lock()  # one picture at a time: times would say little otherwise
        self._loaded: OrderedDict[str, Session] = OrderedDict()  # the last one was used last

    def answer(self, name: str, picture: np.ndarray) -> tuple[np.ndarray, str, str, str]:
        """The drawn result for a picture, both (H, W, 3) uint8 RGB, what was found, the times, the network's source.

        Raises ZooError for a model that cannot be loaded and a picture that it cannot take.
        """
        from zoo.runtime.predict import make_predictor

        with self._lock:
            session = self._session(name)
            with make_predictor(session) as predictor:
                predictor.warm_up(1)
                image = picture[..., ::-1].copy()
                prediction = predictor(image)
                task = predictor.task
                drawn = task.draw(image, prediction.result)
        summary = [task.summarize(prediction.result)] if task.finds_many else []
        found = "\n".join([*summary, *task.describe(prediction.result)])
        times = [*prediction.ms.items(), ("altogether", sum(prediction.ms.values()))]
        told = "\n".join(f"{value:8.1f} ms  {step}" for step, value in times) + f"\n\n{session.runs_on}"
        return drawn[..., ::-1], found, told, source_of(name)

    def _session(self, name: str) -> Session:
        from zoo.api import load

        if name not in self._loaded:
            self._loaded[name] = load(name, **self._options)
        self._loaded.move_to_end(name)
        if len(self._loaded) > LOADED:
            self._loaded.popitem(last=False)[1].close()
        return self._loaded[name]


def source_of(name: str) -> str:
    """The file that defines a model."""
    return inspect.getsource(sys.modules[get_model(name).build.__module__])


def make_page(names: list[str], models: Models) -> Any:
    """The page, not served yet. Raises ZooError where gradio is not installed."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before the import: nothing is to leave this machine
    try:
        import gradio
    except ImportError as error:
        raise ZooError(f'the page is made by gradio ({error}); install it: pip install "tensorrt-zoo[demo]"') from None

    def answer(name: str, picture: np.ndarray | None) -> tuple[Any, ...]:
        if picture is None:
            raise gradio.Error(
                "There is no picture yet: choose a file, or paste one.", duration=None, print_exception=False
            )
        try:
            return models.answer(name, picture)
        except ZooError as error:
            raise gradio.Error(str(error), duration=None, print_exception=False) from None

    with gradio.Blocks(title="zoo", analytics_enabled=False) as page:
        with gradio.Row():
            with gradio.Column():
                picture = gradio.Image(label="Picture", type="numpy", sources=["upload", "clipboard"], image_mode="RGB")
                model = gradio.Dropdown(names, value=names[0], label="Model")
                start = gradio.Button("Run", variant="primary")
            with gradio.Column():
                drawn = gradio.Image(label="Result", type="numpy", format="png", buttons=["download", "fullscreen"])
                found = gradio.Textbox(label="Found", lines=6)
                times = gradio.Textbox(label="Times", lines=6)
        with gradio.Accordion("The network", open=False):
            source = gradio.Code(label="Source", language="python")
        start.click(answer, [model, picture], [drawn, found, times, source], api_name="predict")
    return page


main = command(run)

if __name__ == "__main__":
    main()
