"""The picture of the latency table: `python benchmarks/chart.py results/gpu.jsonl ... -o docs/images/latency.svg`.

Reads what `gpu.py --sections latency` measured and draws, for each model and batch size in one precision, how many
times faster than eager PyTorch the contestants are. Rows without an eager time are left out.
"""

# ruff: noqa: E402  (it runs from a checkout, without installation)

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from zoo.errors import ZooError
from zoo.files import replacing

BARS = {  # contestant -> label, colour; drawn in this order
    "zoo": ("zoo", "#2f6fde"),
    "onnx": ("ONNX export, same TensorRT", "#8fb3ef"),
    "graphed": ("torch.compile, as a CUDA graph", "#e0894a"),
    "torch": ("eager PyTorch", "#b9bec8"),
}
BAR, GAP, LEFT, WIDTH, TOP = 13, 14, 110, 300, 86  # pixels: a bar, between rows, the names, a panel's bars, the head
PANEL = LEFT + WIDTH + 70

Key = tuple[str, int]  # model, batch


def speedups(records: Iterable[dict[str, Any]], precision: str) -> dict[Key, dict[str, float]]:
    """(model, batch) -> contestant -> how many times faster than eager PyTorch, in the order of the records."""
    rows: dict[Key, dict[str, float]] = {}
    for r in records:
        if r["section"] == "latency" and r["precision"] == precision and not r["problem"]:
            rows.setdefault((r["model"], r["batch"]), {})[r["name"]] = r["compute_ms"]["median"]
    return {
        key: {name: times["torch"] / times[name] for name in BARS if name in times}
        for key, times in rows.items()
        if "torch" in times
    }


def svg(rows: dict[Key, dict[str, float]], batches: list[int], precision: str, about: str) -> str:
    """The picture: a panel for each batch size, a row for each model, a bar for each contestant."""
    models = list(dict.fromkeys(model for model, batch in rows if batch in batches))
    if not models:
        raise ZooError(
            f"no row in {precision} with batch {batches} has a time of eager PyTorch: measure --against torch"
        )
    scale = WIDTH / max(value for (_, batch), row in rows.items() if batch in batches for value in row.values())
    step = BAR * len(BARS) + GAP
    height = TOP + step * len(models) + 30
    parts = [_text(16, 26, f"Times faster than eager PyTorch, {precision}", "title"), _legend()]
    for panel, batch in enumerate(batches):
        left = panel * PANEL
        parts.append(_text(left + LEFT, TOP - 10, f"batch {batch}", "batch"))
        for index, model in enumerate(models):
            y = TOP + index * step
            parts.append(_text(left + LEFT - 8, y + step / 2 - 4, model, "model"))
            for place, (name, value) in enumerate(rows.get((model, batch), {}).items()):
                label = f"{model}, batch {batch}, {BARS[name][0]}: {value:.2f} x"
                at = y + place * BAR
                parts.append(
                    f'<rect x="{left + LEFT}" y="{at}" width="{value * scale:.1f}" height="{BAR - 2}" rx="2" '
                    f'fill="{BARS[name][1]}"><title>{escape(label)}</title></rect>'
                )
                parts.append(_text(left + LEFT + value * scale + 5, at + BAR - 4, f"{value:.1f}", "value"))
    parts.append(_text(16, height - 8, about, "about"))
    width = PANEL * len(batches)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="Times faster than eager PyTorch">\n<style>{_STYLE}</style>\n'
        f'<rect class="page" width="{width}" height="{height}" rx="8"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1c2330 } .page { fill: #ffffff }
.title { font-size: 15px; font-weight: 600 }
.batch { font-weight: 600 } .model { text-anchor: end } .value, .about, .legend { font-size: 11px; fill: #667085 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6e9ef } .page { fill: #161b22 } .value, .about, .legend { fill: #98a2b3 }
}
"""


def _text(x: float, y: float, words: str, kind: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(words)}</text>'


def _legend() -> str:
    parts, x = [], 16.0
    for label, colour in BARS.values():
        parts.append(f'<rect x="{x}" y="37" width="10" height="10" rx="2" fill="{colour}"/>')
        parts.append(_text(x + 15, 46, label, "legend"))
        x += 36 + 6.2 * len(label)
    return "\n".join(parts)


def about(records: Iterable[dict[str, Any]]) -> str:
    """The hardware and the versions of the last run."""
    r = [record for record in records if record["section"] == "machine"][-1]
    torch = f", PyTorch {r['pytorch']['torch'].partition('+')[0]}" if r["pytorch"] else ""
    return f"{r['gpu']}, TensorRT {r['tensorrt']}{torch}, {r['date']}; medians, every network as one CUDA graph"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", help="gpu.jsonl of one or several runs")
    parser.add_argument("--batch", default="1,32", help="panels")
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("-o", "--output", type=Path, default=Path("latency.svg"))
    args = parser.parse_args()
    try:
        records = [json.loads(line) for path in args.results for line in path.read_text("utf-8").splitlines()]
        batches = [int(text) for text in args.batch.split(",")]
        picture = svg(speedups(records, args.precision), batches, args.precision, about(records))
    except (OSError, ZooError) as error:
        parser.exit(2, f"error: {error}\n")
    with replacing(args.output) as file:
        file.write(picture.encode())
    print(args.output)


if __name__ == "__main__":
    main()
