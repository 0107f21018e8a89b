"""Other weights in an engine, and the flags that an engine is built with, as far as no GPU is needed."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from zoo import build as build_command
from zoo.api import build_engine
from zoo.engine.build import build
from zoo.engine.definition import define
from zoo.engine.flags import Flags, check_host_code, command_options, configure, flags_of, why_not
from zoo.engine.passport import Engine, describe, description_path, load_description, load_engine, rebuild_command
from zoo.engine.shapes import Shapes
from zoo.errors import ZooError
from zoo.network import Precision
from zoo.onnx.reading import Layer
from zoo.refit import ROLES, definition_for, refit, refitted, weights_of
from zoo.registry import get_model
from zoo.runtime.compatibility import why_not_loadable
from zoo.runtime.cpu import CpuSession
from zoo.runtime.cuda import Device
from zoo.trt import Api
from zoo.weights import RandomWeights, load_weights, save_safetensors

LENET = Path(__file__).resolve().parent.parent / "zoo" / "weights" / "lenet5.safetensors"
SHAPES = Shapes.static((1, 1, 32, 32))


# Weights by layer and role


@pytest.mark.parametrize(("name", "precision"), [("mobilenet_v3_small", "fp32"), ("segformer_b0", "fp16")])
def test_the_weights_of_a_definition_make_another_network_its_own(name: str, precision: Any, rtx: Api) -> None:
    """What TensorRT's refitter does to an engine, done to a network: each layer and role gets the other weights, in
    which normalisations are folded. It then computes what the network of those computes, to the bit."""
    shape, model = (1, 3, 32, 64), get_model(name)
    old, new = (define(model, RandomWeights(seed), rtx, shape, Precision(precision)) for seed in (1, 2))
    images = np.random.default_rng(0).standard_normal(shape, np.float32)
    before, want = CpuSession(old, threads=1)(images), CpuSession(new, threads=1)(images)
    table, attributes = weights_of(new), {kind: {r: a for a, r in roles.items()} for kind, roles in ROLES.items()}
    assert table.keys() == weights_of(old).keys()
    kept = []
    for index in range(old.network.num_layers):
        layer = Layer(old.network.get_layer(index), rtx.trt, {})
        roles = attributes.get(layer.kind, {})
        if roles:
            layer.downcast(rtx.trt)
            kept.append(layer)
        for role, attribute in roles.items():
            if (layer.name, role) in table:
                setattr(layer.raw, attribute, np.array(table[layer.name, role]))
    found = CpuSession(old, threads=1)(images)
    for output in want:
        np.testing.assert_array_equal(found[output], want[output])
    assert any(not np.array_equal(before[output], want[output]) for output in want)


def test_bf16_has_its_weights_too(rtx: Api) -> None:
    definition = define(get_model("lenet5"), RandomWeights(), rtx, (1, 1, 32, 32), Precision("bf16"))
    table = weights_of(definition)
    assert table["conv1", "KERNEL"].dtype.name == "bfloat16" and table["conv1", "KERNEL"].size == 150


# Refitting, by a stand-in for TensorRT


class FakeRefitter:
    """A plan that is JSON: {layer and role: number of values}; refitted it holds the sums of the weights."""

    def __init__(self, engine: SimpleNamespace, logger: Any) -> None:
        self.engine, self.given = engine, {}

    def get_all(self) -> tuple[list[str], list[Any]]:
        keys = [key.split("/") for key in self.engine.sizes]
        return [name for name, _ in keys], [SimpleNamespace(name=role) for _, role in keys]

    def set_weights(self, name: str, role: Any, weights: Any) -> bool:
        self.given[f"{name}/{role.name}"] = weights
        return weights.size == self.engine.sizes[f"{name}/{role.name}"]

    def refit_cuda_engine(self) -> bool:
        self.engine.sums = {key: float(np.float64(array).sum()) for key, array in self.given.items()}
        return self.given.keys() == self.engine.sizes.keys()


class FakeRuntime:
    def __init__(self, logger: Any) -> None: ...

    def deserialize_cuda_engine(self, plan: bytes) -> SimpleNamespace | None:
        if not plan.startswith(b"{"):
            return None
        engine = SimpleNamespace(sizes=json.loads(plan), sums={})
        engine.serialize = lambda: json.dumps(engine.sums).encode()
        return engine


@pytest.fixture
def fake() -> Api:
    log = SimpleNamespace(drain=lambda: "TensorRT's words", logger=None)
    trt = SimpleNamespace(Runtime=FakeRuntime, Refitter=FakeRefitter)
    return Api(trt, "tensorrt", "8.6.0", log)  # type: ignore[arg-type]


@pytest.fixture
def refittable(rtx: Api, fake: Api, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """An "engine" of LeNet-5 that the stand-in refits, described as built with --refit by TensorRT 8.6 on this GPU."""
    model, weights = get_model("lenet5"), load_weights(LENET)
    definition = define(model, weights, rtx, SHAPES.network)
    plan = json.dumps({f"{name}/{role}": array.size for (name, role), array in weights_of(definition).items()}).encode()
    about = describe(definition, model, SHAPES, plan, flags=Flags(refit=True))
    about |= {"flavour": "tensorrt", "version": "8.6.0", "compute_capability": "9.0", "gpu": "Fake GPU"}
    monkeypatch.setattr("zoo.driver.driver_problem", lambda: None)
    monkeypatch.setattr("zoo.trt.load", lambda flavour: fake)
    monkeypatch.setattr("zoo.refit.definition_for", lambda a, w, api: definition_for(a, w, rtx))
    monkeypatch.setattr(
        "zoo.runtime.compatibility.device_properties", lambda: Device("Fake GPU", "9.0", 1 << 40, 1 << 40)
    )
    return Engine(plan, json.loads(json.dumps(about)))


def test_an_engine_is_refitted(refittable: Engine, rtx: Api, tmp_path: Path) -> None:
    weights = RandomWeights(7)
    after = refitted(refittable, weights)
    definition = define(get_model("lenet5"), RandomWeights(7), rtx, SHAPES.network)
    want = weights_of(definition)
    assert json.loads(after.data) == {f"{n}/{r}": pytest.approx(np.float64(a).sum()) for (n, r), a in want.items()}
    assert after.description["weights"]["sha256"] == weights.digest() and after.description["labels"] is None
    assert after.description["size"] == len(after.data)
    assert load_engine(after.save(tmp_path / "x.engine")) == Engine(after.data, load_description(tmp_path / "x.engine"))


def other_classes(folder: Path) -> Path:
    weights = load_weights(LENET)
    arrays = {name: weights.read(name, weights.shape(name)) for name in weights.names()}  # type: ignore[arg-type]
    arrays |= {"fc3.weight": np.zeros((4, 84), np.float32), "fc3.bias": np.zeros(4, np.float32)}
    save_safetensors(folder / "four.safetensors", arrays)
    return folder / "four.safetensors"


def changed(engine: Engine, **fields: Any) -> Engine:
    return Engine(engine.data, {**engine.description, **fields})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"flags": {}},
            "was built without --refit, so its weights stay; to build one: python -m zoo.build .* --refit$",
        ),
        (
            {"flags": {"strip_plan": True}},
            "takes back its own weights, .*lenet5.safetensors; random:7 has other content",
        ),
        ({"precision": "int8"}, "the ranges of an int8 engine are of its weights"),
        ({"version": "8.5.3"}, r"it was built by TensorRT 8.5.3, this is TensorRT 8.6.0"),
        ({"compute_capability": "8.0"}, r"for compute capability 8.0, the Fake GPU has 9.0"),
    ],
)
def test_what_cannot_be_refitted(refittable: Engine, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ZooError, match=words):
        refitted(changed(refittable, **change), RandomWeights(7))


def test_a_stripped_engine_takes_its_own_weights_back(refittable: Engine) -> None:
    stripped = changed(refittable, flags={"strip_plan": True})
    after = refitted(stripped, load_weights(LENET))
    assert after.description["flags"] == {} and json.loads(after.data)


def test_weights_of_another_network(refittable: Engine, tmp_path: Path) -> None:
    with pytest.raises(
        ZooError, match="another network than the engine's: 'fc3' is 850 parameters there, 340 parameters here"
    ):
        refitted(refittable, load_weights(other_classes(tmp_path)))


def test_refitting_needs_the_gpu(refittable: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.driver.driver_problem", lambda: "no NVIDIA driver was found")
    with pytest.raises(ZooError, match="no NVIDIA driver was found; weights are put into an engine on a GPU"):
        refitted(refittable, RandomWeights())


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (b"garbage", "cannot load the engine: TensorRT's words"),
        (b'{"nowhere/KERNEL": 1}', r"wants weights for 'nowhere' \(KERNEL\), which this definition has not"),
        (b'{"conv1/KERNEL": 7}', r"refused the weights of 'conv1' \(KERNEL\): TensorRT's words"),
    ],
)
def test_what_tensorrt_refuses(plan: bytes, words: str, fake: Api, rtx: Api) -> None:
    definition = define(get_model("lenet5"), RandomWeights(), rtx, SHAPES.network)
    table = weights_of(definition)
    with pytest.raises(ZooError, match=words):
        refit(plan, table, fake)


# Flags


def with_version(rtx: Api, version: str, *names: str) -> Api:
    """Full TensorRT of a version, whose builder has these flags besides those of 8.6."""
    usual = ("VERSION_COMPATIBLE", "REFIT", "SPARSE_WEIGHTS", "GPU_FALLBACK")
    trt = SimpleNamespace(
        BuilderFlag=SimpleNamespace(**{name: name for name in (*usual, *names)}),
        HardwareCompatibilityLevel=SimpleNamespace(AMPERE_PLUS="AMPERE_PLUS"),
        DeviceType=SimpleNamespace(DLA="DLA"),
    )
    return Api(trt, "tensorrt", version, rtx.log)  # type: ignore[arg-type]


def configured_with(api: Api, flags: Flags, cores: int = 0, precision: str = "fp32") -> tuple[set[str], dict[str, Any]]:
    """What is set on a builder config."""
    found: set[str] = set()
    config = SimpleNamespace(set_flag=found.add)
    builder, definition = SimpleNamespace(num_DLA_cores=cores), SimpleNamespace(name=precision)
    configure(SimpleNamespace(api=api, builder=builder, precision=definition), config, flags)  # type: ignore[arg-type]
    return found, {name: value for name, value in vars(config).items() if name != "set_flag"}


@pytest.mark.parametrize(
    ("flags", "names", "attributes"),
    [
        (Flags(), set(), {}),
        (Flags(version_compatible=True), {"VERSION_COMPATIBLE"}, {}),
        (Flags(hardware_compatible=True), set(), {"hardware_compatibility_level": "AMPERE_PLUS"}),
        (Flags(refit=True, sparsity=True), {"REFIT", "SPARSE_WEIGHTS"}, {}),
        (Flags(strip_plan=True), {"STRIP_PLAN", "REFIT_IDENTICAL"}, {}),
        (Flags(strip_plan=True, refit=True), {"STRIP_PLAN", "REFIT"}, {}),
    ],
)
def test_flags_become_tensorrts(rtx: Api, flags: Flags, names: set[str], attributes: dict[str, Any]) -> None:
    api = with_version(rtx, "10.3.0", "STRIP_PLAN", "REFIT_IDENTICAL")
    assert configured_with(api, flags) == (names, attributes)
    assert flags_of({"flags": json.loads(json.dumps({}))}) == Flags() and flags_of({}) == Flags()


def test_the_dla_runs_what_it_can(rtx: Api) -> None:
    api = with_version(rtx, "8.6.0")
    wanted = {"GPU_FALLBACK"}, {"default_device_type": "DLA", "DLA_core": 1}
    assert configured_with(api, Flags(dla=1), cores=2, precision="fp16") == wanted
    with pytest.raises(ZooError, match="there is no DLA core 1 on this machine, which has 1"):
        configured_with(api, Flags(dla=1), cores=1, precision="fp16")
    with pytest.raises(ZooError, match="the DLA computes in fp16 and int8, not in fp32"):
        configured_with(api, Flags(dla=0), cores=1)
    with pytest.raises(ZooError, match="the DLA core is -1"):
        Flags(dla=-1)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (Flags(version_compatible=True), "loads only in that version: leave --version-compatible away"),
        (Flags(hardware_compatible=True), "for all GPUs from Ampere on anyway: leave --hardware-compatible away"),
        (Flags(refit=True), "only where a GPU is: leave --refit away"),
        (Flags(strip_plan=True), "only where a GPU is: leave --strip-plan away"),
    ],
)
def test_what_tensorrt_rtx_has_not(rtx: Api, monkeypatch: pytest.MonkeyPatch, flags: Flags, words: str) -> None:
    monkeypatch.setattr("zoo.engine.flags.has_driver", lambda: False)
    with pytest.raises(ZooError, match=words):
        build(get_model("lenet5"), RandomWeights(), rtx, SHAPES, flags=flags)


def test_tensorrt_8_has_no_stripped_plans(rtx: Api) -> None:
    api = with_version(rtx, "8.6.0")
    assert why_not(api, Flags(strip_plan=True)) == (
        "TensorRT 8.6.0 cannot leave weights out of an engine, TensorRT 10 or later can: leave --strip-plan away"
    )
    assert why_not(api, Flags(refit=True, version_compatible=True, hardware_compatible=True, sparsity=True)) is None


def test_a_sparse_engine_is_compiled_and_described(rtx: Api, tmp_path: Path) -> None:
    path = build_engine("lenet5", target="rtx", flags=Flags(sparsity=True)).save(tmp_path / "x.engine")
    about = load_description(path)
    assert about["flags"] == {"sparsity": True} and " --sparsity " in rebuild_command(about)
    assert flags_of(about) == Flags(sparsity=True) and command_options(Flags(dla=2)) == " --dla 2"
    for flags in ({"sparsity": False}, {"nonsense": True}, {"dla": -1}, []):
        description_path(path).write_text(json.dumps(about | {"flags": flags}))
        with pytest.raises(ZooError, match="'flags' in the description"):
            load_description(path)


GPU = Device("Other GPU", "8.6", 1 << 40, 1 << 40)


@pytest.mark.parametrize(
    ("flags", "version", "why"),
    [
        ({}, "10.3.0", "engines load only in the version that built them"),
        ({"version_compatible": True}, "10.16.1", "for compute capability 9.0"),
        ({"version_compatible": True}, "8.5.3", "engines load only in the version that built them"),
        ({"version_compatible": True, "hardware_compatible": True}, "10.16.1", None),
        ({"hardware_compatible": True}, "8.6.0", None),
        ({"refit": True, "strip_plan": True}, "8.6.0", "its file has no weights: python -m zoo.refit"),
    ],
)
def test_where_an_engine_loads(rtx: Api, flags: dict[str, bool], version: str, why: str | None) -> None:
    about = {"flavour": "tensorrt", "version": "8.6.0", "compute_capability": "9.0", "size": 1, "flags": flags}
    found = why_not_loadable(about, with_version(rtx, version), GPU)
    assert found is None if why is None else why in (found or "")


def test_a_runtime_in_an_engine_runs_only_when_allowed() -> None:
    about = {"flags": {"version_compatible": True}}
    check_host_code(about, host_code=True)
    with pytest.raises(ZooError, match="carries a runtime of TensorRT.*allow it with --host-code"):
        check_host_code(about, host_code=False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--versionCompatible"], "leave --version-compatible away"),
        (["--stripWeights"], "leave --strip-plan away"),
        (["--useDLACore=0", "--allowGPUFallback"], "there is no DLA core 0"),
        (["--version-compatible", "--self-contained"], "exclude each other"),
    ],
)
def test_the_command_knows_trtexecs_words(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "x.engine"
    monkeypatch.setattr("sys.argv", ["zoo.build", "lenet5", "--target", "rtx", *words, "-o", str(path)])
    with pytest.raises(SystemExit) as stop:
        build_command.main()
    assert stop.value.code == 2 and said in capsys.readouterr().err and not path.exists()
