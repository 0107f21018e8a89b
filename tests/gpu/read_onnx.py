"""Does TensorRT's own ONNX parser read exported files as the networks that they are?

    python tests/gpu/read_onnx.py FOLDER --make [MODEL[:HEIGHTxWIDTH] ...]   anywhere: makes files, images and answers
    python tests/gpu/read_onnx.py FOLDER                                     on a GPU: parses, compiles, compares

Every file is parsed, compiled in fp32 for batches 1 to 4 (TF32 off) and run on 2 images. An output that is further from
onnxruntime's than 1e-4 (relative L2) is another network, and exit status 1.
"""

# ruff: noqa: E402  (it runs from a checkout, without installation)

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from zoo.engine.shapes import INPUT
from zoo.trt import Api, load
from zoo.verify.compare import relative_l2

MODELS = (
    "lenet5", "mobilenet_v3_small", "shufflenet_v2_x0_5", "small_vit", "small_convnext", "yolov8n:128x160",
    "yolo12n:128x160",
)  # fmt: skip
NONE = "none"  # the reference of the small ones
LARGEST = 1e-4
BATCHES = (1, 2, 4)


def make(folder: Path, models: list[str]) -> None:
    """MODEL.onnx with calibrated random weights, and MODEL.npz with images and what onnxruntime makes of them."""
    import onnxruntime

    from zoo.engine.shapes import parse_size
    from zoo.export import run as export
    from zoo.registry import get_model
    from zoo.verify.calibration import calibrated, state_arrays
    from zoo.weights import from_arrays

    register_small_ones()
    folder.mkdir(parents=True, exist_ok=True)
    for spec in models:
        name, _, size = spec.partition(":")
        model = get_model(name)
        path = folder / f"{name}.onnx"
        shape = (2, model.input[0], *(parse_size(size) if size else model.input[1:]))
        if model.reference == NONE:
            weights = "random"
        else:
            reference = calibrated(model.reference, 0, shape[1:], fixed=model.ignored)
            weights = from_arrays(state_arrays(reference))
        export(name, weights=weights, size=size or None, output=path)
        images = np.random.default_rng(0).random(shape, np.float32)
        session = onnxruntime.InferenceSession(path)
        names = [output.name for output in session.get_outputs()]
        np.savez(path.with_suffix(".npz"), **{INPUT: images}, **dict(zip(names, session.run(names, {INPUT: images}))))


def register_small_ones() -> None:
    """Networks with Gelu, of a few thousand parameters: the published ones are hundreds of megabytes."""
    from zoo.models import convnext, vit
    from zoo.preprocess import imagenet
    from zoo.registry import Variant, register

    facts = {"task": "classify", "reference": NONE, "paper": "none", "preprocess": imagenet(64, 64)}
    patches = vit.Config(patch=16, depth=2, heads=2, width=64, mlp_width=128, image=64, num_classes=10)
    register(**facts, small_vit=Variant(patches, params=1))(vit.build)
    stages = convnext.Config((1, 1, 1, 1), (16, 32, 64, 128), num_classes=10)
    register(**facts, small_convnext=Variant(stages, params=1))(convnext.build)


def parsed_and_compiled(api: Api, path: Path) -> bytes:
    """The engine that TensorRT makes of an ONNX file."""
    trt = api.trt
    flags = trt.NetworkDefinitionCreationFlag
    builder = trt.Builder(api.log.logger)
    network = builder.create_network(1 << int(flags.STRONGLY_TYPED if api.strong else flags.EXPLICIT_BATCH))
    parser = trt.OnnxParser(network, api.log.logger)
    if not parser.parse_from_file(str(path)):
        errors = [f"{error.node()}: {error.desc()}" for error in map(parser.get_error, range(parser.num_errors))]
        raise SystemExit(f"{path.name}: {api.name} does not read it: {'; '.join(errors)}")
    shape = tuple(network.get_input(0).shape)[1:]
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    if hasattr(trt.BuilderFlag, "TF32"):
        config.clear_flag(trt.BuilderFlag.TF32)
    if api.major == 8:  # what zoo.engine.build leaves out: cuBLAS and cuDNN need not be there
        sources = (trt.TacticSource.EDGE_MASK_CONVOLUTIONS, trt.TacticSource.JIT_CONVOLUTIONS)
        config.set_tactic_sources(sum(1 << int(source) for source in sources))
        config.set_preview_feature(trt.PreviewFeature.PROFILE_SHARING_0806, True)
    profile.set_shape(INPUT, *((batch, *shape) for batch in BATCHES))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise SystemExit(f"{path.name}: {api.name} does not compile it: {api.log.drain()}")
    return bytes(plan)


def read(folder: Path) -> bool:
    """Prints a line for each output of each file; True when all are those of onnxruntime."""
    from zoo.runtime.gpu import GpuSession

    api, right = load("tensorrt"), True
    for path in sorted(folder.glob("*.onnx")):
        wanted = dict(np.load(path.with_suffix(".npz")))
        with GpuSession(parsed_and_compiled(api, path), api=api) as session:
            found = session(wanted.pop(INPUT))
        for name, values in wanted.items():
            error = relative_l2(found[name], values)
            right &= bool(error <= LARGEST)
            print(f"{path.name} {name}: {api.name}, relative L2 {error:.1e}", flush=True)
    return right


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--make", action="store_true")
    options = parser.parse_args()
    if options.make:
        make(options.folder, options.models)
    elif not read(options.folder):
        sys.exit("an output is not onnxruntime's")
