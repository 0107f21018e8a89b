"""The kernels and the frame pipeline on a real GPU against the CPU, and what they cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from zoo.preprocess import Preprocess, Resize, imagenet, letterbox
from zoo.runtime import kernels
from zoo.runtime.arrays import DeviceArray
from zoo.runtime.cuda import Cuda, Stream
from zoo.runtime.gpu import GpuSession
from zoo.runtime.pipeline import FramePipeline
from zoo.tasks import get_task
from zoo.tasks.detect import non_max_suppression
from zoo.trt import Api

from .conftest import SIDE

Say = Callable[[str], None]

DETECT = partial(get_task("detect").gpu_decoder, options=get_task("detect").settings())

FRAMES = [
    (480, 640),
    (1080, 1920),
    (427, 640),
    (333, 517),
    (640, 640),
    (1280, 1280),
    (100, 37),
    (1, 1),
    (2160, 3840),
    (1900, 300),
]


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Patches with noise, so that both smooth and rough areas are there."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
    smooth = np.repeat(np.repeat(patches, 16, 0), 16, 1)[:height, :width]
    return np.where(rng.random((height, width, 1)) < 0.7, smooth, rng.integers(0, 256, (height, width, 3), np.uint8))


def array_of(cuda: Cuda, x: np.ndarray, stream: Stream) -> DeviceArray:
    buffer = cuda.upload(x)
    return DeviceArray(cuda, buffer.ptr, x.shape, x.dtype, stream, buffer)


SPECS = {
    "letterbox": letterbox(640),
    "center crop": imagenet(256, 224),
    "center crop, bicubic": imagenet(232, 224, interpolation="pillow:bicubic"),
    "center crop, opencv": imagenet(256, 224, interpolation="cv2:bilinear"),
    "stretch": Resize((512, 1024), interpolation="pillow:bilinear", mean=(0.5,), std=(0.5,)),
    "stretch, bytes": Resize(224, interpolation="pillow:bicubic", divisor=1, mean=(127,), std=(128,), color="BGR"),
    "letterbox, corner": Resize(320, "fit", interpolation="pillow:bicubic", pad=7, align="corner"),
    "nearest": Resize(224, interpolation="pillow:nearest"),
    "nearest, opencv": Resize(224, "fit", interpolation="cv2:nearest"),
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_preprocessing_equals_the_cpu(cuda: Cuda, spec: Preprocess, dtype: type, say: Say) -> None:
    stream = cuda.stream()
    output = array_of(cuda, np.zeros((1, *spec.input), dtype), stream)
    for shape in FRAMES:
        frame = picture(*shape)
        source = array_of(cuda, frame, stream)
        preprocessor = kernels.Preprocessor(cuda, spec, shape, spec.input[1:])
        work = partial(preprocessor.enqueue, source.ptr, 3 * shape[1], output, stream)
        work()
        got, (want, placement) = output.numpy()[0], spec.apply(frame)
        assert preprocessor.placement == placement
        np.testing.assert_array_equal(got, want.astype(dtype), err_msg=str(shape))
        cost = gpu_time(cuda, stream, work)
        say(f"{spec} {shape} {np.dtype(dtype)}: {cost:.1f} us")


def gpu_time(cuda: Cuda, stream: Stream, work: Callable[[], None]) -> float:
    """Microseconds on the GPU for `work`, replayed from a graph of ten: best of five."""

    def ten() -> None:
        for _ in range(10):
            work()

    graph = cuda.capture(stream, ten)
    start, end = cuda.event(timing=True), cuda.event(timing=True)
    best = float("inf")
    for _ in range(5):
        cuda.record(start, stream)
        cuda.launch_graph(graph, stream)
        cuda.record(end, stream)
        best = min(best, cuda.elapsed_ms(start, end) * 100)
    return best


def raw_detections(
    anchors: int, classes: int, peaks: int, candidates: int, images: int
) -> tuple[np.ndarray, np.ndarray]:
    """Clusters of overlapping boxes; about `candidates` anchors score above 0.25, with ties."""
    rng = np.random.default_rng(anchors + classes)
    centres = rng.uniform(0, 640, (images, 2, peaks))[:, :, rng.integers(0, peaks, anchors)]
    centres += rng.normal(0, 6, centres.shape)
    boxes = np.concatenate([centres, rng.uniform(20, 150, centres.shape)], 1).astype(np.float32)
    scores = rng.uniform(0, 0.2, (images, classes, anchors)).astype(np.float32)
    for image in range(images):
        hot = rng.choice(anchors, candidates, replace=False)
        scores[image, rng.integers(0, classes, candidates), hot] = np.round(rng.uniform(0.25, 1, candidates), 3)
    return boxes, scores


@pytest.mark.parametrize(
    ("anchors", "classes", "peaks", "candidates", "images", "options"),
    [
        (8400, 80, 20, 300, 1, {}),
        (8400, 80, 300, 2000, 4, {"iou": 0.45}),
        (8400, 80, 40, 300, 1, {"conf": 0.001}),
        (33600, 80, 500, 5000, 1, {"conf": 0.001}),
        (33600, 1, 500, 30000, 2, {"conf": 0.0, "iou": 0.9, "max_det": 1000}),
        (64, 3, 5, 10, 3, {"conf": 0.999}),
    ],
)
def test_detection_equals_the_cpu(
    cuda: Cuda,
    anchors: int,
    classes: int,
    peaks: int,
    candidates: int,
    images: int,
    options: dict[str, float],
    say: Say,
) -> None:
    boxes, scores = raw_detections(anchors, classes, peaks, candidates, images)
    stream = cuda.stream()
    placement = letterbox().placement((1080, 810), (640, 640))
    arrays = [array_of(cuda, x, stream) for x in (boxes, scores)]
    detector = kernels.Detector(cuda, *arrays, stream, **options)
    placements = detector.placements([placement] * images)
    graph = cuda.capture(stream, lambda: detector.enqueue(placements, stream))
    for _ in range(3):
        cuda.launch_graph(graph, stream)
    for image, got in enumerate(detector.parse(detector.output.numpy())):
        want_boxes, want_scores, want_classes = non_max_suppression(boxes[image], scores[image], **options)
        np.testing.assert_array_equal(got.scores, want_scores)
        np.testing.assert_array_equal(got.classes, want_classes)
        np.testing.assert_array_equal(got.boxes, placement.to_image(want_boxes))
    cost = gpu_time(cuda, stream, lambda: detector.enqueue(placements, stream))
    say(f"{images} x {anchors} anchors, {classes} classes, {options}: {len(got.scores)} boxes, {cost:.1f} us")


@pytest.mark.parametrize("graphs", [True, False])
def test_frames_to_detections(api: Api, cuda: Cuda, detector_plan: bytes, graphs: bool, say: Say) -> None:
    spec = letterbox(SIDE)
    with GpuSession(detector_plan, api=api, graphs=graphs) as session:
        with FramePipeline(session, spec, decoder=DETECT) as pipeline:
            for turn in range(4):
                for shape in ((480, 640), (200, 100)):
                    frame = picture(*shape, turn)
                    x, placement = spec.apply(frame)
                    outputs = session(x[None])
                    boxes, scores, classes = non_max_suppression(outputs["boxes"][0], outputs["scores"][0])
                    pipeline.buffer(*shape)[:] = frame
                    on_gpu = array_of(cuda, frame, cuda.wrap_stream(0))
                    for given in (frame, pipeline.buffer(*shape), on_gpu):
                        got = pipeline(given)
                        assert len(got.scores) > 3
                        np.testing.assert_array_equal(got.scores, scores)
                        np.testing.assert_array_equal(got.classes, classes)
                        np.testing.assert_allclose(got.boxes, placement.to_image(boxes), atol=0.1)
            for given, name in (
                (frame, "host frame"),
                (pipeline.buffer(200, 100), "pinned frame"),
                (on_gpu, "GPU frame"),
            ):
                say(f"{name} 200x100 to boxes, graphs {graphs}: {wall_time(partial(pipeline, given)):.0f} us")


def wall_time(call: Callable[[], object]) -> float:
    """Microseconds for a call that waits for its result: median of 200."""
    times = []
    for _ in range(200):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e6


def test_frames_through_pycuda(api: Api, detector_plan: bytes) -> None:
    pytest.importorskip("pycuda.driver")
    import pycuda.autoprimaryctx  # noqa: F401
    from pycuda import gpuarray

    spec, frame = letterbox(SIDE), picture(120, 160)
    with GpuSession(detector_plan, api=api, cuda="pycuda") as session:
        outputs = session(spec.apply(frame)[0][None])
        scores = non_max_suppression(outputs["boxes"][0], outputs["scores"][0])[1]
        with FramePipeline(session, spec, decoder=DETECT) as pipeline:
            for given in (frame, gpuarray.to_gpu(frame)):
                np.testing.assert_array_equal(pipeline(given).scores, scores)
