"""Mutated files for whatever reads files: `python tests/fuzz.py --count 100000` tries all formats, in shares.

    python tests/fuzz.py --format golden --first 17 --count 1        one input again, by its number

Every input must be taken or refused by a ZooError, within 5 seconds, without running anything, and what is said of it
or printed must not command a terminal. What is taken must be what an independent reader finds. Inputs depend on their
number alone. Each format is tried in a process of its own, which is started again after a crash.
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import json
import multiprocessing
import os
import pickle
import pickletools
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from zoo.errors import ZooError
from zoo.text import clean, clean_lines

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 5  # of computing; what sleeps is ended after STALLED
STALLED = 20  # seconds after which a process that does not even see its alarm is ended
MEMORY = 3 << 30  # of one process
Rng = random.Random


# ---- mutations

_OPCODES = [ord(opcode.code) for opcode in pickletools.opcodes]
_EVIL = [
    b"cos\nsystem\n(X\x08\0\0\0touch %sQtR",
    b"cposix\nsystem\nX\x01\0\0\0x\x85R",
    b"cbuiltins\neval\nX\x09\0\0\0open('x')\x85R",
    b"cbuiltins\nexec\nX\x01\0\0\0x\x85R",
    b"cbuiltins\nbytes\nJ\xff\xff\xff\x7f\x85R",
    b"cbuiltins\nlist\ncbuiltins\nrange\nJ\xff\xff\xff\x7f\x85R\x85R",
    b"ccollections\nOrderedDict\n]K\1a\x85R",
    b"ctorch._utils\n_rebuild_tensor_v2\n(NK\0(J\xff\xff\xff\x7ft)tR",
    b"cnumpy.core.multiarray\n_reconstruct\n(NNNtR(NNNNNtb",
    b"cnumpy\ndtype\nX\x02\0\0\0f8\x85Rb",
    b"ctorch.storage\n_load_from_bytes\nB\4\0\0\0\x80\2K\1\x85R",
    b"r\xff\xff\xff\xff", b"\x8a\xff", b"B\xff\xff\xff\x7f", b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f", b"(((((((",
]  # fmt: skip
_TEXTS = [
    "", " ", "\0", "\x1b[31mred", "\x1b]0;title\x07", "a\nerror: forged", "\u202egnp.exe", "\ud800", "[/x]", "classes",
    "[link=x]y[/]", "x" * 5000, "%s%n%x" * 100, "../../etc/passwd", "/dev/zero", "; touch x #", "$(touch x)", "NaN",
    "日本語", "__class__", "-1", "\x9b2J", "\x7f", "1" * 5000, "{",
]  # fmt: skip
_VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 2**64, 10**400, 1e308, float("nan"), float("inf"), 0.5,
    [], {}, [[]], [None], {"": None}, [0] * 65, [2**62, 2**62, 0], {"kind": "Resize"}, ["a"] * 10,
]  # fmt: skip


def mutate_bytes(data: bytes, rng: Rng, inserted: Sequence[bytes] = (b"\0\0\0\0",)) -> bytes:
    """Flipped, removed, doubled, replaced bytes and what is given to insert."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(changed) + 1)
        kind = rng.randrange(7)
        if kind == 0 and at < len(changed):
            changed[at] = rng.randrange(256)
        elif kind == 1:
            del changed[at : at + rng.choice((1, 4, 40))]
        elif kind == 2:
            changed[at:at] = changed[at : at + rng.choice((1, 8, 100))]
        elif kind == 3:
            changed[at:at] = rng.choice(inserted)
        elif kind == 4 and at < len(changed):
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 5 and rng.random() < 0.2:
            del changed[at:]
        else:
            changed[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\0\0\0\x80"))
    return bytes(changed)


def mutate_checkpoint(data: bytes, rng: Rng) -> bytes:
    """The file mutated anywhere, or the pickle in its archive, with a right archive around it."""
    inserted = [*_EVIL, bytes([rng.choice(_OPCODES)])]
    if data[:4] != b"PK\3\4" or rng.random() < 0.3:
        return mutate_bytes(data, rng, inserted)
    out = io.BytesIO()
    compression = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w", compression) as target:
        for entry in source.infolist():
            content = source.read(entry)
            content = mutate_bytes(content, rng, inserted) if "data.pkl" in entry.filename else content
            target.writestr(entry.filename, content)
    return out.getvalue()


def hostile(rng: Rng) -> Any:
    return rng.choice(_TEXTS) if rng.random() < 0.5 else rng.choice(_VALUES)


def mutate_json(value: Any, rng: Rng) -> Any:
    """A JSON value with one place in it replaced, removed, renamed, doubled or wrapped."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        kind = rng.randrange(6)
        if kind == 0:
            return {k: v for k, v in value.items() if k != key}
        if kind == 1:
            return {(rng.choice(_TEXTS) if k == key else k): v for k, v in value.items()}
        return {**value, key: mutate_json(value[key], rng) if kind < 4 else hostile(rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        at = rng.randrange(len(value))
        kind = rng.randrange(5)
        if kind == 0:
            return value[:at] + value[at + 1 :]
        if kind == 1:
            return value[:at] + [value[at]] * rng.choice((2, 100)) + value[at:]
        return [*value[:at], mutate_json(value[at], rng) if kind == 2 else hostile(rng), *value[at + 1 :]]
    if isinstance(value, str) and value and rng.random() < 0.3:
        at = rng.randrange(len(value))
        return value[:at] + rng.choice(_TEXTS) + value[at + 1 :]
    return [value] if rng.random() < 0.1 else hostile(rng)


def mutate_json_text(data: bytes, rng: Rng) -> bytes:
    """JSON whose values are mutated; sometimes its text."""
    if rng.random() < 0.25:
        return mutate_bytes(data, rng, [b"[" * 100_000, b'"', b"{", b"\xff", b"1" * 5000, b"\\ud800"])
    value = json.loads(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = mutate_json(value, rng)
    return json.dumps(value).encode()


def mutate_safetensors(data: bytes, rng: Rng) -> bytes:
    """The header's fields, with its length made right again or not, or any bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(data, rng)
    size = struct.unpack("<Q", data[:8])[0]
    header = mutate_json_text(data[8 : 8 + size], rng)
    length = len(header) if rng.random() < 0.9 else rng.choice((0, 1, 2**63, 2**64 - 1, len(header) + 1, 2**31))
    return struct.pack("<Q", length) + header + data[8 + size :]


def mutate_words(data: bytes, rng: Rng) -> bytes:
    """Text whose words and lines are replaced, moved, doubled or removed."""
    if rng.random() < 0.3:
        return mutate_bytes(data, rng, [b"\xef\xbb\xbf", b"\r\n", b"\t", b"\xff", b"9" * 5000])
    words = data.split(b" ") if rng.random() < 0.7 else data.splitlines(keepends=True)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(words))
        kind = rng.randrange(4)
        if kind == 0:
            words[at] = str(hostile(rng)).encode("utf-8", "surrogatepass")
        elif kind == 1:
            words[at:at] = [words[at]] * rng.choice((1, 50))
        elif kind == 2 and len(words) > 1:
            del words[at]
        else:
            other = rng.randrange(len(words))
            words[at], words[other] = words[other], words[at]
    return (b" " if b" " in data else b"").join(words)


