"""Jacobians: against closed forms for perfect denoisers, dense against implicit, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import quad_vec
from torch import nn

from flexi_unet import FlexiUNet2DModel
from ssd.analysis import level_geometry as command
from ssd.analysis import level_jacobian as level_jacobian_module
from ssd.analysis.denoisers.exact import EmpiricalDenoiser, GaussianDenoiser
from ssd.analysis.derivatives import (
    DenseMap,
    ImplicitMap,
    asymmetry,
    dense_jacobian,
    leading_spectrum,
    probe,
    random_signs,
    spectrum,
    sure,
)
from ssd.analysis.gaussian_data import posterior_mean_matrix, power_law_covariance, residual_covariance
from ssd.analysis.level_jacobian import level_jacobian, next_downsampling
from ssd.analysis.network_map import NetworkMap
from ssd.data import open_dataset
from ssd.evaluation.denoising import Denoiser
from ssd.evaluation.given_images import ImageBatch
from ssd.pipeline_ssd import SSDPipeline
from ssd.process.noise import NoiseSchedule, make_betas
from ssd.process.resolution import ResolutionSchedule, pyramid
from ssd.process.scale_space import ScaleSpaceProcess
from ssd.publishing.saving import load_pipeline
from ssd.scheduling_ssd import SSDScheduler

from ..perfect_network import PerfectNetwork, gaussian_images, perfect_pipeline

DATA = power_law_covariance((8, 8))
LEVELS = [300, 500, 900]
CHANGES = [344, 606]


@pytest.fixture(scope="module")
def process() -> ScaleSpaceProcess:
    resolution = ResolutionSchedule.from_switches(pyramid(8, 3), 1000, CHANGES)
    return ScaleSpaceProcess(NoiseSchedule.from_betas(make_betas()), resolution)


def grey_model(folder: Path) -> Path:
    """Of 8 x 8 pixels in two levels, with attention and random weights."""
    torch.manual_seed(0)
    unet = FlexiUNet2DModel(
        8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_resolutions=(8, 4),
    )
    for parameter in unet.parameters():  # the output's convolution starts at zero
        nn.init.normal_(parameter, std=0.1)
    SSDPipeline(unet, SSDScheduler(sample_size=8, num_levels=2)).save_pretrained(folder)
    return folder


def perfect(process: ScaleSpaceProcess, t: int):
    """The exact network of Gaussian images, in float64."""
    matrix, size = posterior_mean_matrix(process, DATA, t - 1, t), process.size(t - 1)
    return lambda x_t: (x_t.flatten(1) @ matrix).view(-1, 1, *size)


def state(process: ScaleSpaceProcess, t: int) -> torch.Tensor:
    return torch.randn(1, *process.size(t), dtype=torch.float64, generator=torch.Generator().manual_seed(t))


def snr(process: ScaleSpaceProcess, t: int) -> float:
    return float((process.signal(t) / process.sigma(t)) ** 2)


@pytest.mark.parametrize("t", LEVELS)
def test_the_perfect_network_within_a_level(process: ScaleSpaceProcess, t: int) -> None:
    """C1: Cov[D_t x_0 | x_t] = (sigma / a)^2 S, d_eff = sum snr p / (1 + snr p)."""
    found = level_jacobian(process, perfect(process, t), state(process, t), t)
    symmetric = (found.vectors * found.eigenvalues) @ found.vectors.T
    # s = t - 1 and t share their level, so that D_s = D_t.
    torch.testing.assert_close(
        symmetric / snr(process, t), residual_covariance(process, DATA, t - 1, t), rtol=0, atol=1e-10
    )
    down = process.operator(-1, t).to_dense()
    seen = snr(process, t) * torch.linalg.eigvalsh(down @ DATA @ down.T)
    assert found.d_eff == pytest.approx(float((seen / (1 + seen)).sum()), rel=1e-10)
    assert found.asymmetry < 1e-10
    assert found.affine < 1e-10
    assert found.smallest > 0
    assert found.eigenvalues[0] < 1
    assert found.invented is None
    coarser = next_downsampling(process, t)
    if coarser is None:
        assert found.coverage is None
    else:
        v = torch.linalg.svd(coarser.to_dense(), full_matrices=False)[2].T
        assert found.coverage == pytest.approx(float((v.T @ symmetric @ v).trace() / symmetric.trace()), rel=1e-10)


@pytest.mark.parametrize("t", CHANGES)
def test_the_perfect_network_at_a_change(process: ScaleSpaceProcess, t: int) -> None:
    """C2: G = a D J is symmetric without negative eigenvalues, and its trace the information of the coarse grid."""
    found = level_jacobian(process, perfect(process, t), state(process, t), t)
    assert found.changes
    assert found.asymmetry < 1e-10
    assert found.smallest > -1e-12
    down = process.operator(-1, t).to_dense()
    prior = down @ DATA @ down.T
    identity = torch.eye(len(prior), dtype=torch.float64)
    posterior = prior - prior @ torch.linalg.solve(prior + identity / snr(process, t), prior)  # Cov[D_t x_0 | x_t]
    symmetric = (found.vectors * found.eigenvalues) @ found.vectors.T
    torch.testing.assert_close(symmetric, snr(process, t) * posterior, rtol=0, atol=1e-10)
    seen = snr(process, t) * torch.linalg.eigvalsh(prior)
    assert found.d_eff == pytest.approx(float((seen / (1 + seen)).sum()), rel=1e-10)
    jacobian = posterior_mean_matrix(process, DATA, t - 1, t).T  # (n_s, n_t)
    step = process.operator(t - 1, t).to_dense()
    outside = jacobian - torch.linalg.pinv(step) @ step @ jacobian
    assert found.invented == pytest.approx(float((outside.norm() / jacobian.norm()) ** 2), abs=1e-10)
    assert found.coverage is None


@pytest.mark.parametrize("t", [*LEVELS, *CHANGES])
def test_large_images_are_probed(process: ScaleSpaceProcess, t: int, monkeypatch) -> None:
    """Against the Jacobian written out: eigenvalues to 1e-10; quotients of means over 20,000 random vectors.

    The standard deviation of z^T S z is at most sqrt(2) |S|, and |S| at most tr S: 0.01 of a trace for the mean, and
    0.05 leaves room for a quotient of two.
    """
    monkeypatch.setattr(level_jacobian_module, "NUM_PROBES", 20_000)
    arguments = (process, perfect(process, t), state(process, t), t)
    dense, probed = level_jacobian(*arguments), level_jacobian(*arguments, largest_dense=0)
    leading = dense.eigenvalues[: len(probed.eigenvalues)]
    torch.testing.assert_close(probed.eigenvalues, leading, rtol=0, atol=1e-10)
    assert abs(probed.d_eff - dense.d_eff) < 5 * probed.d_eff_error + 1e-12
    assert probed.asymmetry < 1e-10
    assert probed.smallest is None
    for name in ("invented", "coverage"):
        exact, estimate = getattr(dense, name), getattr(probed, name)
        assert (estimate is None) == (exact is None)
        if exact is not None:
            assert abs(estimate - exact) < 0.05


def exact_denoisers() -> dict:
    digits = open_dataset("digits", size=8, channels=1)
    images = torch.stack([digits[i]["image"] for i in range(40)]).double() / 2 + 0.5
    return {"gaussian": GaussianDenoiser.fitted(images), "empirical": EmpiricalDenoiser(images)}, images


@pytest.mark.parametrize("kind", ["gaussian", "empirical"])
@pytest.mark.parametrize("sigma", [0.3, 0.6])
def test_exact_denoisers_by_three_ways(kind: str, sigma: float) -> None:
    """Their own Jacobian, automatic differentiation, Lanczos: symmetric, with no negative eigenvalue."""
    denoisers, images = exact_denoisers()
    denoise = denoisers[kind]
    y = images[0].flatten() + sigma * torch.randn(64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def function(rows: torch.Tensor) -> torch.Tensor:
        return denoise(rows.view(-1, 1, 8, 8), sigma).flatten(1)

    own = denoise.jacobian(y.view(1, 1, 8, 8), sigma)[0]
    matrix = dense_jacobian(function, y)
    torch.testing.assert_close(matrix, own, rtol=0, atol=1e-10)
    assert asymmetry(matrix) < 1e-10
    dense = spectrum(matrix)
    assert dense.eigenvalues[-1] > -1e-10
    implicit = ImplicitMap(function, y)
    vectors = random_signs(3, 64, torch.Generator().manual_seed(2))
    torch.testing.assert_close(implicit.apply(vectors), vectors @ own.T, rtol=0, atol=1e-10)
    torch.testing.assert_close(implicit.apply_transposed(vectors), vectors @ own, rtol=0, atol=1e-10)
    leading = leading_spectrum(implicit, 64, 5)
    torch.testing.assert_close(leading.eigenvalues, dense.eigenvalues[:5], rtol=0, atol=1e-10)
    overlap = (leading.vectors[:, :1].T @ dense.vectors[:, :1]).abs()
    assert float(dense.eigenvalues[0] - dense.eigenvalues[1]) < 1e-3 or float(overlap) == pytest.approx(1, abs=1e-6)


def test_probes_of_a_matrix() -> None:
    matrix = torch.randn(30, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = probe(DenseMap(matrix), random_signs(4000, 30, torch.Generator().manual_seed(1)))
    assert abs(found.trace - float(matrix.trace())) < 4 * found.trace_error
    # The standard deviation of z^T A z is at most sqrt(2) |A|: 4000 of them have 2 % of it.
    norm = float(matrix.square().sum())
    assert found.squared_norm == pytest.approx(norm, rel=0.1)
    assert found.asymmetry == pytest.approx(asymmetry(matrix), rel=0.1)


@pytest.mark.parametrize("sigma", [0.1, 0.5])
def test_sure_is_the_squared_error_in_expectation(sigma: float) -> None:
    """For images of the Gaussian itself, within four standard errors of the difference."""
    gaussian = GaussianDenoiser(torch.zeros(1, 8, 8, dtype=torch.float64), DATA)
    generator = torch.Generator().manual_seed(0)
    white = torch.randn(2, 2000, 1, 8, 8, dtype=torch.float64, generator=generator)
    images = gaussian.sample(white[0])
    noisy = images + sigma * white[1]
    denoised = gaussian(noisy, sigma)
    trace = float(gaussian.shrinkage(sigma).sum())
    estimates = torch.tensor([sure(y, f, sigma, trace) for y, f in zip(noisy, denoised)])
    errors = (denoised - images).flatten(1).square().sum(dim=1)
    difference = estimates - errors
    assert abs(float(difference.mean())) < 4 * float(difference.std()) / 2000**0.5
    assert float(errors.mean()) == pytest.approx(sigma**2 * trace, rel=0.02)


def test_sure_is_exact_in_expectation() -> None:
    """E [2 s^2 tr J + |y - f|^2 - s^2 d] = s^2 E tr J: by algebra for a Gaussian, by quadrature for two points."""
    sigma, identity = 0.3, torch.eye(64, dtype=torch.float64)
    filter_ = GaussianDenoiser(torch.zeros(1, 8, 8, dtype=torch.float64), DATA).jacobian(
        torch.zeros(1, 1, 8, 8), sigma
    )[0]
    left = (identity - filter_) @ (DATA + sigma**2 * identity) @ (identity - filter_).T
    trace = float(filter_.trace())
    assert 2 * sigma**2 * trace + float(left.trace()) - sigma**2 * 64 == pytest.approx(sigma**2 * trace, abs=1e-10)

    two = EmpiricalDenoiser(torch.tensor([0.0, 1.0], dtype=torch.float64).view(2, 1, 1, 1))

    def weighted(y: float) -> np.ndarray:
        image = torch.full((1, 1, 1, 1), y, dtype=torch.float64)
        slope, denoised = float(two.jacobian(image, sigma)), two(image, sigma)
        density = sum(np.exp(-((y - x) ** 2) / (2 * sigma**2)) for x in (0, 1)) / (2 * sigma * np.sqrt(2 * np.pi))
        return density * np.array([sure(image, denoised, sigma, slope), sigma**2 * slope])

    (estimate, error), _ = quad_vec(weighted, -4, 5, epsabs=1e-13, epsrel=1e-13)
    assert estimate == pytest.approx(error, abs=1e-10)


class DifferentiableNetwork(PerfectNetwork):
    def requires_grad_(self, requires_grad: bool) -> DifferentiableNetwork:
        return self


def test_the_study_of_a_perfect_network() -> None:
    """Its error is that of theory, SURE agrees, and its dimension is Wiener's. 400 images, four standard errors."""
    pipeline, covariance = perfect_pipeline(num_levels=2)
    pipeline.unet = DifferentiableNetwork(pipeline.scheduler, covariance)
    denoiser, process = Denoiser(pipeline), pipeline.scheduler.process
    images = ImageBatch(gaussian_images(covariance, 400), list(range(400)), None)
    data = [{"image": image} for image in images.x_0]
    timesteps = [900, 750, 300]
    linear = command.linear_dimension(denoiser, ListData(data), timesteps, seed=0)
    for t, geometry in zip(timesteps, command.study(denoiser, images, timesteps, linear, seed=0)):
        numbers = geometry.numbers
        residual = residual_covariance(process, covariance, t - 1, t)
        # The variance of a squared error is 2 |R|^2 for Gaussian errors.
        deviation = float((2 * residual.square().sum() / 400).sqrt()) / len(residual)
        assert numbers["error"] == pytest.approx(float(residual.trace()) / len(residual), abs=4 * deviation)
        assert numbers["wiener"] == pytest.approx(numbers["d_eff"], rel=0.15)  # a covariance of 400 images
        assert numbers["asymmetry"] < 1e-3  # the network's matrix is float32
        if numbers["sure"] is not None:
            noise = float((process.sigma(t) / process.signal(t)) ** 2)
            assert numbers["sure"] == pytest.approx(
                numbers["error"], abs=4 * noise * (2 / (400 * len(residual))) ** 0.5
            )


