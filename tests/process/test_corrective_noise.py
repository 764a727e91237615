"""Corrective noise: the state that it leads to has the mean and the noise of the closed form."""

from itertools import pairwise

import pytest
import torch

from ssd.process import CorrectiveNoiseProcess, NoiseSchedule, ResolutionSchedule, make_betas, pyramid
from ssd.process.corrective_noise import upsample

from .monte_carlo import NUMBER, assert_distributed, white

NOISE = NoiseSchedule.from_betas(make_betas())
SIZE = (8, 4)


def make(levels: int = 3, size=SIZE, curve: str = "equal", **settings) -> CorrectiveNoiseProcess:
    schedule = ResolutionSchedule.from_curve(pyramid(size, levels), 1000, curve)
    return CorrectiveNoiseProcess(NOISE, schedule, **settings)


def images(size, seed: int, number: int = 2) -> torch.Tensor:
    return torch.randn(number, 1, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_chain_visits_every_level_and_rolls_back() -> None:
    process = make()
    assert [process.size(t) for t in (-1, 0, process.num_timesteps - 1)] == [(8, 4), (8, 4), (2, 1)]
    for entry in process.required_timesteps:
        below = entry + 1  # the last state of the coarser level
        assert process.size(entry) == tuple(2 * side for side in process.size(below))
        assert process.times[entry] > process.times[below]
        drop = process.noise.snr[entry] / NOISE.snr[process.times[below] - 1]  # that level ends one time lower
        assert 0.25 * 0.97 < drop <= 0.25  # the least that is allowed, up to one time
    for t in range(1, process.num_timesteps):
        assert process.level(t) >= process.level(t - 1)
        if process.level(t) == process.level(t - 1):
            assert process.times[t] == process.times[t - 1] + 1


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("drop", [4.0, 7.5])
@pytest.mark.parametrize("entry", [0, 1])
def test_the_corrected_state_has_the_closed_form(entry: int, eta: float, drop: float) -> None:
    """E and Cov over x_t given x_0: mean a_s Up(D x_0), covariance sigma_s^2 I, exactly."""
    process = make(snr_drop=drop)
    s = process.required_timesteps[entry]
    x_0 = images(SIZE, 0, 1)
    for t in (s + 1, s + 40):
        identity = torch.eye(process.size(t)[0] * process.size(t)[1], dtype=torch.float64).view(-1, 1, *process.size(t))
        clean = process.target(x_0, t)
        mean_t = process.signal(t) * clean
        mean = process.reverse(clean, mean_t, s, t, eta).mean
        torch.testing.assert_close(mean, process.signal(s) * process.degrade(x_0, s), atol=1e-10, rtol=0)
        # The kernel is linear in x_t: its matrix, and the covariance that it makes of that of x_t.
        kernel = (process.reverse(clean, mean_t + identity, s, t, eta).mean - mean).flatten(1).T
        made = process.reverse(clean, mean_t, s, t, eta).covariance.to_dense()
        assert torch.linalg.eigvalsh(made).min() > -1e-12
        total = process.sigma(t) ** 2 * kernel @ kernel.T + made
        torch.testing.assert_close(total, process.sigma(s) ** 2 * torch.eye(len(total)).double(), atol=1e-10, rtol=0)


def test_samples_of_the_chain_have_the_marginals() -> None:
    process, x_0, generator = make(), images(SIZE, 0, 1), torch.Generator().manual_seed(0)
    top, (low, high) = process.num_timesteps - 1, process.required_timesteps
    for start, end in ((top, high), (high - 1, low), (low - 1, 300)):
        x = process.marginal_sample(x_0.expand(NUMBER, -1, -1, -1), start, white(process.size(start), generator))
        chain = [start, (start + end + 2) // 2, end]
        for t, s in pairwise(chain):
            clean = process.target(x_0, t).expand(NUMBER, -1, -1, -1)
            x = process.reverse(clean, x, s, t).sample(generator)
            mean = process.signal(s) * process.degrade(x_0, s)
            assert_distributed(x, mean, process.sigma(s) ** 2 * torch.eye(mean.numel(), dtype=torch.float64))


def test_within_a_level_it_is_ddpm() -> None:
    process = make()
    clean, x_t = images((4, 2), 0), images((4, 2), 1)
    t = process.required_timesteps[0] + 5
    s = t - 1
    a, c = process.signal(s), process.signal(t) / process.signal(s)
    found = process.reverse(clean, x_t, s, t)
    gain = c * process.sigma(s) ** 2 / process.sigma(t) ** 2
    torch.testing.assert_close(found.mean, a * clean + gain * (x_t - c * a * clean), atol=1e-10, rtol=0)


def test_training_sees_the_corrected_states() -> None:
    process, x_0 = make(), images(SIZE, 0)
    entry = process.required_timesteps[0]
    zero = torch.zeros(2, 1, *SIZE, dtype=torch.float64)
    up = upsample((4, 2))
    expected = process.signal(entry) * up.forward(process.target(x_0, entry + 1))
    found = process.marginal_sample(x_0, torch.tensor([entry, entry]), zero)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    assert torch.equal(process.target(x_0, torch.tensor([entry, entry])), x_0)
    assert process.prediction_size(entry + 1, entry) == (4, 2)
    with pytest.raises(ValueError, match=f"Timestep {entry} has a degradation of its own"):
        process.marginal_sample(x_0, torch.tensor([entry, entry - 1]), zero)


def test_misuse_is_explained() -> None:
    process, x_0 = make(), images(SIZE, 0)
    coarse = images((4, 2), 0)
    entry = process.required_timesteps[0]
    with pytest.raises(ValueError, match=f"leads to the timesteps .*{entry}.* alone, not from {entry + 1} to 3"):
        process.reverse(coarse, coarse, 3, entry + 1)
    with pytest.raises(ValueError, match="s must be -1, got 2"):
        process.operator(2, 3)
    with pytest.raises(ValueError, match=r"snr_drop must be at least 4.*got 3"):
        make(snr_drop=3.0)
    odd = ResolutionSchedule.from_curve([(8, 8), (5, 5)], 1000)
    with pytest.raises(ValueError, match="sizes that halve"):
        CorrectiveNoiseProcess(NOISE, odd)
    late = ResolutionSchedule.from_switches(pyramid(8, 2), 1000, [980])
    with pytest.raises(ValueError, match=r"no time to roll back to where the image grows at time 980"):
        CorrectiveNoiseProcess(NOISE, late)
    assert x_0.shape == (2, 1, *SIZE)