# ---- what is read, and what is taken


@dataclass(frozen=True)
class Format:
    """`seeds(folder)` makes right files, `mutate` wrong ones of them, and `take(path)` reads one.

    It raises ZooError, or AssertionError where what it took is not what is in the file. `share`: of all inputs.
    """

    share: float
    suffix: str
    seeds: Callable[[Path], list[bytes]]
    mutate: Callable[[bytes, Rng], bytes]
    take: Callable[[Path], Any]


def sayable(*texts: str) -> None:
    """What is printed of a file: a line that commands nothing."""
    for text in texts:
        assert text.isprintable() or clean_lines(text) == text, f"this would be printed: {text!r:.200}"


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"conv1.weight": (2, 1, 3, 3), "conv1.bias": (2,), "fc.weight": (3, 2), "scalar": ()}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def read_all(path: Path) -> tuple[Any, dict[str, np.ndarray]]:
    from zoo.weights import load_weights

    weights = load_weights(path)
    shapes = {name: weights.shape(name) for name in weights.names()}
    return weights, {
        name: weights.read(name, (weights.size(name),) if shape is None else shape) for name, shape in shapes.items()
    }


def checkpoints(folder: Path) -> list[bytes]:
    """Small checkpoints of both containers and all protocols, whole modules and state_dicts."""
    import torch

    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.SiLU())
    content = {"model": module, "names": {0: "a"}, "epoch": np.float64(1), "arr": np.arange(3)}
    content["opt"] = argparse.Namespace(a=1)
    found = []
    for thing in (content, module.state_dict()):
        for zipped in (True, False):
            file = io.BytesIO()
            torch.save(thing, file, _use_new_zipfile_serialization=zipped)
            found.append(file.getvalue())
        found.append(pickle.dumps(thing, 4))
    return found


