"""The network with classes and guidance, and its calls in groups."""

import json
from pathlib import Path

import pytest
import torch

from flexi_unet import FlexiUNet2DModel, ResizedUNet2DModel
from ssd.pipelines.groups import images_per_call, predict_in_groups
from ssd.pipelines.guidance import (
    GuidedNetwork,
    check_guide,
    check_labels,
    has_no_class,
    no_class_label,
    number_of_classes,
)
from ssd.publishing.saving import load_pipeline
from ssd.sampling.many_images import image_labels
from ssd.training.build import build_unet
from ssd.training.config import parse_train_config

from ..numerics import network_rounding, random_walk, relative_error
from ..test_pipeline_ssd import small_pipeline

T = torch.tensor([600])


@pytest.fixture(scope="module")
def unet():
    return small_pipeline(num_class_embeds=4).unet


def test_the_last_embedding_is_no_class(unet) -> None:
    assert (number_of_classes(unet), no_class_label(unet)) == (3, 3)
    single = small_pipeline(num_class_embeds=1).unet
    assert (number_of_classes(single), no_class_label(single)) == (1, 0)
    unconditional = small_pipeline().unet
    assert number_of_classes(unconditional) == 0
    with pytest.raises(ValueError, match="no label for 'no class'"):
        no_class_label(unconditional)
    for kind in ("balanced", "random"):  # nobody draws it by default, but it is a label
        assert set(image_labels(range(200), number_of_classes(unet), kind)) == {0, 1, 2}
    assert check_labels(unet, [3, 0], 2, 1.0).tolist() == [3, 0]


@pytest.mark.parametrize("kind", [FlexiUNet2DModel, ResizedUNet2DModel])
@pytest.mark.parametrize(("stated", "classes"), [(3, 3), (-1, 4), (None, 3)])
def test_the_configuration_states_which_embedding_is_no_class(kind, stated, classes: int) -> None:
    if kind is FlexiUNet2DModel:
        settings = {"block_out_channels": (32, 32)}
    else:
        settings = {"block_out_channels": (32,), "down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    names = dict(enumerate("abcd"[:classes]))
    unet = kind(8, num_class_embeds=4, no_class_label=stated, id2label=names, **settings)
    assert unet.config.no_class_label == stated
    assert number_of_classes(unet) == classes
    assert unet.class_names == list(names.values())
    assert has_no_class(unet) == (classes == 3)
    if classes == 3:
        assert no_class_label(unet) == 3
    else:
        assert check_labels(unet, [3, 0], 2).tolist() == [3, 0]
        for ask in (lambda: no_class_label(unet), lambda: check_labels(unet, [3, 0], 2, 2.0)):
            with pytest.raises(ValueError, match="has not been trained without a class: leave guidance_scale at 1"):
                ask()
        with pytest.raises(ValueError, match=r"give class_labels, 2 integers in 0\.\.3\.$"):
            check_labels(unet, None, 2)
    with pytest.raises(ValueError, match=r"no_class_label must be the last class embedding, 3, or -1, .*, got 1\."):
        kind(8, num_class_embeds=4, no_class_label=1, **settings)
    with pytest.raises(ValueError, match=r"no_class_label must be left out without num_class_embeds, got -1\."):
        kind(8, no_class_label=-1, **settings)


@pytest.mark.parametrize("network", ["flexi_unet", "resized_unet"])
def test_training_states_it(network: str) -> None:
    config = parse_train_config(
        ["--data", "digits", "--res", "32", "--levels", "2", "--network", network, "--out", "x"]
    )
    assert build_unet(config, ["cat", "dog"]).config.no_class_label == 2
    assert build_unet(config).config.no_class_label is None


def test_folders_that_do_not_state_it_have_it_last(tmp_path: Path) -> None:
    small_pipeline(num_class_embeds=4, no_class_label=3).save_pretrained(tmp_path)
    path = tmp_path / "unet" / "config.json"
    config = json.loads(path.read_text())
    assert config.pop("no_class_label") == 3
    path.write_text(json.dumps(config))
    assert no_class_label(load_pipeline(str(tmp_path), "cpu").unet) == 3


def test_guidance_is_the_linear_extrapolation(unet) -> None:
    x, labels = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 2])
    conditional = GuidedNetwork(unet, labels)(x, T, (8, 8))
    unconditional = GuidedNetwork(unet, torch.tensor([3, 3]))(x, T, (8, 8))
    guided = GuidedNetwork(unet, labels, scale=2.5)(x, T, (8, 8))
    assert relative_error(guided, unconditional + 2.5 * (conditional - unconditional)) < random_walk(torch.float32, 8)
    assert relative_error(guided, conditional) > 0.01


