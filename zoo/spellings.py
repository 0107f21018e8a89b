"""Options of trtexec, polygraphy and ultralytics that this project has not, and what to do instead.

Those that it has are spellings of its own options, where these are declared.
"""

from __future__ import annotations

from collections.abc import Iterable

from zoo.errors import ZooError

_PRECISION = "choose one precision: --fp16, --bf16, --int8 or --fp8"
_QUANTISED = "of quantised networks zoo.build has --int8 and --fp8, with ranges that python -m zoo.calibrate writes"
_IO = "--io fp32, fp16 or uint8 says what a network takes and gives, in linear order, whatever the precision"
_TIMED = "python -m zoo.bench times engines"
_LAYERS = "python -m zoo.profile times every layer"
_ISLANDS = "operations that half precision cannot hold stay in fp32 by themselves"
_SHAPES = "what varies goes from --minShapes over --optShapes to --maxShapes, each once for a profile; see --size too"

INSTEAD = {
    "--best": _PRECISION,
    "--precision": _PRECISION,
    "--int4": _QUANTISED,
    "--calib": "python -m zoo.calibrate chooses the ranges that --int8 takes",
    "--layerPrecisions": _ISLANDS,
    "--layerOutputTypes": _ISLANDS,
    "--precisionConstraints": _ISLANDS,
    "--inputIOFormats": _IO,
    "--outputIOFormats": _IO,
    "--maxBatch": _SHAPES,
    "--shapes": _SHAPES,
    "--dynamic": _SHAPES,
    "--batch-size": "write --batch",
    "--hardwareCompatibilityLevel": "zoo.build has --hardware-compatible, for all GPUs from Ampere on",
    "--stripAllWeights": "zoo.build has --strip-plan",
    "--profilingVerbosity": "engines always keep the names of their layers",
    "--simplify": "there is no graph to simplify: networks are written layer by layer",
    "--onnx": "networks are written by hand, and a model's name comes first (python -m zoo.list); trtexec reads ONNX",
    "--uff": "a model's name comes first (python -m zoo.list)",
    "--loadEngine": "python -m zoo.run and zoo.profile take an engine file in the place of a model's name",
    "--dynamicPlugins": "custom ops are found by themselves; --plugins says what they become",
    "--pool-limit": "write --workspace 512M",
    "--dumpProfile": _LAYERS,
    "--exportProfile": _LAYERS,
    "--dumpLayerInfo": _LAYERS,
    "--separateProfileRun": _LAYERS,
    "--warmUp": _TIMED,
    "--iterations": _TIMED,
    "--duration": _TIMED,
    "--avgRuns": _TIMED,
    "--useCudaGraph": _TIMED,
    "--streams": _TIMED,
    "--device": "CUDA_VISIBLE_DEVICES says for which GPU; python -m zoo.run has --device",
    "--nms": "the options of results are those of python -m zoo.run",
    "--opset": "python -m zoo.export has it",
    "--version": "python -m zoo --version says it",
}

SIZES = ("--size", "--imgsz")
SMALLEST_SIZE = 16  # a smaller number behind a size is a webcam's


def check_words(words: Iterable[str], own: Iterable[str]) -> None:
    """Raises ZooError for the first option among the words of a command line that other tools have and this command,
    whose options are `own`, has not."""
    words, known = [*words], set(own)
    for word, *values in zip(words, words[1:], words[2:]):
        if word in SIZES and all(value.isdecimal() and int(value) >= SMALLEST_SIZE for value in values):
            raise ZooError(f"{word} takes one word, height x width: write {word} {'x'.join(values)}")
    for word in words:
        name = word.partition("=")[0]
        if word == "--":
            return
        if name in INSTEAD and name not in known:
            raise ZooError(f"there is no {name} here: {INSTEAD[name]}")
