"""What all commands share: errors as one sentence, progress on stderr, results on stdout, and common options."""

from __future__ import annotations

import errno
import functools
import inspect
import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from zoo.discovery import import_file
from zoo.errors import ZooError
from zoo.interrupted import saying_stopped, stopped
from zoo.spellings import check_words
from zoo.text import clean

if TYPE_CHECKING:
    from zoo.registry import Model

LONGEST_LINE = 2000

# Options that several commands have, with the spellings of trtexec and tensorrtx that mean the same.
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        "--weights",
        "-w",
        "--wts",
        help="A .safetensors, .wts or .pt file, or random[:SEED]. Default: weights/MODEL.safetensors, else published.",
        show_default=False,
    ),
]
ModelOrFile = Annotated[
    str, typer.Argument(help="A name from python -m zoo.list, an engine file, or weights that name their model.")
]
Together = Annotated[int, typer.Option("--batch", "-b", min=1, help="Pictures that go through the network at once.")]
Names = Annotated[
    str | None,
    typer.Option("--names", help="Class names: a text file with one per line, or a,b,c.", show_default=False),
]
Fp16 = Annotated[bool, typer.Option("--fp16", "--half", help="Half precision; the input and the outputs stay float32.")]
Bf16 = Annotated[bool, typer.Option("--bf16", help="bfloat16 (TensorRT 10 or later, TensorRT-RTX).")]
Size = Annotated[
    str | None,
    typer.Option(
        "--size",
        "--imgsz",
        help="Input size: 224, or height x width such as 480x640; build, export and run take 320-1280 too.",
        show_default=False,
    ),
]

Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Where it goes. Default: MODEL.SUFFIX.", show_default=False)
]

FeaturesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--features",
        help="A module that the network ends at, by its PyTorch path: 'layer3'. Several give several outputs.",
        show_default=False,
    ),
]
IoOption = Annotated[
    str | None,
    typer.Option(
        "--io",
        help="What the network takes and gives: fp32, fp16, or uint8 (N, H, W, C), normalised inside. Default: fp32.",
        show_default=False,
    ),
]

Level = Annotated[
    int | None,
    typer.Option(
        "--level", "--builderOptimizationLevel", min=0, max=5, help="TensorRT's effort, 0 to 5.", show_default=False
    ),
]
Heuristic = Annotated[
    bool, typer.Option("--heuristic", "--heuristics", help="TensorRT 8: guess the best kernels, time only a few.")
]
PluginsOption = Annotated[
    str,
    typer.Option(
        "--plugins", help="Custom ops as native layers, cuda kernels or NVIDIA's builtin plugins. auto: faster."
    ),
]
NoPlugins = Annotated[bool, typer.Option("--no-plugins", help="The same as --plugins native.")]
TimingCache = Annotated[
    Path | None,
    typer.Option(
        "--timing-cache", "--timingCacheFile", help="Kernel timings: read if there, then written.", show_default=False
    ),
]


Workspace = Annotated[
    str | None,
    typer.Option(
        "--workspace",
        "--memPoolSize",
        help="Bound on TensorRT's scratch memory: 512M, 2G. Default: the GPU's memory.",
        show_default=False,
    ),
]

Imports = Annotated[
    list[Path] | None,
    typer.Option(
        "--import",
        metavar="FILE",
        help="Run this Python file first, which registers models or has tasks or references of its own.",
        show_default=False,
    ),
]

Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more: also what TensorRT warns of and tells.")]

Command = Callable[..., None]


class _Command(TyperCommand):
    """A command that says what to write instead of options that other tools have and it has not."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        check_words(args, [word for option in self.params for word in (*option.opts, *option.secondary_opts)])
        return super().parse_args(ctx, args)

    # typer ends an interrupted command without a word; so each half of one says it before typer knows.

    def make_context(self, *args: Any, **options: Any) -> Any:
        with saying_stopped():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        with saying_stopped():
            return super().invoke(ctx)


def command(function: Command, extend: Callable[[Command], Command] | None = None) -> Callable[..., None]:
    """A `python -m zoo.NAME` entry point: arguments by typer, errors as one sentence and exit status 2.

    Every command has --import and --verbose, which `function` may take as `verbose`. `extend` makes of `function` one
    with more parameters when the command runs. The entry point takes the words that the command was called by, if they
    are others.
    """

    def main(program: str = "") -> None:
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")
        add = app.command(cls=_Command, context_settings={"help_option_names": ["-h", "--help"]})
        _tolerate_any_text()
        try:
            for path in imports(sys.argv[1:]):  # before the options of the tasks in it are asked for
                import_file(path)
            add(_with_common_options(extend(function) if extend else function))
            app(prog_name=program or _program(function))
        except ZooError as error:
            fail(str(error))
        except KeyboardInterrupt:
            stopped()
        except BrokenPipeError:  # the reader went away, as `| head` does
            sys.stderr.close()
            sys.exit(0)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            fail(f"the output cannot be written: {error.strerror}")

    return main


def _tolerate_any_text() -> None:
    """Names of files need not be valid text: what the terminal's encoding lacks is written out."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def imports(arguments: list[str]) -> Iterator[Path]:
    """The files that --import names on a command line."""
    for i, word in enumerate(arguments):
        if word == "--":
            return
        if word == "--import":
            yield from map(Path, arguments[i + 1 : i + 2])
        elif word.startswith("--import="):
            yield Path(word.removeprefix("--import="))


