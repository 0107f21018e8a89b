"""A comparison told three ways: a table for terminals, JSON for programs, one self-contained page for people."""

from __future__ import annotations

import html
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from zoo.files import replacing
from zoo.text import clean_lines
from zoo.verify.compare import Report, Row

if TYPE_CHECKING:
    from zoo.verify.proof import Proof

TRIMMED = 12  # layers that a terminal shows unless all are asked for


# --------------------------------------------------------------------------------------------------------- terminal


def verdict(report: Report) -> str:
    """One line: how many tensors agree, or the first one that does not."""
    compared = len({row.name for row in report.rows})
    first = report.first_divergence
    if first is None:
        worst = f", the worst at {report.worst.ratio:.0%} of its bound" if report.worst else ""
        return f"{compared} of {compared} tensors agree with the reference{worst}"
    where = " on our own inputs" if report.wrong else ""
    why = first.problem or f"{first.error:.1e} where {first.bound:.1e} is allowed{where}"
    return f"{len({row.name for row in report.failures})} of {compared} tensors differ, first at {first.name}: {why}"


def own_arithmetic(report: Report) -> str:
    """Which modules compute wrongly themselves, in a line; empty where the modules are not judged one by one."""
    if not report.own or report.ok:
        return ""
    if not report.wrong:
        return "Every module agrees on our own inputs: what differs in the whole network is rounding that adds up."
    return f"Wrong in their own arithmetic: {_some([row.name for row in report.wrong], 8)}."


def to_terminal(report: Report, title: str = "", every: bool = False) -> RenderableType:
    """What `rich` prints: outputs, layers, coverage, verdict.

    Of many layers it shows those around the first failure, or those nearest to their bound, unless `every` one is asked
    for.
    """
    return Group(_body(report, title, every), *_verdict(report, report.ok))


def _body(report: Report, title: str = "", every: bool = False) -> RenderableType:
    own = {row.name: row for row in report.own}
    parts: list[RenderableType] = [_table(report.outputs, own, f"{title} outputs".strip())]
    if report.taps:
        shown = report.taps if every else _trimmed(report.taps, own)
        parts.append(_table(shown, own, f"{len(shown)} of {len(report.taps)} layers in network order"))
    if report.missing:
        parts.append(_text(f"{len(report.missing)} modules without a counterpart: {_some(report.missing)}", "yellow"))
    if own_arithmetic(report):
        parts.append(_text(own_arithmetic(report), "red"))
    parts.append(_text(f"Rule: {report.rule}.", "dim"))
    return Group(*parts)


def proof_to_terminal(proof: Proof, layers: bool = False) -> RenderableType:
    """What `rich` prints of a proof: its report (without the layers unless they are asked for or one is out of bounds),
    a line for each further one, all of it where that fails, and the verdict last.
    """
    report = proof.report if layers or not proof.report.ok else replace(proof.report, taps=[])
    parts: list[RenderableType] = []
    for title, other in proof.also.items():
        parts.append(_text(f"{title}: {verdict(other)}") if other.ok else to_terminal(other, title))
    parts += [_text(note, "yellow") for note in proof.notes]
    parts += [_body(report), *_verdict(proof.report, proof.ok)]
    return Group(*parts)


def _text(words: str, style: str = "") -> Text:
    """What may hold names from files: neither the terminal nor rich's markup obeys it."""
    return Text(clean_lines(words), style)


def _verdict(report: Report, ok: bool) -> list[RenderableType]:
    state, style = ("PASSED", "bold green") if ok else ("FAILED", "bold red")
    words = verdict(report) if ok or not report.ok else "not in the report above"
    return [_text(f"{state}  {words}", style)]


def _trimmed(rows: Sequence[Row], own: Mapping[str, Row]) -> list[Row]:
    """What leads up to the first failure and what follows it; the rows nearest to their bound when all agree."""
    alone = [own.get(row.name, row) for row in rows]
    first = next((i for i, row in enumerate(alone) if not row.ok), None)
    if first is None:
        first = next((i for i, row in enumerate(rows) if not row.ok), None)
    if first is not None:
        return list(rows[max(first - 2, 0) :][:TRIMMED])
    shares = {row.name: -max(row.ratio, each.ratio) for row, each in zip(rows, alone)}
    tightest = sorted(shares, key=shares.__getitem__)[:TRIMMED]
    return [row for row in rows if row.name in tightest]


