"""The networks of timm: what they are fed and where their weights are, as timm says; and weights that it folded."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from zoo.engine.definition import define
from zoo.errors import ZooError
from zoo.preprocess import Resize, imagenet
from zoo.registry import get_model, list_models
from zoo.trt import Api
from zoo.verify.proof import compare_reference, execute_on_cpu
from zoo.verify.references import published
from zoo.verify.references.timm import WEIGHTS
from zoo.verify.torchvision_shim import import_torchvision
from zoo.weights import from_arrays

SIZE = (3, 64, 97)
MODELS = [name for name in list_models() if get_model(name).reference.startswith("timm:")]


def config_of(name: str) -> Any:
    """timm's own words about the weights that it loads by default."""
    import_torchvision()
    import timm

    return timm.get_pretrained_cfg(get_model(name).reference.partition(":")[2])


@pytest.mark.parametrize("name", MODELS)
def test_pictures_are_prepared_as_timm_does(name: str) -> None:
    theirs = config_of(name)
    expected = imagenet(
        size=theirs.input_size[1],
        share=theirs.crop_pct,
        interpolation=f"pillow:{theirs.interpolation}",
        mean=tuple(theirs.mean),
        std=tuple(theirs.std),
    )
    if theirs.crop_mode == "squash" and theirs.crop_pct == 1:
        expected = dataclasses.replace(expected, place="stretch", resize=None)
    else:  # NFNets of DeepMind alone crop the middle where timm squeezes the picture before, as their file says
        assert theirs.crop_mode == "center" or name.startswith("dm_nfnet_")
    assert plain(get_model(name).preprocess) == plain(expected)


def plain(spec: Resize) -> dict[str, object]:
    """The fields, with one mean for all channels as three equal ones."""
    values = dataclasses.asdict(spec)
    return values | {name: (values[name] * 3)[:3] for name in ("mean", "std")}


def test_weights_are_where_timm_has_them() -> None:
    names = [repository.partition(".")[0] for text in WEIGHTS.values() for repository in text.split()]
    assert len(names) == len(set(names))
    for name in names:
        theirs, ours = config_of(name), published(f"timm:{name}")
        assert ours.url == f"https://huggingface.co/{theirs.hf_hub_id}/resolve/main/model.safetensors"
        assert ours.licence == theirs.license


def test_every_network_whose_weights_timm_has_on_the_hub_says_where() -> None:
    known = {repository.partition(".")[0] for text in WEIGHTS.values() for repository in text.split()}
    assert [
        name for name in MODELS if (config_of(name).hf_hub_id or "").startswith("timm/") and name not in known
    ] == []


@pytest.mark.parametrize("name", ["repvgg_a0", "mobileone_s0", "fastvit_t8"])
def test_weights_that_timm_folded_are_read_too(name: str, rtx: Api) -> None:
    from zoo.verify.calibration import calibrated, sample_images, state_arrays

    reference = calibrated(get_model(name).reference, size=SIZE)
    from timm.utils.model import reparameterize_model

    folded = dataclasses.replace(reference, module=reparameterize_model(reference.module).eval())
    weights = from_arrays(state_arrays(folded), "folded")
    definition = define(get_model(name), weights, rtx, (2, *SIZE))
    assert weights.unused() == []
    images = sample_images(2, SIZE, seed=1)
    ours = execute_on_cpu(definition, list(definition.taps), images)
    report = compare_reference(folded, images, ours, list(definition.taps), definition.folded)
    assert report.ok, report.first_divergence
    assert report.missing == []


def test_a_model_that_timm_has_no_weights_of_is_said() -> None:
    with pytest.raises(ZooError, match="timm publishes no weights of 'ghostnet_050'"):
        published("timm:ghostnet_050")
