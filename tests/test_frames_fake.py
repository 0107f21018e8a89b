"""Frames to results on the GPU, without one: the kernels compiled as C++, the pipeline on a fake provider."""

# ruff: noqa: ANN001, ANN003, ANN201, ANN202, ANN204  (the fakes stand for interfaces that are typed where they are real)

from __future__ import annotations

import ctypes
import gc
import shutil
import subprocess
import weakref
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from fake_gpu import ENGINES, FakeCuda, FakeEngine, LateCuda, install, make_api, on_device, open_session

from zoo.errors import ZooError
from zoo.preprocess import Resize, gray, imagenet, letterbox
from zoo.runtime import gpu, kernels
from zoo.runtime.arrays import DeviceArray
from zoo.runtime.gpu import GpuSession
from zoo.runtime.pipeline import MAX_SIZES, MAX_STAGING, FramePipeline
from zoo.tasks import get_task

# ---- the kernels, compiled as C++ -----------------------------------------------------------------------------------

SHIM = r"""
// Enough CUDA to run a kernel on the host: the threads of a block are coroutines that meet at __syncthreads().
#include <ucontext.h>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>
#define __global__
#define __device__ static
#define __shared__ static
struct Dim { int x, y, z; };
static Dim threadIdx, blockIdx, blockDim, gridDim;
static ucontext_t scheduler;
static std::vector<ucontext_t> threads;
static int running, barriers;
static void __syncthreads() { barriers++; swapcontext(&threads[running], &scheduler); }
template <class T> static T atomicAdd(T *p, T v) { T old = *p; *p += v; return old; }
template <class T> static T atomicOr(T *p, T v) { T old = *p; *p |= v; return old; }
template <class T> static T atomicAnd(T *p, T v) { T old = *p; *p &= v; return old; }
static int __ffs(int x) { return __builtin_ffs(x); }
template <class A, class B> static A bits_of(B b) { A a; memcpy(&a, &b, 4); return a; }
static float __int_as_float(int x) { return bits_of<float>(x); }
static float __uint_as_float(unsigned x) { return bits_of<float>(x); }
static unsigned __float_as_uint(float x) { return bits_of<unsigned>(x); }
static int min(int a, int b) { return a < b ? a : b; }
static int max(int a, int b) { return a < b ? b : a; }
#define asm(...) (bits = 0)  /* float16 stores are checked on the GPU */
SOURCES
template <class... A, size_t... I>
static void call(void (*f)(A...), void **a, std::index_sequence<I...>) { f(*(A *)a[I]...); }
template <class... A> static void call(void (*f)(A...), void **a) { call(f, a, std::index_sequence_for<A...>{}); }
static std::string kernel;
static void **arguments;
static std::vector<bool> done;
static int dispatch()
{
    if (kernel == "preprocess") call(preprocess, arguments);
    else if (kernel == "select_candidates") call(select_candidates, arguments);
    else if (kernel == "rank_candidates") call(rank_candidates, arguments);
    else if (kernel == "suppress") call(suppress, arguments);
    else return 1;
    return 0;
}
static void thread_main() { dispatch(); done[running] = true; }
extern "C" int run(const char *name, const int *sizes, void **args)
{
    kernel = name; arguments = args;
    gridDim = {sizes[0], sizes[1], sizes[2]}; blockDim = {sizes[3], sizes[4], sizes[5]};
    int count = blockDim.x * blockDim.y * blockDim.z;
    bool flat = kernel == "preprocess";
    static std::vector<std::vector<char>> stacks;
    while (!flat && (int)stacks.size() < count) stacks.emplace_back(65536);
    threads.resize(count);
    for (blockIdx.z = 0; blockIdx.z < gridDim.z; blockIdx.z++)
    for (blockIdx.y = 0; blockIdx.y < gridDim.y; blockIdx.y++)
    for (blockIdx.x = 0; blockIdx.x < gridDim.x; blockIdx.x++) {
        done.assign(count, false);
        for (int i = 0; !flat && i < count; i++) {
            getcontext(&threads[i]);
            threads[i].uc_stack.ss_sp = stacks[i].data(); threads[i].uc_stack.ss_size = stacks[i].size();
            threads[i].uc_link = &scheduler;
            makecontext(&threads[i], thread_main, 0);
        }
        for (bool more = true; more;) {
            more = false;
            // Alternate the order of the threads: what depends on it is a race.
            static bool backwards; backwards = !backwards;
            for (int k = 0; k < count; k++) {
                int i = backwards ? count - 1 - k : k;
                if (done[i]) continue;
                running = i;
                threadIdx = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
                if (flat) { if (dispatch()) return 1; done[i] = true; }
                else swapcontext(&scheduler, &threads[i]);
                more = more || !done[i];
            }
        }
    }
    return 0;
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler to run the kernels on the host")
    folder = tmp_path_factory.mktemp("kernels")
    sources = "\n".join((kernels._SOURCES / name).read_text() for name in ("preprocess.cu", "detect.cu"))
    (folder / "kernels.cpp").write_text(SHIM.replace("SOURCES", sources))
    command = [compiler, "-O1", "-ffp-contract=off", "-shared", "-fPIC", "-w", "-o", str(folder / "kernels.so")]
    subprocess.run([*command, str(folder / "kernels.cpp")], check=True)
    return ctypes.CDLL(str(folder / "kernels.so"))


@pytest.fixture
def device(library, monkeypatch):
    """A fake CUDA device that runs the kernels."""
    fake = install(monkeypatch, library=library)
    monkeypatch.setattr(kernels, "_module", lambda cuda, file: file)
    monkeypatch.setattr(kernels, "_function", lambda cuda, file, name: name)
    return fake


@pytest.fixture(params=[FakeCuda, LateCuda], ids=["at once", "late"])
def small(request, library, monkeypatch):
    """The same device, working at once or as late as it may, with a small network that means colours."""
    fake = install(monkeypatch, request.param, library)
    monkeypatch.setattr(kernels, "_module", lambda cuda, file: file)
    monkeypatch.setattr(kernels, "_function", lambda cuda, file, name: name)
    ENGINES[b"plan"] = FakeEngine(fake, {"images": ((1, 3, 32, 32),) * 3}, {"colour": lambda s: (1, 3)}, colour)
    return fake


def colour(arrays):
    return {"colour": arrays["images"].mean((2, 3))}


def check_colour(outputs, frame):
    want = colour({"images": imagenet(40, 32).apply(frame)[0][None]})["colour"]
    np.testing.assert_array_equal(outputs["colour"], want)


def picture(height, width, seed=0):
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (height // 5 + 1, width // 7 + 1, 3), np.uint8)
    grown = np.repeat(np.repeat(blocks, 5, 0), 7, 1)[:height, :width]
    return np.where(rng.random((height, width, 1)) < 0.5, grown, rng.integers(0, 256, (height, width, 3), np.uint8))


def run_preprocessor(device, spec, frame, size, rgb=False, pad=0):
    stream = device.stream()
    height, width = frame.shape[:2]
    pitched = np.zeros((height, 3 * width + pad), np.uint8)
    pitched[:, : 3 * width] = frame.reshape(height, -1)
    source = device.upload(pitched)
    out = device.alloc(12 * size[0] * size[1])
    array = DeviceArray(device, out.ptr, (1, 3, *size), np.dtype(np.float32), stream, out)
    preprocessor = kernels.Preprocessor(device, spec, (height, width), size, rgb)
    preprocessor.enqueue(source.ptr, pitched.shape[1], array, stream)
    return array.numpy()[0], preprocessor.placement


SHAPES = [(48, 64), (37, 113), (120, 90), (64, 64), (5, 3), (1, 1), (128, 128), (200, 31), (31, 200)]


SPECS = {
    "letterbox": letterbox(64),
    "letterbox, corner": Resize(64, "fit", interpolation="pillow:bicubic", pad=7, align="corner"),
    "crop": imagenet(40, 32),
    "crop, bicubic": imagenet(40, 32, interpolation="pillow:bicubic"),
    "crop, opencv": imagenet(40, 32, interpolation="cv2:bilinear"),
    "stretch, bytes": Resize(64, interpolation="pillow:bicubic", divisor=1, mean=(127,), std=(128,), color="BGR"),
    "nearest": Resize(64, interpolation="pillow:nearest", mean=(0.1, 0.2, 0.3)),
    "nearest, opencv": Resize(64, "fit", interpolation="cv2:nearest"),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_preprocessing_kernel_equals_the_cpu(device, spec, shape):
    height, width = spec.input[1:]
    for size in ((height, width), (height + 32, width)):
        want, placement = spec.apply(picture(*shape), size)
        got, there = run_preprocessor(device, spec, picture(*shape), size, pad=13)
        np.testing.assert_array_equal(got, want)
        assert there == placement


def test_rgb_frames_and_wrong_specs(device):
    frame = picture(40, 50)
    want = letterbox(64).apply(frame)[0]
    got, _ = run_preprocessor(device, letterbox(64), np.ascontiguousarray(frame[..., ::-1]), (64, 64), rgb=True)
    np.testing.assert_array_equal(got, want)
    with pytest.raises(ZooError, match="no GPU kernel"):
        run_preprocessor(device, gray(32), frame, (32, 32))
    with pytest.raises(ZooError, match="too small for a crop"):
        run_preprocessor(device, imagenet(16, 32), frame, (32, 32))


def raw_detections(seed, anchors, classes, peaks, images=1):
    """Clusters of overlapping boxes, many scores equal, as networks give them."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0, 640, (images, 2, peaks))[:, :, rng.integers(0, peaks, anchors)]
    centres += rng.normal(0, 8, centres.shape)
    boxes = np.concatenate([centres, rng.uniform(20, 120, centres.shape)], 1).astype(np.float32)
    scores = rng.random((images, classes, anchors)).astype(np.float32) ** 6
    return boxes, np.round(scores, 2)  # rounding makes ties


