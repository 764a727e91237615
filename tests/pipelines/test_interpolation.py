"""Noise between that of two images: its distribution, its ends, what is shared, any batch."""

from __future__ import annotations

import pytest
import torch

from ssd import SSDPipeline
from ssd.pipelines.interpolation import InterpolatedNoise, slerp

from ..numerics import network_rounding, relative_error
from ..test_pipeline_ssd import small_pipeline

TINY = {"block_out_channels": (16, 16, 16), "layers_per_block": 1, "norm_num_groups": 4, "attention_resolutions": ()}
STEPS = 9


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_it_stays_white_noise() -> None:
    """The variance of N numbers is 1 within 5 sqrt(2 / N); on a straight line it would be 1/2 in the middle."""
    first, second = (torch.randn(1, 1, 200, 200, generator=seeded(seed)) for seed in (1, 2))
    between = slerp(first, second, torch.linspace(0, 1, 5))
    assert torch.equal(between[:1], first)
    assert relative_error(between[-1:], second) < 1e-6
    for row in between:
        assert abs(float(row.var()) - 1) < 5 * (2 / row.numel()) ** 0.5
        assert abs(float(row.mean())) < 5 / row.numel() ** 0.5


@pytest.fixture(scope="module")
def pipe() -> SSDPipeline:
    return small_pipeline(**TINY)


def images(pipe: SSDPipeline, generator, number: int, eta: float = 0.0, **options) -> torch.Tensor:
    return pipe(number, num_inference_steps=STEPS, eta=eta, generator=generator, output_type="latent", **options).images


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_ends_are_the_two_images(pipe: SSDPipeline, eta: float) -> None:
    ends = images(pipe, [seeded(1), seeded(2)], 2, eta)
    between = images(pipe, InterpolatedNoise(seeded(1), seeded(2), [0.0, 0.5, 1.0]), 3, eta)
    limit = STEPS * network_rounding(pipe.unet)
    assert relative_error(between[0], ends[0]) < limit
    assert relative_error(between[2], ends[1]) < limit
    for end in ends:
        assert relative_error(between[1], end) > 0.05


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_coarse_states_may_be_shared(pipe: SSDPipeline, eta: float) -> None:
    """With the noise of full resolution alone, all states before the last level are the first image's."""
    states: dict[int, torch.Tensor] = {}

    def watch(pipeline, index, timestep, tensors) -> None:
        states[index] = tensors["latents"]

    noise = InterpolatedNoise(seeded(1), seeded(2), [0.0, 0.5, 1.0], only_size=(16, 16))
    between = images(pipe, noise, 3, eta, callback_on_step_end=watch)
    coarse = [state for state in states.values() if state.shape[-1] < 16]
    assert len(coarse) >= 2
    limit = STEPS * network_rounding(pipe.unet)
    assert all(relative_error(state[row], state[0]) < limit for state in coarse for row in (1, 2))
    assert relative_error(between[0], images(pipe, [seeded(1), seeded(1)], 2, eta)[0]) < limit
    assert relative_error(between[1], between[0]) > 10 * limit
    assert relative_error(between[2], between[1]) > 10 * limit


def test_an_image_depends_on_its_weight_alone(pipe: SSDPipeline) -> None:
    weights = [0.0, 0.25, 0.5, 0.75, 1.0]
    together = images(pipe, InterpolatedNoise(seeded(1), seeded(2), weights), 5)
    limit = STEPS * network_rounding(pipe.unet)
    two = images(pipe, InterpolatedNoise(seeded(1), seeded(2), weights[3:1:-1]), 2)
    assert relative_error(two[0], together[3]) < limit
    assert relative_error(two[1], together[2]) < limit
    grouped = images(pipe, InterpolatedNoise(seeded(1), seeded(2), weights), 5, max_batch_size_per_level=2)
    assert relative_error(grouped, together) < limit


def test_mistakes_are_one_sentence(pipe: SSDPipeline) -> None:
    for weights in ([], [0.5, 1.5]):
        with pytest.raises(ValueError, match=r"weights must be numbers in \[0, 1\], one for each image"):
            InterpolatedNoise(seeded(1), seeded(2), weights)
    with pytest.raises(ValueError, match="Got noise of 2 images for 3 images: give as many weights as images"):
        images(pipe, InterpolatedNoise(seeded(1), seeded(2), [0.0, 1.0]), 3)
