"""Marginal, transition and posterior against dense Gaussian conditioning, in float64."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from ssd.operators import ImplicitOperator, LinearOperator, resize_operator
from ssd.process.losses import denoising_loss, training_pair
from ssd.process.noise import NoiseSchedule, make_betas, make_blur_widths
from ssd.process.resolution import ResolutionSchedule, pyramid
from ssd.process.scale_space import ScaleSpaceProcess

from ..numerics import random_walk, relative_error
from ..operators.device_copies import watch_copies_to_meta
from ..operators.operator_cases import OPERATORS, tolerance
from .monte_carlo import NUMBER, assert_distributed, white

TOLERANCE = 1e-10
GOLDEN = Path(__file__).parents[1] / "golden"
NOISE = NoiseSchedule.from_betas(make_betas())


def make_process(size=(8, 8), levels=3, kernel="bilinear", noise=NOISE) -> ScaleSpaceProcess:
    resolution = ResolutionSchedule.from_curve(pyramid(size, levels), noise.num_timesteps)
    return ScaleSpaceProcess(noise, resolution, kernel)


def images(size: tuple[int, int], seed: int) -> torch.Tensor:
    return torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def condition(process, x_0_at_s, x_t, s, t):
    """Dense Gaussian conditioning: the joint of (x_s, x_t) given x_0 from the marginal of x_s and theorem 1."""
    dense = process.operator(s, t).to_dense()
    m = process.signal(t) / process.signal(s) * dense
    cov_s = process.sigma(s) ** 2 * torch.eye(dense.shape[1], dtype=torch.float64)
    cov_t_given_s = process.sigma(t) ** 2 * torch.eye(dense.shape[0], dtype=torch.float64) - m @ cov_s @ m.T
    mu_s = process.signal(s) * x_0_at_s.flatten(2)
    cov_t = m @ cov_s @ m.T + cov_t_given_s
    gain = torch.linalg.solve(cov_t, m @ cov_s).T
    mean = mu_s + (x_t.flatten(2) - mu_s @ m.T) @ gain.T
    return mean.view_as(x_0_at_s), cov_s - gain @ m @ cov_s


# (s, t): inside each level, one level changed, two levels changed, a long jump, the clean image
PAIRS = [(10, 11), (600, 650), (950, 960), (554, 555), (888, 889), (400, 700), (300, 999), (554, 889)]


@pytest.mark.parametrize("size", [(8, 8), (12, 8), (4, 20)])
@pytest.mark.parametrize("kernel", ["bilinear", "area"])
@pytest.mark.parametrize(("s", "t"), PAIRS)
def test_posterior_is_dense_gaussian_conditioning(size, kernel, s, t) -> None:
    process = make_process(size, kernel=kernel)
    x_0_at_s, x_t = images(process.size(s), 0), images(process.size(t), 1)
    posterior = process.posterior(x_0_at_s, x_t, s=s, t=t)
    mean, covariance = condition(process, x_0_at_s, x_t, s, t)
    torch.testing.assert_close(posterior.mean, mean, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(posterior.covariance.to_dense(), covariance, atol=TOLERANCE, rtol=0)


def two_level_process(operator: LinearOperator) -> ScaleSpaceProcess:
    """A process whose only level change, at t = 600, is `operator`."""
    resolution = ResolutionSchedule.from_switches([operator.in_size, operator.out_size], 1000, [600])
    return ScaleSpaceProcess(NOISE, resolution, downsample=lambda fine, coarse: operator)


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS.keys())
def test_posterior_of_every_operator(operator: LinearOperator) -> None:
    process = two_level_process(operator)
    for s, t in [(599, 600), (300, 800)]:
        x_0_at_s, x_t = images(process.size(s), 0), images(process.size(t), 1)
        posterior = process.posterior(x_0_at_s, x_t, s=s, t=t)
        mean, covariance = condition(process, x_0_at_s, x_t, s, t)
        torch.testing.assert_close(posterior.mean, mean, atol=tolerance(operator), rtol=0)
        torch.testing.assert_close(posterior.covariance.to_dense(), covariance, atol=tolerance(operator), rtol=0)


def assert_marginal_is_kept(process: ScaleSpaceProcess, s: int, t: int, eta: float, limit: float = TOLERANCE) -> None:
    """x_s = A x_t + .. + noise with Cov(x_t) = sigma_t^2 I must give Cov(x_s) = sigma_s^2 I, and the right mean."""
    height, width = process.size(t)
    unit = torch.eye(height * width, dtype=torch.float64).view(-1, 1, height, width)
    zero = torch.zeros(1, 1, *process.size(s), dtype=torch.float64)
    posterior = process.posterior(zero, unit, s=s, t=t, eta=eta)
    gain = posterior.mean.flatten(1).T
    implied = process.sigma(t) ** 2 * gain @ gain.T + posterior.covariance.to_dense()
    expected = process.sigma(s) ** 2 * torch.eye(len(implied), dtype=torch.float64)
    torch.testing.assert_close(implied, expected, atol=limit, rtol=0)

    x_0 = images(process.size(-1), 3)
    mean_t = process.signal(t) * process.degrade(x_0, t)
    mean = process.posterior(process.degrade(x_0, s), mean_t, s=s, t=t, eta=eta).mean
    torch.testing.assert_close(mean, process.signal(s) * process.degrade(x_0, s), atol=limit, rtol=0)


ETAS = pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])


@ETAS
@pytest.mark.parametrize("kernel", ["bilinear", "area"])
@pytest.mark.parametrize(("s", "t"), PAIRS)
def test_every_eta_keeps_the_marginal(eta, kernel, s, t) -> None:
    assert_marginal_is_kept(make_process((12, 8), kernel=kernel), s, t, eta)


@ETAS
@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS.keys())
def test_every_eta_keeps_the_marginal_with_every_operator(operator: LinearOperator, eta: float) -> None:
    process = two_level_process(operator)
    for s, t in [(599, 600), (300, 800)]:
        assert_marginal_is_kept(process, s, t, eta, tolerance(operator))


def blurred_process(size=(12, 8), levels=3, sigma_max=3.0) -> ScaleSpaceProcess:
    resolution = ResolutionSchedule.from_curve(pyramid(size, levels), 1000)
    return ScaleSpaceProcess(NOISE, resolution, blur_widths=make_blur_widths(1000, sigma_max))


@ETAS
@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize(("s", "t"), [(-1, 0), (10, 11), (554, 555), (300, 999), (554, 889)])
def test_blur_is_a_member_of_the_family(levels, s, t, eta) -> None:
    process = blurred_process(levels=levels)
    assert_marginal_is_kept(process, s, t, eta)
    x_0_at_s, x_t = images(process.size(s), 0), images(process.size(t), 1)
    mean, covariance = condition(process, x_0_at_s, x_t, s, t)
    posterior = process.posterior(x_0_at_s, x_t, s=s, t=t)
    torch.testing.assert_close(posterior.mean, mean, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(posterior.covariance.to_dense(), covariance, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_degradations_compose_with_from_targeto(levels: int) -> None:
    process, x_0 = blurred_process(levels=levels), images((12, 8), 0)
    for s, t in [(0, 5), (300, 600), (554, 555), (400, 999)]:
        torch.testing.assert_close(process.operator(s, t).forward(process.degrade(x_0, s)), process.degrade(x_0, t))
        torch.testing.assert_close(process.from_target(process.target(x_0, s + 1), s), process.degrade(x_0, s))
    assert torch.equal(process.target(x_0, 0), x_0)
    torch.testing.assert_close(process.degrade(x_0, torch.tensor([900, 950]))[1], process.degrade(x_0, 950)[1])


def test_without_blur_the_target_is_the_paper_one() -> None:
    process, x_0 = make_process((12, 8)), images((12, 8), 0)
    for s in (-1, 3, 554, 555, 700, 998):
        assert torch.equal(process.target(x_0, s + 1), process.degrade(x_0, s))


def test_wrong_blur_widths_are_refused() -> None:
    for widths in (torch.zeros(1000), torch.linspace(1, 0, 1001), torch.ones(1001)):
        with pytest.raises(ValueError, match="blur_widths must have shape"):
            ScaleSpaceProcess(NOISE, ResolutionSchedule.from_curve(pyramid(8, 2), 1000), blur_widths=widths)
    with pytest.raises(ValueError, match="cannot be negative"):
        make_blur_widths(10, -1)


def test_gain_breaks_theorem_one_and_says_where() -> None:
    """A kernel of gain 1/2 leaves room; sharpening does not once sigma is near 1."""

    def sharpen(fine, coarse):
        down = resize_operator(fine, coarse)
        return ImplicitOperator(lambda x: 3 * down.forward(x) - 2 * down.forward(x.roll(1, -1)), fine)

    noise = NoiseSchedule.from_betas(make_betas("linear", 100))
    for kernel in ("bilinear", "area", "bicubic", "lanczos3", "dct"):
        ScaleSpaceProcess(noise, ResolutionSchedule.from_curve(pyramid(8, 3), 100), kernel)
    with pytest.raises(
        ValueError,
        match=r"Timestep 60 is not a diffusion step.*ImplicitOperator.*gain 1\.277.*sigma_t\^2 = 0\.\d+ is below",
    ):
        ScaleSpaceProcess(noise, ResolutionSchedule.from_switches(pyramid(8, 2), 100, [60]), sharpen)


def test_deterministic_inside_a_level_and_in_the_row_space_of_a_change() -> None:
    process = make_process()
    x_0, x_t = images((8, 8), 0), images((8, 8), 1)
    assert process.posterior(x_0, x_t, s=10, t=20, eta=0).is_deterministic
    change = process.posterior(x_0, images((4, 4), 1), s=554, t=555, eta=0)
    assert not change.is_deterministic
    row_space = process.operator(554, 555).to_dense().T
    assert (change.covariance.to_dense() @ row_space).abs().max() < TOLERANCE


def test_clean_image_is_the_prediction_itself() -> None:
    process = make_process()
    prediction, x_t = images((8, 8), 0), images((8, 8), 1)
    posterior = process.posterior(prediction, x_t, s=-1, t=0)
    torch.testing.assert_close(posterior.mean, prediction, atol=1e-12, rtol=0)
    assert posterior.sample() is posterior.mean


def test_square_root_of_the_covariance() -> None:
    process = make_process((8, 12))
    covariance = process.posterior(images((8, 12), 0), images((4, 6), 1), s=554, t=555).covariance
    unit = torch.eye(96, dtype=torch.float64).view(-1, 8, 12)
    root = covariance.sqrt_apply(unit).flatten(1)
    torch.testing.assert_close(root, root.T, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(root @ root, covariance.to_dense(), atol=TOLERANCE, rtol=0)


def test_samples_have_the_posterior_covariance() -> None:
    process = make_process((4, 4), levels=2)
    posterior = process.posterior(torch.zeros(100_000, 1, 4, 4), torch.zeros(100_000, 1, 2, 2), s=749, t=750)
    samples = posterior.sample(torch.Generator().manual_seed(0)).flatten(1).double()
    expected = posterior.covariance.to_dense()
    torch.testing.assert_close(samples.T @ samples / len(samples), expected, atol=0.02, rtol=0)


def test_transition_and_marginal_agree() -> None:
    """Theorem 1: M Sigma_s M^T + Sigma_ts = Sigma_t, and Sigma_ts is positive semi-definite."""
    process = make_process((12, 8))
    for s, t in PAIRS:
        m = process.signal(t) / process.signal(s) * process.operator(s, t).to_dense()
        transition = process.sigma(t) ** 2 * torch.eye(len(m), dtype=torch.float64) - process.sigma(s) ** 2 * m @ m.T
        assert torch.linalg.eigvalsh(transition).min() > -1e-12
        torch.testing.assert_close(
            m @ process.operator(-1, s).to_dense() * process.signal(s),
            process.operator(-1, t).to_dense() * process.signal(t),
            atol=1e-12,
            rtol=0,
        )


GRADUAL = ScaleSpaceProcess(NOISE, ResolutionSchedule.from_curve([(8 - k, 6 - k) for k in range(5)], 1000))
"""Every change of size is by one pixel."""


@pytest.mark.parametrize("t", [0, 100, *GRADUAL.required_timesteps, 999])
def test_gradual_downsizing_is_dense_gaussian_conditioning(t: int) -> None:
    for s in (t - 1, t // 2, -1):
        x_0_at_s, x_t = images(GRADUAL.size(s), 0), images(GRADUAL.size(t), 1)
        if s < t:
            posterior = GRADUAL.posterior(x_0_at_s, x_t, s, t)
            mean, covariance = condition(GRADUAL, x_0_at_s, x_t, s, t)
            torch.testing.assert_close(posterior.mean, mean, atol=TOLERANCE, rtol=0)
            torch.testing.assert_close(posterior.covariance.to_dense(), covariance, atol=TOLERANCE, rtol=0)


def test_the_forward_chain_of_gradual_downsizing_has_the_marginals() -> None:
    """Theorem 1's transitions, one after the other, from one clean image; and back again."""
    generator, x_0 = torch.Generator().manual_seed(0), images((8, 6), 0)[:1, :1]
    chain = [-1, 0, *(t + d for t in GRADUAL.required_timesteps for d in (-1, 0)), 999]
    x = x_0.expand(NUMBER, -1, -1, -1)
    for s, t in pairwise(chain):
        m = GRADUAL.signal(t) / GRADUAL.signal(s) * GRADUAL.operator(s, t).to_dense()
        step = GRADUAL.sigma(t) ** 2 * torch.eye(len(m), dtype=torch.float64) - GRADUAL.sigma(s) ** 2 * m @ m.T
        noise = white(GRADUAL.size(t), generator).flatten(1) @ torch.linalg.cholesky(step).T
        x = (x.flatten(1) @ m.T + noise).view(-1, 1, *GRADUAL.size(t))
        identity = torch.eye(len(m), dtype=torch.float64)
        assert_distributed(x, GRADUAL.signal(t) * GRADUAL.degrade(x_0, t), GRADUAL.sigma(t) ** 2 * identity)
    for t, s in pairwise(chain[:0:-1]):
        x = GRADUAL.posterior(GRADUAL.degrade(x_0, s), x, s, t).sample(generator)
        mean = GRADUAL.signal(s) * GRADUAL.degrade(x_0, s)
        assert_distributed(x, mean, GRADUAL.sigma(s) ** 2 * torch.eye(mean.numel(), dtype=torch.float64))


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize(("s", "t"), PAIRS)
def test_the_isotropic_approximation_has_the_same_mean_and_total_variance(s: int, t: int, eta: float) -> None:
    process = make_process((12, 8))
    x_0_at_s, x_t = images(process.size(s), 0), images(process.size(t), 1)
    exact = process.posterior(x_0_at_s, x_t, s, t, eta)
    approximate = process.posterior(x_0_at_s, x_t, s, t, eta, covariance="isotropic")
    dense = exact.covariance.to_dense()
    assert torch.equal(approximate.mean, exact.mean)
    expected = dense.diagonal().mean() * torch.eye(len(dense), dtype=torch.float64)
    torch.testing.assert_close(approximate.covariance.to_dense(), expected, atol=TOLERANCE, rtol=0)
    with pytest.raises(ValueError, match="covariance must be one of exact, isotropic, got 'white'"):
        process.posterior(x_0_at_s, x_t, s, t, covariance="white")


