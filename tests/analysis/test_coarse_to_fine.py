"""The sampler that needs a denoiser alone: published states and sigmas, the law of one image, seeds."""

import numpy as np
import pytest
import torch

from ssd.analysis.denoisers.coarse_to_fine import (
    CoarseToFine,
    langevin_step,
    noise_level,
    sample,
    seeded_noise,
    states,
)

from .test_denoisers import NETWORKS, assert_golden, golden, golden_network


def golden_noise(name: str, kind: str):
    noise = torch.cat([golden(f"{name}.sampler_{kind}.init_noise")[None], golden(f"{name}.sampler_{kind}.noise")])
    return lambda iteration: noise[iteration : iteration + 1]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", ["fixed", "growing"])
def test_states_sigmas_and_result_are_the_published_ones(name: str, kind: str) -> None:
    network, how = golden_network(name), CoarseToFine(growing=kind == "growing", max_steps=25)
    found = list(states(network.denoise, 0.4, golden_noise(name, kind), how))
    # The published code looks at y_0 once before its loop and once in it.
    assert_golden(torch.stack([found[0].y, *(state.y for state in found)]), f"{name}.sampler_{kind}.states")
    sigmas = torch.stack([found[0].sigma, *(state.sigma for state in found)])[:, 0]
    assert_golden(sigmas, f"{name}.sampler_{kind}.sigmas")
    drawn = sample(network.denoise, 0.4, golden_noise(name, kind), how)
    assert_golden(drawn.images[0], f"{name}.sampler_{kind}.result")
    assert drawn.steps.tolist() == [25]
    assert not drawn.diverged.any()


@pytest.mark.parametrize(
    ("how", "steps"),
    [
        (CoarseToFine(step=0.01, beta=0.1, growing=False), 2995),
        (CoarseToFine(step=0.01, beta=0.1), 97),
        (CoarseToFine(step=0.05, beta=0.3), 25),
    ],
)
def test_a_perfect_denoiser_of_one_image_halves_its_noise_by_law(how: CoarseToFine, steps: int) -> None:
    """|y - x|^2 / d shrinks by (1 - beta h)^2 where the fresh noise is orthogonal to what is left: the mean case."""
    assert how.expected_steps() == steps
    picture = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    generator = torch.Generator().manual_seed(1)
    y = picture + normalised(torch.randn(1, 1, 4, 4, generator=generator, dtype=torch.float64))
    level = noise_level(y - picture)
    for iteration in range(1, steps + 1):
        assert level >= how.end
        residual = y - picture
        z = torch.randn(y.shape, generator=generator, dtype=torch.float64)
        z = normalised(z - (z * residual).sum() / residual.square().sum() * residual)
        y = langevin_step(y, residual, how.step_size(iteration), how.beta, z)
        shrinks = float(noise_level(y - picture) / level)
        assert shrinks == pytest.approx(1 - how.beta * how.step_size(iteration), rel=1e-12)
        level = noise_level(y - picture)
    assert level < how.end


def normalised(z: torch.Tensor) -> torch.Tensor:
    return z / z.square().mean().sqrt()


@pytest.mark.parametrize("how", [CoarseToFine(step=0.01, beta=0.1), CoarseToFine(step=0.05, beta=0.3)])
def test_the_number_of_steps_with_random_noise(how: CoarseToFine) -> None:
    """The variance of one sample is 2 / d relative at the start; d = 128^2 leaves sigma within a step of its law."""
    picture = torch.rand(1, 128, 128, generator=torch.Generator().manual_seed(0))
    drawn = sample(lambda y: picture.expand_as(y), 0.5, seeded_noise(range(2), picture.shape, seed=0), how)
    assert (drawn.steps - how.expected_steps()).abs().max() <= 1
    assert torch.equal(drawn.images, picture.expand(2, -1, -1, -1))
    assert (drawn.sigma < how.end).all()


def test_a_sample_is_a_function_of_the_seed_and_its_number() -> None:
    network = golden_network("unet")
    how, shape = CoarseToFine(max_steps=10), (1, 12, 12)
    drawn = sample(network.denoise, 0.4, seeded_noise(range(6), shape, 3, torch.float64), how)
    part = sample(network.denoise, 0.4, seeded_noise([4, 2], shape, 3, torch.float64), how)
    torch.testing.assert_close(part.images, drawn.images[[4, 2]], rtol=1e-10, atol=1e-10)
    other = sample(network.denoise, 0.4, seeded_noise(range(6), shape, 4, torch.float64), how)
    assert (other.images - drawn.images).flatten(1).norm(dim=1).min() > 0.1


def test_every_sample_ends_by_itself() -> None:
    """One picture for even samples is reached at once; the other samples see a denoiser that believes in no noise."""
    scale = torch.tensor([1.0, 0.01]).view(2, 1, 1, 1)
    drawn = sample(
        lambda y: y * (1 - scale), 0.0, seeded_noise(range(2), (1, 8, 8), 0), CoarseToFine(beta=1.0, max_steps=50)
    )
    assert drawn.steps[1] == 0  # sigma is 0.01 of |y|, below the end already
    assert 0 < drawn.steps[0] < 50


def test_divergence_is_counted_and_the_sample_is_kept() -> None:
    """A denoiser that doubles what is far away: r(y) = -y for one sample, so that y grows by 1 + h each step."""
    away = torch.tensor([1.0, 0.0]).view(2, 1, 1, 1)
    drawn = sample(lambda y: 2 * away * y, 0.5, seeded_noise(range(2), (1, 8, 8), 0), CoarseToFine())
    assert drawn.diverged.tolist() == [True, False]
    assert drawn.sigma[0] > 2
    assert drawn.images.shape == (2, 1, 8, 8)
    nothing = sample(lambda y: y * torch.nan, 0.5, seeded_noise(range(2), (1, 8, 8), 0), CoarseToFine())
    assert nothing.diverged.tolist() == [True, True]
    assert nothing.steps.tolist() == [0, 0]


@pytest.mark.parametrize("wrong", [{"step": 0.0}, {"beta": 1.5}, {"end": 2.0}, {"end": 0.0}])
def test_parameters_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        CoarseToFine(**wrong)


def test_the_mean_may_be_an_image() -> None:
    mean = torch.from_numpy(np.linspace(0, 1, 64, dtype=np.float32)).view(1, 8, 8)
    first = next(states(lambda y: y, mean, lambda iteration: torch.zeros(2, 1, 8, 8), CoarseToFine()))
    assert torch.equal(first.y, mean.expand(2, -1, -1, -1))
