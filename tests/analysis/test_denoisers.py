"""Bias-free networks against the published code's numbers, exact denoisers against their definitions, the command."""

import json
import re
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from torch.func import jacrev, vmap

from ssd.analysis.denoisers.__main__ import main
from ssd.analysis.denoisers.bias_free import BiasFreeCNN, BiasFreeDenoiser, BiasFreeUNet
from ssd.analysis.denoisers.denoising import SIGMAS, decibels, function_distance, noise_probes, psnr
from ssd.analysis.denoisers.exact import EmpiricalDenoiser, GaussianDenoiser
from ssd.analysis.denoisers.images import distinct, read_images, split
from ssd.analysis.denoisers.saved import build_denoiser, load_denoiser, save_denoiser
from ssd.analysis.denoisers.similarity import cosines, off_diagonal, paired_cosines
from ssd.analysis.denoisers.training import DenoiserTraining, train_denoiser
from ssd.commands.errors import UsageError

from ..conftest import ROOT

FOLDER = ROOT / "tests" / "golden" / "denoisers"
NETWORKS = ("unet", "bfcnn")
EXACT = 1e-12
"""How far float64 may be from the published code's float64, relative to the largest entry."""


@cache
def archive(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / name) as arrays:
        return dict(arrays)


def golden(key: str) -> torch.Tensor:
    name = "images_and_similarity.npz" if key.startswith("sim.") else "denoiser.npz"
    return torch.from_numpy(archive(name)[key])


def golden_network(name: str) -> BiasFreeDenoiser:
    kinds = {
        "unet": lambda: BiasFreeUNet(width=4, blocks=2),
        "bfcnn": lambda: BiasFreeCNN(width=6, layers=6, first_layer_linear=True),
    }
    network = kinds[name]().double().eval()
    prefix = f"{name}.state."
    network.load_state_dict(
        {key.removeprefix(prefix): golden(key) for key in archive("denoiser.npz") if key.startswith(prefix)}
    )
    return network


def assert_golden(found: torch.Tensor, key: str) -> None:
    expected = golden(key)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= EXACT * expected.abs().max()


def denoiser_jacobian(network: BiasFreeDenoiser, y: torch.Tensor) -> torch.Tensor:
    size = y[0].numel()
    return jacrev(network.denoise)(y).view(size, size)


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_residual_and_jacobian_are_the_published_ones(name: str) -> None:
    network, y = golden_network(name), golden(f"{name}.y")
    assert_golden(network(y), f"{name}.residual")
    assert torch.equal(network.denoise(y), y - network(y))
    jacobian = denoiser_jacobian(network, y)
    assert_golden(torch.eye(144, dtype=torch.float64) - jacobian, f"{name}.jacobian_residual")
    assert_golden(torch.linalg.eigvalsh((jacobian + jacobian.T) / 2).flip(0), f"{name}.eig_sym_denoiser")
    assert_golden(torch.linalg.svdvals(jacobian), f"{name}.svals_denoiser")
    assert_golden(jacobian.trace(), f"{name}.trace_denoiser")
    assert_golden((jacobian - jacobian.T).norm() / jacobian.norm(), f"{name}.asymmetry")


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_training_mode_uses_the_batch_and_keeps_running_deviations(name: str) -> None:
    network = golden_network(name).train()
    assert_golden(network(golden(f"{name}.x_train")), f"{name}.residual_train")
    after = {key: value for key, value in network.state_dict().items() if key.endswith("running_sd")}
    assert len(after) == sum(key.startswith(f"{name}.after_train.") for key in archive("denoiser.npz"))
    for key, value in after.items():
        assert_golden(value, f"{name}.after_train.{key}")


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_without_biases_a_denoiser_is_homogeneous_and_equal_to_its_linearisation(name: str) -> None:
    network, y = golden_network(name), golden(f"{name}.y")
    denoised = network.denoise(y)
    torch.testing.assert_close(network.denoise(7 * y), 7 * denoised, rtol=1e-12, atol=1e-12)
    linear = (denoiser_jacobian(network, y) @ y.flatten()).view_as(y)
    torch.testing.assert_close(linear, denoised, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("blocks", "count"), [(1, 366080), (2, 1825024), (3, 7659264), (4, 30993152)])
def test_sizes_of_the_published_unets(blocks: int, count: int) -> None:
    with torch.device("meta"):
        assert sum(weight.numel() for weight in BiasFreeUNet(width=64, blocks=blocks).parameters()) == count


