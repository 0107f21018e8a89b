"""The models by name: what is listed, what is found, and that each one is described."""

from __future__ import annotations

import copy
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from zoo import registry
from zoo.errors import ZooError
from zoo.network import Net, Tensor
from zoo.preprocess import Resize, gray, imagenet
from zoo.registry import Variant, classes_from, get_model, list_models, register, siblings
from zoo.tasks import all_tasks
from zoo.verify.references import library_of
from zoo.weights import RandomWeights, from_arrays

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def registry_unchanged() -> Iterator[None]:
    before = list_models()
    yield
    assert list_models() == before


def build(net: Net, x: Tensor, cfg: object) -> Tensor:
    return x


def variants(task: str = "classify", **options: Any) -> None:
    register(task=task, reference="none:{name}", preprocess=imagenet(), paper="none", **options)(build)


NEW = Variant(None, params=1)


# Handing over


def in_a_new_process(code: str, data: bytes) -> str:
    """What Python prints that gets a pickle as `model`, as processes that are spawned do."""
    code = f"import pickle, sys; model = pickle.load(sys.stdin.buffer); {code}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], input=data, env=environment, capture_output=True)
    return (done.stdout + done.stderr).decode().strip()


def test_every_model_can_be_pickled() -> None:
    models = [get_model(name) for name in list_models()]
    found = pickle.loads(pickle.dumps(models))
    assert all(a is b for a, b in zip(found, models, strict=True))
    assert all(len(pickle.dumps(model)) < 500 for model in models)  # what is registered stays where it is


def test_a_model_that_was_changed_is_handed_over_as_it_is() -> None:
    changed = replace(get_model("resnet18"), input=(3, 64, 96), preprocess=imagenet(resize=70, size=64))
    assert pickle.loads(pickle.dumps(changed)) == copy.deepcopy(changed) == changed
    assert in_a_new_process("print(model.name, model.input, model.task)", pickle.dumps(changed)) == (
        "resnet18 (3, 64, 96) classify"
    )


def test_a_model_that_is_unknown_there_is_named() -> None:
    data = pickle.dumps(get_model("resnet18")).replace(b"resnet18", b"resnet81")
    assert "no model is named 'resnet81'" in in_a_new_process("print(model)", data).splitlines()[-1]


SPAWN = """
import multiprocessing
import zoo

def count(model, queue):
    queue.put((model.name, model.params))

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=count, args=(zoo.get_model("lenet5"), queue))
    process.start()
    print(*queue.get(timeout=60))
    process.join()
    with zoo.load("lenet5", device="cpu") as session:
        try:
            context.Process(target=count, args=(session, queue)).start()
        except zoo.ZooError as error:
            print(error)
"""


def test_a_model_is_handed_to_a_process_that_is_spawned_and_a_session_is_not(tmp_path: Path) -> None:
    (tmp_path / "spawn.py").write_text(SPAWN)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, tmp_path / "spawn.py"], env=environment, capture_output=True, text=True)
    first, second = done.stdout.splitlines()
    assert first == "lenet5 61706" and second.endswith("hand the model's name over and load it there"), done.stderr


# Registering


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match=f"'resnet18': in zoo.models.resnet and in {__name__}"):
        variants(new=NEW, resnet18=NEW)


def test_an_alias_is_a_name_too() -> None:
    with pytest.raises(ValueError, match="two models are named 'resnet18'"):
        variants(new=replace(NEW, aliases=("resnet18",)))
    with pytest.raises(ValueError, match="two models are named 'yolov8'"):
        variants(yolov8=NEW)
    with pytest.raises(ValueError, match=f"two models are named 'new': in {__name__} and in {__name__}"):
        variants(new=NEW, newer=replace(NEW, aliases=("new",)))


def test_a_variant_has_fields_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_models", dict(registry._models))
    monkeypatch.setattr(registry, "_owners", dict(registry._owners))
    own = {"preprocess": gray(28), "reference": "timm:{name}.a1", "paper": "arXiv:1", "aliases": ("ours",)}
    variants(new=NEW, newer=Variant("config", 7, **own), newest=replace(NEW, input=(3, 32, 64)), options={"top": 3})
    new, newer, newest = map(get_model, ("new", "ours", "newest"))
    assert (new.preprocess, new.input, new.reference, new.paper) == (imagenet(), (3, 224, 224), "none:new", "none")
    assert (newer.preprocess, newer.input, newer.reference) == (gray(28), (1, 28, 28), "timm:newer.a1")
    assert (newer.name, newer.config, newer.params, newer.paper) == ("newer", "config", 7, "arXiv:1")
    assert newest.input == (3, 32, 64) and newest.options == {"top": 3}


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ({"task": "clasify", "new": NEW}, "No task is called 'clasify'; there are .*; closest: classify"),
        ({"options": {"topp": 3}, "new": NEW}, "'classify' has no option 'topp'; its options are top; closest: top"),
        ({"options": {"top": 0}, "new": NEW}, "top is 0; it must be at least 1"),
        ({"task": "detect", "new": NEW}, "'detect' needs the whole picture, and Resize.* cuts its edges off"),
        ({"new": "a config"}, r"new is 'a config'; write new=Variant\(config, params=…\)"),
        ({"Net18": NEW}, "'Net18' cannot be the name of a model"),
        ({"new": replace(NEW, aliases=("old-new",))}, "'old-new' cannot be the name of a model"),
        ({"new": replace(NEW, aliases="old")}, "the aliases of new are 'old'; they must be a tuple"),
        ({"new": replace(NEW, params=25.6)}, "params of new is 25.6; it must be the published number"),
        ({"new": replace(NEW, params=0)}, "params of new is 0"),
        ({"new": replace(NEW, input=(224, 224))}, r"the input of new is \(224, 224\); it must be \(channels, height"),
    ],
)
def test_a_mistake_of_the_contributor_is_told(mistake: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, ZooError), match=words):
        variants(**{"first": NEW, **mistake})


