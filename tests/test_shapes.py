"""Open heights and widths, and several optimisation profiles: definitions, profiles, sessions, commands, ONNX."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fake_gpu import ENGINES, FakeCuda, FakeEngine, make_api

import zoo
from zoo import build as build_command
from zoo.engine.build import build, compile_network
from zoo.engine.definition import check_sides, define
from zoo.engine.end2end import EndToEnd
from zoo.engine.passport import Engine, describe, load_engine, rebuild_at, shapes_of
from zoo.engine.shapes import Shapes, nearest, parse_sizes, ranged_shapes
from zoo.errors import ZooError
from zoo.network import Definition
from zoo.ops import relu
from zoo.preprocess import imagenet, letterbox
from zoo.registry import get_model
from zoo.runtime.cpu import CpuSession
from zoo.runtime.gpu import GpuSession
from zoo.runtime.slot import MAX_PLANS
from zoo.trt import Api
from zoo.weights import RandomWeights

# An architecture for each way in which a definition uses the size: rounding, padding as TensorFlow's, padding by hand,
# reshapes, means over windows, resizing to another map, attention, cells with and without anchors, points.
NETWORKS = {
    "lraspp_mobilenet_v3_large": (35, 61),
    "tf_efficientnet_lite0": (35, 61),
    "hgnetv2_b0": (35, 61),
    "shufflenet_v2_x0_5": (35, 61),
    "pspnet_resnet34": (64, 96),
    "segformer_b0": (64, 96),
    "yolov5n": (64, 96),
    "yolov8n_pose": (64, 96),
    "yolo12n": (64, 96),
}


def session(name: str, api: Api, shape: Any) -> CpuSession:
    return CpuSession(define(get_model(name), RandomWeights(0), api, shape), threads=1)


@pytest.mark.parametrize("name", NETWORKS)
def test_one_network_gives_what_those_of_each_size_give(name: str, rtx: Api) -> None:
    """At two sizes and both ways round. Off by no more than what moving the images by 1e-6 changes: these random
    networks are not calibrated, and some double every rounding many times."""
    with session(name, rtx, (-1, 3, -1, -1)) as whole:
        assert whole.shape[2:] == ("height", "width")
        for size in (NETWORKS[name], NETWORKS[name][::-1]):
            images = np.random.default_rng(0).standard_normal((2, 3, *size), np.float32)
            found = whole(images)
            with session(name, rtx, (-1, 3, *size)) as fixed:
                want, moved = fixed(images), fixed(images * np.float32(1 + 1e-6))
            for output in want:
                assert found[output].shape == want[output].shape and np.ptp(want[output]) > 0
                allowed = max(np.linalg.norm(moved[output] - want[output]), 1e-6 * np.linalg.norm(want[output]))
                assert np.linalg.norm(found[output] - want[output]) <= allowed


def test_a_stride_that_is_off_is_seen(rtx: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison can fail: with the first level's stride for all."""
    from zoo.blocks import yolo

    images = np.random.default_rng(0).standard_normal((1, 3, 64, 96), np.float32)
    with session("yolov8n", rtx, (1, 3, -1, -1)) as whole, session("yolov8n", rtx, (1, 3, 64, 96)) as fixed:
        want = fixed(images)["boxes"]
        np.testing.assert_array_equal(whole(images)["boxes"], want)  # to the bit
    monkeypatch.setattr(yolo, "ratio", lambda net, size, x, axis: net.fp32.constant(np.full((1, 1, 1, 1), 8), "ratio"))
    with session("yolov8n", rtx, (1, 3, -1, -1)) as whole:
        assert np.abs(whole(images)["boxes"] - want).max() > 1


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("vit_b_16", "the position embeddings are for one number of patches"),
        ("deit_tiny_patch16_224", "the position embeddings are for one number of patches"),
        ("swin_t", "its windows and their masks are cut for one size"),
        ("lenet5", "its first linear layer reads every place of a map"),
    ],
)
def test_what_cannot_vary_says_why(name: str, why: str, rtx: Api) -> None:
    model = get_model(name)
    with pytest.raises(ZooError, match=f"only the batch may vary here, since {why}"):
        define(model, RandomWeights(0), rtx, (-1, model.input[0], -1, -1))


