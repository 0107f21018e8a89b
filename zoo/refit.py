"""`python -m zoo.refit`: other weights into an engine, without compiling it again."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli import Json, command, print_json, progress
from zoo.errors import Refused, ZooError

if TYPE_CHECKING:
    import numpy as np

    from zoo.engine.passport import Engine
    from zoo.network import Definition
    from zoo.trt import Api
    from zoo.weights import Weights

# The attributes of layers that hold weights, and what TensorRT calls these when it takes others.
_FILTERS = {"kernel": "KERNEL", "bias": "BIAS"}
ROLES = {
    "CONVOLUTION": _FILTERS,
    "DECONVOLUTION": _FILTERS,
    "CONSTANT": {"weights": "CONSTANT"},
    "SCALE": {"scale": "SCALE", "shift": "SHIFT"},
}
Table = Mapping[tuple[str, str], "np.ndarray"]


def run(
    engine: Annotated[Path, typer.Argument(help="An engine that was built with --refit, or with --strip-plan.")],
    weights: Annotated[str, typer.Argument(help="A .safetensors, .wts or .pt file of the same network.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where it goes. Default: in ENGINE's place.", show_default=False),
    ] = None,
    host_code: Annotated[
        bool, typer.Option("--host-code", help="Allow an engine to run the library that it carries.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Puts WEIGHTS into ENGINE in the place of its own, by their PyTorch names, in seconds; needs the engine's GPU.

    The network must be the same: weights of other classes or sizes need a build of their own. Normalisations are folded
    into convolutions on the way, as a build does. Without --output the engine's file is replaced.
    """
    from zoo.engine.passport import load_engine
    from zoo.files import checked_destination
    from zoo.weights import parse_weights

    started = time.perf_counter()
    path = checked_destination(output or engine)
    before = load_engine(engine)
    found = parse_weights(weights, before.description["model"])
    with progress() as say:
        say(f"putting {found.name} into {engine}")
        after = refitted(before, found, engine, host_code=host_code)
    after.save(path)
    seconds = round(time.perf_counter() - started, 2)
    if as_json:
        print_json({**after.description, "engine": str(path), "seconds": seconds})
    else:
        print(f"{path}: {len(after.data) / 1e6:.1f} MB, {after.description['model']} with {found.name}, {seconds} s")


