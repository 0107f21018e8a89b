"""`python -m zoo.verify`: a model against its PyTorch reference."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from zoo.cli import Bf16, Fp16, Json, Size, WeightsOption, command, note, precision_name, print_json, progress, size_of
from zoo.errors import ZooError
from zoo.text import LONGEST, clean


def run(
    model: Annotated[str, typer.Argument(help="A name from python -m zoo.list.")],
    layers: Annotated[
        bool,
        typer.Option("--layers", help="Show every layer. On a GPU, where reading them changes kernels: judge them."),
    ] = False,
    fp16: Fp16 = False,
    bf16: Bf16 = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="int8 where --scales says so, against PyTorch's fake quantisation.")
    ] = False,
    fp8: Annotated[bool, typer.Option("--fp8", help="The same for fp8, against PyTorch's float8_e4m3fn.")] = False,
    scales: Annotated[
        Path | None,
        typer.Option(
            "--scales",
            help="--int8, --fp8: what zoo.calibrate wrote, for these --weights. Default: of the proof's images.",
            show_default=False,
        ),
    ] = None,
    weights: WeightsOption = None,
    golden: Annotated[
        Path | None,
        typer.Option(
            "--golden",
            help="Compare with this golden file instead of the reference: needs no PyTorch.",
            show_default=False,
        ),
    ] = None,
    own_module: Annotated[
        Path | None,
        typer.Option(
            "--own-module",
            help="A .pt file with a whole module: its weights, compared with this module instead of the published one. "
            "PyTorch unpickles it, which runs the code in it: only for files that you trust.",
            show_default=False,
        ),
    ] = None,
    engine: Annotated[
        Path | None,
        typer.Option(
            "--engine",
            help="Keep the outcome in the description of this engine, which is of MODEL, these --weights and this "
            "precision.",
            show_default=False,
        ),
    ] = None,
    size: Size = None,
    device: Annotated[str, typer.Option("--device", help="cpu or gpu.")] = "cpu",
    html: Annotated[
        Path | None, typer.Option("--html", help="Also write the report as a web page.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Proves MODEL: every output, and every layer on our own inputs to it, within 4 x what the reference loses in fp32.

    A second size and batch are proven too. --fp16 and --bf16 are compared with our own fp32: at most 2 x what the
    reference loses. --int8 and --fp8 are compared with PyTorch's fake quantisation by the rule of fp32. Without
    --weights both sides get calibrated random weights. Exit status 0 when PASSED, 1 when FAILED.
    """
    from zoo.registry import get_model
    from zoo.verify import report as reports

    precision = precision_name(fp16, bf16, int8, fp8)
    proof, kept_in = _prove(model, layers, precision, weights, golden, own_module, size, device, scales, engine)
    facts = {"model": proof.model, "precision": proof.precision, "weights": proof.weights, "executor": proof.executor}
    title = f"{proof.model} {proof.precision}"
    if html:
        reports.write_html(html, proof.report, title, facts, proof.also)
    if kept_in is not None:
        note(f"{kept_in.note(reports.outcome(proof, get_model(model).reference))}: keeps the outcome")
    if as_json:
        print_json(reports.proof_dict(proof, title, facts))
    else:
        from rich.console import Console

        console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
        console.print(f"{title}: {clean(proof.weights, LONGEST)}, {proof.executor}", markup=False)
        console.print(reports.proof_to_terminal(proof, layers))
    sys.exit(0 if proof.ok else 1)


def _prove(
    name: str,
    layers: bool,
    precision: Any,
    weights: str | None,
    golden: Path | None,
    own_module: Path | None,
    size: str | None,
    device: str,
    scales: Path | None,
    engine: Path | None,
) -> tuple[Any, Any]:
    """The proof, and the engine whose description shall keep its outcome."""
    from zoo.api import find_weights
    from zoo.engine.proofs import provable
    from zoo.quantization import load_scales
    from zoo.registry import get_model
    from zoo.trt import load, load_to_define
    from zoo.verify import proof
    from zoo.verify.golden import load_golden

    entry = get_model(name)
    if device not in ("cpu", "gpu"):
        raise ZooError(f"the device is '{device}'; it must be cpu or gpu")
    quantised = precision in ("int8", "fp8")
    if scales is not None and (not quantised or weights is None):
        raise ZooError("--scales FILE belongs to --int8 and to the --weights it was calibrated with; give all three")
    if quantised and device == "gpu":
        raise ZooError(f"{precision} is proven on the CPU; leave --device gpu away")
    ranges = load_scales(scales) if scales is not None else None
    if layers and precision in ("fp16", "bf16"):
        raise ZooError(
            "--layers shows errors along the network, which are judged in fp32, int8 and fp8 only: "
            "leave it away, or --fp16 and --bf16"
        )
    if own_module is not None and (weights is not None or golden is not None):
        raise ZooError("--own-module FILE takes the weights from the same file: leave --weights and --golden away")
    how = _on_gpu() if device == "gpu" else {}
    api = load("tensorrt") if device == "gpu" else load_to_define(precision)
    if golden is not None:
        if precision != "fp32" or size:
            raise ZooError(
                "a golden file holds the reference's fp32 at its own size: leave --fp16, --bf16 and --size away"
            )
        source, runs = find_weights(entry, weights), load_golden(golden, entry.name)
        kept_in = provable(engine, entry.name, precision, source, ranges) if engine is not None else None
        with progress() as say:
            say("running the network")  # on a GPU it is compiled first
            return proof.prove_golden(entry, api, source, *runs, **how), kept_in
    proof.require_reference()
    file = weights or own_module
    source = find_weights(entry, file) if file is not None else None
    if source is not None and own_module is not None:
        source.modules = ()  # what the modules do is compared, not what they say
    wanted = size_of(size)
    kept_in = provable(engine, entry.name, precision, source, ranges) if engine is not None else None
    with progress() as say:
        found = proof.prove(
            entry,
            api,
            source,
            precision=precision,
            layers=layers or device == "cpu",
            size=wanted,
            progress=say,
            own_module=own_module,
            scales=ranges,
            **how,
        )
    return found, kept_in


def _on_gpu() -> dict[str, Any]:
    """How to execute on the GPU: TensorRT's own kernels, TF32 off."""
    from zoo.driver import device_name
    from zoo.runtime.engines import execute_on_gpu
    from zoo.verify.proof import factor_on_gpu

    return {"execute": execute_on_gpu, "executor": f"TensorRT on {device_name()}", "factor": factor_on_gpu}


main = command(run)

if __name__ == "__main__":
    main()