def run_detector(device, boxes, scores, placement, **options):
    stream = device.stream()
    arrays = []
    for x in (boxes, scores):
        buffer = device.upload(x)
        arrays.append(DeviceArray(device, buffer.ptr, x.shape, x.dtype, stream, buffer))
    detector = kernels.Detector(device, *arrays, stream, **options)
    placements = detector.placements([placement] * len(boxes))
    for _ in range(2):  # the second run finds the scratch memory as the first left it
        detector.enqueue(placements, stream)
    return detector.parse(detector.output.numpy())


@pytest.mark.parametrize(
    ("anchors", "classes", "options"),
    [
        (300, 80, {}),
        (2000, 3, {"conf": 0.1, "iou": 0.45}),
        (2000, 80, {"conf": 0.001, "max_det": 100}),
        (1500, 1, {"conf": 0.9}),
        (700, 5, {"conf": 0.999}),
        (1500, 1, {"conf": 0.0, "iou": 0.99, "max_det": 1024}),
    ],
)
def test_detection_kernels_equal_the_cpu(device, anchors, classes, options):
    detect = pytest.importorskip("zoo.tasks.detect")
    placement = letterbox().placement((1080, 810), (640, 640))
    boxes, scores = raw_detections(anchors, anchors, classes, 40, images=2)
    found = run_detector(device, boxes, scores, placement, **options)
    for image, got in enumerate(found):
        want_boxes, want_scores, want_classes = detect.non_max_suppression(boxes[image], scores[image], **options)
        np.testing.assert_array_equal(got.scores, want_scores)
        np.testing.assert_array_equal(got.classes, want_classes)
        np.testing.assert_array_equal(got.boxes, placement.to_image(want_boxes))


