"""Where an engine spends its time: TensorRT's layers, joined with the modules that they were made from and their costs.

TensorRT fuses layers and names the result after all of them: `conv1 + relu`, `PWN(PWN(sigmoid), mul)`, `cv1 || cv2`,
`{ForeignNode[first...last]}`. Layers of the zoo bear the paths of PyTorch modules, so every time finds its module.
"""

from __future__ import annotations

import html
import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.errors import ZooError
from zoo.measure.costs import Cost, LayerCosts
from zoo.measure.timing import Replay
from zoo.runtime.arrays import Shape
from zoo.runtime.gpu import GpuSession

SEVERAL = "(several modules)"
UNNAMED = "(made by TensorRT)"
_FOREIGN = re.compile(r"\{ForeignNode\[(.*?)\]\}", re.DOTALL)
_REFORMAT = re.compile(r"Reformatting CopyNode for (?:Input|Output|Network Input|Network Output) (?:Tensor )?")
_TOKEN = re.compile(r"[^\s()+|,{}\[\]]+")
_FEW, _WARM = 3, 3


# ---- names ----------------------------------------------------------------------------------------------------------


def covered(name: str, known: Sequence[str]) -> list[str]:
    """The layers of the definition (`known`, in its order) that the engine's layer `name` was made from.

    A ForeignNode tells its first and last layer only: all between them count, less what other layers are named after
    (see `assign`).
    """
    order = {layer: index for index, layer in enumerate(known)}
    found = {layer for layer in _TOKEN.findall(_FOREIGN.sub(" ", name)) if layer in order}
    for inside in _FOREIGN.findall(name):
        ends = sorted(order[layer] for layer in inside.split("...") if layer in order)
        found.update(known[ends[0] : ends[-1] + 1] if ends else ())
    return sorted(found, key=order.__getitem__)


def assign(names: Sequence[str], known: Sequence[str]) -> list[list[str]]:
    """`covered` for all layers of an engine: what one is named after is not also in another's ForeignNode."""
    all_covered = [covered(name, known) for name in names]
    named = {layer for name, layers in zip(names, all_covered) if not _FOREIGN.search(name) for layer in layers}
    return [
        [layer for layer in layers if not _FOREIGN.search(name) or layer not in named]
        for name, layers in zip(names, all_covered)
    ]


def is_copy(name: str) -> bool:
    """Whether TensorRT added the engine's layer `name`, which bears the names of those that it copies for."""
    return bool(_REFORMAT.match(name)) or name.endswith(" copy")


def common_path(layers: Sequence[str]) -> str:
    """The innermost module that holds all `layers`; empty when only the whole network does."""
    paths = [layer.split(".") for layer in layers]
    shared = []
    for parts in zip(*paths):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)


# ---- times ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LayerTime:
    """One layer of an engine: the median of its times, the layers of the definition that it computes, and their cost.

    Without a cost: what TensorRT added, or does not tell the origin of.
    """

    name: str
    ms: float
    covers: tuple[str, ...]
    cost: Cost | None = None

    @property
    def module(self) -> str:
        """The innermost module that it belongs to; "conv1 + relu" for a few outermost ones."""
        if not self.covers:
            return UNNAMED
        outermost = list(dict.fromkeys(layer.split(".")[0] for layer in self.covers))
        return common_path(self.covers) or (" + ".join(outermost) if len(outermost) <= _FEW else SEVERAL)

    @property
    def path(self) -> list[str]:
        """Its module from the outermost to the innermost."""
        return self.module.split(".") if common_path(self.covers) else [self.module]

    @property
    def reformat(self) -> bool:
        """True for a copy into another layout or type, or to its place in a concatenation."""
        return is_copy(self.name)

    @property
    def tflops(self) -> float | None:
        """TFLOP/s that it achieves."""
        return self.cost.flops / (self.ms * 1e9) if self.cost and self.ms else None

    @property
    def gb_per_s(self) -> float | None:
        """GB/s that it achieves, if it moves no more than it must."""
        return self.cost.bytes / (self.ms * 1e6) if self.cost and self.ms else None

    def group(self, depth: int) -> str:
        """Its module, at most `depth` levels deep."""
        return ".".join(self.path[:depth])