def take_checkpoint(path: Path) -> None:
    weights, _ = read_all(path)
    take_metadata(weights.metadata)


def take_metadata(metadata: dict[str, str]) -> None:
    """What weights say of themselves, as commands use it: class names, input."""
    from zoo.api import adapted
    from zoo.engine.passport import labels
    from zoo.labels import labels_for
    from zoo.registry import get_model
    from zoo.weights import from_arrays

    weights = from_arrays(arrays(), "weights")
    weights.metadata.update(metadata)
    names = labels(weights.metadata)
    sayable(*labels_for(len(names) if names else 3, names))
    model = adapted(get_model("lenet5"), weights)
    model.preprocess.check_size(*model.input[1:])


def safetensors_files(folder: Path) -> list[bytes]:
    from zoo.weights import save_safetensors

    said = {"model": "lenet5", "classes": json.dumps(["a", "b", "c"]), "input": json.dumps({"size": 32, "mean": [0.5]})}
    path = folder / "seed.safetensors"
    found = []
    for dtype in (np.float32, np.float16, np.int8):
        save_safetensors(path, {name: array.astype(dtype) for name, array in arrays().items()}, said)
        found.append(path.read_bytes())
    return found


def take_safetensors(path: Path) -> None:
    import safetensors.numpy

    weights, found = read_all(path)
    try:
        wanted = safetensors.numpy.load(path.read_bytes())
    except Exception as error:  # the library has a class for each kind of refusal, some of them PyO3's
        raise AssertionError(f"taken, and the library refuses it: {error}") from None
    assert found.keys() == wanted.keys(), "other names than the library's"
    for name, array in wanted.items():
        assert found[name].shape == array.shape, f"another shape of {name!r} than the library's"
        assert np.array_equal(found[name], array.astype(np.float32), equal_nan=True), f"other values of {name!r}"
    take_metadata(weights.metadata)


def wts_files(folder: Path) -> list[bytes]:
    from zoo.weights import save_wts

    path = folder / "seed.wts"
    save_wts(path, arrays())
    return [path.read_bytes()]


def take_wts(path: Path) -> None:
    _, found = read_all(path)
    lines = path.read_bytes().split(b"\n")
    wanted: dict[str, list[int]] = {}
    for line in lines[1:]:
        if line.strip():
            name, _, *words = line.split()
            wanted[name.decode("utf-8", "replace")] = [int(word, 16) for word in words]
    assert len(wanted) == int(lines[0]) and found.keys() == wanted.keys(), "other names than in the file"
    for name, words in wanted.items():
        assert found[name].view(np.uint32).tolist() == words, f"other values of {name!r} than in the file"


def descriptions(folder: Path) -> list[bytes]:
    import zoo

    zoo.build_engine("lenet5").save(folder / "seed.engine")
    return [(folder / "seed.engine.json").read_bytes()]