def test_the_isotropic_approximation_misses_the_marginal_at_a_level_change() -> None:
    """It puts too little noise into the null space, of which x_t knows nothing."""
    process = make_process((8, 8), levels=2)
    (t,) = process.required_timesteps
    x_0_at_s = images((8, 8), 0)
    found = process.posterior(x_0_at_s, images((4, 4), 1), t - 1, t, covariance="isotropic").covariance.to_dense()
    variance = float(process.sigma(t - 1) ** 2)  # what the null space needs
    ratio = process.sigma(t - 1) * process.signal(t) / process.signal(t - 1) / process.sigma(t)
    kept = ratio**2 * process.operator(t - 1, t).spectral.singular_values.square().sum() / 64
    assert float(found[0, 0]) == pytest.approx(variance * (1 - float(kept)), abs=TOLERANCE)
    assert kept > 0.02


PUBLISHED = random_walk(torch.float32, 6 * 32)
"""Both are in float32; ours has six sums of at most 32 products (D, U^T and V on two axes)."""


def test_published_posterior_means() -> None:
    golden = load_file(GOLDEN / "process_32_3l_convex0.5.safetensors")
    process = make_process((32, 32))
    assert [process.size(t)[0] for t in range(1000)] == golden["resolution"].tolist()
    for t in (333, 555, 889):
        mean = process.posterior(golden[f"posterior.{t}.x0_at_s"], golden[f"posterior.{t}.xt"], s=t - 1, t=t).mean
        assert relative_error(mean, golden[f"posterior.{t}.mean"]) < PUBLISHED


