"""Projection onto images that agree with a small picture, against dense algebra."""

import pytest
import torch

from ssd import SSDScheduler
from ssd.operators import resize_operator
from ssd.process.consistency import SMALLEST_SINGULAR_VALUE, SmallPicture, project

KERNELS = ["bilinear", "area", "bicubic", "lanczos3", "dct"]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("sizes", [((8, 8), (4, 4)), ((12, 8), (4, 4)), ((8, 8), (8, 8))])
def test_it_is_the_nearest_image_that_agrees(kernel: str, sizes) -> None:
    operator = resize_operator(*sizes, kernel)
    dense = operator.to_dense()
    x_hat, y = random(2, 1, *sizes[0]), random(2, 1, *sizes[1], seed=1)
    found = project(operator, x_hat, y)
    assert (operator.forward(found) - y).abs().max() < 1e-10
    expected = x_hat.flatten(1) + (y - operator.forward(x_hat)).flatten(1) @ torch.linalg.pinv(dense).T
    torch.testing.assert_close(found.flatten(1), expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(project(operator, found, y), found, rtol=0, atol=1e-10)


def test_directions_that_a_blur_has_nearly_erased_are_left_alone() -> None:
    scheduler = SSDScheduler(sample_size=16, num_levels=2, blur_sigma_max=20.0)
    process = scheduler.process
    starts = process.resolution.level_starts
    operator = process.operator(starts[0], starts[1])
    values = operator.spectral.singular_values
    assert bool((values < SMALLEST_SINGULAR_VALUE * values.max()).any())
    x_hat, y = torch.zeros(1, 1, 16, 16, dtype=torch.float64), random(1, 1, 8, 8)
    assert project(operator, x_hat, y).norm() <= y.norm() / (SMALLEST_SINGULAR_VALUE * values.max())


@pytest.mark.parametrize("settings", [{}, {"level_gain": 2.0}, {"blur_sigma_max": 1.0}, {"downsample_kernel": "area"}])
def test_predictions_of_every_level_agree_with_the_picture(settings: dict) -> None:
    """In images as the network sees them, whatever the gain of the levels: the target of training is a fixed point."""
    process = SSDScheduler(sample_size=16, num_levels=3, **settings).process
    starts = process.resolution.level_starts
    x_0 = random(2, 3, 16, 16)
    small = SmallPicture.of(process, x_0, 2)
    assert small.picture.mean().sub(x_0.mean()).abs() < 0.2  # not multiplied by the gain
    for fine in range(3):
        clean = process.target(x_0, starts[fine] + 1)
        torch.testing.assert_close(small.prediction(clean, starts[fine]), clean, rtol=0, atol=1e-8)
        wrong = random(*clean.shape, seed=fine)
        fixed = small.prediction(wrong, starts[fine])
        scale = process.image_scale(starts[2]) / process.image_scale(starts[fine])
        again = process.operator(starts[fine], starts[2]).forward(fixed) / scale
        torch.testing.assert_close(again, small.picture, rtol=0, atol=1e-8)


@pytest.mark.parametrize("settings", [{}, {"level_gain": 2.0}, {"blur_sigma_max": 1.0}])
def test_the_state_is_that_of_the_forward_process(settings: dict) -> None:
    process = SSDScheduler(sample_size=16, num_levels=3, **settings).process
    x_0, noise = random(2, 1, 16, 16), random(2, 1, 8, 8, seed=1)
    for t in (process.resolution.level_starts[1], process.resolution.level_starts[1] + 50):
        state = SmallPicture.of(process, x_0, 1).state(t, noise)
        torch.testing.assert_close(state, process.marginal_sample(x_0, t, noise), rtol=0, atol=1e-10)


def test_a_picture_of_another_size_is_refused() -> None:
    process = SSDScheduler(sample_size=16, num_levels=2).process
    with pytest.raises(ValueError, match=r"level 1 has the size \(8, 8\), got \(1, 1, 16, 16\)"):
        SmallPicture(process, torch.zeros(1, 1, 16, 16), 1)