def test_overflow_is_an_error_and_the_next_frame_is_right(device):
    placement = letterbox().placement((640, 640), (640, 640))
    boxes, scores = raw_detections(1, 300, 4, 10)
    for where in ("scores", "boxes"):
        bad = {"boxes": boxes.copy(), "scores": scores.copy()}
        bad[where][0, 0, np.argmax(scores[0].max(0))] = np.nan if where == "scores" else np.inf
        with pytest.raises(ZooError, match="NaN or infinity"):
            run_detector(device, **bad, placement=placement)
    with pytest.raises(ZooError, match="max_det is 2000"):
        run_detector(device, boxes, scores, placement, max_det=2000)


def detector_network(arrays):
    x = arrays["images"]
    boxes, scores = raw_detections(5, 500, 6, 20)
    return {"boxes": boxes * (0.5 + x.mean()), "scores": scores * np.float32(x.mean() > 0.2)}


DETECT = partial(get_task("detect").gpu_decoder, options=get_task("detect").settings())
DETECTOR = {"boxes": lambda s: (1, 4, 500), "scores": lambda s: (1, 6, 500)}


@pytest.mark.parametrize("graphs", [True, False])
def test_frames_to_detections(device, graphs):
    detect = pytest.importorskip("zoo.tasks.detect")
    shape = (1, 3, 64, 64)
    ENGINES[b"plan"] = FakeEngine(device, {"images": (shape,) * 3}, DETECTOR, detector_network)
    with open_session(graphs=graphs) as session, FramePipeline(session, letterbox(64), decoder=DETECT) as pipeline:
        for turn in range(4):
            for shape in ((40, 70), (90, 33)):
                frame = picture(*shape, turn)
                x, placement = letterbox(64).apply(frame)
                out = detector_network({"images": x[None]})
                boxes, scores, classes = detect.non_max_suppression(out["boxes"][0], out["scores"][0])
                pinned = pipeline.buffer(*shape)
                pinned[:] = frame
                device_frame = on_device(device, frame)
                for given in (frame, frame[:, :, ::-1][:, :, ::-1], pinned, device_frame):
                    got = pipeline(given)
                    assert len(scores) > 3
                    np.testing.assert_array_equal(got.boxes, placement.to_image(boxes))
                    np.testing.assert_array_equal(got.scores, scores)
                    np.testing.assert_array_equal(got.classes, classes)
        assert bool(device.captured) == graphs
        for bad in (frame[0], frame.astype(np.float32), frame[:0]):
            with pytest.raises(ZooError, match="Expected a frame"):
                pipeline(bad)
    with pytest.raises(ZooError, match="pipeline is closed"):
        pipeline(frame)
    assert not device.graphs_alive