@dataclass(frozen=True)
class Profile:
    """An engine's layers in the order of execution. `whole_ms` is the median of the whole, replayed as a CUDA graph.

    The layers' sum exceeds it: with a profiler, TensorRT waits for each of them.
    """

    layers: tuple[LayerTime, ...]
    whole_ms: float

    @property
    def sum_ms(self) -> float:
        return sum(layer.ms for layer in self.layers)

    def groups(self, depth: int) -> list[tuple[str, float, int]]:
        """(module, ms, how many layers), slowest first."""
        times: dict[str, list[float]] = {}
        for layer in self.layers:
            times.setdefault(layer.group(depth), []).append(layer.ms)
        return sorted(((name, sum(ms), len(ms)) for name, ms in times.items()), key=lambda row: -row[1])


def profile_session(session: GpuSession, shapes: Mapping[str, Shape], costs: LayerCosts, runs: int = 50) -> Profile:
    """Medians over `runs` runs; `costs` are those of the engine's definition with these shapes.

    Raises ZooError when the engine reports no layers.
    """
    replay = Replay(session, shapes)
    try:
        whole = statistics.median(replay.measure(4 * runs))
    finally:
        replay.close()
    with session.cuda.active():
        stream = session.cuda.stream()
        reports = session.bind(shapes, stream).layer_times(stream, _WARM + runs)[_WARM:]
    names = [name for name, _ in reports[0]]
    if not names or any([name for name, _ in report] != names for report in reports):
        raise ZooError("TensorRT's profiler reported no layers, or others from run to run: nothing can be told of them")
    medians = [statistics.median(report[i][1] for report in reports) for i in range(len(names))]
    layers = (
        LayerTime(name, ms, tuple(covers), costs.group(covers) if covers and not is_copy(name) else None)
        for name, ms, covers in zip(names, medians, assign(names, list(costs.layers)))
    )
    return Profile(tuple(layers), whole)


# ---- telling --------------------------------------------------------------------------------------------------------


def to_dict(profile: Profile) -> dict[str, Any]:
    """JSON data."""
    layers = [
        {"name": layer.name, "ms": layer.ms, "module": layer.module, "covers": list(layer.covers), **_figures(layer)}
        for layer in profile.layers
    ]
    return {"whole_ms": profile.whole_ms, "sum_ms": profile.sum_ms, "layers": layers}


def _figures(layer: LayerTime) -> dict[str, float | None]:
    """What it computes and moves; None where that is not known."""
    cost = layer.cost
    return {
        "gmacs": cost.macs / 1e9 if cost else None,
        "tflops": layer.tflops,
        "mb": cost.bytes / 1e6 if cost else None,
        "gb_per_s": layer.gb_per_s,
    }


_HEADS = ("GMACs", "TFLOP/s", "MB", "GB/s")
_FORMATS = {"gmacs": ".3f", "tflops": ".1f", "mb": ".2f", "gb_per_s": ".0f"}


def _cells(layer: LayerTime) -> list[str]:
    """The figures as text, under `_HEADS`."""
    return ["" if value is None else format(value, _FORMATS[name]) for name, value in _figures(layer).items()]


