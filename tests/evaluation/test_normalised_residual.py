"""Normalised residuals: a linear filter has 1, the perfect network of correlated images less, a useless one more."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch

from ssd import SSDScheduler
from ssd.analysis.gaussian_data import residual_covariance
from ssd.analysis.moments import data_moments
from ssd.evaluation.calibrate import timesteps_of
from ssd.evaluation.denoising import Denoiser
from ssd.evaluation.normalised_residual import TIMESTEPS_PER_LEVEL, normalised_residuals

from ..perfect_network import gaussian_images, perfect_pipeline
from .test_calibrate import Images

NUMBER = 1000


class Zero:
    """A network that always gives 0."""

    dtype = torch.float32
    config = SimpleNamespace(num_class_embeds=None, in_channels=1, out_channels=1)

    def __call__(self, x_t, timestep, labels=None, return_dict=False, output_size=None):
        return (x_t.new_zeros(*x_t.shape[:2], *(output_size or x_t.shape[-2:])),)


@pytest.fixture(scope="module")
def perfect():
    pipeline, covariance = perfect_pipeline(num_levels=3)
    images = gaussian_images(covariance, NUMBER)
    return pipeline, covariance, Images(images), data_moments(images, pipeline.scheduler.process)


@pytest.mark.parametrize("settings", [{}, {"clip_sample": True}, {"level_gain": 1.5}])
def test_the_linear_estimate_itself_has_1(perfect, settings):
    pipeline, _, images, _ = perfect
    plain = SSDScheduler.from_config(pipeline.scheduler.config, **settings)
    moments = data_moments(images.x_0, plain.process)
    scheduler = SSDScheduler.from_config(
        plain.config, prediction_type="preconditioned", data_moments=moments.to_config()
    )
    linear = SimpleNamespace(scheduler=scheduler, unet=Zero(), device=torch.device("cpu"))
    found = normalised_residuals(Denoiser(linear), images, moments)
    assert list(found) == ["8 x 8", "4 x 4", "2 x 2", "4 x 4 -> 8 x 8", "2 x 2 -> 4 x 4"]
    assert list(found.values()) == pytest.approx([1.0] * 5, abs=1e-12)


def test_the_perfect_network_has_what_theory_says(perfect):
    """Its error is the trace of the residual's covariance; that of the estimate follows from its gain."""
    pipeline, covariance, images, moments = perfect
    process = pipeline.scheduler.process
    found = normalised_residuals(Denoiser(pipeline), images, moments)

    with_moments = copy.copy(process)
    with_moments.moments = moments

    def expected(t):
        s, eye = t - 1, torch.eye(64, dtype=torch.float64).view(-1, 1, 8, 8)
        d_s, d_t = (process.degrade(eye, time).flatten(1).T for time in (s, t))
        small = torch.eye(len(d_t), dtype=torch.float64).view(-1, 1, *process.size(t))
        some, none = (with_moments.conversion("preconditioned", x_t, t, s).offset for x_t in (small, 0 * small))
        gain = (some - none).flatten(1).T
        error = d_s - gain @ (process.signal(t) * d_t)
        of_linear = (error @ covariance @ error.T).trace() + process.sigma(t) ** 2 * gain.square().sum()
        return float(residual_covariance(process, covariance, s, t).trace() / of_linear)

    for level, name in enumerate(["8 x 8", "4 x 4", "2 x 2"]):
        ratios = [expected(t) for t in timesteps_of(process, level, TIMESTEPS_PER_LEVEL)]
        assert found[name] == pytest.approx(sum(ratios) / len(ratios), rel=0.02)
    for t, name in zip(process.required_timesteps, ["4 x 4 -> 8 x 8", "2 x 2 -> 4 x 4"]):
        assert found[name] == pytest.approx(expected(t), rel=0.03)
    assert found["8 x 8"] < 0.9  # coarse images of this spectrum are nearly white: there the filter is perfect, too


@pytest.mark.parametrize("settings", [{}, {"blur_sigma_max": 2.0}])
def test_a_network_that_has_learned_nothing_is_worse(perfect, settings):
    pipeline, _, images, _ = perfect
    scheduler = SSDScheduler.from_config(pipeline.scheduler.config, **settings)
    useless = SimpleNamespace(scheduler=scheduler, unet=Zero(), device=torch.device("cpu"))
    found = normalised_residuals(Denoiser(useless), images, data_moments(images.x_0, scheduler.process))
    assert min(found.values()) > 1
