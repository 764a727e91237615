"""The point mass on entry to a level, gains of the noise, distances by temperature, and the command."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ssd.analysis import point_mass as command
from ssd.analysis.level_entries import DetailMoments, bias_of, gains, level_gains, levels_of, recorded_entries
from ssd.analysis.point_mass import format_table, measure
from ssd.analysis.temperatures import between_halves, compared_pixels, pixel_distance, sample
from ssd.analysis.vdvae_inputs import NumberedIntegers, noise_of_cells
from ssd.operators import haar
from vdvae import VDVAEModel

from .small_vdvae import SETTINGS, small_vdvae, some_integers

COUNT = 6


def images() -> NumberedIntegers:
    return NumberedIntegers(some_integers(COUNT), list(range(COUNT)))


@pytest.mark.parametrize("kind", ["new", "trained"])
@torch.no_grad()
def test_a_level_begins_at_its_bias_and_the_enlarged_coarser_state(kind: str) -> None:
    model = (VDVAEModel(**SETTINGS) if kind == "new" else small_vdvae()).double()
    with recorded_entries(model) as entries:
        states = model.decode(noise=noise_of_cells(model, range(COUNT), 0, "test"), return_states=True).states
    assert len(entries) == len(states) == 9
    for first, side in ((2, 4), (7, 8)):
        bias = model.decoder.initial_states[str(side)]
        coarser = states[first - 1]
        assert torch.equal(entries[first], bias + F.interpolate(coarser, scale_factor=side // coarser.shape[-1]))
    assert torch.equal(entries[0], model.decoder.initial_states["1"].expand(COUNT, -1, -1, -1))
    assert torch.equal(entries[3], states[2])  # inside a level
    with recorded_entries(model) as entries:
        pass
    model.decode(batch_size=1)
    assert not entries


def test_details_on_entry_are_those_of_the_bias_alone() -> None:
    model = small_vdvae().double()
    found = measure(model, images(), batch_size=4, seed=0)
    for index, side in enumerate((1, 4, 8)):
        row = found.row(index)
        bias = model.decoder.initial_states[str(side)][0]
        details = bias if side == 1 else bias - haar.project(bias, 2 if side == 4 else 1)
        assert row["resolution"] == side
        assert row["bias_energy"] == pytest.approx(float(details.square().mean()), rel=1e-12)
        for name in ("posterior", "prior"):
            assert row[name]["entry_energy"] == pytest.approx(row["bias_energy"], rel=1e-10)
            assert row[name]["farthest_from_bias"] < 1e-12
            assert row[name]["entry_spread"] < 1e-12
            assert row[name]["first_cell_spread"] > 0.01


def test_in_a_new_network_the_point_is_zero() -> None:
    found = measure(VDVAEModel(**SETTINGS).double().requires_grad_(False), images(), batch_size=6, seed=0)
    for index in range(3):
        row = found.row(index)
        assert row["bias_energy"] == 0
        assert row["prior"]["entry_energy"] < 1e-28
        assert row["prior"]["first_cell_spread"] > 0.01


@torch.no_grad()
def test_divergences_and_norms_are_those_of_the_passes() -> None:
    model = small_vdvae().double()
    found = measure(model, images(), batch_size=4, seed=3)
    noise = {name: noise_of_cells(model, range(COUNT), 3, f"point mass, {name}") for name in ("posterior", "prior")}
    posterior = model.encode(some_integers(COUNT), noise["posterior"], return_states=True)
    prior = model.decode(noise=noise["prior"], return_states=True)
    torch.testing.assert_close(found.kl, posterior.kl)
    row = found.row(1)
    assert row["kl"] == pytest.approx(float(posterior.kl[:, 2:7].sum(dim=1).mean()), rel=1e-10)
    for name, out in (("posterior", posterior), ("prior", prior)):
        norms = out.states[6].flatten(1).norm(dim=1)
        assert row[name]["norm_mean"] == pytest.approx(float(norms.mean()), rel=1e-10)
        details = out.states[2] - haar.project(out.states[2], 2)
        spread = float(details.var(dim=0).mean() ** 0.5)
        assert row[name]["first_cell_spread"] == pytest.approx(spread, rel=1e-10)


def test_moments_are_numpys() -> None:
    values = np.random.default_rng(0).normal(3, 2, (10, 2, 4, 4))
    moments = DetailMoments(torch.full((2, 4, 4), 3.0))
    for part in np.split(values, 2):
        moments.add(torch.from_numpy(part))
    assert moments.energy == pytest.approx(np.mean(values**2), rel=1e-12)
    assert moments.spread == pytest.approx(np.sqrt(values.var(axis=0, ddof=1).mean()), rel=1e-12)
    assert moments.farthest == pytest.approx(np.abs(values - 3).max(), rel=1e-12)


def test_the_gain_of_a_linear_network_is_its_norm() -> None:
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    noise = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    [(gain, radial)] = gains(lambda e: (2.5 * e @ rotation,), [noise])
    torch.testing.assert_close(gain, torch.full((5,), 2.5, dtype=torch.float64))
    torch.testing.assert_close(radial, gain)
    [(gain, radial)] = gains(lambda e: (2.5 * e @ rotation + 1e9,), [noise])  # an offset turns the state away
    torch.testing.assert_close(gain, torch.full((5,), 2.5, dtype=torch.float64))
    assert float((radial / gain).abs().max()) < 1 - 1e-3


def test_the_gain_of_a_level_without_blocks_is_that_of_its_projection() -> None:
    """In a new network, with the residual blocks off, one cell is Z = P noise."""
    changes = {"sample_size": 4, "enc_blocks": "4x1,4d2,2x1", "dec_blocks": "2x1,4m2"}
    model = VDVAEModel(**SETTINGS | changes).double().requires_grad_(False)
    for cell in model.decoder.cells:
        nn.init.zeros_(cell.block.c4.weight)
    noise = noise_of_cells(model, range(COUNT), 0, "test")
    coarse, fine = levels_of(model)
    expected = (model.decoder.cells[0].project(noise[0]).flatten(1).norm(dim=1)) / noise[0].flatten(1).norm(dim=1)
    (gain, radial), (to_end, _) = level_gains(model, coarse, noise)
    for found in (gain, radial, to_end / 2):  # enlarged twice, the norm doubles
        torch.testing.assert_close(found, expected)
    (gain, _), (to_end, _) = level_gains(model, fine, noise)
    torch.testing.assert_close(gain, to_end)


@torch.no_grad()
def test_gains_are_finite_differences() -> None:
    model = small_vdvae().double()
    level = levels_of(model)[1]
    noise = noise_of_cells(model, range(COUNT), 0, "test")
    (gain, radial), (to_end, _) = level_gains(model, level, noise)
    length = torch.cat([noise[cell].flatten(1) for cell in level.cells], dim=1).norm(dim=1)
    step = 1e-5

    def states(sign: float) -> list[torch.Tensor]:
        factors = (1 + sign * step / length).view(-1, 1, 1, 1)
        moved = [part * factors if cell in level.cells else part for cell, part in enumerate(noise)]
        return model.decode(noise=moved, return_states=True).states

    after, before = states(1), states(-1)
    for cell, found in ((level.cells[-1], gain), (-1, to_end)):
        change = (after[cell] - before[cell]).flatten(1).norm(dim=1) / (2 * step)
        torch.testing.assert_close(found, change, rtol=1e-5, atol=0)
    longer = [out[level.cells[-1]].flatten(1).norm(dim=1) for out in (after, before)]
    torch.testing.assert_close(radial, (longer[0] - longer[1]) / (2 * step), rtol=1e-4, atol=1e-6)


def test_levels_without_latents_or_bias() -> None:
    model = small_vdvae(max_latent_blocks=1, no_bias_above=4)
    found = measure(model, images(), batch_size=6, seed=0)
    assert [row is None for row in found.gains] == [False, True, True]
    assert found.row(2)["gain"] is None
    assert float(bias_of(model, found.levels[2]).abs().max()) == 0
    assert found.row(2)["bias_energy"] == 0
    assert len(format_table(found).splitlines()) == 4


@torch.no_grad()
def test_a_sample_does_not_depend_on_the_others() -> None:
    model = small_vdvae().double()
    together = sample(model, 7, 0.8, seed=0, batch_size=7)
    assert torch.equal(sample(model, 5, 0.8, seed=0, batch_size=2), together[:5])
    assert not torch.equal(sample(model, 7, 0.8, seed=1, batch_size=7), together)


def test_distances_between_pixels() -> None:
    data = torch.randint(5, 12, (50, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    assert pixel_distance(data, data, 17) == pytest.approx(0, abs=1e-12)
    assert pixel_distance(data + 4, data, 17) == pytest.approx(16 * (4 / 16) ** 2, rel=1e-9)
    assert between_halves(data[:3], 17, seed=0) is None
    assert between_halves(data, 17, seed=0) > 0
    large = torch.randint(256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(compared_pixels(large, 256), haar.pool(large.double() / 255).flatten(1), rtol=1e-12)


def run(capsys, *arguments: str) -> list[str]:
    command.main(["--data", "digits", "--num", "6", "--samples", "5", *arguments])
    return capsys.readouterr().out.splitlines()


def test_the_command(capsys, tmp_path) -> None:
    small_vdvae().save_pretrained(tmp_path / "network")
    out = tmp_path / "new"
    lines = run(capsys, "--model", str(tmp_path / "network"), "--temperatures", "[1, 0.5]", "--out", str(out))
    assert lines[0] == "means over 6 images of digits"
    assert [line.split()[0] for line in lines[2:5]] == ["1", "4", "8"]
    names = ("point_mass.json", "point_mass.png", "samples.png")
    assert lines[-3:] == [f"wrote {out}/{name}" for name in names]
    assert all((out / name).read_bytes()[:4] == b"\x89PNG" for name in names[1:])
    found = json.loads((out / "point_mass.json").read_text())
    for row in found["levels"]:
        assert row["prior"]["entry_energy"] == pytest.approx(row["bias_energy"], rel=1e-5)
        assert row["prior"]["entry_spread"] < 1e-5 < row["prior"]["first_cell_spread"]
    assert sum(row["kl"] for row in found["levels"]) == pytest.approx(sum(cell["kl_mean"] for cell in found["cells"]))
    assert [one["temperature"] for one in found["temperatures"]] == [1, 0.5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--temperatures", "[]"], "--temperatures must name at least one, got an empty list."),
        (["--temperatures", "[1, -0.5]"], "--temperatures must be at least 0, got -0.5."),
        (["--temperatures", "[.nan]"], "--temperatures must be at least 0, got nan."),
        (["--samples", "1"], "--samples must be at least 2, got 1."),
        (["--out", "/dev/null/x"], "cannot be a folder"),
    ],
)
def test_mistakes_are_one_line(capsys, tmp_path, arguments: list[str], message: str) -> None:
    small_vdvae().save_pretrained(tmp_path / "m")
    with pytest.raises(SystemExit, match="2"):
        run(capsys, "--model", str(tmp_path / "m"), *arguments)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_levels_outside_of_a_haar_basis_are_refused(capsys, tmp_path) -> None:
    small_vdvae(sample_size=6, enc_blocks="6x1,6d3,2x1", dec_blocks="2x1,6m2").save_pretrained(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        run(capsys, "--model", str(tmp_path))
    assert "this model goes from 2 to 6 pixels." in capsys.readouterr().err
