"""docs/from-tensorrtx.md: every folder once, and only models and options that there are."""

from __future__ import annotations

import re
from pathlib import Path

from zoo.registry import get_cascade, get_model

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "from-tensorrtx.md").read_text("utf-8")
# The folders of its master at 3ff22bb, without .github, assets, docker and tutorials.
FOLDERS = """
alexnet arcface centernet convnextv2 crnn csrnet dbnet densenet detr efficient_ad efficientnet ghostnet googlenet hrnet
ibnnet inception lenet lprnet mlp mnasnet mobilenet ppocrv5 psenet rcnn real-esrgan refinedet repvgg resnet retinaface
retinafaceAntiCov scaled-yolov4 senet shufflenetv2 squeezenet superpoint swin-transformer tsm ufld unet vgg vit yolo11
yolo11_tripy yolo26 yolop yolov10 yolov12 yolov12-tubro yolov13 yolov3 yolov3-spp yolov3-tiny yolov4 yolov5 yolov5-lite
yolov7 yolov8 yolov9
"""
# Libraries whose published code, or a copy of it under the same names, tensorrtx's exporters load.
EXPORTED = ("torchvision", "ultralytics", "yolov5", "sas_yolov7", "facexlib", "basicsr", "lwcc")


def rows() -> dict[str, tuple[str, str]]:
    """What is here and what becomes of the .wts, by folder."""
    table = PAGE.split("| Folder | Here | Its .wts |\n")[1]
    cells = [[cell.strip() for cell in line.split("|")[1:4]] for line in table.splitlines()[1:]]
    assert len({folder for folder, *_ in cells}) == len(cells), "a folder stands twice"
    return {folder: (here, wts) for folder, here, wts in cells}


def test_every_folder_stands_once() -> None:
    assert sorted(rows()) == sorted(FOLDERS.split())
    assert len(rows()) == 58


def test_every_model_that_is_named_exists() -> None:
    named = [name for here, _ in rows().values() for name in re.findall(r"`(?:python -m zoo\.run )?([a-z0-9_]+)", here)]
    assert len(named) > 80
    for name in named:
        assert get_cascade(name) or get_model(name).name == name


def test_a_folder_has_a_command_or_is_not_covered() -> None:
    for folder, (here, wts) in rows().items():
        assert ("python -m zoo.run" in here) or here.startswith("not covered"), folder
        assert bool(wts) == ("python -m zoo.run" in here), folder


def test_a_wts_is_read_where_its_exporter_and_the_reference_are_the_same_code() -> None:
    for folder, (here, wts) in rows().items():
        if wts.startswith("read"):
            models = [get_model(name) for name in re.findall(r"zoo\.run ([a-z0-9_]+)", here)]
            assert models[0].reference.partition(":")[0] in EXPORTED, folder


def test_the_options_that_are_named_exist() -> None:
    """As a spelling of an option, or as an option of a task, whose flag is its name."""
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "zoo").glob("**/*.py"))
    options = set(re.findall(r"--[a-zA-Z0-9]+[a-z-]*", PAGE.split("| Folder |")[0]))
    assert len(options) > 10
    for option in options:
        assert f'"{option}"' in sources or f'Option("{option[2:].replace("-", "_")}"' in sources, option