def to_text(profile: Profile, depth: int, top: int = 15) -> str:
    """The modules, then the slowest layers."""
    total = profile.sum_ms
    lines = [
        f"{profile.whole_ms:.4f} ms as one CUDA graph; {len(profile.layers)} layers one by one take {total:.4f} ms",
        "",
        f"{'module':<40} {'ms':>9} {'share':>7}  layers",
    ]
    lines += [f"{name:<40} {ms:9.4f} {ms / total:7.1%}  {count}" for name, ms, count in profile.groups(depth)]
    heads = " ".join(f"{head:>8}" for head in _HEADS)
    lines += ["", f"{'slowest layers':<40} {'ms':>9} {'share':>7} {heads}  TensorRT's name"]
    for layer in sorted(profile.layers, key=lambda entry: -entry.ms)[:top]:
        name = layer.name if len(layer.name) <= 100 else f"{layer.name[:97]}..."
        cells = " ".join(f"{cell:>8}" for cell in _cells(layer))
        lines.append(f"{layer.module:<40} {layer.ms:9.4f} {layer.ms / total:7.1%} {cells}  {name}")
    return "\n".join(lines)


def tree(profile: Profile) -> dict[str, Any]:
    """The times as a tree of modules: {"name", "path", "ms", "children"}; its leaves are TensorRT's layers."""
    root: dict[str, Any] = {"name": "network", "path": "", "ms": 0.0, "children": []}
    for layer in profile.layers:
        node = root
        node["ms"] += layer.ms
        for i, part in enumerate(layer.path):
            node = _child(node, part, ".".join(layer.path[: i + 1]))
            node["ms"] += layer.ms
        leaf = {"name": layer.name, "path": layer.module, "ms": layer.ms, "children": [], "reformat": layer.reformat}
        node["children"].append(leaf)
    return root


def _child(node: dict[str, Any], name: str, path: str) -> dict[str, Any]:
    for child in node["children"]:
        if child["path"] == path and "reformat" not in child:
            return child
    child = {"name": name, "path": path, "ms": 0.0, "children": []}
    node["children"].append(child)
    return child


def to_html(profile: Profile, title: str, facts: Mapping[str, str]) -> str:
    """One self-contained page: an icicle of modules over layers (click to zoom) and the table of all layers."""
    total = profile.sum_ms
    rows = []
    for layer in sorted(profile.layers, key=lambda entry: -entry.ms):
        covers = html.escape(", ".join(layer.covers))
        share = layer.ms / total
        figures = "".join(f"<td class=number>{cell}</td>" for cell in _cells(layer))
        rows.append(
            f"<tr><td class=name>{html.escape(layer.module)}</td><td class=number>{layer.ms:.4f}</td>"
            f"<td class=number>{share:.1%}</td><td><span class=bar><i style='width:{share:.2%}'></i></span></td>"
            f"{figures}<td class='name long' title='{covers}'>{html.escape(layer.name)}</td></tr>"
        )
    about = "".join(f"<dt>{html.escape(key)}</dt><dd>{html.escape(str(value))}</dd>" for key, value in facts.items())
    heads = "".join(f"<th class=number>{head}" for head in _HEADS)
    data = json.dumps(tree(profile)).replace("<", "\\u003c")
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{html.escape(title)}</title>
<style>{_CSS}</style>
<main>
<h1>{html.escape(title)}</h1>
<p class=lead><b>{profile.whole_ms:.4f} ms</b> as one CUDA graph. {len(profile.layers)} layers, measured one by one,
take {total:.4f} ms.</p>
<dl>{about}</dl>
<section><h2>Modules, down to TensorRT's layers</h2>
<p class=hint>Width is time. Click a box to zoom in, the network to zoom out.</p>
<div id=icicle></div><p id=told>&nbsp;</p></section>
<section><h2>Layers, slowest first</h2>
<p class=hint>GMACs and MB are what a layer must multiply and move at the least: its weights, and the tensors that enter
and leave it.</p>
<table><tr><th>module<th class=number>ms<th class=number>share<th>{heads}<th>TensorRT's layer</tr>
{"".join(rows)}</table></section>
</main>
<script>const network = {data};{_SCRIPT}</script>
</html>
"""


_CSS = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --text: #1c2330; --soft: #667085; --line: #e3e6eb;
  --bar: #3b6fd4; --hues: 62% }
@media (prefers-color-scheme: dark) { :root { --page: #12151b; --card: #1a1f28; --text: #e6e9ef; --soft: #98a2b3;
  --line: #2b323e; --bar: #6c9bf0; --hues: 38% } }
body { margin: 0; background: var(--page); color: var(--text); font: 15px/1.5 system-ui, sans-serif }
main { max-width: 1180px; margin: 0 auto; padding: 32px 20px 64px }
h1 { font-size: 26px; margin: 0 } h2 { font-size: 16px; margin: 0 0 6px }
.lead { margin: 8px 0 18px; color: var(--soft) } .lead b { color: var(--text) }
.hint, #told { color: var(--soft); font-size: 13px; margin: 0 0 10px }
#told { margin: 10px 0 0; overflow-wrap: anywhere }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 20px; margin: 0 0 24px }
dt { color: var(--soft) } dd { margin: 0; overflow-wrap: anywhere }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px;
  margin-bottom: 18px; overflow-x: auto }
#icicle { position: relative; min-width: 640px }
#icicle div { position: absolute; height: 25px; box-sizing: border-box; overflow: hidden; white-space: nowrap;
  font: 12px/23px system-ui, sans-serif; padding: 0 5px; border: 1px solid var(--card); border-radius: 4px;
  cursor: pointer; text-overflow: ellipsis; color: #fff }
#icicle div:hover { filter: brightness(1.12) }
table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums }
th { text-align: left; font-weight: 500; color: var(--soft); border-bottom: 1px solid var(--line) }
th, td { padding: 4px 14px 4px 0; white-space: nowrap } .number { text-align: right }
.name { font-family: ui-monospace, monospace; font-size: 12px }
.long { max-width: 520px; overflow: hidden; text-overflow: ellipsis }
.bar { display: inline-block; width: 120px; height: 7px; border-radius: 4px; background: var(--line); overflow: hidden }
.bar i { display: block; height: 100%; background: var(--bar) }
"""