# Finding


def test_a_model_is_found_by_name_and_by_alias() -> None:
    assert get_model("resnet50").name == "resnet50"
    assert get_model("yolov8") is get_model("yolov8n")


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("YOLOv8n", "yolov8n"),
        ("YOLOv8", "yolov8n"),
        ("EfficientNet-B0", "efficientnet_b0"),
        ("mnasnet0.5", "mnasnet0_5"),
        ("RegNet-X-1.6GF", "regnet_x_1_6gf"),
    ],
)
def test_a_name_may_be_written_as_others_write_it(written: str, name: str) -> None:
    assert get_model(written) is get_model(name)


@pytest.mark.parametrize(
    ("name", "closest"),
    [("resnet5O", "resnet50"), ("yolo8n", "yolov8n"), ("mobilenetv2", "mobilenet_v2"), ("VGG-61", "vgg16")],
)
def test_an_unknown_name_gives_the_closest(name: str, closest: str) -> None:
    with pytest.raises(ZooError, match=f"^no model is named '{name}'; closest: .*{closest}"):
        get_model(name)


def test_a_name_like_no_other_gives_the_command_that_lists_them() -> None:
    with pytest.raises(ZooError, match="^no model is named '#'; `python -m zoo.list` shows them all$"):
        get_model("#")


# Listing


def test_a_pattern_is_a_part_of_the_name_or_has_wildcards() -> None:
    assert {"resnet18", "wide_resnet50_2"} <= set(list_models("resnet"))
    assert "wide_resnet50_2" not in list_models("resnet*")
    assert list_models("resnet??") == ["resnet18", "resnet34", "resnet50"]
    assert list_models("resnet[13]*") == ["resnet18", "resnet34", "resnet101", "resnet152"]
    assert list_models("no such model") == []


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("YOLO11", ["yolo11n", "yolo11s", "yolo11m", "yolo11l", "yolo11x"]),
        ("EfficientNet-B0", ["efficientnet_b0"]),
        ("MNASNet0.5", ["mnasnet0_5"]),
        ("ResNeXt101_*", ["resnext101_32x8d", "resnext101_64x4d"]),
        ("yolo11[l-n]", ["yolo11n", "yolo11m", "yolo11l"]),
    ],
)
def test_a_pattern_may_be_written_as_others_write_it(pattern: str, found: list[str]) -> None:
    assert list_models(pattern)[: len(found)] == found


def test_a_task_filters() -> None:
    by_task = [name for task in all_tasks() for name in list_models(task=task.name)]
    assert sorted(by_task) == sorted(list_models())
    assert "resnet18" in list_models(task="classify")
    assert list_models("yolov8?", task="classify") == []


def test_siblings_are_the_other_variants_of_the_file() -> None:
    names = {model.name for model in siblings(get_model("resnet18"))}
    assert {"resnet34", "wide_resnet101_2"} <= names
    assert not names & {"resnet18", "vgg16", "yolov8n"}


# Configuration from weights


def test_the_class_count_is_read_from_the_last_bias() -> None:
    model = get_model("resnet18")
    weights = from_arrays({"fc.bias": [0.0] * 7})
    assert model.configured(weights).config.num_classes == 7
    assert classes_from("head.bias")(weights, model.config) == model.config
    assert model.configured(RandomWeights()) is model


# Every model


@pytest.mark.parametrize("name", list_models())
def test_a_model_is_described(name: str) -> None:
    model = get_model(name)
    assert model.name == name and re.fullmatch(r"[a-z0-9_]+", name)
    assert isinstance(model.preprocess, Resize)
    library, known = library_of(model.reference)
    assert known in library.names() or library.name == "FILE.py"
    assert re.fullmatch(r"arXiv:\d{4}\.\d{4,5}|doi:10\.\d+/\S+|https://\S+", model.paper)
    assert model.build.__module__.startswith("zoo.models.")


def test_models_of_torchvision_are_fed_as_its_weights_ask() -> None:
    from zoo.verify.torchvision_shim import import_torchvision

    published = import_torchvision().models.get_model_weights
    for model in (get_model(name) for name in list_models(task="classify")):
        kind, _, name = model.reference.partition(":")
        if kind != "torchvision":
            continue
        trained = "IMAGENET1K_SWAG_LINEAR_V1" if name == "vit_h_14" else "IMAGENET1K_V1"
        wanted = published(name)[trained].transforms()
        # With published weights these two normalise once more (transform_input), from ImageNet's to 0.5 and 0.5.
        again = name in ("googlenet", "inception_v3")
        preprocess = imagenet(
            wanted.resize_size[0],
            wanted.crop_size[0],
            interpolation=f"pillow:{wanted.interpolation.value}",
            mean=(0.5,) * 3 if again else tuple(wanted.mean),
            std=(0.5,) * 3 if again else tuple(wanted.std),
        )
        assert (model.name, model.preprocess, wanted.antialias) == (model.name, preprocess, True)