@pytest.mark.parametrize("embeddings", [None, 4])
def test_a_guide_is_what_guidance_leads_away_from(embeddings) -> None:
    unet = small_pipeline(num_class_embeds=embeddings).unet
    guide = small_pipeline(num_class_embeds=embeddings, block_out_channels=(16, 16), norm_num_groups=4).unet
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = None if embeddings is None else torch.tensor([0, 2])
    own, weak = (GuidedNetwork(each, labels)(x, T, (16, 16)) for each in (unet, guide))
    guided = GuidedNetwork(unet, labels, 2.5, guide)(x, T, (16, 16))
    assert relative_error(guided, weak + 2.5 * (own - weak)) < random_walk(torch.float32, 8)
    assert relative_error(guided, own) > 0.01
    assert torch.equal(GuidedNetwork(unet, labels, 2.5, unet)(x, T, (16, 16)), own)
    assert torch.equal(GuidedNetwork(unet, labels, 1.0, guide)(x, T, (16, 16)), own)
    assert torch.equal(GuidedNetwork(unet, labels, 0.0, guide)(x, T, (16, 16)), weak)


def test_a_guide_is_of_the_same_task(unet) -> None:
    cpu = torch.device("cpu")
    check_guide(unet, None, cpu)
    check_guide(unet, small_pipeline(num_class_embeds=4, block_out_channels=(32, 32), sample_size=[16, 16]).unet, cpu)
    for settings, name in (
        ({}, "num_class_embeds is None and the network's 4"),
        ({"num_class_embeds": 4, "in_channels": 1, "out_channels": 1}, "in_channels is 1 and the network's 3"),
    ):
        with pytest.raises(ValueError, match=f"A guide is a network for the same task, but its {name}"):
            check_guide(unet, small_pipeline(**settings).unet, cpu)
    with pytest.raises(ValueError, match=r"The guide is on cpu and the pipeline on meta: move it with guide\.to"):
        check_guide(unet, unet, torch.device("meta"))


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_one_call_in_groups_equals_one_call(unet, scale: float) -> None:
    x, labels = torch.randn(10, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(10) % 3
    network = GuidedNetwork(unet, labels, scale)
    calls = []
    hook = unet.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[0])))
    whole, grouped = (predict_in_groups(network, x, T, (16, 16), limit) for limit in (10, 3))
    hook.remove()
    assert calls == [10] * (1 if scale == 1 else 2) + [n for n in (3, 3, 2, 2) for _ in range(1 if scale == 1 else 2)]
    assert relative_error(grouped, whole) < 3 * network_rounding(unet)


def test_predictions_are_ordinary_tensors_in_the_dtype_of_the_state(unet) -> None:
    prediction = GuidedNetwork(unet, torch.tensor([1]))(torch.zeros(1, 3, 8, 8, dtype=torch.float64), T, (8, 8))
    assert prediction.dtype == torch.float64
    assert not prediction.is_inference()


def test_images_per_call() -> None:
    sizes = [(16, 8), (8, 4)]
    assert images_per_call(sizes, 7, None) == {(16, 8): 7, (8, 4): 7}
    assert images_per_call(sizes, 7, 3) == {(16, 8): 3, (8, 4): 12}
    assert images_per_call(sizes, 7, [5, 6]) == {(16, 8): 5, (8, 4): 6}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, r"give class_labels, 2 integers in 0\.\.3 \(3 means no class\)"),
        ([0, 4], r"2 integers in 0\.\.3 .*, got \[0, 4\]"),
        ([0, -1], r"got \[0, -1\]"),
        ([0], r"got \[0\]"),
        ([0.0, 1.0], r"2 integers .*, got numbers of type torch\.float32"),
        (torch.tensor([True, False]), r"got numbers of type torch\.bool"),
    ],
)
def test_wrong_labels_are_explained(unet, labels, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_labels(unet, labels, 2, 1.0)


def test_an_unconditional_network_takes_no_labels() -> None:
    unet = small_pipeline().unet
    assert check_labels(unet, None, 2, 1.0) is None
    with pytest.raises(ValueError, match="takes no class_labels"):
        check_labels(unet, [0, 1], 2, 1.0)
    with pytest.raises(ValueError, match=r"guidance_scale=2\.0 needs a class-conditional model"):
        check_labels(unet, None, 2, 2.0)
