"""Resolution schedules from data: the variance in closed form, the paper's schedule, and the command."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from ssd.analysis import switches
from ssd.analysis.gaussian_data import power_law_covariance
from ssd.analysis.switches import detail_variance
from ssd.data import open_dataset
from ssd.data.some_images import some_images
from ssd.operators.resize import resize_operator
from ssd.process import NoiseSchedule, ResolutionSchedule, make_betas, pyramid
from ssd.process.switches import switches_of_variance

from ..conftest import ROOT

NOISE = NoiseSchedule.from_betas(make_betas())


def exact_variance(exponent: float, side: int = 32) -> float:
    """v of Gaussian images: trace((I - P) C) / dim null(D), by a dense pseudoinverse."""
    down = resize_operator((side, side), (side // 2, side // 2)).to_dense()
    outside = torch.eye(side**2, dtype=torch.float64) - torch.linalg.pinv(down) @ down
    return float((outside * power_law_covariance((side, side), exponent=exponent)).sum() / outside.trace())


def test_the_variance_of_gaussian_images() -> None:
    covariance = power_law_covariance((8, 8))
    root = torch.linalg.cholesky(covariance)
    white = torch.randn(4000, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    images = (white @ root.T).view(-1, 1, 8, 8) + 0.5  # whose mean does not count
    found = detail_variance(images, resize_operator((8, 8), (4, 4)))
    assert found.num_images == 4000
    assert found.variance == pytest.approx(exact_variance(2.0, 8), rel=0.03)  # (4000 * 48 / 2)^-0.5 = 0.003, times 10


def test_the_mean_and_the_row_space_do_not_count() -> None:
    down = resize_operator((8, 8), (4, 4))
    picture = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert detail_variance([picture] * 3, down).variance == pytest.approx(0, abs=1e-12)
    smooth = [down.adjoint(torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(i))) for i in range(5)]
    assert detail_variance(smooth, down).variance == pytest.approx(0, abs=1e-12)
    three = torch.randn(50, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = [detail_variance(three[:, i : i + 1], down).variance for i in range(3)]
    assert detail_variance(three, down).variance == pytest.approx(np.mean(found))


def test_the_schedule_of_the_paper_is_that_of_natural_images() -> None:
    """convex_decay(0.5) with four levels leaves the full resolution where 1/f^2 details have about theta = 0.01."""
    variance = exact_variance(2.0)
    paper = ResolutionSchedule.from_curve(pyramid(32, 4), 1000, "convex_decay", 0.5).level_changes[0]
    assert 0.005 < float(NOISE.snr[paper]) * variance < 0.02
    assert abs(switches_of_variance(NOISE, variance, 4)[0] - paper) < 50


def test_rougher_data_keep_their_pixels_longer() -> None:
    first = [switches_of_variance(NOISE, exact_variance(exponent, 16), 3)[0] for exponent in (1.0, 2.0, 3.0)]
    assert first[0] > first[1] + 50 > first[2] + 100


def test_images_are_chosen_by_the_seed() -> None:
    digits = open_dataset("digits", 8)
    once, again, other = (torch.stack(list(some_images(digits, 20, seed))) for seed in (0, 0, 1))
    assert once.shape == (20, 3, 8, 8)
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    assert len(list(some_images(digits, 5000, 0))) == 1797


def test_the_command(capsys) -> None:
    switches.main(["--data", "digits", "--res", "8", "--levels", "3", "--num", "300", "--channels", "1"])
    first, header, *rows = capsys.readouterr().out.splitlines()
    variance = float(re.match(r"v = ([\d.]+), the variance of the finest details, from 300 of 1797 images", first)[1])
    digits = open_dataset("digits", 8, channels=1)
    whole = detail_variance(some_images(digits, 1797, 0), resize_operator((8, 8), (4, 4))).variance
    assert variance == pytest.approx(whole, rel=0.1)
    assert header.split() == ["schedule", "switches", "cost"]
    assert [row.split("  ")[0].strip() for row in rows] == ["data, theta 0.01", "convex_decay(0.5)", "equal"]
    printed = [int(number) for number in re.findall(r"\d+", rows[0].split("[")[1])[:2]]
    assert printed == pytest.approx(switches_of_variance(NOISE, variance, 3), abs=1)  # v is printed rounded
    assert "[555, 889]" in rows[1]
    assert "[333, 666]" in rows[2]


def test_the_command_is_a_module() -> None:
    command = [sys.executable, "-m", "ssd.analysis.switches", "--data", "digits", "--res", "8", "--levels", "2"]
    done = subprocess.run([*command, "--num", "10"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "from 10 of 1797 images" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--levels", "1"], "--levels must be at least 2, got 1"),
        (["--levels", "9"], "use at most 4 levels"),
        (["--levels", "2", "--num", "1"], "--num must be at least 2, got 1"),
        (["--levels", "2", "--theta", "0"], "--theta must be positive, got 0"),
        (["--levels", "2", "--theta", "1e-9"], "is too small"),
        (["--levels", "2", "--data", "nothing"], "Unknown data set 'nothing'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(capsys, arguments, message) -> None:
    with pytest.raises(SystemExit) as exit_info:
        switches.main(["--data", "digits", "--res", "8", *arguments])
    said = [line for line in capsys.readouterr().err.splitlines() if line]
    assert exit_info.value.code == 2
    assert len(said) == 1
    assert message in said[0]
