"""What is known of an image behind a mask, at every size."""

import pytest
import torch

from ssd import SSDScheduler
from ssd.process.known_pixels import KnownPixels

from ..numerics import random_walk

SETTINGS = [{}, {"level_gain": 2.0}, {"downsample_kernel": "area"}, {"downsample_kernel": "lanczos3"}]


def known_pixels(side: int = 16, **settings) -> KnownPixels:
    process = SSDScheduler(sample_size=side, num_levels=2, **settings).process
    generator = torch.Generator().manual_seed(0)
    images, known = torch.randn(2, 3, side, side, generator=generator), torch.ones(2, 1, side, side)
    known[0, :, 4:11, 3:9] = 0
    known[1, :, :, side // 2 :] = 0
    return KnownPixels(process, images, known)


@pytest.mark.parametrize("settings", SETTINGS)
def test_nothing_behind_the_mask_has_an_effect(settings: dict) -> None:
    held = known_pixels(**settings)
    other = KnownPixels(held.process, torch.where(held.known == 1, held.images, torch.nan), held.known)
    for s in (0, 600, 900):
        x = torch.randn(2, 3, *held.process.size(s), generator=torch.Generator().manual_seed(1))
        assert torch.equal(held.prediction(x, s).isfinite(), torch.ones_like(x).bool())
        assert torch.equal(held.prediction(x, s), other.prediction(x, s))
        states = [one.state(x, s, torch.Generator().manual_seed(2)) for one in (held, other)]
        assert torch.equal(*states)
        assert bool(states[0].isfinite().all())


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_pixel_is_covered_if_no_unknown_one_reaches_it(settings: dict) -> None:
    held = known_pixels(**settings)
    for s in (0, 999):
        weights = held.process.operator(-1, s).to_dense().abs() > 1e-12
        reached = (1 - held.known).double().flatten(1) @ weights.double().T
        expected = (reached == 0).view(2, 1, *held.process.size(s))
        assert torch.equal(held.covered(s), expected)
        assert bool(expected.any())
        assert not bool(expected.all())


@pytest.mark.parametrize("settings", SETTINGS)
def test_predictions_keep_what_is_known(settings: dict) -> None:
    """The truth stays where it is covered; at full resolution all known pixels are the image's, bit for bit."""
    held = known_pixels(**settings)
    start = held.process.resolution.level_starts[1]
    truth = held.process.target(held.images, start + 1)
    guess = torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
    covered = held.covered(start).expand_as(truth)
    error = (held.prediction(guess, start) - truth)[covered].abs().max()
    assert error < 16 * random_walk(torch.float32, 16) * float(held.images.abs().max())
    known = (held.known == 1).expand_as(held.images)
    fine = torch.randn(held.images.shape, generator=torch.Generator().manual_seed(2))
    assert torch.equal(held.prediction(fine, -1)[known], held.images[known])
    assert torch.equal(held.prediction(fine, 5)[~known], fine[~known])


def test_a_hole_of_one_colour_is_filled_in_at_every_size() -> None:
    """The first line of the module is exact where what is unknown has one colour, and the prediction knows it."""
    held = known_pixels()
    whole = torch.where(held.known == 1, held.images, 0.5)
    start = held.process.resolution.level_starts[1]
    expected = held.process.target(whole, start + 1)
    found = held.prediction(torch.full_like(expected, 0.5), start)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("level_gain", [1.0, 2.0])
@pytest.mark.parametrize("s", [10, 600, 990])
def test_covered_states_have_their_exact_distribution(level_gain: float, s: int) -> None:
    """(x_s - a_s D_s x) / sigma_s is white: mean and variance of n numbers within five of their standard errors."""
    held = known_pixels(32, level_gain=level_gain)
    x_s = torch.full((2, 3, *held.process.size(s)), 100.0)
    covered = held.covered(s).expand_as(x_s)
    states = held.state(x_s, s, torch.Generator().manual_seed(s))
    assert bool((states[~covered] == 100).all())
    mean = held.process.signal(s) * held.process.degrade(held.images, s)
    white = ((states - mean) / held.process.sigma(s))[covered].double()
    assert white.mean().abs() < 5 / len(white) ** 0.5
    assert (white.var() - 1).abs() < 5 * (2 / len(white)) ** 0.5
    first = held.first_state(s, torch.zeros_like(x_s))
    torch.testing.assert_close(first[covered], mean.float()[covered], rtol=0, atol=1e-5)


def test_wrong_masks_are_explained() -> None:
    process, images = SSDScheduler(sample_size=8, num_levels=2).process, torch.zeros(2, 3, 8, 8)
    with pytest.raises(ValueError, match=r"mask \(2, 1, 8, 8\) are needed"):
        KnownPixels(process, images, torch.ones(1, 1, 8, 8))
    with pytest.raises(ValueError, match="0 and 1 alone"):
        KnownPixels(process, images, torch.full((2, 1, 8, 8), 0.5))