class ListData(list):
    """A data set as far as images are drawn from it."""

    levels = None


def test_the_command(capsys, tmp_path) -> None:
    model, out = grey_model(tmp_path / "m"), tmp_path / "geometry"
    command.main(f"--model {model} --data digits --num 2 --timesteps [300,750,990] --out {out} --device cpu".split())
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "means over 2 images of digits"
    assert printed[-3:] == [
        f"wrote {out / name}" for name in ("level_geometry.json", "level_geometry.png", "eigenvectors.png")
    ]
    rows = json.loads((out / "level_geometry.json").read_text())["timesteps"]
    assert [(row["t"], row["size"][0], row["target_size"][0]) for row in rows] == [
        (990, 4, 4),
        (750, 4, 8),
        (300, 8, 8),
    ]
    assert [row["invented"] is None for row in rows] == [True, False, True]
    assert [row["coverage"] is None for row in rows] == [True, True, False]
    for name in ("level_geometry.png", "eigenvectors.png"):
        assert (out / name).read_bytes()[:4] == b"\x89PNG"


def test_the_networks_own_map_is_what_sampling_predicts(tmp_path) -> None:
    pipeline = load_pipeline(str(grey_model(tmp_path / "m")), "cpu")
    denoiser = Denoiser(pipeline)
    denoiser.scheduler.register_to_config(clip_sample=False)
    for t in (300, 750):
        x_t = torch.randn(2, 1, *denoiser.process.size(t), generator=torch.Generator().manual_seed(0))
        expected = denoiser.process.from_target(denoiser.prediction(x_t, t - 1, t), t - 1)
        torch.testing.assert_close(NetworkMap(denoiser.scheduler, pipeline.unet, t)(x_t), expected)