def take_description(path: Path) -> None:
    from zoo.engine.passport import effort_of, load_engine, rebuild_at, shapes_of
    from zoo.labels import labels_for
    from zoo.preprocess import from_dict
    from zoo.runtime.compatibility import why_not_loadable
    from zoo.tasks import get_task

    engine = path.with_name("input.engine")
    engine.write_bytes((path.parent / "seed.engine").read_bytes())
    description = load_engine(engine).description
    sayable(clean(rebuild_at(engine, description)), clean(why_not_loadable(description, None, None) or ""))
    shapes_of(description), effort_of(description), get_task(description["task"])
    from_dict(description["preprocess"]).check_size(32, 32)
    sayable(*labels_for(len(description["labels"] or ["a"]), description["labels"]))


def plans(folder: Path) -> list[bytes]:
    import zoo

    zoo.build_engine("lenet5").save(folder / "seed.engine")
    return [(folder / "seed.engine").read_bytes()]


def take_plan(path: Path) -> None:
    """An engine that is not the one described is never taken."""
    from zoo.engine.passport import load_engine

    path.with_name("input.engine.json").write_bytes((path.parent / "seed.engine.json").read_bytes())
    changed = path.read_bytes() != (path.parent / "seed.engine").read_bytes()
    load_engine(path)
    assert not changed, "an engine was taken that is not the one described"


def images(folder: Path) -> list[bytes]:
    import cv2

    picture = np.random.default_rng(0).integers(0, 255, (40, 52, 3), np.uint8)
    kinds = {".png": picture, ".jpg": picture, ".webp": picture, ".bmp": picture, ".tiff": picture, ".ppm": picture}
    kinds |= {".pgm": picture[..., 0], ".jp2": picture}
    return [cv2.imencode(suffix, image)[1].tobytes() for suffix, image in kinds.items()]


def take_image(path: Path) -> None:
    from zoo.images.sources import BadSource, open_sources
    from zoo.preprocess import imagenet

    for frame in open_sources([str(path)]):
        if isinstance(frame, BadSource):
            raise ZooError(str(frame))
        assert frame.image.ndim == 3 and frame.image.dtype == np.uint8
        pixels, _ = imagenet(32, 32).apply(frame.image)
        assert pixels.shape == (3, 32, 32) and np.isfinite(pixels).all()


def goldens(folder: Path) -> list[bytes]:
    from zoo.verify.compare import Run
    from zoo.verify.golden import save_golden

    rng = np.random.default_rng(0)
    logits, tap = rng.standard_normal((2, 10)), rng.standard_normal((2, 6, 4, 4))
    path = folder / "seed.golden.safetensors"
    runs = [Run({"logits": logits.astype(t)}, {"conv1": tap.astype(t)}) for t in (np.float32, np.float64)]
    save_golden(path, "lenet5", rng.random((2, 1, 8, 8), np.float32), *runs)
    return [path.read_bytes()]


def take_golden(path: Path) -> None:
    """Read, compared with outputs of the right shape, and told."""
    from rich.console import Console

    from zoo.verify.compare import compare_runs
    from zoo.verify.golden import load_golden
    from zoo.verify.report import to_dict, to_html, to_terminal

    _, ref32, ref64 = load_golden(path, "lenet5")
    ours = {"logits": np.zeros((2, 10), np.float32), "conv1": np.zeros((2, 6, 4, 4), np.float32)}
    report = compare_runs(ours, ref32, ref64, ["conv1"])
    assert not report.ok, "zeros passed for what the file holds"
    json.dumps(to_dict(report)), to_html(report).encode()
    out = io.StringIO()
    Console(file=out, width=120, force_terminal=False).print(to_terminal(report, "golden"))
    sayable(out.getvalue())


def class_lists(folder: Path) -> list[bytes]:
    return [json.dumps([f"class {i}" for i in range(count)]).encode() for count in (1, 3, 10)]


def take_labels(path: Path) -> None:
    """Class names in the metadata of weights, drawn and printed."""
    from zoo.engine.passport import labels
    from zoo.images.draw import draw_bars
    from zoo.labels import labels_for

    text = path.read_bytes().decode("utf-8", "surrogateescape")
    names = labels({"classes": text})
    shown = labels_for(len(names or []), names)
    sayable(*shown)
    if shown:
        draw_bars(np.zeros((64, 64, 3), np.uint8), shown[:3], [0.5] * len(shown[:3]))


