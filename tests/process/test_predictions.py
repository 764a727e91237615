"""What a network may predict, and the loss of it."""

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd import SSDScheduler
from ssd.process.losses import denoising_loss, training_pair
from ssd.process.predictions import PREDICTION_TYPES, conversion

MOMENTS = {"mean": [0.3, 0.2, -0.1], "variances": [0.4, 0.3]}
PROCESS = SSDScheduler(sample_size=8, num_levels=2, data_moments=MOMENTS).process
OF_ONE_SIZE = ("sample", "epsilon", "v_prediction")


def images(side: int, seed: int) -> torch.Tensor:
    return torch.randn(2, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@given(kind=st.sampled_from(OF_ONE_SIZE), angle=st.floats(0.01, 1.56))
@settings(max_examples=50, deadline=None)
def test_every_prediction_stands_for_one_clean_image(kind: str, angle: float) -> None:
    a, sigma = torch.tensor([angle], dtype=torch.float64).cos(), torch.tensor([angle], dtype=torch.float64).sin()
    x_0, noise = images(4, 0), images(4, 1)
    x_t = a * x_0 + sigma * noise
    found = conversion(kind, x_t, a, sigma).from_sample(x_0)
    expected = {"sample": x_0, "epsilon": noise, "v_prediction": a * noise - sigma * x_0}[kind]
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(conversion(kind, x_t, a, sigma).to_sample(found), x_0, atol=1e-10, rtol=0)


def test_unknown_predictions_are_named() -> None:
    x, t = images(8, 0), torch.tensor([3, 400])
    with pytest.raises(ValueError, match="must be one of sample, epsilon, v_prediction, preconditioned, got 'eps'"):
        training_pair(PROCESS, x, t, x, "eps")


@given(kind=st.sampled_from(PREDICTION_TYPES), t=st.lists(st.integers(0, 999), min_size=2, max_size=2))
@settings(max_examples=50, deadline=None)
def test_conversions_of_one_level_are_mutually_inverse(kind: str, t: list[int]) -> None:
    moments = {"mean": [0.3, 0.2, -0.1], "variances": [0.4]}
    process, times = SSDScheduler(sample_size=4, num_levels=1, data_moments=moments).process, torch.tensor(t)
    x_0, x_t = images(4, 0), images(4, 1)
    found = process.conversion(kind, x_t, times, times - 1)
    torch.testing.assert_close(found.to_sample(found.from_sample(x_0)), x_0, atol=1e-10, rtol=0)
    output = found.from_sample(x_0)
    torch.testing.assert_close(found.from_sample(found.to_sample(output)), output, atol=1e-10, rtol=0)
    scale = process.output_scale(kind, times, times - 1)
    torch.testing.assert_close(found.to_sample(output + 1) - found.to_sample(output), scale.expand_as(x_0))


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_a_level_change_is_learnt_from_the_sample(kind: str) -> None:
    (change,) = PROCESS.required_timesteps
    x_0, noise = images(8, 0), images(4, 1)
    x_t, target = training_pair(PROCESS, x_0, torch.tensor([change, change]), noise, kind)
    assert x_t.shape == (2, 3, 4, 4)
    if kind == "preconditioned":
        target = PROCESS.clean_image(kind, target, PROCESS.marginal_sample(x_0, change, noise), change, change - 1)
    torch.testing.assert_close(target, x_0, atol=1e-10, rtol=0)
    _, target = training_pair(PROCESS, x_0, torch.tensor([change + 1, 999]), noise, kind)
    small = PROCESS.degrade(x_0, 999)
    if kind == "sample":
        torch.testing.assert_close(target, small)
    if kind == "epsilon":
        torch.testing.assert_close(target, noise, atol=1e-10, rtol=0)


@pytest.mark.parametrize("kind", OF_ONE_SIZE)
def test_min_snr_weights_are_those_of_diffusers(kind: str) -> None:
    """As diffusers' training scripts write them for noise and velocity; the clean image has min(SNR, 5)."""
    t = torch.tensor([5, 300])
    snr = compute_snr(DDPMScheduler(), t).double()
    clamped = snr.clamp(max=5)
    expected = {"sample": clamped, "epsilon": clamped / snr, "v_prediction": clamped / (snr + 1)}[kind]
    output, target = torch.full((2, 3, 8, 8), 2.0), torch.zeros(2, 3, 8, 8)
    found = denoising_loss(PROCESS, output, target, t, kind).double()
    torch.testing.assert_close(found, 4 * expected, rtol=2e-3, atol=0)  # diffusers' tables cancel in float32
    root = denoising_loss(PROCESS, output, target, t, kind, "sqrt_snr").double()
    torch.testing.assert_close(root, 4 * expected / clamped.sqrt(), rtol=2e-3, atol=0)
    assert torch.equal(denoising_loss(PROCESS, output, target, t, kind, "simple"), torch.full((2,), 4.0))
    with pytest.raises(ValueError, match="loss must be one of min_snr, sqrt_snr, simple, got 'l1'"):
        denoising_loss(PROCESS, output, target, t, kind, "l1")


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_min_snr_is_the_same_error_whatever_the_network_predicts(kind: str) -> None:
    t, x_0, noise = torch.tensor([3, 400]), images(8, 0), images(8, 1)
    _, target = training_pair(PROCESS, x_0, t, noise, kind)
    wrong = x_0 + 0.1 * images(8, 2)
    output = PROCESS.conversion(kind, PROCESS.marginal_sample(x_0, t, noise), t, t - 1).from_sample(wrong)
    found = denoising_loss(PROCESS, output, target, t, kind)
    expected = denoising_loss(PROCESS, wrong, x_0, t)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