def test_a_size_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(ValueError, match=r"multiples of 4.*got 12x10"):
        BiasFreeUNet(width=2, blocks=2)(torch.zeros(1, 1, 12, 10))
    assert BiasFreeCNN(width=2, layers=3)(torch.zeros(1, 1, 5, 7)).shape == (1, 1, 5, 7)


def some_pictures(count: int = 6) -> torch.Tensor:
    return torch.rand(count, 2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


EXACT_DENOISERS = {
    "Gaussian": lambda: GaussianDenoiser.fitted(some_pictures(30)),
    "linear on 3 images": lambda: GaussianDenoiser.fitted(some_pictures(3)),
    "empirical": lambda: EmpiricalDenoiser(some_pictures()),
}


@pytest.mark.parametrize("name", EXACT_DENOISERS)
def test_jacobians_of_exact_denoisers(name: str) -> None:
    """Those of automatic differentiation; symmetric, with eigenvalues of at least 0, as a posterior covariance is."""
    denoiser, y, sigma = EXACT_DENOISERS[name](), some_pictures(2) + 0.1, 0.3
    found = denoiser.jacobian(y, sigma)
    expected = vmap(jacrev(lambda one: denoiser(one[None], sigma)[0]))(y).reshape(2, 24, 24)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found, found.mT, rtol=0, atol=1e-12)
    assert torch.linalg.eigvalsh(found).min() > -1e-12


def test_the_gaussian_denoiser_is_the_wiener_filter() -> None:
    pictures, sigma = some_pictures(30), 0.3
    flat = pictures.flatten(1)
    covariance, mean = torch.cov(flat.T, correction=0), flat.mean(dim=0)
    gain = covariance @ torch.linalg.inv(covariance + sigma**2 * torch.eye(24, dtype=torch.float64))
    expected = mean + (flat - mean) @ gain.T
    found = GaussianDenoiser.fitted(pictures)(pictures, sigma)
    torch.testing.assert_close(found.flatten(1), expected, rtol=1e-10, atol=1e-10)


def test_samples_of_a_gaussian_have_its_mean_and_covariance() -> None:
    denoiser = GaussianDenoiser.fitted(some_pictures(30))
    images = torch.eye(24, dtype=torch.float64).view(24, 2, 3, 4)
    root = (denoiser.sample(images) - denoiser.mean).flatten(1)
    torch.testing.assert_close(root, root.T, rtol=0, atol=1e-12)
    torch.testing.assert_close(root @ root, torch.cov(some_pictures(30).flatten(1).T, correction=0))
    torch.testing.assert_close(denoiser.sample(torch.zeros_like(images[:1]))[0], denoiser.mean)


def test_the_empirical_denoiser_is_the_posterior_mean() -> None:
    pictures, y, sigma = some_pictures(), some_pictures(2) + 0.1, 0.3
    distances = (y.flatten(1)[:, None] - pictures.flatten(1)).square().sum(dim=2)
    likelihood = torch.exp(-distances / (2 * sigma**2))
    weights = likelihood / likelihood.sum(dim=1, keepdim=True)
    denoiser = EmpiricalDenoiser(pictures)
    torch.testing.assert_close(denoiser(y, sigma).flatten(1), weights @ pictures.flatten(1))
    spread = (weights * (pictures.flatten(1) - denoiser(y, sigma).flatten(1)[:, None]).square().sum(dim=2)).sum(dim=1)
    trace = denoiser.jacobian(y, sigma).diagonal(dim1=1, dim2=2).sum(dim=1)
    torch.testing.assert_close(sigma**2 * trace, spread)  # the variance of the posterior
    assert torch.linalg.matrix_rank(denoiser.jacobian(y, 1.0)).max() <= 5


def test_the_empirical_denoiser_remembers() -> None:
    """With little noise it answers with the nearest image, whatever the numbers: no overflow."""
    pictures = some_pictures()
    torch.testing.assert_close(EmpiricalDenoiser(pictures)(pictures + 0.01, 1e-3), pictures)


def test_similarities_are_the_published_ones() -> None:
    a, b = golden("sim.a"), golden("sim.b")
    assert_golden(cosines(a, b), "sim.corr")
    assert_golden(cosines(a, b, centred=False), "sim.cos")