def name_files(folder: Path) -> list[bytes]:
    return ["\n".join(f"class {i}" for i in range(10)).encode(), b"a,b,c", b"cat\r\ndog\r\n", "日本\nè\n".encode()]


def take_names(path: Path) -> None:
    """What --names takes: a file, or the names themselves."""
    from zoo.labels import given_names, labels_for

    names = given_names(str(path))
    sayable(*labels_for(len(names), names))
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    names = given_names(text)
    sayable(*labels_for(len(names), names))


def arguments(folder: Path) -> list[bytes]:
    return [
        b"resnet18",
        b"yolov8n",
        b"480x640",
        b"1x3x224x224",
        b"images:1x3x32x32",
        b"random:7",
        b"cuda:1",
        b"auto",
        b"0",
    ]


def take_arguments(path: Path) -> None:
    """Names, sizes, shapes, devices and weights as they are typed."""
    from zoo.device import parse_device
    from zoo.engine.shapes import parse_shape, parse_size
    from zoo.registry import get_model
    from zoo.weights import parse_weights

    text = path.read_bytes().decode("utf-8", "surrogateescape")
    readers = (get_model, parse_size, parse_shape, parse_device, lambda word: parse_weights(word, "lenet5"))
    refusals = []
    for reader in readers:
        try:
            reader(text)
        except ZooError as error:
            refusals.append(str(error))
    if len(refusals) == len(readers):
        raise ZooError(max(refusals, key=len))


def timing_caches(folder: Path) -> list[bytes]:
    from zoo.engine.build import save_timing_cache
    from zoo.trt import load

    api = load("rtx")
    config = api.trt.Builder(api.log.logger).create_builder_config()
    save_timing_cache(api, config.create_timing_cache(b""), folder / "seed.cache")
    return [(folder / "seed.cache").read_bytes()]


def take_timing_cache(path: Path) -> None:
    from zoo.engine.build import attach_timing_cache
    from zoo.trt import load

    api = load("rtx")
    builder = api.trt.Builder(api.log.logger)
    attach_timing_cache(api, builder.create_builder_config(), path)


FORMATS = {
    "checkpoint": Format(0.24, ".pt", checkpoints, mutate_checkpoint, take_checkpoint),
    "safetensors": Format(0.2, ".safetensors", safetensors_files, mutate_safetensors, take_safetensors),
    "wts": Format(0.14, ".wts", wts_files, mutate_words, take_wts),
    "description": Format(0.12, ".engine.json", descriptions, mutate_json_text, take_description),
    "plan": Format(0.02, ".engine", plans, mutate_bytes, take_plan),
    "image": Format(0.12, ".png", images, mutate_bytes, take_image),
    "golden": Format(0.05, ".golden.safetensors", goldens, mutate_safetensors, take_golden),
    "labels": Format(0.05, ".json", class_lists, mutate_json_text, take_labels),
    "names": Format(0.03, ".txt", name_files, mutate_words, take_names),
    "arguments": Format(0.02, ".arg", arguments, mutate_words, take_arguments),
    "timing": Format(0.01, ".cache", timing_caches, mutate_bytes, take_timing_cache),
}


# ---- trying


