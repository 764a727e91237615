"""Averages of any width after training: the profiles, how near combinations come, and the command."""

from __future__ import annotations

import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.integrate import quad
from torch import nn

from ssd.publishing.saving import load_any_pipeline
from ssd.training.ema import EmaNetworks
from ssd.training.posthoc_ema import choose, combine, main
from ssd.training.power_average import WIDEST, Profile, coefficients, exponent_of, inner_product
from ssd.training.stored_averages import store_averages, stored_averages

from ..conftest import run_script
from .runs import SCRIPTS, SSD, TINY, VDVAE_TINY

WIDTHS = ["--posthoc_widths", "[0.05,0.1]"]


def profile(gamma: float, n: float, tau: float) -> float:
    return (gamma + 1) * tau**gamma / n ** (gamma + 1)


@pytest.mark.parametrize("width", [0.01, 0.05, 0.1, 0.25])
def test_the_width_is_the_standard_deviation(width) -> None:
    gamma = exponent_of(width)
    first, second = (quad(lambda tau, k=k: tau**k * profile(gamma, 1, tau), 0, 1)[0] for k in (1, 2))
    assert math.sqrt(second - first**2) == pytest.approx(width, rel=1e-6)


def test_inner_products_are_integrals() -> None:
    one, other = Profile(3.2, 40), Profile(11.0, 100)
    expected = quad(lambda tau: profile(3.2, 40, tau) * profile(11.0, 100, tau), 0, 40)[0]
    assert inner_product(one, other) == inner_product(other, one) == pytest.approx(expected, rel=1e-9)


def walk(steps: int, widths: list[float], good: list[float] | None = None) -> tuple[EmaNetworks, torch.Tensor]:
    """Averages of weights that wander, with all of these: (steps, 8)."""
    generator = torch.Generator().manual_seed(0)
    network = nn.Linear(8, 1, bias=False)
    ema, seen = EmaNetworks(network, [0.9], torch.device("cpu"), widths), []
    for step in range(steps):
        with torch.no_grad():
            network.weight += 0.1 * torch.randn(1, 8, generator=generator)
        seen.append(network.weight.detach().clone()[0].double())
        ema.update(network.parameters(), 1.0 if good is None else good[step])
    return ema, torch.stack(seen)


def true_average(width: float, seen: torch.Tensor) -> torch.Tensor:
    """By the integrals of the profile."""
    power, n = exponent_of(width) + 1, len(seen)
    edges = (torch.arange(n + 1, dtype=torch.float64) / n) ** power
    return (edges.diff()[:, None] * seen).sum(dim=0)


@pytest.mark.parametrize("width", [0.05, 0.25])
def test_the_recursion_is_the_average_of_the_profile(width) -> None:
    ema, seen = walk(200, [width])
    torch.testing.assert_close(ema.of_widths[0].weight[0].double(), true_average(width, seen), rtol=0, atol=1e-5)


def test_skipped_steps_do_not_count() -> None:
    good = [float(step % 3 != 1) for step in range(60)]
    ema, seen = walk(60, [0.1], good)
    assert ema.updates == 40
    kept = seen[torch.tensor(good) == 1]
    torch.testing.assert_close(ema.of_widths[0].weight[0].double(), true_average(0.1, kept), rtol=0, atol=1e-5)


