"""`python -m zoo.inspect`: what a file is, read as data, with neither a GPU nor TensorRT."""

from __future__ import annotations

import hashlib
import html
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from zoo.cli import Json, command, print_json
from zoo.errors import ZooError
from zoo.text import LONGEST, clean

JOINED = 12  # values of a list that are written out
DEEPEST = 50  # names below each other that are told apart: a file may hold any


@dataclass
class Module:
    """A place in the tree of modules. `what` it is and the `shape` of what it gives ("" where that is not known) are
    its own, `parameters` those of all below it too."""

    name: str
    what: str = ""
    shape: str = ""
    parameters: int = 0
    children: dict[str, Module] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        below = [child.to_dict() for child in self.children.values()]
        return {"name": self.name, "what": self.what, "shape": self.shape, "parameters": self.parameters} | (
            {"children": below} if below else {}
        )


@dataclass(frozen=True)
class Inspection:
    """What a file is in one line, what it says, and its modules as a tree."""

    what: str
    facts: Mapping[str, Any]
    modules: Module


def run(
    file: Annotated[
        Path, typer.Argument(help="An engine or its description, an ONNX file, weights, or the scales of int8.")
    ],
    depth: Annotated[int, typer.Option("--depth", min=0, help="How deep modules are printed.")] = 2,
    page: Annotated[
        Path | None,
        typer.Option("--html", help="Also write a web page, with the modules as a tree.", show_default=False),
    ] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Also an engine's layers, as TensorRT compiled them; needs its GPU.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Says what FILE is and what it holds: model, precision, shapes, origin, and the network by module.

    Nothing in the file is run. Only --layers needs a GPU and TensorRT.
    """
    found = inspect(file)
    compiled = _layers(file) if layers else None
    if page is not None:
        _write(page, to_html(found, file.name))
    if as_json:
        data = {"file": str(file), "what": found.what, **found.facts, "modules": found.modules.to_dict()}
        print_json(data | ({"layers": compiled} if compiled is not None else {}))
        return
    print(f"{clean(str(file), LONGEST)}: {found.what}")
    for name, text in _rows(found.facts):
        print(f"  {name:26} {text}".rstrip())
    print("\n".join(_tree(found.modules, depth)))
    for line in compiled or ():
        print(clean(line, LONGEST))


def inspect(path: Path) -> Inspection:
    """What the file `path` is, told by its content. Raises ZooError for what is damaged, or is nothing known here."""
    from zoo.engine.passport import description_path

    if path.suffix == ".json":
        return _json_file(path)
    if description_path(path).is_file() or path.suffix in (".engine", ".plan", ".trt"):
        return _engine(path)
    return _onnx(path) if path.suffix == ".onnx" else _weights(path)


def _json_file(path: Path) -> Inspection:
    from zoo.quantization import load_scales

    if path.name.endswith((".engine.json", ".plan.json", ".trt.json")):
        return _engine(path.with_suffix(""))
    scales = load_scales(path)
    facts = {key: value for key, value in scales.to_dict().items() if key not in ("amax", "file")}
    tree = Module("network")
    for site, largest in scales.amax.items():
        _add(tree, site, f"up to {largest:.4g}")
    return Inspection(f"scales of int8 for {scales.model}, {len(scales.amax)} tensors", facts, tree)


def _engine(path: Path) -> Inspection:
    from zoo.engine.passport import gpus_of, load_description, rebuild_at, shapes_of

    about = load_description(path)
    tree = Module(about["model"])
    for module, known in (about.get("modules") or {}).items():
        _add(tree, module, known["op"] or "", _shape(known["shape"]), known["parameters"])
    facts = {key: value for key, value in about.items() if key not in ("format", "modules", "rebuild", "sha256")}
    facts |= {"intact": _is_intact(path, about["sha256"]), "rebuild": rebuild_at(path, about)}
    what = f"an engine of {about['model']}, {about['precision']}, input {shapes_of(about)}, {about['flavour']}"
    return Inspection(f"{what} {about['version']} for {gpus_of(about)}", facts, tree)


def _is_intact(path: Path, digest: str) -> bool | None:
    """Whether the engine is the one described; None where there is none."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return hashlib.sha256(data).hexdigest() == digest
    except (OSError, ValueError):  # or empty
        return None


def _onnx(path: Path) -> Inspection:
    from zoo.onnx.summary import summary

    found = summary(path)
    tree = Module("network")
    for module, (kinds, shape, parameters) in found.modules.items():
        _add(tree, module, kinds, _shape(shape), parameters)
    said = found.facts["metadata"]
    named = f" of {clean(said['model'], LONGEST)}" if "model" in said else ""
    inputs = ", ".join(found.facts["inputs"].values())
    return Inspection(f"an ONNX network{named}, input {clean(inputs, LONGEST)}", found.facts, tree)


def _weights(path: Path) -> Inspection:
    from zoo.weights import load_weights
    from zoo.weights.families import family_of

    weights = load_weights(path)
    kinds = {module.path: module.kind for module in weights.modules}
    tree = Module("network")
    for name in weights.names():
        _add(tree, name, kinds.get(name, ""), _shape(weights.shape(name)), weights.size(name))
    for module, kind in kinds.items():
        _add(tree, module, kind)
    family = family_of(weights)
    facts = {
        "bytes": path.stat().st_size,
        "sha256": weights.digest(),
        "tensors": len(weights.names()),
        "values": tree.parameters,
        "holds": family.what if family else None,
        "metadata": weights.metadata,
    }
    return Inspection(f"weights, {len(weights.names())} tensors of {tree.parameters:,} values", facts, tree)


def _add(tree: Module, path: str, what: str, shape: str = "", parameters: int = 0) -> None:
    """Puts a module into the tree. What its parents hold grows."""
    place = tree
    place.parameters += parameters
    for name in path.split(".", DEEPEST) if path else ():
        place = place.children.setdefault(name, Module(name))
        place.parameters += parameters
    place.what, place.shape = place.what or what, place.shape or shape


def _shape(sizes: Any) -> str:
    """ "Nx64x56x56": the axis that is open is usually the batch."""
    return "" if sizes is None else "x".join("?" if n == -1 else str(n) for n in sizes)


def _layers(path: Path) -> list[str]:
    """A line for each layer of an engine, as TensorRT's inspector tells them. Raises ZooError where it cannot run."""
    from zoo.driver import driver_problem
    from zoo.engine.passport import load_engine, rebuild_at
    from zoo.measure.inspector import inspect_engine, layer_line
    from zoo.runtime.compatibility import device_properties, why_not_loadable
    from zoo.trt import load

    engine = load_engine(path)
    if driver_problem():
        raise ZooError(f"{driver_problem()}; leave --layers away")
    api = load(engine.description["flavour"])
    problem = why_not_loadable(engine.description, api, device_properties(), rebuild_at(path, engine.description))
    if problem:
        raise ZooError(problem)
    return [layer_line(entry) for entry in inspect_engine(engine.data, api).get("Layers", [])]


def _rows(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Facts as lines of a name and a text; one that has parts takes a line for each."""
    for name, value in facts.items():
        parts = {f"{name}.{key}": part for key, part in value.items()} if isinstance(value, Mapping) else {name: value}
        yield from ((clean(key, LONGEST), clean(_said(part), LONGEST)) for key, part in parts.items())


def _said(value: Any) -> str:
    if value is None or value in ([], {}):
        return "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_said(part)}" for key, part in value.items())
    if isinstance(value, (list, tuple)):
        parts = [*map(_said, value[:JOINED]), *([f"… {len(value) - JOINED} more"] if len(value) > JOINED else [])]
        return ("x" if all(type(part) is int for part in value) else ", ").join(parts)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _tree(module: Module, depth: int, indent: int = 1) -> Iterator[str]:
    for child in module.children.values() if depth else ():
        name, what = "  " * indent + clean(child.name, LONGEST), f"{child.what}  {child.shape}".strip()
        yield f"{name:32} {child.parameters:>13,}  {clean(what, LONGEST)}".rstrip()
        yield from _tree(child, depth - 1, indent + 1)


def _write(path: Path, text: str) -> None:
    from zoo.files import replacing

    with replacing(path) as file:
        file.write(text.encode())


def to_html(found: Inspection, title: str) -> str:
    """One page that needs nothing else: what the file says, and its modules as a tree that opens by a click."""
    facts = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in _rows(found.facts))
    tree = "".join(_branch(child, found.modules.parameters, 0) for child in found.modules.children.values())
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{_text(title)}</title>
<style>{_CSS}</style>
<main>
<h1>{_text(title)}</h1>
<p>{_text(found.what)}</p>
<section><h2>Modules</h2>
<div class="row head"><span>module</span><span>what</span><span>gives</span><b>parameters</b><i></i></div>
{tree or "<p>The file does not say which modules it has.</p>"}</section>
<section><h2>Description</h2><dl>{facts}</dl></section>
</main>
</html>
"""


def _branch(module: Module, total: int, level: int) -> str:
    share = module.parameters / total if total else 0
    row = (
        f"<span class=name style='padding-left:{level * 18}px'>{_text(module.name)}</span>"
        f"<span>{_text(module.what)}</span><span>{_text(module.shape)}</span><b>{module.parameters:,}</b>"
        f"<i><u style='width:{share:.2%}'></u></i>"
    )
    if not module.children:
        return f"<div class=row>{row}</div>\n"
    below = "".join(_branch(child, total, level + 1) for child in module.children.values())
    return f"<details{' open' if level == 0 else ''}><summary class=row>{row}</summary>\n{below}</details>\n"


def _text(value: str) -> str:
    """What came from a file, as text of the page and nothing else."""
    return html.escape(clean(value))


_CSS = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --text: #1c2330; --soft: #667085; --line: #e3e6eb;
  --bar: #3b6fd4 }
@media (prefers-color-scheme: dark) { :root { --page: #12151b; --card: #1a1f28; --text: #e6e9ef; --soft: #98a2b3;
  --line: #2b323e; --bar: #6c9bf0 } }
body { margin: 0; background: var(--page); color: var(--text); font: 14px/1.5 system-ui, sans-serif }
main { max-width: 1180px; margin: 0 auto; padding: 32px 20px 64px }
h1 { font-size: 24px; margin: 0; overflow-wrap: anywhere } h2 { font-size: 16px; margin: 0 0 10px }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px;
  margin-top: 18px }
.row { display: grid; grid-template-columns: minmax(180px, 2fr) 2fr 1.5fr 110px 120px; gap: 12px; padding: 2px 6px;
  border-radius: 5px; align-items: center; font-variant-numeric: tabular-nums }
.row:hover { background: var(--page) } .head { color: var(--soft) } .head b { font-weight: 400 }
.row span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap } .row b { text-align: right }
.row b { font-weight: 500 } .row i { height: 7px; border-radius: 4px; background: var(--line); overflow: hidden }
.row u { display: block; height: 100%; background: var(--bar) } .head i { background: none }
summary { cursor: pointer; list-style: none } summary .name::before { content: "▸ "; color: var(--soft) }
details[open] > summary .name::before { content: "▾ " } .name { font-family: ui-monospace, monospace }
div > .name::before { content: "  "; white-space: pre }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 20px; margin: 0 }
dt { color: var(--soft) } dd { margin: 0; overflow-wrap: anywhere }
"""

main = command(run)

if __name__ == "__main__":
    main()
