"""Pixels to network input: byte for byte the transforms of torchvision, timm and ultralytics, on photographs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from zoo.errors import ZooError
from zoo.preprocess import Placement, Preprocess, Resize, from_dict, gray, imagenet, letterbox
from zoo.preprocess.tables import rows_first
from zoo.registry import get_model
from zoo.weights import load_weights

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'tensorrt-zoo[reference]'")

from zoo.verify.torchvision_shim import import_torchvision  # noqa: E402

torchvision = import_torchvision()

import PIL  # noqa: E402
from PIL import Image  # noqa: E402
from torchvision import transforms  # noqa: E402

PILLOW = int(PIL.__version__.partition(".")[0])
ROOT = Path(__file__).resolve().parent.parent
SIZES = [(810, 1080), (1080, 810), (224, 224), (256, 341), (50, 70), (97, 1), (1, 1)]  # (height, width)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 7919 + width).integers(0, 256, (height, width, 3), np.uint8)


def photographs() -> list[np.ndarray]:
    """Photographs (H, W, 3) uint8 BGR, whole and cut to odd sizes."""
    sklearn = pytest.importorskip("sklearn.datasets")
    portrait = cv2.imread(str(ROOT / "tests" / "data" / "grace_hopper.jpg"))
    china, flower = (image[..., ::-1] for image in sklearn.load_sample_images().images)
    return [portrait, china, flower, portrait[:333, :517], portrait[7:, 100:201], china[:427:3, 1::2], flower[:31, :45]]


def pictures() -> list[np.ndarray]:
    return [*photographs(), *(noise(*shape) for shape in SIZES)]


def pil(image: np.ndarray) -> Any:
    return Image.fromarray(np.ascontiguousarray(image[..., ::-1]))


def assert_same(spec: Preprocess, reference: Callable[[Any], Any], images: list[np.ndarray] | None = None) -> None:
    """`spec` gives what `reference` gives for the picture as Pillow has it."""
    for image in images or pictures():
        pixels, placement = spec.apply(image)
        assert pixels.dtype == np.float32 and pixels.flags.c_contiguous
        if PILLOW < 13 and rows_first(placement):  # it never does: very tall pictures have other bytes there
            continue
        np.testing.assert_array_equal(pixels, np.asarray(reference(pil(image))), err_msg=str(image.shape))


# The references' own transforms


@pytest.mark.parametrize(("resize", "size"), [(256, 224), (232, 224), (342, 299), (64, 64)])
@pytest.mark.parametrize("filter_", ["nearest", "bilinear", "bicubic"])
def test_the_centre_crop_is_torchvisions(resize: int, size: int, filter_: str) -> None:
    spec = imagenet(resize, size, interpolation=f"pillow:{filter_}")
    steps = [
        transforms.Resize(resize, transforms.InterpolationMode(filter_)),
        transforms.CenterCrop(size),
        transforms.ToTensor(),
        transforms.Normalize(spec.mean, spec.std),
    ]
    assert_same(spec, transforms.Compose(steps))


@pytest.mark.parametrize(
    "weights",
    ["ResNet50_Weights.IMAGENET1K_V2", "EfficientNet_B0_Weights.IMAGENET1K_V1", "EfficientNet_B5_Weights.IMAGENET1K_V1",
     "Swin_T_Weights.IMAGENET1K_V1", "ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1", "MaxVit_T_Weights.IMAGENET1K_V1"],
)  # fmt: skip
def test_presets_of_torchvision(weights: str) -> None:
    preset = torchvision.models.get_weight(weights).transforms()
    spec = imagenet(
        preset.resize_size[0],
        preset.crop_size[0],
        interpolation=f"pillow:{preset.interpolation.value}",
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )
    assert_same(spec, preset, photographs()[:4])


@pytest.mark.parametrize("model", ["fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"])
def test_a_stretched_picture_of_the_inputs_shape_is_torchvisions_segmentation(model: str) -> None:
    preset = torchvision.models.get_model_weights(model).DEFAULT.transforms()
    spec, image = get_model(model).preprocess, photographs()[1]
    height, width = image.shape[:2]
    short = preset.resize_size[0]
    size = (short, short * width // height) if height < width else (short * height // width, short)
    np.testing.assert_array_equal(spec.apply(image, size)[0], preset(pil(image)).numpy())
    assert spec.input == (3, short, short)


def test_classifiers_of_ultralytics_are_neither_enlarged_nor_normalised() -> None:
    augment = pytest.importorskip("ultralytics.data.augment")
    assert_same(get_model("yolov8n_cls").preprocess, augment.classify_transforms(224))


@pytest.mark.parametrize(
    ("size", "share", "filter_", "mean"),
    [
        (224, 0.875, "bicubic", 0.485),
        (224, 0.9, "bicubic", 0.5),
        (240, 0.95, "bilinear", 0.5),
        (299, 0.875, "bicubic", 0.5),
        (288, 1.0, "bicubic", 0.485),
    ],
)
def test_a_share_is_timms_crop_pct(size: int, share: float, filter_: str, mean: float) -> None:
    data = pytest.importorskip("timm.data")
    means, stds = (mean, 0.456, 0.406), (0.229, 0.224, 0.225)
    reference = data.create_transform(size, interpolation=filter_, crop_pct=share, mean=means, std=stds)
    assert_same(imagenet(size=size, share=share, interpolation=f"pillow:{filter_}", mean=means), reference)


def test_stretching_is_timms_squash() -> None:
    data = pytest.importorskip("timm.data")
    half = (0.5, 0.5, 0.5)
    reference = data.create_transform(
        224, interpolation="bicubic", crop_pct=1.0, crop_mode="squash", mean=half, std=half
    )
    assert_same(Resize(224, interpolation="pillow:bicubic", mean=(0.5,), std=(0.5,)), reference)


@pytest.mark.parametrize("size", [(640, 640), (384, 640), (640, 480), (32, 32)])
@pytest.mark.parametrize("align", ["center", "corner"])
def test_the_letterbox_and_the_way_back_are_ultralytics(size: tuple[int, int], align: str) -> None:
    pytest.importorskip("ultralytics")
    from ultralytics.data.augment import LetterBox
    from ultralytics.utils.ops import scale_boxes

    boxes = np.random.default_rng(0).uniform(-50, 700, (500, 4)).astype(np.float32)
    for image in [*pictures(), noise(3, 3000)]:
        pixels, placement = replace(letterbox(), align=align).apply(image, size)
        box = LetterBox(size, auto=False, center=align == "center")(image=image)
        reference = torch.from_numpy(box).permute(2, 0, 1).flip(0).float().div_(255)
        np.testing.assert_array_equal(pixels, reference.numpy())
        if align == "center":
            expected = scale_boxes(size, torch.from_numpy(boxes.copy()), image.shape).numpy()
            np.testing.assert_array_equal(placement.to_image(boxes), expected)


@pytest.mark.parametrize("size", [(640, 640), (384, 640), (416, 416)])
def test_the_canvas_of_yolox_is_megviis(size: tuple[int, int]) -> None:
    from zoo.verify.torchvision_shim import import_torchvision

    import_torchvision()
    from yolox.data.data_augment import preproc

    for image in [*pictures()[:2], noise(500, 333)]:
        np.testing.assert_array_equal(get_model("yolox_s").preprocess.apply(image, size)[0], preproc(image, size)[0])


def test_the_canvas_of_yolo_nas_leaves_a_border() -> None:
    from zoo.verify.torchvision_shim import import_torchvision

    import_torchvision()
    from modern_yolonas.inference.preprocess import preprocess

    for image in [*pictures()[:2], noise(3, 3000), noise(500, 333)]:
        theirs, _, offset = preprocess(image)
        ours, placement = get_model("yolo_nas_s").preprocess.apply(image)
        np.testing.assert_array_equal(ours, theirs[0].numpy())
        assert placement.offset == offset


# The libraries themselves


@pytest.mark.parametrize("filter_", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(224, 224), (31, 700), (800, 33), (1, 1), (517, 606)])  # (height, width)
def test_the_bytes_are_pillows(filter_: str, size: tuple[int, int]) -> None:
    method = getattr(Image.Resampling, filter_.upper())
    spec = Resize(size, interpolation=f"pillow:{filter_}", divisor=1)
    assert_same(spec, lambda picture: np.float32(picture.resize(size[::-1], method)).transpose(2, 0, 1))


@pytest.mark.parametrize("filter_", ["nearest", "bilinear", "bicubic", "area"])
@pytest.mark.parametrize("size", [(224, 224), (31, 700), (800, 33), (1, 1), (427, 640)])
def test_the_bytes_are_opencvs(filter_: str, size: tuple[int, int]) -> None:
    method = {"nearest": cv2.INTER_NEAREST, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}
    spec = Resize(size, interpolation=f"cv2:{filter_}", divisor=1, color="BGR")
    for image in pictures():
        grows = image.shape[0] <= size[0] and image.shape[1] <= size[1]
        flag = method["bilinear"] if grows and filter_ == "area" else method.get(filter_, cv2.INTER_AREA)
        expected = cv2.resize(np.ascontiguousarray(image), size[::-1], interpolation=flag)
        np.testing.assert_array_equal(spec.apply(image)[0], np.float32(expected).transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("divisor", "mean", "std"),
    [
        (255, (0.0,), (1.0,)),
        (1, (127.0,), (128.0,)),
        (1, (0.0,), (1.0,)),
        (255, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)),
    ],
)
@pytest.mark.parametrize("color", ["RGB", "BGR"])
def test_values_are_normalised(divisor: float, mean: tuple[float, ...], std: tuple[float, ...], color: str) -> None:
    image = noise(20, 30)
    spec = Resize((20, 30), divisor=divisor, mean=mean, std=std, color=color)
    wanted = (image[..., :: -1 if color == "RGB" else 1] / divisor - mean) / std
    np.testing.assert_allclose(spec.apply(image)[0], wanted.transpose(2, 0, 1), rtol=1e-5, atol=1e-5)


def test_gray_averages_when_it_shrinks_and_keeps_digits_as_they_are() -> None:
    strips = np.zeros((128, 128, 3), np.uint8)
    strips[:, ::4] = 255  # narrower than the distance between output pixels
    pixels, _ = gray(32).apply(strips)
    assert pixels.shape == (1, 32, 32) and pixels.dtype == np.float32
    assert np.allclose(pixels, 0.25, atol=0.01)
    digit = np.repeat(noise(8, 8)[..., :1], 3, axis=2)
    assert np.array_equal(gray(8).apply(digit)[0][0], digit[..., 0].astype(np.float32) / 255)


# Sizes and places


def test_another_crop_size_shows_the_same_share_of_the_picture() -> None:
    placements = [imagenet().apply(noise(400, 600), size)[1] for size in (None, (112, 112))]
    corners = [p.to_image(np.float32([0, 0, side, side])) for p, side in zip(placements, (224, 112))]
    assert np.allclose(*corners, atol=3)


@pytest.mark.parametrize(
    ("spec", "size", "nearest"),
    [
        (letterbox(), (640, 650), "640 or 672"),
        (letterbox(), (10, 640), "32"),
        (letterbox(), (-32, 640), "32"),
        (letterbox(size=100), None, "96 or 128"),
        (letterbox(stride=64), (672, 640), "640 or 704"),
        (imagenet(), (224, 0), "1"),
        (gray(32), (-1, 32), "1"),
    ],
)
def test_an_impossible_size_is_refused_with_the_nearest(
    spec: Preprocess, size: tuple[int, int] | None, nearest: str
) -> None:
    with pytest.raises(ZooError, match=rf"nearest to -?\d+: {nearest}\.$"):
        spec.apply(noise(20, 20), size)


@pytest.mark.parametrize("shape", [(20, 20), (20, 20, 4), (0, 20, 3)])
def test_what_is_no_picture_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ZooError, match="Expected a picture"):
        gray(32).apply(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("spec", [letterbox(64), Resize((48, 80)), imagenet(72, 64)], ids=["fit", "stretch", "crop"])
@pytest.mark.parametrize("resolution", [1, 4])
def test_a_map_of_the_input_becomes_one_of_the_picture(spec: Resize, resolution: int) -> None:
    """The map holds where each of its pixels lies in the picture, so that each pixel must find itself."""
    placement = spec.placement((90, 140), spec.input[1:])
    width, height = (side // resolution for side in placement.input)
    y, x = np.mgrid[:height, :width]
    middles = (np.stack([x, y], -1) + 0.5) * resolution
    mapped = placement.map_to_image(np.float32((middles - placement.offset) / placement.scale))
    assert mapped.shape == (90, 140, 2) and mapped.dtype == np.float32
    wanted = np.stack(np.meshgrid(np.arange(140) + 0.5, np.arange(90) + 0.5), -1)
    inner = slice(20, 70), slice(40, 100)  # the edges of the picture lie between the map's last pixels, or are cut off
    assert np.abs(mapped - wanted)[inner].max() < 0.05

    classes = ((x // 2 + y) % 7).astype(np.int64)
    assert placement.map_to_image(classes, smooth=False).dtype == np.int64
    rows, columns = 45, 70
    there = ((np.array([columns, rows]) + 0.5) * placement.scale + placement.offset) / resolution - 0.5
    column, row = np.rint(there).astype(int)
    assert placement.map_to_image(classes, smooth=False)[rows, columns] == classes[row, column]


def test_points_go_back_as_boxes_do() -> None:
    placement = Placement((200, 100), (100, 50), (10, 5), (120, 60))
    assert placement.points_to_image(np.float32([[10, 5], [110, 55], [0, 0]])).tolist() == [[0, 0], [200, 100], [0, 0]]
    assert placement.to_image(np.float32([10, 5, 60, 30])).tolist() == [0, 0, 100, 50]


# Descriptions


@pytest.mark.parametrize("spec", [imagenet(232, 224), letterbox((320, 448), stride=64), gray(28), Resize(8, pad=3)])
def test_preprocessing_survives_json(spec: Preprocess) -> None:
    assert from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize(
    ("data", "spec"),
    [
        (
            {"kind": "CenterCrop", "resize": 232, "size": 224, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
            imagenet(232, 224, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
        ),
        ({"kind": "CenterCrop", "resize": 256, "size": 224}, imagenet()),
        ({"kind": "Letterbox", "size": 320, "fill": 0, "stride": 64}, letterbox(320, pad=0, stride=64)),
        ({"kind": "Gray", "size": 28}, gray(28)),
    ],
)
def test_descriptions_of_former_kinds_are_read(data: dict[str, Any], spec: Preprocess) -> None:
    assert from_dict(data) == spec


def test_the_metadata_of_weights_is_read() -> None:
    metadata = load_weights(ROOT / "zoo" / "weights" / "lenet5.safetensors").metadata
    assert from_dict(json.loads(metadata["input"])) == get_model("lenet5").preprocess


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"kind": "Resized"}, "no preprocessing is of the kind 'Resized'; there are .*; closest: Resize"),
        ({}, "of the kind 'None'"),
        ("Resize", "'Resize' describes no preprocessing; expected an object with its kind"),
        ({"kind": ["Resize"]}, "no preprocessing is of the kind"),
        ({"kind": "Resize", "colour": "RGB"}, "describes no preprocessing: .*colour"),
        ({"kind": "Resize", "place": "fits"}, "place of a Resize is 'fits'; it must be one of .*; closest: fit"),
        ({"kind": "Resize", "interpolation": "bilinear"}, "interpolation of a Resize is 'bilinear'.*pillow:bilinear"),
        ({"kind": "Resize", "place": "crop"}, "`resize` of a Resize is for the place 'crop'; here None"),
        ({"kind": "Resize", "resize": 256}, "here 256 and 'stretch'"),
        (
            {"kind": "Resize", "mean": [0.5, 0.5]},
            "mean of a Resize is .*it must be a number for each channel",
        ),
        ({"kind": "Resize", "std": [0.0]}, "std of a Resize is .*none of them 0"),
        ({"kind": "Resize", "size": "big"}, "size of a Resize is 'big'; it must be a side or"),
        ({"kind": "Resize", "size": [224, 224, 3]}, "size of a Resize"),
        ({"kind": "Resize", "mean": 0.5}, "mean of a Resize"),
        ({"kind": "Resize", "pad": 300}, "pad of a Resize is 300; it must be a byte"),
        ({"kind": "Resize", "stride": 0}, "stride of a Resize"),
        ({"kind": "CenterCrop", "resize": "x"}, "resize of a Resize is 'x'"),
    ],
)
def test_what_describes_no_preprocessing_is_refused(data: Any, words: str) -> None:
    with pytest.raises(ZooError, match=words):
        from_dict(data)


def test_a_preprocessing_of_ones_own_is_found_by_its_name() -> None:
    @dataclass(frozen=True)
    class Negative(Preprocess):
        """The picture's first pixels, inverted."""

        size: int = 8
        stride: int = 1
        channels = 3
        whole = True

        def placement(self, picture: tuple[int, int], size: tuple[int, int]) -> Placement:
            return Placement(picture[::-1], picture[::-1], (0, 0), size[::-1])

        def pixels(self, image: np.ndarray, placement: Placement) -> np.ndarray:
            width, height = placement.input
            return 255 - np.float32(image[:height, :width]).transpose(2, 0, 1)

    spec = from_dict(json.loads(json.dumps(Negative(6).to_dict())))
    assert spec == Negative(6) and spec.input == (3, 6, 6)
    pixels, placement = spec.apply(noise(20, 30))
    assert pixels.shape == (3, 6, 6) and placement.picture == (30, 20)
    assert spec.resampling(placement) is None
