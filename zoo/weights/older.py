"""Names that tensors had in files of older versions of their libraries, which these rename when they load them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

Rule = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]

RULES: tuple[Rule, ...] = tuple(
    (re.compile(pattern), new)
    for pattern, new in (
        # torchvision before 0.13, as `_load_from_state_dict` of its detectors has them
        (r"^(.*\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2"),
        (r"^(rpn\.head\.conv)\.(weight|bias)$", r"\1.0.0.\2"),
        (r"^(head\.\w+_head\.conv)\.(\d+)\.(weight|bias)$", lambda m: f"{m[1]}.{int(m[2]) // 2}.0.{m[3]}"),
        (r"^(roi_heads\.mask_head)\.mask_fcn(\d+)\.", lambda m: f"{m[1]}.{int(m[2]) - 1}.0."),
        # torchvision's DenseNet, in every published file
        (r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2."),
        # transformers before 5, detection transformers
        (r"^model\.backbone\.conv_encoder\.", "model.backbone."),
        (r"\.out_proj\.", ".o_proj."),
        (r"\.layers\.(\d+)\.fc([12])\.", r".layers.\1.mlp.fc\2."),
        (r"\.encoder\.encoder\.(\d+)\.layers\.", r".encoder.aifi.\1.layers."),
    )
)


def current_names(names: Collection[str], wanted: Collection[str]) -> dict[str, str]:
    """What is called otherwise today: old name -> new, where all of `wanted` are there then; else nothing."""
    new = {name: _current(name) for name in names if name not in wanted}
    new = {name: found for name, found in new.items() if found in wanted}
    return new if {*names, *new.values()} >= {*wanted} else {}


def _current(name: str) -> str:
    for pattern, new in RULES:
        name = pattern.sub(new, name)
    return name