def test_published_posterior_means_with_fifty_steps() -> None:
    golden = load_file(GOLDEN / "process_32_3l_convex0.5_50steps.safetensors")
    process = make_process((32, 32))
    timesteps = golden["train_timestep"].tolist()
    assert [process.size(t)[0] for t in timesteps] == golden["resolution"].tolist()
    for i in (17, 28, 45):
        mean = process.posterior(
            golden[f"posterior.{i}.x0_at_s"], golden[f"posterior.{i}.xt"], s=timesteps[i - 1], t=timesteps[i]
        ).mean
        assert relative_error(mean, golden[f"posterior.{i}.mean"]) < PUBLISHED


def test_per_image_timesteps() -> None:
    process = make_process()
    t = torch.tensor([600, 700])
    x_0, noise = images((8, 8), 0), images((4, 4), 1)
    together = process.marginal_sample(x_0, t, noise)
    for i in range(2):
        alone = process.marginal_sample(x_0[i : i + 1], int(t[i]), noise[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone)
    posterior = process.posterior(process.degrade(x_0, t), together, s=t - 30, t=t, eta=0.5)
    for i in range(2):
        alone = process.posterior(
            process.degrade(x_0[i : i + 1], 600), together[i : i + 1], s=int(t[i]) - 30, t=int(t[i]), eta=0.5
        )
        torch.testing.assert_close(posterior.mean[i : i + 1], alone.mean)
        noise_i = images((4, 4), 2)[i : i + 1]
        torch.testing.assert_close(
            posterior.covariance.sqrt_apply(images((4, 4), 2))[i : i + 1], alone.covariance.sqrt_apply(noise_i)
        )


@given(s=st.integers(-1, 998), gap=st.integers(1, 400), levels=st.integers(1, 4), eta=st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_posterior_covariance_is_never_negative(s: int, gap: int, levels: int, eta: float) -> None:
    process, t = make_process((8, 16), levels), min(s + gap, 999)
    zeros = [torch.zeros(1, 1, *process.size(i), dtype=torch.float64) for i in (s, t)]
    covariance = process.posterior(*zeros, s=s, t=t, eta=eta).covariance
    assert covariance.sqrt_apply(torch.ones_like(zeros[0])).isfinite().all()  # the root of a negative one is none
    assert torch.linalg.eigvalsh(covariance.to_dense()).min() >= -1e-12


@pytest.mark.parametrize("wrong", [-5, -2, 1000])
def test_per_image_timesteps_outside_the_schedule_are_refused(wrong: int) -> None:
    process, x_0, x_t = make_process(), images((8, 8), 0), images((4, 4), 1)
    t = torch.tensor([600, wrong])
    message = rf"lie in -1\.\.999.*got {wrong}"
    for call in (
        lambda: process.signal(t),
        lambda: process.sigma(t),
        lambda: process.level(t),
        lambda: process.size(t),
        lambda: process.operator(torch.tensor([0, 1]), t),
        lambda: process.degrade(x_0, t),
        lambda: process.target(x_0, t),
        lambda: process.from_target(x_0, t),
        lambda: process.marginal_sample(x_0, t, x_t),
        lambda: process.posterior(x_0, x_t, torch.tensor([1, 2]), t),
        lambda: process.posterior(x_0, x_t, t, torch.tensor([700, 800])),
        lambda: denoising_loss(process, x_0, x_0, t),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_timesteps_are_integers(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=rf"integers, got a tensor of {dtype}"):
        make_process().signal(torch.ones(2, dtype=dtype))
    assert torch.equal(make_process().signal(torch.tensor([3, 4], dtype=torch.uint8)).flatten(), NOISE.signal[3:5])


def test_loss_weights_are_the_snr_up_to_its_limit() -> None:
    process, t = make_process(), torch.tensor([100, 250, 500])
    prediction, target = images((8, 8), 0)[:1].expand(3, -1, -1, -1), torch.zeros(3, 3, 8, 8)
    found = denoising_loss(process, prediction, target, t) / prediction.square().mean()
    snr = NOISE.snr[t]
    assert snr[0] > 5 > snr[1]
    assert relative_error(found, snr.clamp(max=5)) < random_walk(torch.float32, 3 * 8 * 8)


def test_timesteps_on_the_cpu_cost_no_wait_for_the_device(monkeypatch) -> None:
    """The meta device hands no number back, and every copy to it must be one from page-locked memory."""
    copies = watch_copies_to_meta(monkeypatch)
    for process in (make_process(), blurred_process((8, 8))):
        for t in (torch.tensor([600, 700]), torch.tensor([555, 555])):
            x_0 = torch.zeros(2, 3, 8, 8, device="meta")
            noise = torch.zeros(2, 3, *process.size(t), device="meta")
            with copies:
                x_t, target = training_pair(process, x_0, t, noise)
                losses = denoising_loss(process, target, target, t)
                posterior = process.posterior(process.from_target(target, t - 1), x_t, t - 1, t, eta=0.5)
                root = posterior.covariance.sqrt_apply(target)
            assert losses.device.type == root.device.type == "meta"
    assert copies.copies > 0


def test_misuse_is_explained() -> None:
    process = make_process()
    with pytest.raises(ValueError, match=r"lie in -1\.\.999.*got 1000"):
        process.signal(1000)
    with pytest.raises(ValueError, match=r"one level, got levels \[0, 1\]"):
        process.size(torch.tensor([0, 600]))
    with pytest.raises(ValueError, match="needs s <= t"):
        process.operator(900, 3)
    with pytest.raises(ValueError, match=r"eta must be in \[0, 1\]"):
        process.posterior(images((8, 8), 0), images((8, 8), 1), s=1, t=2, eta=2)
    with pytest.raises(ValueError, match=r"size of x_t, \(2, 3, 2, 2\)"):
        process.marginal_sample(images((8, 8), 0), 999, images((8, 8), 1))
    with pytest.raises(ValueError, match="1000 timesteps"):
        ScaleSpaceProcess(NOISE, ResolutionSchedule.from_curve(pyramid(8, 2), 500))
