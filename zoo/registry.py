"""The models by name. A module registers its variants with a decorator; `zoo.discovery` finds the modules."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from zoo import discovery
from zoo.cascades import Cascade, all_cascades, find_cascade
from zoo.errors import ZooError, closest
from zoo.preprocess import Preprocess
from zoo.tasks import get_task

if TYPE_CHECKING:
    from zoo.network import Net, Tensor
    from zoo.weights import Weights

Build = Callable[["Net", "Tensor", Any], "Tensor | dict[str, Tensor]"]
Configure = Callable[["Weights", Any], Any]


@dataclass(frozen=True)
class Variant:
    """One network of an architecture, as `register` takes it.

    `params` is the parameter count that upstream or the paper publishes, written by hand: tests hold the definition and
    the reference to it. What is None is the decorator's; `input` is then what the preprocessing makes, (C, H, W).
    """

    config: Any
    params: int
    _: KW_ONLY
    preprocess: Preprocess | None = None
    input: tuple[int, int, int] | None = None
    reference: str | None = None
    paper: str | None = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Model:
    """One variant of an architecture, registered.

    `build(net, x, config)` returns the output tensor ("logits"), or several by name. `params` is the published number
    of parameters. `reference` says where the published PyTorch model is ("torchvision:resnet50"). `input` is (C, H, W),
    the published size. `configure(weights, config)` returns the config that the weights call for (class count, width
    …). `ignored` are patterns of tensors that a checkpoint holds and inference does not need. `options` are this
    model's defaults for the options of its task, such as the reference's own threshold of non-maximum suppression.
    `ends` are the module paths that the network ends at, whose tensors are then its outputs; none: it is whole.
    """

    name: str
    task: str
    build: Build
    config: Any
    params: int
    reference: str
    preprocess: Preprocess
    input: tuple[int, int, int]
    paper: str
    aliases: tuple[str, ...] = ()
    configure: Configure | None = None
    ignored: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    ends: tuple[str, ...] = ()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickled by its name and by what differs from the registered model: functions of `register` stay behind."""
        known = _models.get(self.name)
        if known is None:
            return super().__reduce_ex__(protocol)
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        return _unpickled, (self.name, {name: value for name, value in own.items() if value != getattr(known, name)})

    def configured(self, weights: Weights) -> Model:
        """This model with the configuration that `weights` call for; random weights fit any."""
        if self.configure is None or weights.generated:
            return self
        return replace(self, config=self.configure(weights, self.config))

    def features(self, *paths: str) -> Model:
        """This network up to the modules at `paths`, as PyTorch names them, for embeddings and backbones: what they
        return are its outputs, by path, and what it does not need for them is left out of engines and ONNX files.

        A module that is called several times has the paths "relu", "relu:1" … Of a module made of others it is what
        leaves it; where PyTorch's module only rearranges that at its end (to tokens, to channels last), it comes as it
        was before. Weights are those of the whole network. A path that the network does not have is told when it is
        defined. Raises ZooError without a path.
        """
        if not paths or not all(isinstance(path, str) and path for path in paths):
            raise ZooError(f"features of {self.name} end at module paths, such as 'layer3'; {paths!r} names none")
        return replace(self, task="features", options={}, ends=tuple(dict.fromkeys(paths)))


def _unpickled(name: str, changes: dict[str, Any]) -> Model:
    model = get_model(name)
    return replace(model, **changes) if changes else model


_models: dict[str, Model] = {}
_owners: dict[str, str] = {}  # every name and alias -> the module that registered it


def register(
    *,
    task: str,
    reference: str,
    preprocess: Preprocess,
    paper: str,
    configure: Configure | None = None,
    ignored: tuple[str, ...] = (),
    options: Mapping[str, Any] | None = None,
    **variants: Variant,
) -> Callable[[Build], Build]:
    """Registers `build` under each keyword in `variants`, all or none.

    `reference` may hold `{name}`. The fields are those of `Model`; each variant may have its own. Raises ValueError for
    a name that is taken, and for a field that cannot be what it says; ZooError for what the task does not know or
    cannot have.
    """

    def decorator(build: Build) -> Build:
        known = get_task(task)
        known.settings(options or {})
        models = {}
        for name, variant in variants.items():
            _check(name, variant)
            spec = variant.preprocess or preprocess
            known.check_preprocess(spec)
            models[name] = Model(
                name=name,
                task=task,
                build=build,
                config=variant.config,
                params=variant.params,
                reference=(variant.reference or reference).replace("{name}", name),
                preprocess=spec,
                input=variant.input or spec.input,
                paper=variant.paper or paper,
                aliases=variant.aliases,
                configure=configure,
                ignored=ignored,
                options=dict(options or {}),
            )
        _claim([name for model in models.values() for name in (model.name, *model.aliases)], build.__module__)
        _models.update(models)
        return build

    return decorator