def test_what_is_written_for_one_size_is_refused_in_a_sentence(rtx: Api) -> None:
    with pytest.raises(ZooError, match="mobilevit_xxs is written for one height and width: give it by --size"):
        define(get_model("mobilevit_xxs"), RandomWeights(0), rtx, (-1, 3, -1, -1))


def test_frames_go_into_a_network_of_one_size(rtx: Api) -> None:
    with pytest.raises(ZooError, match="--end2end takes frames of any size, but the network inside has one"):
        define(get_model("yolov8n"), RandomWeights(0), rtx, (1, 3, -1, -1), end2end=EndToEnd())


# Profiles


def sides(low: int, best: int, high: int, batch: int = 1) -> Shapes:
    return Shapes(*((batch, 3, side, side) for side in (low, best, high)))


@pytest.mark.parametrize(
    ("name", "shapes", "words"),
    [
        ("yolov8n", sides(64, 96, 100), "100x100 does not fit.* use 96x96 or 128x128"),
        ("yolov8n", Shapes.of(sides(64, 96, 128), sides(320, 330, 640)), "330x330 does not fit"),
        ("unet_resnet34", sides(40, 64, 64), "40x40 does not fit.* use 32x32 or 64x64"),
        ("inception_v3", sides(32, 299, 299), "image size is smaller than filter size"),
    ],
)
def test_the_ends_of_a_profile_are_checked_before_tensorrt_is_asked(
    name: str, shapes: Shapes, words: str, rtx: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo.engine.build.compile_network", pytest.fail)
    with pytest.raises(ZooError, match=words):
        build(get_model(name), RandomWeights(0), rtx, shapes)
    check_sides(get_model(name), rtx, sides(320, 320, 320))  # a size that does not vary is the definition's matter


def test_several_profiles_are_one_range() -> None:
    shapes = Shapes.of(sides(64, 64, 128), sides(320, 640, 1280, batch=8))
    assert (shapes.min, shapes.opt, shapes.max) == ((1, 3, 64, 64), (1, 3, 64, 64), (8, 3, 1280, 1280))
    assert shapes.network == (-1, 3, -1, -1) and shapes.open_sides
    assert str(shapes) == "1x3x64x64 / 1x3x64x64 / 1x3x128x128 and 8x3x320x320 / 8x3x640x640 / 8x3x1280x1280"
    assert Shapes.of(shapes.parts[0]) == shapes.parts[0] and shapes.parts[0].profiles == (shapes.parts[0],)


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        ((1, 3, 64, 96), (1, 3, 64, 96)),
        ((1, 3, 70, 200), (1, 3, 64, 128)),
        ((9, 3, 700, 700), (8, 3, 704, 704)),
        ((1, 3, 1, 9999), (1, 3, 64, 128)),
    ],
)
def test_the_nearest_shape(shape: tuple[int, ...], found: tuple[int, ...]) -> None:
    profiles = Shapes.of(sides(64, 64, 128), Shapes((1, 3, 320, 320), (8, 3, 640, 640), (8, 3, 1280, 1280))).profiles
    ranges = [(part.min, part.opt, part.max) for part in profiles]
    if shape == (1, 3, 1, 9999):
        ranges = ranges[:1]
    assert nearest(shape, ranges, {2: 32, 3: 32}) == found


def test_an_engine_keeps_its_profiles(rtx: Api, define_net: Callable[..., Definition], tmp_path: Path) -> None:
    shapes = Shapes.of(Shapes((1, 3, 32, 32), (1, 3, 32, 64), (1, 3, 64, 64)), sides(96, 96, 128, batch=4))
    definition = define_net(lambda net, x: relu(net, x), shape=shapes.network)
    data = compile_network(definition, shapes)
    about = describe(definition, get_model("resnet18"), shapes, data)
    path = Engine(data, about).save(tmp_path / "x.engine")
    about = load_engine(path).description
    assert shapes_of(about) == shapes and about["input"]["multiple"] == 1
    assert rebuild_at(path, about).count("--min-shapes") == 2 and "--opt-shapes 1x3x32x64" in rebuild_at(path, about)


@pytest.mark.parametrize(
    "change", [{"multiple": 0}, {"multiple": "32"}, {"profiles": [[1, 2]]}, {"profiles": [[[1, 3, 0, 2]] * 3]}]
)
def test_ranges_in_a_description_are_data(rtx: Api, tmp_path: Path, change: dict[str, Any]) -> None:
    from zoo.engine.schema import FIELDS

    good = {"min": [1, 3, 2, 2], "opt": [1, 3, 2, 2], "max": [1, 3, 2, 2], "multiple": 32, "profiles": []}
    check = FIELDS["input"][1]
    assert check(good) and not check(good | change)