def test_frames_to_logits_and_pitched_frames(device):
    shape, spec = (1, 3, 32, 32), imagenet(40, 32)
    function = lambda arrays: {"logits": arrays["images"].mean((2, 3))}  # noqa: E731
    ENGINES[b"plan"] = FakeEngine(device, {"images": (shape,) * 3}, {"logits": lambda s: (1, 3)}, function)
    frame = picture(50, 60)
    buffer = device.upload(np.pad(frame.reshape(50, 180), ((0, 0), (0, 20))))
    interface = {
        "shape": frame.shape,
        "typestr": "|u1",
        "data": (buffer.ptr, False),
        "strides": (200, 3, 1),
        "version": 3,
    }
    with open_session() as session, FramePipeline(session, spec) as pipeline:
        want = function({"images": spec.apply(frame)[0][None]})["logits"]
        for given in (frame, SimpleNamespace(__cuda_array_interface__=interface)):
            np.testing.assert_array_equal(pipeline(given)["logits"], want)
        interface["strides"] = (200, 4, 1)
        with pytest.raises(ZooError, match="not packed"):
            pipeline(SimpleNamespace(__cuda_array_interface__=interface))


def rows(result):
    """A result as data that can be compared."""
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(result).items()}


def test_pictures_to_results_as_on_the_cpu(device):
    predict = pytest.importorskip("zoo.runtime.predict")
    from zoo.registry import get_model
    from zoo.session import Session

    logits = lambda arrays: {"logits": arrays["images"].mean((2, 3))}  # noqa: E731
    for name, options, spec, size, outputs, function in (
        ("yolov8n", {"conf": 0.1}, letterbox(64), (64, 96), DETECTOR, detector_network),
        ("resnet18", {"top": 2}, imagenet(40, 32), (32, 32), {"logits": lambda s: (1, 3)}, logits),
    ):
        shape = (1, 3, *size)
        ENGINES[b"plan"] = FakeEngine(device, {"images": (shape,) * 3}, outputs, function)
        with open_session() as executor:
            session = Session(get_model(name), executor, "fake", spec, size, None, "none")
            images = [picture(48, 64, seed) for seed in range(3)]
            wanted = [predict.Predictor(session, **options)(image).result for image in images]
            with predict.make_predictor(session, **options) as predictor:
                assert isinstance(predictor, predict.GpuPredictor)
                for image, want in zip(images, wanted):
                    assert len(want.scores) and rows(predictor(image).result) == rows(want)


