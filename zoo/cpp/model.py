"""model.h: what the runner knows of its model, as C++ constants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.cpp.code import boolean, text
from zoo.preprocess import Resize, from_dict
from zoo.registry import Model, get_model
from zoo.text import LONGEST_LABEL, clean
from zoo.weights import Weights

_RESIZED = ("pillow:bilinear", "pillow:bicubic", "cv2:bilinear")  # what picture.cpp does byte for byte


def about_model(model: Model, weights: Weights) -> dict[str, Any]:
    """What an engine's description says that does not depend on the engine."""
    from zoo.engine.passport import labels

    return {
        "model": model.name, "task": model.task, "preprocess": model.preprocess.to_dict(),
        "labels": labels(weights.metadata),
    }  # fmt: skip


def header(about: Mapping[str, Any]) -> str:
    """model.h for an engine's description, or for what `about_model` gives."""
    version = about.get("version", "")
    names = [clean(name, LONGEST_LABEL) for name in about["labels"] or ()]
    lines = [
        f"// Written by zoo.export: what the programs need to know of {about['model']}.",
        "#pragma once",
        "",
        "namespace model",
        "{",
        f"constexpr char kName[] = {text(about['model'])};",
        f"constexpr char kTask[] = {text(about['task'])};",
        f"constexpr char kTensorRT[] = {text('.'.join(version.split('.')[:3]))}; // the engine's; empty: of any",
        f"constexpr long long kBytes = {about.get('size', 0)}; // of the engine; 0: any",
        f"constexpr char kGpu[] = {text(about.get('gpu') or '')}; // for which it was built",
        *_options(dict(get_model(about["model"]).options)),
        *_preprocess(from_dict(about["preprocess"]), (about.get("io") or "fp32") == "uint8"),
        f"constexpr int kLabelCount = {len(names)};",
        f"constexpr char const* kLabels[] = {{{_listed(names)}}};",
        "} // namespace model",
    ]
    return "\n".join(lines) + "\n"


def _options(options: dict[str, Any]) -> list[str]:
    """How detections are chosen, where the model says otherwise than its task."""
    return [
        f"constexpr float kConf = {float(options.get('conf', 0.25))}F; // detections score more",
        f"constexpr float kIou = {float(options.get('iou', 0.7))}F; // of two of a class that overlap more, one stays",
        f"constexpr int kMost = {int(options.get('max_det', 300))}; // detections of a picture",
        f"constexpr bool kNms = {boolean(options.get('nms', True))};",
    ]


def _preprocess(spec: Any, inside: bool) -> list[str]:
    """How a picture becomes the input: where picture.cpp can do it byte for byte as the zoo does."""
    known = isinstance(spec, Resize) and spec.interpolation in _RESIZED and spec.color != "GRAY" and not inside
    if not known:
        spec = Resize()
    mean, std = (values * 3 if len(values) == 1 else values for values in (spec.mean, spec.std))
    size = spec.size if isinstance(spec.size, tuple) else (spec.size, spec.size)
    return [
        f"constexpr bool kPictures = {boolean(known)}; // whether the runner can prepare a picture",
        f"constexpr char kPlace[] = {text(spec.place)};",
        f"constexpr char kFilter[] = {text(spec.interpolation)};",
        f"constexpr int kResize = {spec.resize or 0}; // the short side before a crop, at the input's largest side:",
        f"constexpr int kLargest = {max(size)};",
        f"constexpr int kMargin = {spec.margin};",
        f"constexpr int kPad = {spec.pad};",
        f"constexpr bool kCentered = {boolean(spec.align == 'center')};",
        f"constexpr bool kRoundDown = {boolean(spec.rounding == 'down')};",
        f"constexpr bool kBgr = {boolean(spec.color == 'BGR')};",
        f"constexpr float kDivisor = {float(spec.divisor)!r}F;",
        f"constexpr float kMean[] = {{{_floats(mean)}}};",
        f"constexpr float kStd[] = {{{_floats(std)}}};",
    ]


def _floats(values: tuple[float, ...]) -> str:
    return ", ".join(f"{float(value)!r}F" for value in values)


def _listed(names: list[str]) -> str:
    """The strings, one a line; one that is never read where there are none, as C++ has no empty arrays."""
    return "".join(f"\n    {text(name)}," for name in names) + "\n" if names else '""'