def _with_common_options(function: Command) -> Command:
    """`function` as a command that has --import, which `command` has seen to, and --verbose."""

    def run(imports: Any, verbose: bool, **values: Any) -> None:
        if verbose:
            _log_to_stderr()
        function(**values, **({"verbose": verbose} if takes_verbose else {}))

    takes_verbose = "verbose" in inspect.signature(function).parameters
    kind = inspect.Parameter.KEYWORD_ONLY
    added = [
        inspect.Parameter("imports", kind, default=None, annotation=Imports),
        inspect.Parameter("verbose", kind, default=False, annotation=Verbose),
    ]
    return extended(function, added[:1] if takes_verbose else added, run)


class _Notes(logging.Handler):
    """Prints what is logged as other lines for people are printed."""

    def emit(self, record: logging.LogRecord) -> None:
        note(f"{record.name.removeprefix('zoo.')}: {record.levelname.lower()}: {record.getMessage()}")


def _log_to_stderr() -> None:
    """From now on, what `zoo` logs is printed on stderr, details for developers excepted."""
    logger = logging.getLogger("zoo")
    logger.setLevel(logging.INFO)
    logger.addHandler(_Notes())


def extended(function: Command, added: Iterable[inspect.Parameter], run: Command) -> Command:
    """`run` with the description and the parameters of `function`, and those `added` in the place of its **values."""
    signature = inspect.signature(function, eval_str=True)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*own, *added)]
    wrapper = functools.wraps(function)(lambda **values: run(**values))
    wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapper


def _program(function: Callable[..., None]) -> str:
    """The command as it can be typed: `python -m zoo.list`."""
    main = sys.modules["__main__"].__spec__
    name = main.name if function.__module__ == "__main__" and main else function.__module__
    return f"python -m {name.removesuffix('.__main__')}"


def fail(message: str, status: int = 2) -> NoReturn:
    """Prints one sentence on stderr and exits."""
    note(f"error: {' '.join(message.split())}")
    sys.exit(status)


def entry_of(name: str, features: list[str] | None) -> Model:
    """The model `name`, up to the modules that --features names."""
    from zoo.registry import get_model

    model = get_model(name)
    return model.features(*features) if features else model


def precision_name(fp16: bool, bf16: bool, int8: bool = False, fp8: bool = False) -> Any:
    """The precision that the flags ask for."""
    given = [name for name, wanted in (("fp16", fp16), ("bf16", bf16), ("int8", int8), ("fp8", fp8)) if wanted]
    if len(given) > 1:
        raise ZooError(f"--{given[0]} and --{given[1]} exclude each other; give one")
    return given[0] if given else "fp32"


def plugin_policy(plugins: str, no_plugins: bool) -> Any:
    """The policy for custom ops that the options ask for."""
    if no_plugins and plugins != "auto":
        raise ZooError("--plugins and --no-plugins exclude each other; give one")
    return "native" if no_plugins else plugins


def size_of(text: str | None) -> tuple[int, int] | None:
    """(height, width) of a --size option; None when it was not given."""
    from zoo.engine.shapes import parse_size

    return parse_size(text) if text else None


def print_json(data: Any) -> None:
    """`data` on stdout, for programs."""
    print(json_text(data))


def json_text(data: Any) -> str:
    """`data` as JSON. What is no text, as the name of a file may be, is escaped: any program can read it."""
    return json.dumps(data, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


def note(text: str) -> None:
    """A line for people on stderr, if there is one; what came from files cannot command the terminal."""
    if sys.stderr is not None:
        print(clean(text, LONGEST_LINE), file=sys.stderr, flush=True)


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Says on stderr what is being done: at once, then with the seconds that it takes on a terminal."""
    step: dict[str, Any] = {"text": "", "since": 0.0}
    stop = threading.Event()
    terminal = sys.stderr is not None and sys.stderr.isatty()

    def say(text: str) -> None:
        finish()
        step.update(text=text, since=time.perf_counter())
        if not terminal:
            note(f"{text} …")

    def finish() -> None:
        if step["text"] and terminal:
            print(f"\r\033[K{step['text']}: {time.perf_counter() - step['since']:.1f} s", file=sys.stderr, flush=True)
        step["text"] = ""

    def tick() -> None:
        while not stop.wait(0.2):
            if step["text"]:
                print(
                    f"\r\033[K{step['text']} … {time.perf_counter() - step['since']:.0f} s",
                    end="",
                    file=sys.stderr,
                    flush=True,
                )

    ticker = threading.Thread(target=tick, daemon=True)
    if terminal:
        ticker.start()
    try:
        yield say
    finally:
        stop.set()
        finish()