def refitted(engine: Engine, weights: Weights, path: Path = Path("ENGINE"), *, host_code: bool = False) -> Engine:
    """`engine` with other weights, and its description with them. `path` names it in messages.

    Raises ZooError for an engine that cannot have them, for weights of another network, and without its GPU.
    """
    from zoo.driver import driver_problem
    from zoo.engine.flags import check_host_code
    from zoo.engine.passport import Engine, labels, rebuild_at, rebuild_command
    from zoo.engine.plugins import bring
    from zoo.runtime.compatibility import device_properties, why_not_loadable
    from zoo.trt import load

    about = engine.description
    _check(about, weights, rebuild_at(path, about))
    if driver_problem():
        raise ZooError(f"{driver_problem()}; weights are put into an engine on a GPU that runs it")
    api = load(about["flavour"])
    whole = {**about, "flags": {name: value for name, value in about.get("flags", {}).items() if name != "strip_plan"}}
    problem = why_not_loadable(whole, api, device_properties(), rebuild_at(path, about))
    if problem:
        raise ZooError(problem)
    check_host_code(about, host_code)
    bring(about, api, host_code)
    definition = definition_for(about, weights, api)
    data = refit(engine.data, weights_of(definition), api, host_code=host_code)
    described = {
        **whole,
        "proof": None,  # it was of the weights before
        "labels": labels(weights.metadata),
        "weights": {"file": str(Path(weights.name).absolute()), "sha256": weights.digest()},
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    return Engine(data, {**described, "rebuild": rebuild_command(described)})


def _check(about: Mapping[str, Any], weights: Weights, rebuild: str) -> None:
    """Raises ZooError for what an engine's description already excludes."""
    from zoo.engine.flags import flags_of

    flags = flags_of(about)
    if not flags.refit and not flags.strip_plan:
        raise ZooError(f"the engine was built without --refit, so its weights stay; to build one: {rebuild} --refit")
    if not flags.refit and weights.digest() != about["weights"]["sha256"]:
        raise ZooError(
            f"the engine was built with --strip-plan alone and takes back its own weights, {about['weights']['file']}; "
            f"{weights.name} has other content; --refit beside it takes any"
        )
    if about["precision"] in ("int8", "fp8"):
        raise ZooError(
            f"the ranges of an {about['precision']} engine are of its weights: calibrate the new ones, "
            "and build it anew"
        )


def definition_for(about: dict[str, Any], weights: Weights, api: Api) -> Definition:
    """The network of a description with other weights. Raises ZooError where they make another network."""
    from zoo.engine.definition import define
    from zoo.engine.end2end import end2end_of
    from zoo.engine.passport import io_of, model_of, modules_of, precision_of, shapes_of
    from zoo.engine.plugins import plugins_of

    definition = define(
        model_of(about), weights, api, shapes_of(about).network, precision_of(about),
        plugins_of(about).policy, end2end_of(about), io_of(about),
    )  # fmt: skip
    had, has = (about.get("modules") or {}), modules_of(definition)
    for path in {**had, **has} if had else ():
        then, now = had.get(path), has.get(path)
        if then != now:
            counts = [f"{module['parameters']:,} parameters" if module else "nothing" for module in (then, now)]
            raise ZooError(
                f"{weights.name} makes another network than the engine's: '{path}' is {counts[0]} there, {counts[1]} "
                "here; build it anew"
            )
    return definition


def weights_of(definition: Definition) -> dict[tuple[str, str], np.ndarray]:
    """What the layers of a definition hold, by (layer, role): flat arrays in the types that they have there, which are
    good as long as the definition is."""
    from zoo.onnx.reading import Layer

    trt, found = definition.api.trt, {}
    for index in range(definition.network.num_layers):
        layer = Layer(definition.network.get_layer(index), trt, definition.arrays)
        roles = ROLES.get(layer.kind, {})
        if roles:
            layer.downcast(trt)
        for attribute, role in roles.items():
            array = layer.weights(attribute)
            if array is not None:
                found[layer.name, role] = array
    return found


def refit(plan: bytes, table: Table, api: Api, *, host_code: bool = False) -> bytes:
    """The serialised engine with the weights of `table`. Raises ZooError with TensorRT's words."""
    trt, log = api.trt, api.log
    log.drain()
    runtime = trt.Runtime(log.logger)
    if host_code:
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise Refused(f"{api.name} cannot load the engine: {log.drain() or 'it gave no reason'}")
    refitter, kept = trt.Refitter(engine, log.logger), []
    for name, role in zip(*refitter.get_all()):
        if (name, role.name) not in table:
            raise ZooError(f"the engine wants weights for '{name}' ({role.name}), which this definition has not")
        array = table[name, role.name]
        packed = _packed(api, array)
        kept.append((array, packed))  # TensorRT reads them when it refits
        if not refitter.set_weights(name, role, packed):
            raise Refused(f"{api.name} refused the weights of '{name}' ({role.name}): {log.drain()}")
    if not refitter.refit_cuda_engine():
        raise Refused(f"{api.name} could not refit the engine: {log.drain() or 'it gave no reason'}")
    return bytes(engine.serialize())


def _packed(api: Api, array: np.ndarray) -> Any:
    """Weights as TensorRT takes them; bf16 has no type in numpy itself."""
    if api.strong and array.dtype.name == "bfloat16":
        return api.trt.Weights(api.trt.bfloat16, array.ctypes.data, array.size)
    return array


main = command(run)

if __name__ == "__main__":
    main()