def watch(events: list[str]) -> None:
    """Records what must never happen while a file is read: a process, an evaluation, an import of what it names."""
    forbidden = {"os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "exec", "pickle.find_class"}

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        library = event == "exec" and os.path.isfile(arguments[0].co_filename)  # the codec of some text, imported late
        if event in forbidden and not library:
            events.append(f"{event} {arguments}"[:200])

    sys.addaudithook(hook)


def late(_signal: int, _frame: Any) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def outcome(kind: Format, path: Path, events: list[str]) -> str:
    """«taken», «refused», or what is wrong, in a line."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        kind.take(path)
        said = "taken"
    except ZooError as error:
        said = "refused"
        if not str(error).strip():
            return "a refusal without a word"
    except Exception as error:  # any other is what is looked for
        at = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error!s:.200} at {Path(at.filename).name}:{at.lineno}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if events:
        return f"ran: {events[0]}"
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10 > MEMORY:
        return "more memory than it may take"
    return said


def work(name: str, first: int, count: int, seed: int, folder: str, at: Any, found: Any) -> None:
    """Tries inputs `first` to `first + count`; `at` holds the number under way, `found` takes what came of them."""
    faulthandler.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, late)
    kind, events, tally = FORMATS[name], list[str](), Counter[str]()
    os.chdir(folder)
    seeds = kind.seeds(Path(folder))
    path = Path(folder, f"input{kind.suffix}")
    for data in seeds:  # the right files are taken, and whatever is imported is imported now
        path.write_bytes(data)
        kind.take(path)
    sys.stdout = sys.stderr = open(os.devnull, "w")
    os.dup2(sys.stderr.fileno(), 2)  # OpenCV's decoders write there
    watch(events)
    before = set(os.listdir(folder))
    for number in range(first, first + count):
        at.value = number
        rng = random.Random(f"{seed} {name} {number}")
        path.write_bytes(kind.mutate(rng.choice(seeds), rng))
        events.clear()
        said = outcome(kind, path, events)
        if extra := set(os.listdir(folder)) - before - {path.name, "input.engine", "input.engine.json"}:
            said = f"left {sorted(extra)}"
        tally[said if said in ("taken", "refused") else "failed"] += 1
        if said not in ("taken", "refused"):
            found.put((name, number, said))
    found.put((name, None, tally))


def attempt(name: str, count: int, first: int = 0, seed: int = 0) -> tuple[Counter[str], list[tuple[int, str]]]:
    """What came of `count` inputs of a format, and those that failed, by number."""
    tally, failures = Counter[str](), list[tuple[int, str]]()
    context = multiprocessing.get_context("spawn")
    last = first + count
    while first < last:
        at, found = context.Value("q", -1), context.Queue()
        with tempfile.TemporaryDirectory() as folder:
            worker = context.Process(target=work, args=(name, first, last - first, seed, folder, at, found))
            worker.start()
            done = _follow(worker, at, found, tally, failures)
        if done:
            break
        if at.value < first:
            raise SystemExit(f"{name}: the right files are not taken, so that nothing can be tried")
        tally["failed"] += 1
        failures.append((at.value, f"the process ended with {worker.exitcode}"))
        first = max(at.value, first) + 1
    return tally, failures


def _follow(worker: Any, at: Any, found: Any, tally: Counter[str], failures: list[tuple[int, str]]) -> bool:
    """Takes a worker's findings until it ends; False where it crashed or was ended, and is to be started again."""
    import queue

    seen, since = -1, time.monotonic()
    while True:
        try:
            name, number, said = found.get(timeout=0.5)
            if number is None:
                tally.update(said)
                worker.join()
                return True
            failures.append((number, said))
        except queue.Empty:
            if not worker.is_alive():
                return False
            if at.value != seen:
                seen, since = at.value, time.monotonic()
            elif seen >= 0 and time.monotonic() - since > STALLED:
                worker.kill()
                worker.join()
                return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--format", choices=FORMATS, help="one format instead of all")
    parser.add_argument("--count", type=int, default=20_000, help="inputs of all formats together")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    names = [options.format] if options.format else list(FORMATS)
    whole, failed, started = Counter[str](), 0, time.perf_counter()
    for name in names:
        count = options.count if options.format else round(FORMATS[name].share * options.count)
        began = time.perf_counter()
        tally, failures = attempt(name, count, options.first, options.seed)
        whole += tally
        failed += len(failures)
        parts = ", ".join(f"{tally[key]:,} {key}" for key in ("taken", "refused", "failed"))
        print(f"{name}: {count:,} inputs: {parts}; {time.perf_counter() - began:.0f} s", flush=True)
        for number, said in failures[:20]:
            print(f"  {number}: {said}", flush=True)
    parts = ", ".join(f"{whole[key]:,} {key}" for key in ("taken", "refused", "failed"))
    print(f"all: {sum(whole.values()):,} inputs: {parts}; {time.perf_counter() - started:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