def test_two_gpus_take_turns(device, monkeypatch):
    """Each with its kernels and its graphs; results come in the order of the pictures."""
    predict = pytest.importorskip("zoo.runtime.predict")
    from zoo.registry import get_model
    from zoo.session import Session

    def counted(number, arrays):
        ran.append(number)
        return detector_network(arrays)

    fakes, sessions, ran = (device, FakeCuda(library=device.library)), [], []
    monkeypatch.setattr(gpu, "provider", lambda name, number: fakes[number])
    for number, fake in enumerate(fakes):
        shape = ((1, 3, 64, 96),) * 3
        network = partial(counted, number)
        monkeypatch.setitem(ENGINES, b"%d" % number, FakeEngine(fake, {"images": shape}, DETECTOR, network))
        executor = GpuSession(b"%d" % number, api=make_api(), device=number)
        sessions.append(Session(get_model("yolov8n"), executor, "fake", letterbox(64), (64, 96), None, "none"))
    images = [picture(48, 64, seed) for seed in range(7)]
    wanted = [rows(predict.Predictor(sessions[0], conf=0.1)(image).result) for image in images]
    with predict.share_out(sessions, conf=0.1) as shared:
        pending = [shared.submit(image) for image in images[: shared.underway]]
        found = []
        for image in [*images[shared.underway :], *[None] * shared.underway]:
            found.append(rows(pending.pop(0).result().result))
            if image is not None:
                pending.append(shared.submit(image))
    assert found == wanted and len({str(result) for result in found}) == 7
    assert ran[7:].count(0) >= 4 and ran.count(1) >= 3  # each graph's first run is for its capture
    for session in sessions:
        session.close()


def test_a_picture_without_a_kernel_is_prepared_on_the_cpu(device):
    predict = pytest.importorskip("zoo.runtime.predict")
    from zoo.api import Session
    from zoo.registry import get_model

    logits = lambda arrays: {"logits": arrays["images"].mean((2, 3)) * np.arange(10, dtype=np.float32)}  # noqa: E731
    ENGINES[b"plan"] = FakeEngine(device, {"images": ((1, 1, 32, 32),) * 3}, {"logits": lambda s: (1, 10)}, logits)
    with open_session() as executor:
        session = Session(get_model("lenet5"), executor, "fake", gray(32), (32, 32), None, "none")
        with predict.make_predictor(session) as predictor:
            assert type(predictor) is predict.Predictor
            assert predictor(picture(48, 64)).result.classes.tolist() == [9, 8, 7, 6, 5]


def test_pictures_under_way_keep_their_results_and_do_not_wait_for_each_other(device, monkeypatch):
    predict = pytest.importorskip("zoo.runtime.predict")
    from zoo.registry import get_model
    from zoo.session import Session

    ENGINES[b"plan"] = FakeEngine(device, {"images": ((1, 3, 64, 64),) * 3}, DETECTOR, detector_network)
    with open_session() as executor:
        session = Session(get_model("yolov8n"), executor, "fake", letterbox(64), (64, 64), None, "none")
        images = [picture(48, 64, seed) for seed in range(7)]
        wanted = [rows(predict.Predictor(session, conf=0.1)(image).result) for image in images]
        assert len({repr(want) for want in wanted}) == len(images)
        predictor = predict.make_predictor(session, conf=0.1)
        under_way = [predictor.submit(image) for image in images]  # five more than there is room for
        assert [rows(pending.result().result) for pending in reversed(under_way)] == wanted[::-1]
        waited = []
        monkeypatch.setattr(device, "synchronize", lambda stream=None: waited.append(stream))
        first, second = predictor.submit(images[0]), predictor.submit(images[1])
        assert not waited
        assert rows(second.result().result) == wanted[1] and len(waited) == 1  # of its own stream
        last = predictor.submit(images[2])
        predictor.close()
        assert (rows(first.result().result), rows(last.result().result)) == (wanted[0], wanted[2])
        with pytest.raises(ZooError, match="pipeline is closed"):
            predictor.submit(images[0])