_SCRIPT = """
const box = document.getElementById("icicle"), told = document.getElementById("told");
let depth = 0;
(function count(node, level) {
  depth = Math.max(depth, level);
  node.children.forEach(child => { child.parent = node; count(child, level + 1); });
})(network, 1);
function colour(node) {
  if (node.reformat) return "hsl(0 0% 55%)";
  let hash = 7;
  for (const letter of node.path.split(".").slice(0, 2).join(".")) hash = (hash * 31 + letter.charCodeAt(0)) % 360;
  return `hsl(${hash} var(--hues) ${node.children.length ? 42 : 50}%)`;
}
function draw(root) {
  box.replaceChildren();
  const shown = [];
  for (let node = root; node; node = node.parent) shown.unshift(node);
  shown.slice(0, -1).forEach((node, level) => add(node, level, 0, 1));
  (function down(node, level, left, width) {
    if (width < 0.0008) return;
    add(node, level, left, width);
    let at = left;
    for (const child of node.children) {
      const part = width * child.ms / node.ms;
      down(child, level + 1, at, part);
      at += part;
    }
  })(root, shown.length - 1, 0, 1);
  box.style.height = 26 * depth + "px";
}
function add(node, level, left, width) {
  const cell = document.createElement("div");
  cell.style.cssText = `left:${100 * left}%;width:${100 * width}%;top:${26 * level}px;background:${colour(node)}`;
  const words = `${node.children.length && node.path ? node.path : node.name}: ${node.ms.toFixed(4)} ms, ` +
    `${(100 * node.ms / network.ms).toFixed(1)} %`;
  if (width < 0.012) cell.style.padding = 0;
  cell.textContent = node.name;
  cell.title = words;
  cell.onmouseenter = () => { told.textContent = words; };
  cell.onclick = () => draw(node);
  box.append(cell);
}
draw(network);
"""