def test_forward_derivatives_of_a_network_are_its_jacobian(tmp_path) -> None:
    """Float32 arithmetic forward and backward, through attention: equal to a thousandth."""
    pipeline = load_pipeline(str(grey_model(tmp_path / "m")), "cpu")
    network = NetworkMap(pipeline.scheduler, pipeline.unet.requires_grad_(False), 750)
    x = torch.randn(16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def function(rows: torch.Tensor) -> torch.Tensor:
        return network(rows.view(-1, 1, 4, 4)).flatten(1)

    matrix = dense_jacobian(function, x)
    assert matrix.shape == (64, 16)
    forward = ImplicitMap(function, x).apply(torch.eye(16, dtype=torch.float64))
    assert float((forward - matrix.T).norm() / matrix.norm()) < 1e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--timesteps", "[]"], "--timesteps must name at least one, got an empty list."),
        (["--timesteps", "[1000]"], "--timesteps must be in 0..999, got 1000."),
        (["--num", "1"], "--num must be at least 2, got 1."),
        (["--device", "cuda"], "Jacobians are computed on the CPU, got --device cuda: leave it out."),
    ],
)
def test_mistakes_are_one_line(capsys, tmp_path, arguments: list[str], message: str) -> None:
    model = grey_model(tmp_path / "m")
    with pytest.raises(SystemExit, match="2"):
        command.main(["--model", str(model), "--data", "digits", "--out", str(tmp_path / "o"), *arguments])
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "o").exists()