def test_a_frame_that_cannot_be_decoded_does_not_spoil_the_next(device):
    def network(arrays):
        outputs = detector_network(arrays)
        outputs["scores"][0, 0, 0] = np.nan if arrays["images"].mean() > 0.9 else 0
        return outputs

    ENGINES[b"plan"] = FakeEngine(device, {"images": ((1, 3, 64, 64),) * 3}, DETECTOR, network)
    white, good = np.full((64, 64, 3), 255, np.uint8), picture(64, 64)
    with open_session() as session, FramePipeline(session, letterbox(64), decoder=DETECT) as pipeline:
        want = pipeline(good)
        bad, after = pipeline.submit(white), pipeline.submit(good)
        for _ in range(2):
            with pytest.raises(ZooError, match="NaN or infinity"):
                bad.result()
        np.testing.assert_array_equal(after.result().boxes, want.boxes)


# ---- what pipelines keep, wait for and survive ----------------------------------------------------------------------


def test_sizes_that_were_not_seen_for_long_are_forgotten(small):
    with open_session() as session, FramePipeline(session, imagenet(40, 32)) as pipeline:
        frames = [picture(40 + n, 50, n) for n in range(2 * MAX_SIZES)]
        for frame in [*frames, *frames[:3], *frames[:3], *frames[:3]]:
            check_colour(pipeline(frame), frame)
        assert len(pipeline._frames) == MAX_SIZES
        held = len(small.memory)
        for n in range(3):
            frame = picture(200 + n, 50, n)
            check_colour(pipeline(frame), frame)
        assert len(small.memory) == held


def test_staging_memory_is_bounded(small, monkeypatch):
    monkeypatch.setattr("zoo.runtime.pipeline.MAX_STAGING", 40_000)
    with open_session() as session, FramePipeline(session, imagenet(40, 32)) as pipeline:
        for _ in range(2):
            for n in range(6):
                frame = picture(50, 60 + n, n)  # 9,000 bytes and more
                check_colour(pipeline(frame), frame)
        assert sum(frames.nbytes for frames in pipeline._frames.values()) <= 40_000
        large = picture(200, 100)  # one that is larger than the bound has its own
        for _ in range(3):
            check_colour(pipeline(large), large)
        assert len(pipeline._frames) == 1
    assert MAX_STAGING > 4 * 12_000_000 * 3  # several pictures of 12 megapixels


class Frame:
    """A frame of another package, whose memory somebody else gets as soon as it is dropped."""

    def __init__(self, array, stream) -> None:
        self.array = array
        self.__cuda_array_interface__ = {**array.__cuda_array_interface__, "stream": stream}
        weakref.finalize(self, ctypes.memset, array.ptr, 0, array.nbytes)


@pytest.mark.parametrize("follows", [True, False], ids=["with a stream", "without"])
def test_a_frame_on_the_gpu_is_kept_and_ordered_until_it_was_read(small, follows):
    other = small.stream()
    with open_session() as session, FramePipeline(session, imagenet(40, 32)) as pipeline:
        for seed in range(4):
            frame = picture(50, 60, seed)
            array = on_device(small, frame if not follows else np.zeros_like(frame))
            if follows:  # made on the other stream, which goes on at once to something else
                small.do(other.handle, lambda array=array, x=frame: ctypes.memmove(array.ptr, x.ctypes.data, x.nbytes))
            pending = pipeline.submit(Frame(array, other.handle) if follows else Frame(array, None))
            if follows:
                small.do(other.handle, lambda array=array: ctypes.memset(array.ptr, 7, array.nbytes))
            check_colour(pending.result(), frame)
        gc.collect()
        small.synchronize()