def test_more_stored_averages_come_nearer() -> None:
    """At the ends of 1, 4 and 16 parts of the training, of the widths 0.05 and 0.1; wanted is 0.2."""
    errors = []
    for parts in (1, 4, 16):
        stored = [
            Profile(exponent_of(width), 160 * part // parts) for part in range(1, parts + 1) for width in (0.05, 0.1)
        ]
        errors.append(coefficients(stored, Profile(exponent_of(0.2), 160))[1])
    assert errors[0] > 1.5 * errors[1] > 6 * errors[2]
    assert errors[2] < 0.05


def test_a_combination_is_near_the_true_average(tmp_path) -> None:
    generator = torch.Generator().manual_seed(0)
    network = nn.Linear(8, 1, bias=False)
    ema, seen = EmaNetworks(network, [0.9], torch.device("cpu"), [0.05, 0.1]), []
    for step in range(1, 161):
        with torch.no_grad():
            network.weight += 0.1 * torch.randn(1, 8, generator=generator)
        seen.append(network.weight.detach().clone()[0].double())
        ema.update(network.parameters())
        if step % 10 == 0:
            store_averages(ema, tmp_path, step)
    stored = stored_averages(tmp_path)
    for width, step in ((0.05, 160), (0.08, 160), (0.2, 160), (0.12, 90)):
        used, wanted = choose(stored, width, step)
        shares, error = coefficients([each.profile for each in used], wanted)
        found = combine(used, shares.tolist())["weight"][0].double()
        truth, spread = true_average(width, torch.stack(seen[:step])), torch.stack(seen[:step]).std()
        # The error of the profile bounds that of the average by the norm of what it averages.
        assert float((found - truth).norm()) <= 2 * error * float(spread) * math.sqrt(8) + 1e-4
    assert error < 0.05


@pytest.fixture(scope="module", params=SCRIPTS, ids=lambda script: script.part)
def run(request, tmp_path_factory):
    """A run of eight steps that stores averages at every second, and was stopped at the fourth."""
    out = tmp_path_factory.mktemp("run") / "x"
    flags = [SSD.path, *TINY, "--data", "digits"] if request.param is SSD else [request.param.path, *VDVAE_TINY]
    flags += [*WIDTHS, "--save_every", "2"]
    whole = out.with_name("whole")
    for folder, steps, more in ((whole, "8", []), (out, "4", []), (out, "8", ["--resume"])):
        done = run_script(*flags, "--out", folder, "--max_steps", steps, *more)
        assert done.code == 0, done.err
    return out


def test_a_run_stores_averages_and_goes_on_with_them(run) -> None:
    names = [f"step_{step:08d}_width_{width}.safetensors" for step in (2, 4, 6, 8) for width in ("0.05", "0.1")]
    assert sorted(path.name for path in (run / "averages").iterdir()) == names
    for name in names:
        one, other = (load_file(folder / "averages" / name) for folder in (run, run.with_name("whole")))
        assert all(torch.equal(one[key], other[key]) for key in other)


def test_the_command_makes_a_pipeline(run, tmp_path, capsys) -> None:
    main(["--run", str(run), "--width", "0.1", "--step", "6", "--out", str(tmp_path / "x")])
    assert "met to 0.00%" in capsys.readouterr().out
    pipeline = load_any_pipeline(str(tmp_path / "x"), "cpu")
    network = getattr(pipeline, "vdvae", None) or pipeline.unet
    stored = load_file(run / "averages" / "step_00000006_width_0.1.safetensors")
    for name, weight in network.named_parameters():
        torch.testing.assert_close(weight.detach(), stored[name], rtol=1e-5, atol=1e-6)
    card = (tmp_path / "x" / "README.md").read_text()
    assert "power-function average of relative width 0.1, up to step 6" in card
    assert "moving average" not in card


def test_of_two_runs_at_once_in_one_step_the_last_counts(run, tmp_path, capsys) -> None:
    """A step that was stored twice, after a checkpoint was damaged, is one profile."""
    copied = shutil.copytree(run, tmp_path / "x")
    file = copied / "averages" / "step_00000008_width_0.1.safetensors"
    save_file(
        load_file(file),
        file.with_name("step_00000009_width_0.1.safetensors"),
        {"width": "0.1", "updates": "8", "step": "9"},
    )
    main(["--run", str(copied), "--width", "0.07", "--out", str(tmp_path / "y")])
    assert "by 8 stored averages" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--width", "0.3"], [f"--width must be in (0, {WIDEST:.4f}), got 0.3"]),
        (["--width", "0.1", "--step", "5"], ["--step 5 has no stored averages", "2, 4, 6, 8"]),
    ],
)
def test_bad_input_is_one_line(run, tmp_path, capsys, flags, parts) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["--run", str(run), "--out", str(tmp_path / "x"), *flags])
    error = capsys.readouterr().err
    assert raised.value.code == 2
    assert error.count("\n") == 1
    assert all(part in error for part in parts), error
    assert not (tmp_path / "x").exists()


def test_a_damaged_file_is_named(run, tmp_path, capsys) -> None:
    copied = shutil.copytree(run, tmp_path / "x")
    (copied / "averages" / "step_00000004_width_0.1.safetensors").write_bytes(b"damaged")
    with pytest.raises(SystemExit):
        main(["--run", str(copied), "--width", "0.1", "--out", str(tmp_path / "y")])
    assert "step_00000004_width_0.1.safetensors is damaged" in capsys.readouterr().err


def test_a_run_without_stored_averages(tmp_path, capsys) -> None:
    with pytest.raises(SystemExit):
        main(["--run", str(tmp_path), "--width", "0.1", "--out", str(tmp_path / "y")])
    assert capsys.readouterr().err.startswith("error: ")


def test_widths_out_of_range(tmp_path) -> None:
    done = run_script(SSD.path, *TINY, "--data", "digits", "--out", tmp_path / "x", "--posthoc_widths", "[0.4]")
    done.assert_one_line_error("--posthoc_widths must be in (0, 0.2887), got 0.4")


def test_a_network_of_other_weights_is_refused(run, tmp_path, capsys) -> None:
    copied = shutil.copytree(run, tmp_path / "x")
    for path in (copied / "averages").iterdir():
        weights = load_file(path)
        described = {"width": "0.1", "updates": "8", "step": "8"}
        save_file({name: weight for name, weight in weights.items() if "bias" not in name}, path, described)
    with pytest.raises(SystemExit):
        main(["--run", str(copied), "--width", "0.1", "--out", str(tmp_path / "y")])
    assert "of another network" in capsys.readouterr().err