def test_pairs_of_cosines() -> None:
    a, b = some_pictures(), some_pictures().flip(0)
    matrix = cosines(a, b)
    torch.testing.assert_close(paired_cosines(a, b), matrix.diagonal())
    assert len(off_diagonal(matrix)) == 30
    torch.testing.assert_close(off_diagonal(matrix).sum() + matrix.trace(), matrix.sum())
    flat = torch.ones_like(a)
    assert paired_cosines(a, flat).abs().max() < 1e-12  # an image of one colour has no direction
    assert torch.isfinite(cosines(flat, flat)).all()


def faces_of_one_colour(count: int) -> torch.Tensor:
    """Images that are easy to tell from noise."""
    return torch.rand(count, 1, 1, 1, generator=torch.Generator().manual_seed(0)).expand(-1, 1, 8, 8).contiguous()


@pytest.mark.parametrize("kind", ["bf_unet", "bf_cnn"])
def test_training_makes_a_denoiser(kind: str) -> None:
    """A mean of 3 x 3 pixels alone takes 9.5 dB of the noise from images of one colour; half of it, 3 dB, is asked."""
    arguments = {"width": 8, "blocks": 1} if kind == "bf_unet" else {"width": 8, "layers": 4}
    network, images = build_denoiser(kind, arguments), faces_of_one_colour(50)
    losses = train_denoiser(network, images, DenoiserTraining(steps=150), silent=True)
    assert not network.training
    assert np.mean(losses[-20:]) < np.mean(losses[:20]) / 3
    (found,) = psnr(lambda y, sigma: network.denoise(y), noise_probes(images, 0, [0.4]))
    assert found > decibels(0.4) + 3


def test_training_is_a_function_of_the_seed_and_the_number() -> None:
    def weights(seed: int, number: int) -> torch.Tensor:
        network = BiasFreeUNet(width=2, blocks=1)
        how = DenoiserTraining(steps=3, batch=4, seed=seed)
        train_denoiser(network, faces_of_one_colour(5), how, number, silent=True)
        return torch.cat([weight.flatten() for weight in network.state_dict().values()])

    torch.manual_seed(1)
    first = weights(0, 0)
    torch.manual_seed(2)
    assert torch.equal(weights(0, 0), first)
    assert not torch.equal(weights(0, 1), first)
    assert not torch.equal(weights(1, 0), first)


def test_the_distance_of_two_functions() -> None:
    """0 for one function; 1 for errors that are independent, to 1 / sqrt(numbers)."""
    images = torch.zeros(100, 1, 8, 8)
    probes = noise_probes(images, 0, [0.1, 0.5])
    draws = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    first, second = (lambda y, sigma, draw=draw: torch.randn(y.shape, generator=draw) for draw in draws)
    assert function_distance(first, second, probes) == pytest.approx([1, 1], abs=5 / 6400**0.5)
    assert function_distance(lambda y, sigma: y / 2, lambda y, sigma: y / 2, probes) == [0, 0]


def test_probes_belong_to_the_seed_and_sigma() -> None:
    images = some_pictures()
    once, again, other = (noise_probes(images, seed) for seed in (0, 0, 1))
    assert [probe.sigma for probe in once] == list(SIGMAS)
    for a, b, c in zip(once, again, other):
        assert torch.equal(a.noisy, b.noisy)
        assert not torch.equal(a.noisy, c.noisy)
        assert float((a.noisy - images).std() / a.sigma) == pytest.approx(1, abs=5 / 288**0.5)


