"""Information of levels: against dense algebra, quadrature and the specified switches; and the command."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest
import torch
from scipy.integrate import quad_vec

from ssd.analysis.gaussian_data import power_law_covariance, residual_covariance
from ssd.analysis.gaussian_oracle import oracle_process
from ssd.analysis.information import __main__ as information
from ssd.analysis.information.curves import curves
from ssd.analysis.information.gaussian import (
    LevelInformation,
    effective_dimension,
    information_bits,
    measured_bits,
)
from ssd.analysis.information.network import network_information
from ssd.analysis.information.rule_table import rule_table
from ssd.analysis.information.rules import RULES, Evidence, as_switches, first_timesteps
from ssd.analysis.information.statistics import LARGEST_COVARIANCE, ImageStatistics, image_statistics, level_operators
from ssd.analysis.reverse_chain import Sampler, chain_distance
from ssd.data import open_dataset
from ssd.evaluation.denoising import Denoiser
from ssd.evaluation.given_images import ImageBatch
from ssd.operators.kernels import dct_matrix
from ssd.operators.resize import resize_operator
from ssd.process.noise import NoiseSchedule, make_betas
from ssd.process.spacing import SPACINGS

from ..evaluation.conftest import save_model
from ..perfect_network import gaussian_images, perfect_pipeline

NOISE = NoiseSchedule.from_betas(make_betas())


def halvings(side: int, number: int) -> tuple:
    return tuple(resize_operator((side >> level,) * 2, (side >> level + 1,) * 2) for level in range(number))


@pytest.fixture(scope="module")
def digits() -> Evidence:
    images = open_dataset("digits", size=16, channels=1)
    steps = halvings(16, 3)
    statistics = image_statistics((images[i]["image"] for i in range(len(images))), level_operators(steps))
    return Evidence(NOISE, LevelInformation(statistics, steps))


def test_statistics_are_those_of_all_images_at_once() -> None:
    images = torch.rand(300, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    steps = halvings(8, 2)
    found = image_statistics(images, level_operators(steps))
    flat = images.double().flatten(2)  # (N, C, D)
    centred = flat - flat.mean(dim=0)
    expected = torch.einsum("ncd,nce->de", centred, centred) / (300 * 3)
    torch.testing.assert_close(found.covariance, expected, rtol=0, atol=1e-12)
    for operator, spectrum, covariance in zip(found.operators, found.spectra, found.level_covariances):
        dense = operator.to_dense()
        torch.testing.assert_close(covariance, dense @ expected @ dense.T, rtol=0, atol=1e-12)
        basis = torch.kron(*(dct_matrix(side) for side in operator.out_size))
        torch.testing.assert_close(spectrum.flatten(), (basis @ covariance @ basis.T).diagonal(), rtol=0, atol=1e-12)
    assert found.count == 300
    assert float(found.contrast.sum()) == pytest.approx(1)
    middles = (torch.arange(len(found.contrast)) + 0.5) / len(found.contrast)
    assert float(found.contrast @ middles.double()) == pytest.approx(float(images.abs().mean()), abs=1e-4)


def test_large_images_have_spectra_alone() -> None:
    images = torch.rand(3, 1, 64, 66, generator=torch.Generator().manual_seed(0))
    assert LARGEST_COVARIANCE < 64 * 66
    found = image_statistics(images, level_operators([resize_operator((64, 66), (32, 33))]))
    assert found.covariance is None
    with pytest.raises(ValueError, match="not kept"):
        _ = found.level_covariances


@pytest.mark.parametrize("images", [[], [torch.full((1, 4, 4), 128 / 255)] * 40])
def test_images_that_do_not_vary_are_refused(images: list) -> None:
    with pytest.raises(ValueError, match="Images that differ are needed"):
        image_statistics(images, level_operators(halvings(4, 1)))


def test_the_information_of_every_level_is_a_log_determinant(digits: Evidence) -> None:
    information, snr = digits.information, NOISE.snr[[0, 50, 344, 900]]
    covariances = information.statistics.level_covariances
    for level, covariance in enumerate(covariances):
        identity = torch.eye(len(covariance), dtype=torch.float64)
        dense = [float(torch.logdet(identity + value * covariance)) / 2 / math.log(2) for value in snr]
        torch.testing.assert_close(
            information.bits(snr, level), torch.tensor(dense, dtype=torch.float64), rtol=1e-9, atol=0
        )
        wiener = torch.stack(
            [(value * covariance @ torch.linalg.inv(identity + value * covariance)).trace() for value in snr]
        )
        torch.testing.assert_close(effective_dimension(snr, information.variances[level]), wiener, rtol=1e-9, atol=0)
    for level in (1, 2, 3):
        dense = information.steps[level - 1].to_dense()
        v = torch.linalg.svd(dense, full_matrices=False)[2].T
        rows = torch.stack(
            [
                torch.logdet(torch.eye(v.shape[1], dtype=torch.float64) + s * v.T @ covariances[level - 1] @ v)
                for s in snr
            ]
        )
        rows = rows / 2 / math.log(2)
        out, inside = information.lost_out_of_band(snr, level), information.lost_in_row_space(snr, level)
        torch.testing.assert_close(out, information.bits(snr, level - 1) - rows, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(inside, rows - information.bits(snr, level), rtol=1e-9, atol=1e-9)
        assert bool((out > -1e-9).all())
        assert bool((inside > 0).all())


def test_i_mmse() -> None:
    """I(snr_1) - I(snr_0) = 1/2 int d_eff d log snr, by adaptive quadrature of the closed form."""
    spectrum = torch.linalg.eigvalsh(power_law_covariance((8, 8)))
    for low, high in pairwise((1e-4, 0.3, 20.0, 1e4)):
        area, _ = quad_vec(
            lambda x: float(effective_dimension(torch.tensor([math.exp(x)], dtype=torch.float64), spectrum)),
            math.log(low),
            math.log(high),
            epsabs=1e-12,
            epsrel=1e-12,
        )
        bits = information_bits(torch.tensor([low, high], dtype=torch.float64), spectrum)
        assert float(bits.diff()) == pytest.approx(area / 2 / math.log(2), rel=1e-8)


def test_the_covariance_holds_no_more_than_its_diagonal(digits: Evidence) -> None:
    information = digits.information
    for level, spectrum in enumerate(information.statistics.spectra):
        assert bool((information.bits(NOISE.snr, level) <= information_bits(NOISE.snr, spectrum) + 1e-12).all())


def test_measured_bits_of_the_best_denoiser_are_its_information() -> None:
    spectrum = torch.linalg.eigvalsh(power_law_covariance((8, 8)))
    snr = torch.linspace(-8, 8, 4001, dtype=torch.float64).exp()
    exact = information_bits(snr, spectrum)
    found = measured_bits(snr, effective_dimension(snr, spectrum) / snr, float(exact[0]))
    # Trapezoids of width h = 0.004: h^2 / 12 times the sum of |f''| h, with f'' < d/4 per direction and nat.
    assert float((found - exact).abs().max()) < 0.004**2 / 12 * 16 * len(spectrum) / 4


EXPECTED = {
    "info": [344, 606, 800],
    "info_contrast": [422, 664, 845],
    "band_snr": [94, 375, 392],
    "dimension": [82, 335, 509],
    "band_bits": [32, None, None],
    "half_bits": [None, None, None],
    "level_loss": [473, 455, 368],
    "missing_variance": [641, 510, 330],
}


def test_curves_are_those_of_every_change(digits: Evidence) -> None:
    found, information = curves(digits), digits.information
    for level in (1, 2, 3):
        assert found["lost_out_of_band"][level - 1] == information.lost_out_of_band(NOISE.snr, level).tolist()
        assert found["lost_in_row_space"][level - 1] == information.lost_in_row_space(NOISE.snr, level).tolist()
    some = list(found["missing_variance"])[10]
    assert found["missing_variance"][some] == [digits.missing(level, int(some)).largest for level in (1, 2, 3)]


def test_a_perfect_network_is_wieners_filter() -> None:
    """On 1,000 images the errors are within four standard errors of theory, and so are its bits."""
    pipeline, covariance = perfect_pipeline(num_levels=2)
    process = pipeline.scheduler.process
    steps = halvings(8, 1)
    images = gaussian_images(covariance, 1000)
    batches = BatchList([ImageBatch(images[i : i + 250], list(range(i, i + 250)), None) for i in range(0, 1000, 250)])
    zero = torch.zeros(1, dtype=torch.float64)
    sizes = tuple(operator.to_dense() @ covariance @ operator.to_dense().T for operator in level_operators(steps))
    statistics = ImageStatistics(1000, tuple(level_operators(steps)), tuple(map(torch.diag, sizes)), covariance, zero)
    for level in network_information(Denoiser(pipeline), batches, LevelInformation(statistics, steps)):
        for t, error, wiener in zip(level.timesteps, level.error, level.wiener):
            residual = residual_covariance(process, covariance, t - 1, t)
            deviation = float((2 * residual.square().sum() / 1000).sqrt())
            assert float(wiener) == pytest.approx(float(residual.trace()), rel=1e-9)
            assert float(error) == pytest.approx(float(wiener), abs=4 * deviation)
        assert float(level.gaussian_bits[-1] - level.bits[-1]) < 0.1 * float(level.gaussian_bits[-1])


class BatchList(list):
    """Batches with the number of their images."""

    def __len__(self) -> int:
        return sum(len(batch.x_0) for batch in self)


@pytest.mark.parametrize("rule", EXPECTED)
def test_the_switches_of_digits_by_rules(digits: Evidence, rule: str) -> None:
    assert first_timesteps(digits, rule) == EXPECTED[rule]


def test_the_missing_variance_rule_is_where_m_falls_below_its_threshold(digits: Evidence) -> None:
    first = first_timesteps(digits, "missing_variance")
    assert first[0] == 641
    for level, t in enumerate(first, start=1):
        assert digits.missing(level, t).largest <= 0.1 < digits.missing(level, t - 1).largest


def test_later_thresholds_give_later_switches(digits: Evidence) -> None:
    for name, rule in RULES.items():
        strict, loose = (first_timesteps(digits, name, rule.threshold * factor) for factor in (0.8, 1.2))
        assert all(a is None or (b is not None and b <= a) for a, b in zip(strict, loose)), name


def test_the_papers_schedule_is_in_the_table(digits: Evidence) -> None:
    rows = {row.rule: row for row in rule_table(digits, {})}
    assert rows["convex_decay 0.5"].switches == [438, 750, 937]
    assert rows["one level"].cost == 1
    assert rows["half_bits"].switches is None
    assert set(rows) == {"one level", "convex_decay 0.5", *RULES}
    for row in rows.values():
        assert (row.cost is None) == (row.switches is None)
        assert all(values == sorted(values) and len(values) == 3 for values in row.distances.values())
    process = oracle_process((16, 16), 4)
    covariance = digits.information.statistics.covariance
    for name, order, numbers in (("ancestral, 40-60", 1, (40, 50, 60)), ("second, 16-24", 2, (16, 20, 24))):
        spacing = SPACINGS["linspace" if order == 1 else "logsnr"]
        exact = [chain_distance(process, covariance, spacing(process, n), Sampler(1.0, order)) for n in numbers]
        assert rows["convex_decay 0.5"].distances[name] == pytest.approx(sorted(exact), rel=1e-9)


def test_switches_rise() -> None:
    assert as_switches([5, 3, 9], 10) == [5, 6, 9]
    assert as_switches([9, 3], 10) is None
    assert as_switches([1, None], 10) is None


def run(capsys, *arguments: str) -> str:
    information.main(["--data", "digits", "--res", "8", "--levels", "2", "--channels", "1", *arguments])
    return capsys.readouterr().out


def test_the_command_writes_what_it_says(capsys, tmp_path) -> None:
    printed = run(capsys, "--out", str(tmp_path / "new"), "--num", "300")
    assert "300 images" in printed
    found = json.loads((tmp_path / "new" / "information.json").read_text())
    assert found["exact_covariance"] is True
    assert len(found["curves"]["bits"]) == 2
    assert (tmp_path / "new" / "information.png").read_bytes()[:4] == b"\x89PNG"
    row = next(row for row in found["rules"] if row["rule"] == "missing_variance")
    assert f"for training: --switches '{row['switches']}'" in printed


def test_the_command_with_a_model(capsys, tmp_path) -> None:
    model, out = save_model(tmp_path / "m"), tmp_path / "o"
    information.main(
        f"--data digits --res 16 --levels 2 --model {model} --num 100 --num_denoised 4 --out {out}".split()
    )
    assert "16 x 16, t = 749 to 0: the network's error is" in capsys.readouterr().out
    fine, coarse = json.loads((out / "information.json").read_text())["network"]
    assert (fine["size"], coarse["size"]) == ([16, 16], [8, 8])
    for level in (fine, coarse):
        assert level["snr"] == sorted(level["snr"])
        assert level["bits"][0] == level["gaussian_bits"][0]
        assert all(mine <= gaussian + 1e-9 for mine, gaussian in zip(level["bits"], level["gaussian_bits"]))


def test_larger_images_have_another_rule_and_few_images_a_note(capsys) -> None:
    information.main(["--data", "digits", "--res", "48", "--levels", "2", "--channels", "1", "--num", "50"])
    printed = capsys.readouterr().out
    assert "note: 50 images vary in fewer directions than they have pixels" in printed
    assert "missing_variance" not in printed
    assert "for training: --switches '[344]'" in printed


def test_a_rule_without_a_schedule_is_told(capsys) -> None:
    assert "there is no schedule of 2 levels" in run(capsys, "--rule", "half_bits")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threshold", "0"], "--threshold must be positive, got 0.0."),
        (["--num_denoised", "1"], "--num_denoised must be at least 2, got 1."),
        (["--res", "64", "--rule", "missing_variance"], "--rule missing_variance is for at most 1024 pixels"),
        (["--levels", "1"], "--levels must be at least 2, got 1."),
        (["--model", "nowhere"], "--model nowhere is not a pipeline"),
        (["--rule", "none"], "--rule must be one of info, info_contrast"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(capsys, *arguments)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
