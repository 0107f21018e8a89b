"""The proof of an engine's network, kept in the engine's description: `python -m zoo.verify MODEL … --engine FILE`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.engine.passport import description_path, load_description, now, precision_of, write_description
from zoo.errors import ZooError
from zoo.files import locked_folder
from zoo.network import PrecisionName
from zoo.quantization import Scales
from zoo.weights import Weights


@dataclass(frozen=True)
class Provable:
    """An engine that a proof is of. Its outcome goes into the description of this engine and of no other."""

    engine: Path
    sha256: str

    def note(self, outcome: dict[str, Any]) -> Path:
        """Writes `outcome` (JSON data: ok, said, reference, executor) and the time into the description. Raises
        ZooError where the engine was replaced since."""
        try:
            with locked_folder(self.engine.parent):
                description = load_description(self.engine)
                if description["sha256"] != self.sha256:
                    raise ZooError(f"{self.engine} was replaced while its network was proven; prove it again")
                return write_description(self.engine, {**description, "proof": {**outcome, "date": now()}})
        except OSError as error:
            raise ZooError(f"cannot write {description_path(self.engine)}: {error.strerror}") from None


def provable(
    engine: Path, model: str, precision: PrecisionName, weights: Weights | None, scales: Scales | None
) -> Provable:
    """The engine, if a proof of `model` in `precision` with `weights` and `scales` is one of its network, else ZooError
    that says what differs."""
    about = load_description(engine)
    policy = precision_of(about)
    if weights is None or weights.digest() != about["weights"]["sha256"]:
        given = weights.name if weights else "random weights"
        raise ZooError(f"{engine} was built from {about['weights']['file']}, not from {given}; give these by --weights")
    if (model, precision) != (about["model"], policy.name):
        raise ZooError(f"{engine} is of {about['model']} in {policy.name}, the proof of {model} in {precision}")
    if policy.islands:
        raise ZooError(f"{engine} keeps {', '.join(policy.islands)} in fp32, and no proof is of a part in fp32")
    if policy.scales != scales:
        raise ZooError(f"{engine} was built with other ranges; give its own: --scales {description_path(engine)}")
    return Provable(engine, about["sha256"])
