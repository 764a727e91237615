"""What theory says of images of a known geometry: slopes, tangent spaces, and the facts of the paper."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from ssd.analysis.denoisers.denoising import noise_probes, psnr
from ssd.analysis.denoisers.exact import EmpiricalDenoiser, GaussianDenoiser
from ssd.analysis.denoisers.saved import build_denoiser, save_denoiser
from ssd.analysis.image_classes import __main__ as image_classes
from ssd.analysis.image_classes.psnr_slopes import expected_slope, fit_slope, oracle_errors, sigma_of_psnr
from ssd.analysis.image_classes.tangents import jacobian_of_parameters, local_posterior, principal_angles, tangent_basis
from ssd.data import open_dataset
from ssd.data.image_classes import (
    disc_image,
    disc_parameters,
    pixel_permutation,
    rescaled_image,
    shuffle,
    sine_image,
    sine_parameters,
)

SIZE = (16, 16)
SIGMA = 1e-4
UNET = {"channels": 1, "width": 4, "blocks": 1}


def disc(parameters: torch.Tensor) -> torch.Tensor:
    return disc_image(parameters, SIZE)


def sine(parameters: torch.Tensor) -> torch.Tensor:
    return sine_image(parameters, SIZE)


def ray(parameters: torch.Tensor) -> torch.Tensor:
    return rescaled_image(parameters, disc(disc_parameters(0, 5, SIZE)))


MANIFOLDS = {
    "discs": (disc, disc_parameters(0, 1, SIZE)),
    "other discs": (disc, disc_parameters(0, 7, SIZE)),
    "sines": (sine, sine_parameters(0, 3)),
    "one image, rescaled": (ray, torch.tensor([0.5], dtype=torch.float64)),
}


def white(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("sigma", [0.1, 1e-2, 1e-3])
def test_the_oracle_error_is_the_closed_form_of_alpha_1(sigma: float) -> None:
    """sum of 1 / (a^2 + k^2) over k >= 1 is (pi a coth(pi a) - 1) / (2 a^2), with a = 1 / sigma."""
    a = 1 / sigma
    assert oracle_errors(1, [sigma])[0] == pytest.approx((math.pi * a / math.tanh(math.pi * a) - 1) / (2 * a**2), 1e-8)


@pytest.mark.parametrize("alpha", [1, 2, 3, 5])
def test_the_slope_is_that_of_the_theory(alpha: float) -> None:
    row = image_classes.slope_row(alpha)
    assert row.expected == expected_slope(alpha) == alpha / (alpha + 1)
    assert abs(row.fitted - row.expected) < 0.01


def test_a_line_needs_two_points() -> None:
    assert fit_slope([0, 10, 20], [1, 6, 100], window=(0, 10)) == pytest.approx(0.5)
    with pytest.raises(ValueError, match=r"The window 15\.\.40 dB holds 1 points"):
        fit_slope([0, 10, 20], [1, 6, 100], window=(15, 40))


def test_the_tangent_projection_of_discs_has_slope_1() -> None:
    """A denoiser that projects on the tangent space of a disc: PSNR rises by 10 log10(D / 5) in the mean."""
    theta = disc_parameters(0, 1, SIZE)
    x, q = disc(theta)[None, None], tangent_basis(disc, theta)
    levels = [10.0, 20.0, 30.0, 40.0]
    probes = noise_probes(x.expand(200, 1, *SIZE), 0, [sigma_of_psnr(level) for level in levels])
    curve = psnr(lambda y, sigma: x + ((y - x).flatten(1) @ q @ q.T).view_as(y), probes)
    # The logarithm of a chi-square with 5 degrees of freedom: its mean, and the deviation of a mean of 200.
    mean = 10 / math.log(10) * (float(torch.digamma(torch.tensor(2.5))) + math.log(2))
    deviation = 10 / math.log(10) * (float(torch.polygamma(1, torch.tensor(2.5))) / 200) ** 0.5
    assert np.abs(np.array(curve) - levels - 10 * math.log10(256) + mean).max() < 4 * deviation
    assert fit_slope(levels, curve, (10, 40)) == pytest.approx(1, abs=4 * deviation / np.std(levels) / 2)


@pytest.mark.parametrize("name", MANIFOLDS)
def test_the_tangent_space_is_that_of_finite_differences(name: str) -> None:
    image_of, theta = MANIFOLDS[name]
    steps = 1e-6 * torch.eye(len(theta), dtype=torch.float64)
    differences = torch.stack([(image_of(theta + step) - image_of(theta - step)).flatten() for step in steps], 1)
    tangent = tangent_basis(image_of, theta)
    torch.testing.assert_close(tangent.T @ tangent, torch.eye(len(theta), dtype=torch.float64), rtol=0, atol=1e-12)
    assert principal_angles(differences, tangent).max() < 1e-4


@pytest.mark.parametrize("name", MANIFOLDS)
def test_the_best_denoiser_projects_on_the_tangent_space(name: str) -> None:
    image_of, theta = MANIFOLDS[name]
    p, tangent, x = len(theta), tangent_basis(image_of, theta), image_of(theta)
    for seed in range(3):
        noise = white(*SIZE, seed=seed)
        found = local_posterior(image_of, theta, noise, SIGMA, seed=seed)
        assert found.effective_count > 400
        assert principal_angles(found.vectors, tangent).max() < 0.01
        assert float(found.eigenvalues[p]) < 1e-4
        # Estimates from n images: the mean has variance p / n in units of sigma^2, the error 2 p / n; four deviations.
        assert float(found.eigenvalues.sum()) == pytest.approx(p, abs=4 * (2 * p / found.effective_count) ** 0.5)
        projected = x + SIGMA * (tangent @ (tangent.T @ noise.flatten())).view(SIZE)
        assert float((found.mean - projected).norm()) / SIGMA < 4 * (p / found.effective_count) ** 0.5


def test_the_exact_denoiser_of_nearby_discs_finds_the_tangent_space() -> None:
    """Discs around one, Gaussian in tangent coordinates of deviation 2 sigma: J has five eigenvalues 4 / (4 + 1)."""
    theta = disc_parameters(0, 1, SIZE)
    q, r = torch.linalg.qr(jacobian_of_parameters(disc, theta))
    moved = theta + torch.linalg.solve_triangular(r, 2 * SIGMA * white(5, 4000), upper=True).T
    nearby = torch.stack([disc(parameters) for parameters in moved])[:, None]
    jacobian = EmpiricalDenoiser(nearby).jacobian(disc(theta)[None, None] + SIGMA * white(1, 1, *SIZE) / 4, SIGMA)[0]
    eigenvalues, vectors = torch.linalg.eigh(jacobian)
    assert principal_angles(vectors[:, -5:], q).max() < 0.01
    assert float(eigenvalues[-6]) < 1e-4
    # About 4000 / 5^2.5 = 70 discs count: the sum of the variances of five deviates misses by 0.8 (2 * 5 / 70)^0.5.
    assert float(jacobian.trace()) == pytest.approx(4, abs=4 * 0.8 * (10 / 70) ** 0.5)


def test_of_one_rescaled_image_the_basis_is_the_image() -> None:
    image = ray(torch.ones(1, dtype=torch.float64)).flatten()
    found = local_posterior(ray, torch.tensor([0.5], dtype=torch.float64), white(*SIZE), SIGMA)
    assert abs(float(found.vectors[:, 0] @ image / image.norm())) == pytest.approx(1, abs=1e-12)


def test_a_cone_holds_its_images_in_their_tangent_spaces() -> None:
    for seed in range(3):
        theta = sine_parameters(0, seed)
        signed = (2 * sine(theta) - 1).flatten()
        tangent = tangent_basis(sine, theta)
        assert float((signed - tangent @ (tangent.T @ signed)).norm() / signed.norm()) < 1e-12


@pytest.mark.parametrize("kind", ["memoriser", "linear"])
def test_shuffled_pixels_change_nothing_for_an_exact_denoiser(kind: str) -> None:
    clean = torch.stack([disc(disc_parameters(0, index, SIZE)) for index in range(60)])[:, None]
    order, noisy = pixel_permutation(0, SIZE), clean[:20] + 0.5 * white(20, 1, *SIZE)
    make = EmpiricalDenoiser if kind == "memoriser" else GaussianDenoiser.fitted
    plain, mixed = make(clean)(noisy, 0.5), make(shuffle(clean, order))(shuffle(noisy, order), 0.5)
    torch.testing.assert_close(shuffle(mixed, order.argsort()), plain, rtol=0, atol=1e-10)
    assert float((plain - clean[:20]).square().mean()) < 0.25  # it denoises


def test_the_command(tmp_path, capsys) -> None:
    out = tmp_path / "new" / "classes"
    image_classes.main(["--out", str(out), "--alphas", "[2, 5]", "--res", "16", "--num", "2"])
    printed = capsys.readouterr().out
    assert printed.splitlines()[1].split() == ["2", "0.6667", "0.6649"]
    files = image_classes.FILES[:3]
    assert printed.splitlines()[-1] == f"wrote {', '.join(str(out / name) for name in files)}"
    assert sorted(path.name for path in out.iterdir()) == sorted(files)
    for name in image_classes.FILES[:2]:
        assert min(Image.open(out / name).size) > 100
    written = json.loads((out / "image_classes.json").read_text())
    assert written["fit_window_db"] == [40, 80]
    assert [row["alpha"] for row in written["slopes"]] == [2, 5]
    assert [row["dimensions"] for row in written["tangents"]] == [5, 2, 1]
    for row in written["tangents"]:
        assert row["error"] == pytest.approx(row["dimensions"], rel=0.2)


@pytest.mark.parametrize(("data", "expected"), [("calpha:3", 0.75), ("discs", 1.0)])
def test_the_command_with_a_denoiser(tmp_path, capsys, data: str, expected: float) -> None:
    """One whose residual is zero leaves noise as it is: the slope is 1, whatever its class."""
    network = build_denoiser("bf_unet", UNET)
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    save_denoiser(network, "bf_unet", UNET, tmp_path / "net", settings={"data": data, "res": 16, "channels": 1})
    flags = ["--alphas", "[2]", "--res", "16", "--num", "1", "--denoiser", str(tmp_path / "net")]
    image_classes.main(["--out", str(tmp_path / "out"), *flags, "--fit_window", "[20, 42]"])
    printed = capsys.readouterr().out
    assert f"{data}: slope 1.0" in printed or f"{data}: slope 0.99" in printed
    assert f"{expected:.4f} of the theory" in printed
    assert printed.splitlines()[-1].endswith("trained_slope.png")
    assert min(Image.open(tmp_path / "out" / "trained_slope.png").size) > 100
    trained = json.loads((tmp_path / "out" / "image_classes.json").read_text())["trained"]
    assert (trained["data"], trained["images"], trained["window"]) == (data, 64, [20, 42])
    assert trained["expected"] == expected
    # A level misses by 10 / log(10) (2 / (64 * 256))^0.5 = 0.05 dB; twelve levels 2 dB apart hold a slope to 0.002.
    assert trained["fitted"] == pytest.approx(1, abs=0.01)
    assert trained["output_psnr"] == pytest.approx(trained["input_psnr"], abs=0.2)


def test_denoisers_of_other_images_are_refused(tmp_path, capsys) -> None:
    save_denoiser(build_denoiser("bf_unet", UNET), "bf_unet", UNET, tmp_path, settings={"data": "digits"})
    for folder, message in ((tmp_path, "learned digits, of which no slope is known"), (tmp_path / "x", "no denoiser")):
        with pytest.raises(SystemExit, match="2"):
            image_classes.main(["--out", str(tmp_path / "out"), "--denoiser", str(folder)])
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_pictures_show_the_images_of_the_data_sets() -> None:
    config = image_classes.ImageClassesConfig(out="unused", alphas=[2.0], res=16, num=3)
    shown = image_classes.class_images(config)
    assert {images.shape for images in shown.values()} == {(3, 16, 16)}
    for spec, name in (("calpha:2", "C^2"), ("discs", "discs"), ("sines", "sines")):
        item = open_dataset(spec, 16, channels=1)[2]["image"][0]
        assert float(((item + 1) / 2 - shown[name][2]).abs().max()) <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--alphas", "[]"], "--alphas must be numbers above 0 and below 100, got []"),
        (["--alphas", "[1, -2]"], "--alphas must be numbers above 0 and below 100, got [1.0, -2.0]"),
        (["--res", "4"], "--res must be in 8..256, got 4"),
        (["--num", "0"], "--num must be in 1..32, got 0"),
        (["--seed", "-1"], "--seed must be in 0..4294967295, got -1"),
        (["--test_images", "0"], "--test_images must be in 1..10000, got 0"),
        (["--fit_window", "[40, 20]"], "--fit_window must be two numbers in 0..42, at least 4 apart, got [40.0, 20.0]"),
        (["--fit_window", "[20, 60]"], "--fit_window must be two numbers in 0..42"),
        (["--out", __file__], "is a file"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, capsys, arguments, message) -> None:
    with pytest.raises(SystemExit) as exit_info:
        image_classes.main(["--out", str(tmp_path / "out"), *arguments])
    said = [line for line in capsys.readouterr().err.splitlines() if line]
    assert exit_info.value.code == 2
    assert len(said) == 1
    assert message in said[0]
    assert not (tmp_path / "out").exists()