# Sessions


@pytest.fixture
def open_engine(cuda: FakeCuda) -> Any:
    """An engine of two profiles: sides from 64 to 128 tuned for 64, and from 96 to 640 tuned for 640."""
    made = lambda *ends: {"images": tuple((n, 3, side, side) for n, side in ends)}  # noqa: E731
    ENGINES[b"plan"] = FakeEngine(
        cuda, made((1, 64), (1, 64), (2, 128)), {"sums": lambda s: s["images"][:2]},
        lambda a: {"sums": a["images"].sum((2, 3))}, more=[made((1, 96), (4, 640), (8, 640))],
    )  # fmt: skip
    return functools.partial(GpuSession, b"plan", api=make_api(), description={"size": 4, "input": {"multiple": 32}})


def test_a_session_picks_the_profile(open_engine: Any) -> None:
    with open_engine() as session:
        engine = session._engine
        picked = {side: engine.profile({"images": (1, 3, side, side)}) for side in (64, 96, 128, 160, 640)}
        assert picked == {64: 0, 96: 0, 128: 0, 160: 1, 640: 1}
        assert engine.profile({"images": (2, 3, 128, 128)}) == 0 and engine.profile({"images": (8, 3, 128, 128)}) == 1
        for _ in range(3):  # at first without a graph, then captured, then replayed
            for side in (64, 640, 96, 160):
                x = np.random.default_rng(side).integers(0, 9, (1, 3, side, side)).astype(np.float32)
                np.testing.assert_array_equal(session(x)["sums"], x.sum((2, 3)))


def test_graphs_of_many_sizes_are_bounded(open_engine: Any, cuda: FakeCuda) -> None:
    with open_engine() as session:
        for side in range(32, 641, 32):
            for width in (64, 96, 128):
                shape = (
                    1,
                    3,
                    min(max(side, 64), 128) if width < 96 else max(side, 96),
                    max(width, 96 if side > 128 else 64),
                )
                for _ in range(2):
                    session(np.zeros(shape, np.float32))
        assert 0 < len(cuda.graphs_alive) <= MAX_PLANS


def test_a_session_names_the_nearest_shape(open_engine: Any) -> None:
    with open_engine() as session:
        for shape, words in (
            ((1, 3, 100, 128), r"must be multiples of 32; the nearest is \(1, 3, 96, 128\)"),
            ((1, 3, 32, 64), r"the nearest is \(1, 3, 64, 64\)"),
            ((9, 3, 700, 640), r"the engine takes .*\(1, 3, 64, 64\) to .*the nearest is \(8, 3, 640, 640\)"),
            ((1, 3, 64), r"the engine takes .*use a shape in that range or build"),
        ):
            with pytest.raises(ZooError, match=words):
                session(np.zeros(shape, np.float32))


def test_the_cpu_takes_what_the_profiles_say() -> None:
    shapes = Shapes((1, 3, 64, 64), (1, 3, 96, 96), (2, 3, 128, 160))
    with zoo.load("yolov8n", weights="random", shapes=shapes, device="cpu") as session:
        assert session.size == (96, 96) and session(np.zeros((1, 3, 64, 160), np.float32))["boxes"].shape == (1, 4, 210)
        for shape, words in (
            ((1, 3, 70, 96), "the images are 70x96.* multiples of 32; the nearest is 64x96"),
            ((1, 3, 192, 96), "this session takes 1x3x64x64 .*; the nearest is 128x96"),
            ((3, 3, 64, 64), "3 images were given, this session takes 1 to 2"),
        ):
            with pytest.raises(ZooError, match=words):
                session(np.zeros(shape, np.float32))
    with pytest.raises(ZooError, match="shapes say batch and size already"):
        zoo.load("yolov8n", weights="random", shapes=shapes, batch=1, device="cpu")


