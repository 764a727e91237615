"""The Jacobian of denoisers of one size: exact ones, a saved network, and mistakes."""

from __future__ import annotations

import json

import pytest
import torch

from ssd.analysis import jacobian as command
from ssd.analysis.denoisers.bias_free import BiasFreeUNet
from ssd.analysis.denoisers.exact import GaussianDenoiser
from ssd.analysis.denoisers.saved import save_denoiser
from ssd.analysis.gaussian_data import power_law_covariance


def run(capsys, *arguments: object) -> list[str]:
    command.main(["--data", "digits", "--res", "8", *map(str, arguments)])
    return capsys.readouterr().out.splitlines()


def test_the_numbers_of_a_perfect_denoiser() -> None:
    gaussian = GaussianDenoiser(torch.zeros(1, 8, 8, dtype=torch.float64), power_law_covariance((8, 8)))
    clean = gaussian.sample(torch.randn(1, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    found = command.differentiate(gaussian, clean, 0.2, torch.Generator().manual_seed(1))
    shrinkage = gaussian.shrinkage(0.2)
    assert found.numbers["tr J"] == pytest.approx(float(shrinkage.sum()), rel=1e-10)
    assert found.numbers["largest"] == pytest.approx(float(shrinkage.max()), rel=1e-10)
    assert found.numbers["smallest"] == pytest.approx(float(shrinkage.min()), rel=1e-9)
    assert found.numbers["asymmetry"] < 1e-10
    assert found.numbers["affine"] < 1e-10
    assert 0 < found.numbers["top 16"] <= 1


def test_large_images_are_probed(monkeypatch) -> None:
    gaussian = GaussianDenoiser(torch.zeros(1, 8, 8, dtype=torch.float64), power_law_covariance((8, 8)))
    clean = torch.zeros(1, 8, 8, dtype=torch.float64) + 0.5
    dense = command.differentiate(gaussian, clean, 0.2, torch.Generator().manual_seed(1))
    monkeypatch.setattr(command, "LARGEST_DENSE", 10)
    probed = command.differentiate(gaussian, clean, 0.2, torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        probed.spectrum.eigenvalues, dense.spectrum.eigenvalues[: command.NUM_LEADING], rtol=0, atol=1e-10
    )
    # The variance of z^T J z over random signs is at most 2 |J|^2, here of 64 vectors.
    deviation = float((2 * dense.spectrum.eigenvalues.square().sum() / command.NUM_PROBES).sqrt())
    assert abs(probed.numbers["tr J"] - dense.numbers["tr J"]) < 4 * deviation
    assert probed.numbers["smallest"] is None


@pytest.mark.parametrize("kind", ["gaussian", "empirical"])
def test_the_command_with_an_exact_denoiser(capsys, tmp_path, kind: str) -> None:
    out = tmp_path / "new"
    printed = run(capsys, "--denoiser", kind, "--num", 50, "--images", 2, "--sigmas", "[0.6, 0.8]", "--out", out)
    assert printed[0] == "means over 2 images of digits"
    assert printed[-2:] == [f"wrote {out / name}" for name in ("jacobian.json", "jacobian.png")]
    rows = json.loads((out / "jacobian.json").read_text())["rows"]
    assert [row["sigma"] for row in rows] == [0.6, 0.8]
    assert min(row["tr J"] for row in rows) >= 0
    assert max(row["asymmetry"] for row in rows) < 1e-8
    assert (out / "jacobian.png").read_bytes()[:4] == b"\x89PNG"


def test_a_bias_free_network_is_its_own_linearisation(capsys, tmp_path) -> None:
    arguments = {"channels": 1, "width": 4, "blocks": 1}
    network = BiasFreeUNet(**arguments)
    network.initialise(torch.Generator().manual_seed(0))
    save_denoiser(network, "bf_unet", arguments, tmp_path / "d")
    run(capsys, "--denoiser", tmp_path / "d", "--images", 2, "--sigmas", "[0.2]", "--out", tmp_path / "o")
    (row,) = json.loads((tmp_path / "o" / "jacobian.json").read_text())["rows"]
    assert row["affine"] < 1e-10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--denoiser", "nowhere"], "nowhere holds no denoiser"),
        (["--denoiser", "gaussian", "--sigmas", "[0]"], "--sigmas must be positive numbers"),
        (["--denoiser", "gaussian", "--images", "0"], "--images must be at least 1, got 0."),
        (["--denoiser", "gaussian", "--data", "nothing"], "Unknown data set 'nothing'"),
    ],
)
def test_mistakes_are_one_line(capsys, tmp_path, arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(capsys, *arguments, "--out", tmp_path / "o")
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "o").exists()
