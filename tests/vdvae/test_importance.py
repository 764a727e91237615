"""The importance-weighted bound: exact on a model whose likelihood is known, and never rising with the draws."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from vdvae.importance import importance_weighted_bound, log_weights

from .test_modeling_vdvae import generators, small_model, some_images

DRAWS = 16


def test_more_draws_never_raise_the_bound() -> None:
    model, images = small_model(), some_images()
    draws = log_weights(model, images, DRAWS, generators(1, 2, 3))
    assert draws.shape == (DRAWS, 3)
    bounds = torch.stack([importance_weighted_bound(draws, k) for k in (1, 2, 4, 8, 16)])
    assert (bounds.diff(dim=0) < 0).all()  # of the same draws; equal only if all weights were


def test_independent_draws_never_raise_the_bound_beyond_its_error() -> None:
    model, images = small_model(), some_images(1)
    found = []
    for seed, samples in enumerate((1, 4, 16)):
        draws = log_weights(model, images, 16 * samples, generators(seed))
        groups = torch.stack([importance_weighted_bound(group, samples) for group in draws.split(samples)])
        found.append((groups.mean().item(), groups.std().item() / 4))
    for (before, error), (after, other_error) in pairwise(found):
        assert after <= before + 3 * (error**2 + other_error**2) ** 0.5


def test_one_draw_is_the_bound_with_a_sampled_divergence() -> None:
    model, images = small_model(), some_images()
    draws = log_weights(model, images, 1, generators(1, 2, 3))
    with torch.no_grad():
        terms = model.elbo(images, generator=generators(1, 2, 3), sampled_kl=True)
    torch.testing.assert_close(importance_weighted_bound(draws, 1), terms.elbo * 64)


def test_latents_that_say_nothing_make_the_bound_exact() -> None:
    """With features that do not depend on z, and a posterior equal to the prior, every weight is p(x)."""
    model, images = small_model(), some_images()
    with torch.no_grad():
        model.decoder.gain.zero_()
        for cell in model.decoder.cells:
            for block in (cell.prior, cell.posterior):
                block.c4.weight.zero_()
                block.c4.bias.zero_()
    draws = log_weights(model, images, 4, generators(1, 2, 3))
    with torch.no_grad():
        exact = -model.elbo(images).nll * 64
    torch.testing.assert_close(draws, exact.expand(4, -1))
    torch.testing.assert_close(importance_weighted_bound(draws, 4), -exact)


def test_numbers_of_draws_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        log_weights(small_model(), some_images(), 0)
    with pytest.raises(ValueError, match="must divide the 4 draws, got 3"):
        importance_weighted_bound(torch.zeros(4, 2), 3)