def test_frames_on_another_gpu_are_refused(small):
    array = on_device(small, frame := picture(50, 60))
    small.elsewhere[array.ptr] = 1
    interface = {**array.__cuda_array_interface__, "strides": (180, 3, 1)}
    with open_session() as session, FramePipeline(session, imagenet(40, 32)) as pipeline:
        for given in (array, SimpleNamespace(__cuda_array_interface__=interface)):
            with pytest.raises(ZooError, match="lies on gpu:1, this session runs on gpu:0"):
                pipeline(given)
        check_colour(pipeline(frame), frame)


def test_rows_that_are_one_row_are_read_as_such(small):
    row = picture(1, 60)
    array = on_device(small, row)
    interface = {"shape": (50, 60, 3), "typestr": "|u1", "data": (array.ptr, False), "strides": [0, 3, 1], "version": 3}
    with open_session() as session, FramePipeline(session, imagenet(40, 32)) as pipeline:
        for _ in range(3):
            outputs = pipeline(SimpleNamespace(__cuda_array_interface__=interface))
            check_colour(outputs, np.repeat(row, 50, 0))


def test_an_error_of_cuda_is_its_own_frames_result(small):
    frame = picture(50, 60)
    session = open_session()
    pipeline = FramePipeline(session, imagenet(40, 32))
    bad = pipeline.submit(frame)
    small.broken = True
    for _ in range(2):
        with pytest.raises(ZooError, match="CUDA_ERROR_ILLEGAL_ADDRESS"):
            bad.result()
    bad = pipeline.submit(frame)
    good = pipeline.submit(frame)  # which waits for the other, and says nothing of its error
    small.broken = False
    check_colour(good.result(), frame)
    with pytest.raises(ZooError, match="CUDA_ERROR_ILLEGAL_ADDRESS"):
        bad.result()
    small.broken = True
    with pytest.raises(ZooError, match="CUDA_ERROR_ILLEGAL_ADDRESS"):
        pipeline.close()
    pipeline.close()
    small.broken = False
    session.close()
    del bad, good, pipeline, session
    gc.collect()
    assert not (small.graphs_alive or small.events or small.streams)


def test_an_interrupted_wait_for_a_frame_may_be_repeated(small, monkeypatch):
    synchronize, interrupts = small.synchronize, iter([KeyboardInterrupt])

    def interrupted(stream=None):
        for error in interrupts:
            raise error
        synchronize(stream)

    frame = picture(50, 60)
    with open_session() as session, FramePipeline(session, imagenet(40, 32)) as pipeline:
        pending = pipeline.submit(frame)
        monkeypatch.setattr(small, "synchronize", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pending.result()
        check_colour(pipeline(picture(50, 60, 1)), picture(50, 60, 1))
        check_colour(pending.result(), frame)


def test_a_pipeline_that_is_dropped_frees_its_graphs(small):
    frame = picture(50, 60)
    with open_session() as session:
        pipeline = FramePipeline(session, imagenet(40, 32))
        for _ in range(3):
            pipeline(frame)
        assert small.graphs_alive
        pipeline.submit(frame)
        held, waits = len(small.memory), small.syncs
        del pipeline
        gc.collect()
        assert not small.graphs_alive and len(small.memory) < held
        assert small.syncs > waits  # for the frame under way


def test_a_launch_that_failed_does_not_spoil_the_next_frame(device, monkeypatch):
    """The counts that the kernels leave half way are not those that the next frame begins with."""
    launch = device.launch

    def failing(function, grid, block, stream, arguments):
        if function == "rank_candidates":
            raise ZooError("CUDA failed with CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES")
        launch(function, grid, block, stream, arguments)

    ENGINES[b"plan"] = FakeEngine(device, {"images": ((1, 3, 64, 64),) * 3}, DETECTOR, detector_network)
    frame = picture(64, 64)
    with open_session(graphs=False) as session, FramePipeline(session, letterbox(64), decoder=DETECT) as pipeline:
        want = pipeline(frame)
        for _ in range(3):
            with monkeypatch.context() as patch:
                patch.setattr(device, "launch", failing)
                with pytest.raises(ZooError, match="LAUNCH_OUT_OF_RESOURCES"):
                    pipeline(frame)
        assert len(want.scores) > 3
        np.testing.assert_array_equal(pipeline(frame).boxes, want.boxes)
