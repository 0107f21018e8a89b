"""The models by name. A module in `zoo/models` registers its variants with a decorator; nothing lists them by hand."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError, closest
from zoo.tasks.spec import Preprocess

if TYPE_CHECKING:
    from zoo.network import Net, Tensor
    from zoo.weights import Weights

Build = Callable[["Net", "Tensor", Any], "Tensor | dict[str, Tensor]"]
Configure = Callable[["Weights", Any], Any]


@dataclass(frozen=True)
class Model:
    """One variant of an architecture.

    `build(net, x, config)` returns the output tensor ("logits"), or several by name. `reference` says where the
    published PyTorch model is ("torchvision:resnet50"). `configure(weights, config)` returns the config that the
    weights call for (class count, width …). `input` is (C, H, W), the published size. `ignored` are patterns of
    tensors that a checkpoint holds and inference does not need. `iou` is the reference's own threshold of non-maximum
    suppression.
    """

    name: str
    task: str
    build: Build
    config: Any
    reference: str
    preprocess: Preprocess
    input: tuple[int, int, int]
    paper: str
    aliases: tuple[str, ...] = ()
    configure: Configure | None = None
    ignored: tuple[str, ...] = ()
    iou: float = 0.7

    def configured(self, weights: Weights) -> Model:
        """This model with the configuration that `weights` call for; random weights fit any."""
        if self.configure is None or weights.generated:
            return self
        return replace(self, config=self.configure(weights, self.config))


_models: dict[str, Model] = {}
_owners: dict[str, str] = {}  # every name and alias -> the module that registered it


def register(
    *,
    task: str,
    reference: str,
    preprocess: Preprocess,
    paper: str,
    channels: int = 3,
    configure: Configure | None = None,
    aliases: Mapping[str, str] | None = None,
    ignored: tuple[str, ...] = (),
    iou: float = 0.7,
    **variants: Any,
) -> Callable[[Build], Build]:
    """Registers `build` under each keyword in `variants`, whose value is the variant's config.

    `reference` may hold `{name}`. `aliases` maps other names to variants. The other fields are those of `Model`. A name
    that is taken already is an error, and so is an alias of no variant.
    """
    aliases = aliases or {}

    def decorator(build: Build) -> Build:
        for alias, target in aliases.items():
            if target not in variants:
                raise ValueError(f"'{alias}' is an alias of '{target}', which is not among {', '.join(variants)}")
        _claim([*variants, *aliases], build.__module__)
        for name, config in variants.items():
            _models[name] = Model(
                name=name,
                task=task,
                build=build,
                config=config,
                reference=reference.format(name=name),
                preprocess=preprocess,
                input=(channels, preprocess.size, preprocess.size),
                paper=paper,
                aliases=tuple(alias for alias, target in aliases.items() if target == name),
                configure=configure,
                ignored=ignored,
                iou=iou,
            )
        return build

    return decorator


def _claim(names: list[str], module: str) -> None:
    """Takes `names` for a module, all or none."""
    for name in names:
        if name in _owners:
            raise ValueError(f"two models are named '{name}': in {_owners[name]} and in {module}")
    _owners.update(dict.fromkeys(names, module))


def classes_from(bias: str) -> Configure:
    """A `configure` that reads the class count from the size of the last layer's bias."""

    def configure(weights: Weights, config: Any) -> Any:
        return replace(config, num_classes=weights.size(bias)) if bias in weights else config

    return configure


@functools.cache
def _scan() -> dict[str, Model]:
    """Imports every module of zoo.models once."""
    import zoo.models

    for module in pkgutil.iter_modules(zoo.models.__path__):
        importlib.import_module(f"zoo.models.{module.name}")
    return _models


def list_models(pattern: str = "", task: str | None = None) -> list[str]:
    """The names that contain `pattern` (or match it, when it has * or ?), file by file; only of `task` if given."""
    import fnmatch

    wanted = pattern if any(c in pattern for c in "*?[") else f"*{pattern}*"
    models = _scan().values()
    return [m.name for m in models if fnmatch.fnmatch(m.name, wanted) and task in (None, m.task)]


def get_model(name: str) -> Model:
    """The model `name`, or the one with that alias. Raises ZooError with the closest names."""
    models = _scan()
    if name in models:
        return models[name]
    aliases = {alias: model for model in models.values() for alias in model.aliases}
    if name in aliases:
        return aliases[name]
    hint = closest(name, [*models, *aliases]) or "; `python -m zoo.list` shows them all"
    raise ZooError(f"no model is named '{name}'{hint}")


def siblings(model: Model) -> list[Model]:
    """The other variants of the same architecture."""
    return [other for other in _scan().values() if other.build is model.build and other.name != model.name]