def test_near_duplicates_are_dropped_once() -> None:
    """b is like a, and c is like b but not like a: b goes, and c stays, since b does."""
    first, second = torch.randn(2, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    first, second = first - first.mean(), second - second.mean()
    second = second - (second @ first) / (first @ first) * first
    first, second = first / first.norm(), second / second.norm()
    angles = torch.tensor([0.0, 0.3, 0.6], dtype=torch.float64)  # cos .3 = .955, cos .6 = .825
    images = (angles.cos()[:, None] * first + angles.sin()[:, None] * second).view(3, 1, 8, 8)
    assert distinct(images).tolist() == [0, 2]
    assert distinct(torch.cat([images, 3 * images + 1, -images])).tolist() == [0, 2]


def test_large_images_are_compared_small() -> None:
    """Noise of single pixels averages out of blocks of 4 x 4: what is left is the picture."""
    picture = torch.rand(1, 20, 20, generator=torch.Generator().manual_seed(0)).repeat_interleave(4, 1)
    picture = picture.repeat_interleave(4, 2)
    checks = 2.0 * ((torch.arange(80)[:, None] + torch.arange(80)) % 2 * 2 - 1)
    assert distinct(torch.stack([picture, picture + checks])).tolist() == [0]
    assert cosines(picture[None], (picture + checks)[None]) < 0.5


def test_digits_without_near_duplicates() -> None:
    data = read_images("digits", 8, 1)
    assert len(data.images) + data.dropped == 1797
    assert [float(data.images.min()), float(data.images.max())] == [0, 1]
    alike = cosines(data.images, data.images).abs().fill_diagonal_(0)
    assert alike.max() <= 0.95
    assert len(read_images("digits", 8, 1, drop_duplicates=False).images) == 1797


def test_the_two_sets_share_no_image() -> None:
    chosen = split(100, 50, seed=3, test_images=20)
    assert sorted(np.concatenate(chosen.train).tolist()) == list(range(100))
    for number in (0, 1):
        assert not set(chosen.train[number]) & set(chosen.test[number])
        assert set(chosen.test[number]) <= set(chosen.train[1 - number])
    fewer = split(100, 7, seed=3, test_images=20)
    assert [part.tolist() for part in fewer.train] == [part[:7].tolist() for part in chosen.train]
    assert [part.tolist() for part in fewer.test] == [part.tolist() for part in chosen.test]
    with pytest.raises(UsageError, match="--sizes must be from 1 to 50, half of the 100 images, got 51"):
        split(100, 51, seed=0)


def test_a_saved_denoiser_is_the_same(tmp_path) -> None:
    network = golden_network("bfcnn").float()
    save_denoiser(network, "bf_cnn", {"width": 6, "layers": 6}, tmp_path)
    y = golden("bfcnn.y").float()
    with torch.no_grad():
        assert torch.equal(load_denoiser(tmp_path).denoise(y), network.denoise(y))
    (tmp_path / "denoiser.json").write_text('{"kind": "bf_cnn", "arguments": {"width": 5}}')
    with pytest.raises(UsageError, match="is damaged"):
        load_denoiser(tmp_path)
    with pytest.raises(UsageError, match="holds no denoiser"):
        load_denoiser(tmp_path / "nothing")


def test_the_command(tmp_path, capsys) -> None:
    words = ["--data", "digits", "--res", "8", "--steps", "5", "--samples", "4", "--width", "4", "--out", str(tmp_path)]
    main([*words, "--num", "20"])
    said = capsys.readouterr().out
    assert "438 near duplicates left out; learned 20." in said
    for name in re.findall(r"[\w.]+\.(?:png|json|safetensors)", said):
        assert (tmp_path / name).stat().st_size > 0, name
    curves = json.loads((tmp_path / "psnr.json").read_text())
    assert len(curves["learned"]) == len(curves["unseen"]) == len(curves["input"]) == 6
    with Image.open(tmp_path / "samples.png") as picture:
        assert picture.size == (2 * (64 + 2) + 2, 2 * (64 + 2) + 2)
    assert load_denoiser(tmp_path).denoise(torch.zeros(1, 1, 8, 8)).shape == (1, 1, 8, 8)
    with pytest.raises(SystemExit):
        main(words)
    assert "holds a denoiser already: give another folder, or --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "1"], "--steps must be at least 2, got 1"),
        (["--depth", "0"], "--depth must be at least 1, got 0"),
        (["--depth", "4"], "must be multiples of 16, which this network halves them by, got 8x8"),
        (["--num", "700"], "--num must be from 1 to 679, half of the 1359 images, got 700"),
        (["--num", "0"], "--num must be from 1 to 679"),
        (["--lr", "0"], "--lr must be positive, got 0"),
        (["--channels", "2"], "The number of channels must be"),
        (["--data", "nothing"], "Unknown data set 'nothing'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, capsys, arguments, message) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["--data", "digits", "--res", "8", "--out", str(tmp_path / "out"), *arguments])
    said = [line for line in capsys.readouterr().err.splitlines() if line]
    assert exit_info.value.code == 2
    assert len(said) == 1
    assert message in said[0]
    assert not (tmp_path / "out").exists()


def test_near_duplicates_are_found_block_by_block(monkeypatch) -> None:
    images = read_images("digits", 8, 1, drop_duplicates=False).images[:300]
    whole = distinct(images)
    monkeypatch.setattr("ssd.analysis.denoisers.images.BLOCK", 37)
    assert distinct(images).tolist() == whole.tolist()
    assert 0 < len(whole) < 300
