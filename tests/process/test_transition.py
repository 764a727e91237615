"""Theorem 1: from a state to a noisier one."""

import pytest
import torch

from ssd import SSDScheduler
from ssd.operators.linear import ImplicitOperator
from ssd.process import NoiseSchedule, ResolutionSchedule, ScaleSpaceProcess, make_betas
from ssd.process.transition import transition


@pytest.mark.parametrize("settings", [{}, {"level_gain": 2.0, "downsample_kernel": "area"}, {"blur_sigma_max": 2.0}])
@pytest.mark.parametrize(("s", "t"), [(-1, 0), (100, 300), (600, 900), (750, 751), (-1, 999)])
def test_it_leads_from_one_marginal_to_the_next(settings: dict, s: int, t: int) -> None:
    """Mean and covariance in dense algebra: a_t D_t = M a_s D_s, and sigma_s^2 M M^T + cov = sigma_t^2 I."""
    process = SSDScheduler(sample_size=8, num_levels=2, **settings).process
    x_0 = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = transition(process, process.signal(s) * process.degrade(x_0, s), s, t)
    torch.testing.assert_close(found.mean, process.signal(t) * process.degrade(x_0, t), rtol=0, atol=1e-10)
    m = process.signal(t) / process.signal(s) * process.operator(s, t).to_dense()
    covariance = process.sigma(s) ** 2 * m @ m.T + found.covariance.to_dense()
    torch.testing.assert_close(covariance, process.sigma(t) ** 2 * torch.eye(len(m)).double(), rtol=0, atol=1e-10)


def test_an_operator_without_a_decomposition_is_refused() -> None:
    def halve(fine, coarse) -> ImplicitOperator:
        return ImplicitOperator(lambda x: torch.nn.functional.avg_pool2d(x, 2), fine)

    resolution = ResolutionSchedule.from_curve([(8, 8), (4, 4)], 1000)
    process = ScaleSpaceProcess(NoiseSchedule.from_betas(make_betas()), resolution, halve)
    with pytest.raises(ValueError, match="has no decomposition"):
        transition(process, torch.zeros(1, 1, 8, 8), 0, 999)
