"""`python -m zoo.plugins`: the custom ops and what they become here, and where the library with their kernels is."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from zoo.cli import Json, command, print_json
from zoo.errors import ZooError, one_of
from zoo.plugins import all_ops
from zoo.plugins.core import shell
from zoo.plugins.core.op import Op, choose, why_not
from zoo.trt import Api, load

IMPLEMENTATIONS = ("native", "cuda", "builtin")


def run(
    action: Annotated[str, typer.Argument(help="list, or build: compiles the library if need be, says where it is.")],
    as_json: Json = False,
) -> None:
    """Lists the custom ops and what they become here, or builds the library that TensorRT loads for their kernels."""
    if one_of("action", action, ("list", "build")) == "build":
        _build(as_json)
    else:
        _list(as_json)


def _build(as_json: bool) -> None:
    path = shell.build()
    if as_json:
        print_json({"library": str(path), "format": shell.FORMAT})
    else:
        print(path)


def _list(as_json: bool) -> None:
    api = _tensorrt()
    rows = [_row(op, api) for op in all_ops().values()]
    if as_json:
        print_json({"tensorrt": api and api.name, "ops": rows})
        return
    print(f"{len(rows)} custom ops, for {api.name if api else 'no TensorRT, since none can be used here'}")
    for op, row in zip(all_ops().values(), rows):
        print(f"{op.name} {op.version}: {op.reference}")
        for how, reason in row["implementations"].items():
            print(f"  {how:8} {f'not here: {reason}' if reason else 'available'}")
        print(f"  auto     {row['auto']}{'' if op.figures else ', since its kernels are not measured'}")
        for figure in op.figures:
            print(f"    cuda {figure.kernel:g} us, native {figure.native:g} us: {figure.case} ({figure.where})")


def _tensorrt() -> Api | None:
    """The TensorRT that networks would be built for here, or None."""
    try:
        return load()
    except ZooError:
        return None


def _row(op: type[Op], api: Api | None) -> dict[str, Any]:
    """`implementations` maps each that the op has to why it cannot be used here, or None."""
    return {
        "op": op.name,
        "version": op.version,
        "reference": op.reference,
        "implementations": {how: why_not(op, api, how) for how in IMPLEMENTATIONS if how in op.implementations()},
        "auto": choose(op, api, "auto"),
        "figures": [dataclasses.asdict(figure) for figure in op.figures],
    }


main = command(run)

if __name__ == "__main__":
    main()