def test_open_sides_of_bytes(rtx: Api) -> None:
    with CpuSession(
        define(get_model("mobilenet_v3_small"), RandomWeights(0), rtx, (1, 3, -1, -1), io="uint8")
    ) as session:
        assert session.shape == (1, "height", "width", 3)
        assert session(np.zeros((1, 33, 47, 3), np.uint8))["logits"].shape == (1, 1000)
    definition = define(get_model("yolov8n"), RandomWeights(0), rtx, (1, 3, -1, -1), io="uint8")
    with CpuSession(definition) as session, pytest.raises(ZooError, match="are 70x64; .* of 32; the nearest is 64x64"):
        session(np.zeros((1, 70, 64, 3), np.uint8))


@pytest.mark.parametrize("picture", [(480, 640), (1080, 1920), (333, 500), (640, 640), (31, 900)])
def test_pictures_become_ultralytics_rectangles(picture: tuple[int, int]) -> None:
    from ultralytics.data.augment import LetterBox

    spec, image = letterbox(640), np.random.default_rng(0).integers(0, 255, (*picture, 3)).astype(np.uint8)
    theirs = LetterBox((640, 640), auto=True, stride=32)(image=image)
    ours, _ = spec.apply_bytes(image, spec.rectangle(picture, (640, 640)))
    np.testing.assert_array_equal(ours, theirs)


def test_predictions_are_made_in_rectangles(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    shapes = Shapes((1, 3, 32, 32), (1, 3, 128, 128), (1, 3, 128, 128))
    with zoo.load("yolov8n", weights="random", shapes=shapes, device="cpu") as session:
        run = session.executor.__class__._run
        monkeypatch.setattr(session.executor, "_run", lambda x: seen.append(x.shape) or run(session.executor, x))
        for picture in ((480, 640), (640, 200), (1, 640)):
            session.predict(np.zeros((*picture, 3), np.uint8))
    assert seen == [(1, 3, 96, 128), (1, 3, 128, 64), (1, 3, 32, 128)]
    assert imagenet().rectangle((480, 640), (224, 224)) == (224, 224)


# Commands


@pytest.mark.parametrize(
    ("text", "ends"),
    [("320-1280", ((320, 320), (1280, 1280))), ("64x96-128x256", ((64, 96), (128, 256))), ("64", ((64, 64),) * 2)],
)
def test_ranges_of_sizes(text: str, ends: Any) -> None:
    assert parse_sizes(text) == ends


def test_a_range_is_tuned_for_the_models_own_size() -> None:
    model = get_model("yolov8n")
    assert ranged_shapes(model, 2, "320-1280").opt == (2, 3, 640, 640)
    assert ranged_shapes(model, 1, "320-480").opt == (1, 3, 480, 480)
    assert not ranged_shapes(model, 1, "320").dynamic
    for text in ("320-", "-320", "640-320", "a-b"):
        with pytest.raises(ZooError, match="is not a number|shrink"):
            ranged_shapes(model, 1, text)


def zoo_build(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    command = ["zoo.build", "shufflenet_v2_x0_5", "--weights", "random", "--dry-run", "--target", "rtx"]
    monkeypatch.setattr("sys.argv", [*command, *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        build_command.main()
    return stop.value.code  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--imgsz", "32-64", "--batch", "2"], "2x3x32x32 / 2x3x64x64 / 2x3x64x64,"),
        (["--minShapes=images:1x3x32x32", "--maxShapes=images:1x3x64x64"], "1x3x32x32 / 1x3x64x64 / 1x3x64x64,"),
        (
            ["--trt-min-shapes", "1x3x32x32", "--trt-max-shapes", "1x3x64x64"]
            + ["--trt-min-shapes", "1x3x96x96", "--trt-max-shapes", "2x3x96x96"],
            "1x3x32x32 / 1x3x64x64 / 1x3x64x64 and 1x3x96x96 / 2x3x96x96 / 2x3x96x96,",
        ),
    ],
)
def test_the_command_takes_ranges_and_profiles(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert zoo_build(monkeypatch, *words) == 0
    assert f"input {said}" in capsys.readouterr().out


def test_profiles_are_given_whole(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--min-shapes", "1x3x32x32", "--min-shapes", "1x3x64x64", "--max-shapes", "1x3x64x64"]
    assert zoo_build(monkeypatch, *words) == 2
    assert "are given once for each profile, all as often" in capsys.readouterr().err


def test_onnx_with_open_sides(tmp_path: Path) -> None:
    from zoo.formats.onnx import export

    path = tmp_path / "x.onnx"
    export("yolov8n", weights="random", size="64-128", output=path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    dims = [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["batch", 3, "height", "width"]
