"""Theorem 4, row 9 of the table in docs/bridges.md: a cell is a two-step forward Euler, of first order."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from scipy.integrate import solve_ivp

from ssd.analysis import euler

CELLS = [8, 16, 32, 64, 128]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("part", ["mean", "covariance"])
def test_the_error_halves_when_cells_double(seed: int, part: str) -> None:
    errors = euler.euler_errors(euler.random_diffusion(4, seed), [*CELLS, 4096, 8192])
    sizes = [error[part == "covariance"] for error in errors]
    for coarse, fine in itertools.pairwise(sizes[: len(CELLS)]):
        assert 1.7 < coarse / fine < 2.3
    assert sizes[-2] / sizes[-1] == pytest.approx(2, abs=0.01)


def test_one_cell_is_what_it_says() -> None:
    """Against draws of eps, for the affine map that a cell is."""
    diffusion = euler.random_diffusion(3, 0)
    diffusion = replace(diffusion, covariance=0.3 * torch.eye(3, dtype=torch.float64))
    mean, covariance = euler.cell_moments(diffusion, cells=1, time=0.5)
    root = 0.3**0.5 * torch.eye(3, dtype=torch.float64)

    def cell(z: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
        drawn = z + 0.5 * diffusion.first @ z + 0.5**0.5 * diffusion.noise @ eps
        return drawn + 0.5 * diffusion.second @ drawn

    zero = torch.zeros(3, dtype=torch.float64)
    torch.testing.assert_close(mean, cell(diffusion.mean, zero), rtol=0, atol=1e-12)
    unit = torch.eye(3, dtype=torch.float64)
    columns = [cell(root @ e, zero) for e in unit] + [cell(zero, e) for e in unit]
    torch.testing.assert_close(covariance, sum(torch.outer(c, c) for c in columns), rtol=0, atol=1e-12)


def test_exact_moments_solve_the_equations_of_the_diffusion() -> None:
    diffusion = replace(euler.random_diffusion(3, 1), covariance=torch.eye(3, dtype=torch.float64))
    drift = (diffusion.first + diffusion.second).numpy()
    noise = (diffusion.noise @ diffusion.noise.T).numpy()

    def derivative(_, state):
        mean, covariance = state[:3], state[3:].reshape(3, 3)
        return [*(drift @ mean), *(drift @ covariance + covariance @ drift.T + noise).ravel()]

    start = [*diffusion.mean.tolist(), *diffusion.covariance.flatten().tolist()]
    solved = torch.from_numpy(solve_ivp(derivative, (0, 1), start, rtol=1e-11, atol=1e-12).y[:, -1])
    mean, covariance = euler.exact_moments(diffusion)
    torch.testing.assert_close(torch.cat([mean, covariance.flatten()]), solved, rtol=0, atol=1e-9)


def test_another_drift_is_not_approximated() -> None:
    """The negative control: without the residual block the error stays."""
    diffusion = euler.random_diffusion(4, 0)
    exact = euler.exact_moments(diffusion)[0]
    without = replace(diffusion, second=torch.zeros_like(diffusion.second))
    errors = [float((euler.cell_moments(without, cells)[0] - exact).norm()) for cells in (64, 128)]
    assert errors[0] / errors[1] < 1.1


def test_the_command(capsys) -> None:
    euler.main(["--cells", "[8, 16]", "--dimensions", "2"])
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["cells", "mean", "covariance"]
    assert [line.split()[0] for line in lines] == ["8", "16"]
    expected = euler.euler_errors(euler.random_diffusion(2, 0), [8, 16])
    for line, errors in zip(lines, expected):
        assert [float(cell) for cell in line.split()[1:]] == pytest.approx(errors, rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cells", "[0]"], "--cells must be numbers of at least 1, got [0]."),
        (["--cells", "[]"], "--cells must be numbers of at least 1, got []."),
        (["--dimensions", "0"], "--dimensions must be at least 1, got 0."),
    ],
)
def test_mistakes_are_one_line(capsys, arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        euler.main(arguments)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