def _check(name: str, variant: Variant) -> None:
    """Raises ValueError for what a contributor may write by mistake."""
    if not isinstance(variant, Variant):
        raise ValueError(f"{name} is {variant!r}; write {name}=Variant(config, params=…)")
    if not isinstance(variant.aliases, tuple):
        raise ValueError(f"the aliases of {name} are {variant.aliases!r}; they must be a tuple of names")
    for word in (name, *variant.aliases):
        if not re.fullmatch(r"[a-z0-9_]+", word):
            raise ValueError(f"'{word}' cannot be the name of a model; use lower case, digits and underscores")
    if not _counts(variant.params):
        raise ValueError(f"params of {name} is {variant.params!r}; it must be the published number of parameters")
    if variant.input is not None and not (len(variant.input) == 3 and all(map(_counts, variant.input))):
        raise ValueError(f"the input of {name} is {variant.input!r}; it must be (channels, height, width)")


def _counts(value: Any) -> bool:
    return isinstance(value, int) and value > 0


def _claim(names: list[str], module: str) -> None:
    """Takes `names` for a module, all or none."""
    for i, name in enumerate(names):
        if name in _owners or name in names[:i]:
            raise ValueError(f"two models are named '{name}': in {_owners.get(name, module)} and in {module}")
    _owners.update(dict.fromkeys(names, module))


def classes_from(bias: str) -> Configure:
    """A `configure` that reads the class count from the size of the last layer's bias."""

    def configure(weights: Weights, config: Any) -> Any:
        return replace(config, num_classes=weights.size(bias)) if bias in weights else config

    return configure


def _registered() -> dict[str, Model]:
    """Every model by name, ours and other people's."""
    discovery.load("zoo.models")
    return _models


def list_models(pattern: str = "", task: str | None = None) -> list[str]:
    """The names that contain `pattern` (or match it, when it has * or ?), file by file; only of `task` if given.

    It may be spelled as in `get_model`.
    """
    if task is not None:
        get_task(task)  # that there is one
    matching = _matching(pattern)
    return [m.name for m in _registered().values() if task in (None, m.task) and matching(m.name)]


def list_cascades(pattern: str = "", task: str | None = None) -> list[Cascade]:
    """The cascades of networks whose names contain or match `pattern`; only of `task` if given."""
    matching = _matching(pattern)
    return [cascade for cascade in all_cascades() if task in (None, cascade.task) and matching(cascade.name)]


def _matching(pattern: str) -> Callable[[str], bool]:
    """Whether a name contains `pattern`, or matches it when it has * or ?."""
    import fnmatch

    parts = re.split(r"(\[.*?\])", pattern)  # in brackets a hyphen is none of the name
    pattern = "".join(part.lower() if part.startswith("[") else _spelled(part) for part in parts)
    wanted = pattern if any(c in pattern for c in "*?[") else f"*{pattern}*"
    return lambda name: fnmatch.fnmatch(name, wanted)


def get_model(name: str | Model) -> Model:
    """The model `name`, or the one with that alias; a model itself stays what it is.

    Capital letters count as small ones, `-` and `.` as `_`: EfficientNet-B0 is efficientnet_b0. Raises ZooError with
    the closest names, and for a cascade with those of its networks.
    """
    if isinstance(name, Model):
        return name
    if not isinstance(name, str):
        raise ZooError(f"the model is {name!r}; it must be a name, such as 'resnet50'")
    models = _registered()
    aliases = {alias: model for model in models.values() for alias in model.aliases}
    known, wanted = {**aliases, **models}, _spelled(name)
    if wanted in known:
        return known[wanted]
    if (cascade := get_cascade(name)) is not None:
        parts = ", ".join(cascade.parts)
        raise ZooError(f"{cascade.name} is a cascade of several networks, of which this takes one: name one of {parts}")
    hint = closest(wanted, [*models, *aliases]) or "; `python -m zoo.list` shows them all"
    raise ZooError(f"no model is named '{name}'{hint}{discovery.missing('zoo.models')}")


def get_cascade(name: str) -> Cascade | None:
    """The cascade `name`, spelled as in `get_model`; None where that is none."""
    return find_cascade(_spelled(name))


def _spelled(name: str) -> str:
    """`name` as `register` spells names; other writings of the same one are papers' and other projects'."""
    return name.lower().replace("-", "_").replace(".", "_")


def siblings(model: Model) -> list[Model]:
    """The other variants of the same architecture."""
    return [other for other in _registered().values() if other.build is model.build and other.name != model.name]
