"""What TensorRT's inspector says of engines, and two of them side by side."""

from __future__ import annotations

import json
from typing import Any

from zoo.trt import Api


def inspect_engine(plan: bytes, api: Api) -> dict[str, Any]:
    """What TensorRT's inspector says of an engine: its layers, with tactics and formats."""
    engine = api.trt.Runtime(api.log.logger).deserialize_cuda_engine(plan)
    text = engine.create_engine_inspector().get_engine_information(api.trt.LayerInformationFormat.JSON)
    try:
        return json.loads(text, strict=False)  # TensorRT 8.6 leaves control characters in names
    except ValueError:
        return {"text": text}


def side_by_side(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """The layers of two engines in two columns of a Markdown table, in the order of execution."""
    rows = [[layer_line(entry) for entry in info.get("Layers", [])] for info in (ours, theirs)]
    height = max(map(len, rows))
    left, right = (column + [""] * (height - len(column)) for column in rows)
    lines = [f"| {len(rows[0])} layers of ours | {len(rows[1])} layers from ONNX |", "| --- | --- |"]
    return "\n".join(lines + [f"| {a} | {b} |" for a, b in zip(left, right)]) + "\n"


def layer_line(entry: Any) -> str:
    """A layer of `inspect_engine` as one line: its name, its kernel, the types and formats that it takes and gives."""
    if isinstance(entry, str):  # an engine built without details
        return entry
    ends = [
        ", ".join(str(end.get("Format/Datatype") or end.get("Format") or "") for end in entry.get(key, []))
        for key in ("Inputs", "Outputs")
    ]
    tactic = str(entry.get("TacticName") or entry.get("LayerType") or "")
    return f"{entry.get('Name', '')}: {tactic}; {ends[0]} → {ends[1]}".replace("|", "/")