def _table(rows: Sequence[Row], own: Mapping[str, Row], title: str) -> Table:
    """Numbers of the whole network; where `own` has them, on the left those of each module on our own inputs."""
    table = Table(title=_text(title), title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    table.add_column("tensor", overflow="fold")
    table.add_column("shape", style="dim")
    for heading in (*(("own error", "bound", "share") if own else ()), "error", "bound", "share"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for row in rows:
        alone = own.get(row.name)
        numbers = (*_numbers(alone), *_numbers(row)) if own else _numbers(row)
        table.add_row(_text(row.name), _shape(row), *numbers, _mark(row, alone))
    return table


def _numbers(row: Row | None) -> tuple[str, str, str]:
    if row is None or row.problem:
        return "-", "-", "-"
    return f"{row.error:.1e}", f"{row.bound:.1e}", _share(row)


def _mark(row: Row, alone: Row | None) -> Text:
    """Wrong itself, wrong by what came before it, or neither."""
    if alone and not alone.ok:
        return _text(alone.problem or "wrong", "bold red")
    return _text("ok", "green") if row.ok else _text(row.problem or "differs", "red")


def _share(row: Row) -> str:
    return f"{row.ratio:.0%}" if row.ratio < 10 else f"{row.ratio:,.0f} x"


def _shape(row: Row) -> str:
    return "x".join(map(str, row.shape))


def _some(names: Sequence[str], count: int = 5) -> str:
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")


# ------------------------------------------------------------------------------------------------------------- JSON


def to_dict(report: Report, title: str = "", facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Plain data for json.dump: numbers that are not finite are null, `facts` are passed on as they are."""
    return {
        "title": title,
        "ok": report.ok,
        "verdict": verdict(report),
        "rule": report.rule,
        "facts": dict(facts or {}),
        "first_divergence": report.first_divergence.name if report.first_divergence else None,
        "outputs": [_row_dict(row) for row in report.outputs],
        "taps": [_row_dict(row) for row in report.taps],
        "own": [_row_dict(row) for row in report.own],
        "wrong": [row.name for row in report.wrong],
        "missing": report.missing,
        "extra": report.extra,
    }


def proof_dict(proof: Proof, title: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """A proof as plain data: that of its report, with the further ones under "also"."""
    also = {name: to_dict(report, name) for name, report in proof.also.items()}
    return to_dict(proof.report, title, facts) | {"ok": proof.ok, "also": also, "notes": list(proof.notes)}


def outcome(proof: Proof, reference: str) -> dict[str, Any]:
    """What an engine's description keeps of a proof against the published model `reference`."""
    failed = [f"{name}: {verdict(report)}" for name, report in proof.also.items() if not report.ok]
    said = verdict(proof.report) if not proof.report.ok or proof.ok else failed[0]
    return {"ok": proof.ok, "said": said, "reference": reference, "executor": proof.executor}


def _row_dict(row: Row) -> dict[str, Any]:
    numbers = {"error": row.error, "noise": row.noise, "bound": row.bound, "ratio": row.ratio}
    finite = {key: value if math.isfinite(value) else None for key, value in numbers.items()}
    kind = {"kind": row.kind} if row.kind else {}
    return {"name": row.name, **kind, "shape": list(row.shape), **finite, "ok": row.ok, "problem": row.problem}


def write_json(
    path: str | os.PathLike[str], report: Report, title: str = "", facts: Mapping[str, Any] | None = None
) -> None:
    """`to_dict` as a file."""
    with replacing(path) as file:
        file.write((json.dumps(to_dict(report, title, facts), indent=1, allow_nan=False) + "\n").encode())


# ------------------------------------------------------------------------------------------------------------- page


def write_html(
    path: str | os.PathLike[str],
    report: Report,
    title: str = "",
    facts: Mapping[str, Any] | None = None,
    also: Mapping[str, Report] = {},
) -> None:
    """`to_html` as a file."""
    with replacing(path) as file:
        file.write(to_html(report, title, facts, also).encode())


def to_html(
    report: Report, title: str = "", facts: Mapping[str, Any] | None = None, also: Mapping[str, Report] = {}
) -> str:
    """One page that needs nothing else: verdict, facts, a chart of error against bound by layer, every number."""
    title = html.escape(title or "Comparison")
    state = "pass" if report.ok and all(other.ok for other in also.values()) else "fail"
    sections = [
        f'<header><span class="badge {state}">{state.upper()}</span><h1>{title}</h1>'
        f"<p>{html.escape(verdict(report))}.</p><p>{html.escape(own_arithmetic(report))}</p></header>",
        _facts(report, facts or {}),
        _section("Outputs", _html_table(report.outputs)),
    ]
    if report.own:
        sections.append(_section("Each module on our own inputs", _legend() + _chart(report.own)))
    if report.taps:
        sections.append(_section("The whole network, layer by layer", _legend() + _chart(report.taps)))
    if report.own:
        sections.append(_section(f"{len(report.own)} modules on our own inputs", _html_table(report.own)))
    if report.taps:
        sections.append(_section(f"{len(report.taps)} layers of the whole network", _html_table(report.taps)))
    for name, other in also.items():
        body = f"<p>{html.escape(verdict(other))}.</p>" + ("" if other.ok else _html_table(other.rows))
        sections.append(_section(f"Also: {name}", body))
    if report.missing:
        names = "".join(f"<li>{html.escape(name)}</li>" for name in report.missing)
        sections.append(_section("Modules of the reference without a counterpart", f"<ul>{names}</ul>"))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n'
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


def _section(heading: str, body: str) -> str:
    return f"<section><h2>{html.escape(heading)}</h2>{body}</section>\n"


def _facts(report: Report, facts: Mapping[str, Any]) -> str:
    pairs = {**facts, "rule": report.rule}
    cells = (f"<dt>{html.escape(key)}</dt><dd>{html.escape(str(value))}</dd>" for key, value in pairs.items())
    return f"<dl>{''.join(cells)}</dl>\n"


def _legend() -> str:
    return (
        '<p class="legend"><span class="dot ours"></span>our error <span class="dot bad"></span>out of bounds '
        '<span class="dash noise"></span>the reference’s own error <span class="dash bound"></span>bound</p>'
    )


def _chart(rows: Sequence[Row]) -> str:
    """Relative error (log scale) over layers in network order, as inline SVG."""
    width, height, left, bottom = 1000, 320, 52, 22
    numbers = [n for row in rows for n in (row.error, row.noise, row.bound) if n > 0 and math.isfinite(n)]
    if not numbers:
        return ""
    low, high = math.floor(math.log10(min(numbers))), math.ceil(math.log10(max(numbers)) + 0.2)

    def x(index: float) -> float:
        return left + (index + 0.5) / len(rows) * (width - left - 8)

    def y(value: float) -> float:
        level = math.log10(value) if value > 0 and math.isfinite(value) else low if value == 0 else high
        return (high - level) / (high - low) * (height - bottom - 8) + 8

    def path(name: str, values: Sequence[float]) -> str:
        points = " ".join(f"{x(i):.1f},{y(value):.1f}" for i, value in enumerate(values))
        return f'<polyline class="{name}" points="{points}"/>'

    grid = "".join(
        f'<line x1="{left}" x2="{width - 8}" y1="{y(10.0**p):.1f}" y2="{y(10.0**p):.1f}"/>'
        f'<text x="{left - 8}" y="{y(10.0**p) + 4:.1f}" text-anchor="end">1e{p}</text>'
        for p in range(low, high + 1, max(1, (high - low) // 8))
    )
    dots = "".join(
        f'<circle class="{"ours" if row.ok else "bad"}" cx="{x(i):.1f}" cy="{y(row.error):.1f}" '
        f'r="{3 if len(rows) < 300 else 2}"><title>{html.escape(_tooltip(row))}</title></circle>'
        for i, row in enumerate(rows)
    )
    first = next((i for i, row in enumerate(rows) if not row.ok), None)
    label = "" if first is None else (
        f'<text class="bad" x="{x(first):.1f}" y="{max(y(rows[first].error) - 10, 12):.1f}" '
        f'text-anchor="{"end" if first > len(rows) / 2 else "start"}">{html.escape(rows[first].name)}</text>'
    )  # fmt: skip
    ends = (
        f'<text x="{left}" y="{height - 4}">{html.escape(rows[0].name)}</text>'
        f'<text x="{width - 8}" y="{height - 4}" text-anchor="end">{html.escape(rows[-1].name)}</text>'
    )
    lines = path("bound", [row.bound for row in rows]) + path("noise", [row.noise for row in rows])
    return f'<svg viewBox="0 0 {width} {height}" role="img">{grid}{ends}{lines}{dots}{label}</svg>'


def _tooltip(row: Row) -> str:
    return f"{row.name} {row.kind}: {row.problem or f'{row.error:.1e} of {row.bound:.1e}'}"


def _html_table(rows: Sequence[Row]) -> str:
    body = "".join(
        f'<tr class="{"" if row.ok else "bad"}"><td class="name">{html.escape(row.name)}</td>'
        f"<td>{html.escape(row.kind)}</td><td>{_shape(row)}</td>"
        f"<td class=number>{row.error:.1e}</td><td class=number>{row.noise:.1e}</td>"
        f"<td class=number>{row.bound:.1e}</td><td>{_bar(row)}</td></tr>\n"
        for row in rows
    )
    return (
        "<table><thead><tr><th>tensor</th><th>module</th><th>shape</th><th class=number>error</th>"
        f"<th class=number>noise</th><th class=number>bound</th><th>share of the bound</th></tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def _bar(row: Row) -> str:
    """How much of the bound is used (full at 100 %), or why the tensors cannot be compared."""
    if row.problem:
        return html.escape(row.problem)
    return f'<span class="bar"><i style="width:{min(row.ratio, 1):.1%}"></i></span> {_share(row)}'


_STYLE = """
:root { color-scheme: light dark; --text: #1c2430; --soft: #667085; --page: #f6f7f9; --card: #fff; --line: #e4e7ec;
  --good: #15803d; --bad: #d92d20; --ours: #2563eb; --noise: #98a2b3; --bound: #f59e0b; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9ef; --soft: #98a2b3; --page: #0f131a; --card: #181d26;
  --line: #2b3240; --good: #4ade80; --bad: #f97066; --ours: #60a5fa; --noise: #667085; --bound: #fbbf24; } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--text); font: 15px/1.5 system-ui, sans-serif }
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 64px }
header { margin-bottom: 20px } h1 { display: inline; font-size: 26px; margin: 0 }
h2 { font-size: 16px; margin: 0 0 12px }
header p { margin: 8px 0 0; color: var(--soft) }
.badge { font-weight: 700; font-size: 13px; letter-spacing: .06em; padding: 3px 10px; border-radius: 99px;
  margin-right: 12px; vertical-align: 4px; color: var(--card); background: var(--good) }
.badge.fail { background: var(--bad) }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 20px; margin: 0 0 24px }
dt { color: var(--soft) } dd { margin: 0; overflow-wrap: anywhere }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px;
  margin-bottom: 18px; overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums }
th { text-align: left; font-weight: 500; color: var(--soft); border-bottom: 1px solid var(--line) }
th, td { padding: 4px 14px 4px 0; white-space: nowrap } .number { text-align: right }
.name { font-family: ui-monospace, monospace; font-size: 12px } tr.bad td { color: var(--bad) }
.bar { display: inline-block; width: 110px; height: 7px; border-radius: 4px; background: var(--line); overflow: hidden;
  margin-right: 6px; vertical-align: 1px }
.bar i { display: block; height: 100%; background: var(--ours) } tr.bad .bar i { background: var(--bad) }
svg { width: 100%; min-width: 640px; display: block } svg text { font: 11px system-ui, sans-serif; fill: var(--soft) }
svg line { stroke: var(--line) } svg text.bad { fill: var(--bad); font-weight: 600 }
polyline { fill: none; stroke-width: 1.5; stroke-linejoin: round }
polyline.bound { stroke: var(--bound) } polyline.noise { stroke: var(--noise); stroke-dasharray: 3 3 }
circle.ours { fill: var(--ours) } circle.bad { fill: var(--bad) }
.legend { color: var(--soft); font-size: 13px; margin: 0 0 8px }
.dot, .dash { display: inline-block; margin: 0 6px 2px 14px; vertical-align: middle }
.dot { width: 8px; height: 8px; border-radius: 9px }
.dash { width: 18px; height: 0; border-top: 2px solid } .dash.noise { border-top-style: dashed; color: var(--noise) }
.dash.bound { color: var(--bound) } .dot.ours { background: var(--ours) } .dot.bad { background: var(--bad) }
.legend > :first-child { margin-left: 0 } ul { columns: 2; font: 12px ui-monospace, monospace }
"""
