"""The table of kernels, and theorem 3: rows 4 and 6 of the table in docs/bridges.md."""

from __future__ import annotations

import json

import pytest
import torch

from ssd.analysis import haar as command
from ssd.analysis.bottleneck import bottleneck_bound, reconstruct
from ssd.analysis.haar import conjugacy_error, subsampling, white_image
from ssd.data import open_dataset
from ssd.operators import haar

FINE, COARSE = (16, 16), (8, 8)
FIGURES = {"bilinear": 0.456, "bicubic": 0.359, "lanczos3": 0.424, "dct": 0.534, "subsampling": 1.79}
"""Of one white image of 16 pixels, computed independently."""


@pytest.mark.parametrize("kernel", FIGURES)
def test_other_kernels_deviate_by_known_figures(kernel: str) -> None:
    operator = command.ALL_KERNELS[kernel](FINE, COARSE)
    assert conjugacy_error(operator, white_image(FINE, 0)) == pytest.approx(FIGURES[kernel], abs=5e-3)


@pytest.mark.parametrize(("fine", "coarse"), [(FINE, COARSE), ((32, 16), (16, 8)), ((16, 16), (4, 4))])
def test_only_area_is_the_projection(fine: tuple[int, int], coarse: tuple[int, int]) -> None:
    area = command.ALL_KERNELS["area"](fine, coarse)
    assert conjugacy_error(area, white_image(fine, 0)) < 1e-10
    assert conjugacy_error(area) < 1e-10
    for kernel in FIGURES:
        assert conjugacy_error(command.ALL_KERNELS[kernel](fine, coarse)) > 0.3


def test_the_closed_form_is_the_mean_over_white_images() -> None:
    images = torch.stack([white_image(FINE, seed) for seed in range(400)])
    for kernel in FIGURES:
        operator = command.ALL_KERNELS[kernel](FINE, COARSE)
        assert conjugacy_error(operator, images) == pytest.approx(conjugacy_error(operator), rel=0.03)
    # A pixel less the mean of its square: variance 3/4, of a mean of variance 1/4.
    assert conjugacy_error(subsampling(FINE, COARSE)) == pytest.approx(3**0.5, abs=1e-12)


def identities(*sizes: int) -> list[torch.Tensor]:
    return [torch.eye(size * size, dtype=torch.float64) for size in sizes]


def digits(number: int) -> torch.Tensor:
    dataset = open_dataset("digits", size=8, channels=1)
    return torch.stack([dataset[index]["image"][0].double() for index in range(number)])


@pytest.mark.parametrize("size", [(8, 8), (16, 8)])
def test_projections_meet_the_bound(size: tuple[int, int]) -> None:
    """Row 6: with F = projections and B = embeddings all three are the energy of the details."""
    images = torch.stack([white_image(size, seed) for seed in range(6)])
    pixels = size[0] * size[1]
    maps = [torch.eye(pixels // 4**level, dtype=torch.float64) for level in range(3)]
    bound = bottleneck_bound(images, maps)
    error = float((images - haar.project(images, 3)).square().mean())
    assert bound.lower == pytest.approx(error, abs=1e-10)
    assert bound.transport == pytest.approx(error, abs=1e-10)
    assert bound.error == pytest.approx(error, abs=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_other_maps_are_above_the_bound(seed: int) -> None:
    """The negative control: random maps of Lipschitz constant 1.5."""
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.randn(n, n, dtype=torch.float64, generator=generator) for n in (64, 16)]
    maps = [1.5 * matrix / torch.linalg.matrix_norm(matrix, ord=2) for matrix in maps]
    bound = bottleneck_bound(digits(100), maps)
    assert bound.lower < 0.9 * bound.transport
    assert bound.transport <= bound.error * (1 + 1e-12)


def test_a_trained_autoencoder_is_never_below_the_bound() -> None:
    """Layers that learn to pass on what matters: the error falls below that of projections, and the bound with it."""
    images = digits(64)
    maps = [matrix.requires_grad_() for matrix in identities(8, 4)]
    optimizer, logged = torch.optim.Adam(maps, lr=1e-2), []
    for _ in range(30):
        with torch.no_grad():
            logged.append(bottleneck_bound(images, maps))
        loss = (reconstruct(images, maps)[0] - images).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(bound.lower <= bound.transport * (1 + 1e-12) <= bound.error * (1 + 1e-12) ** 2 for bound in logged)
    assert logged[-1].error < 0.7 * logged[0].error


def test_the_command(capsys, tmp_path) -> None:
    out = tmp_path / "new"
    command.main(["--res", "[16, 8]", "--levels", "2", "--out", str(out)])
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["kernel", "one", "image", "expected", "outside", "bridge"]
    verdicts = {line.split()[0]: line.split()[-1] for line in lines[: len(command.ALL_KERNELS)]}
    assert verdicts == {name: "yes" if name == "area" else "no" for name in command.ALL_KERNELS}
    assert "starts at 8 x 4 pixels" in lines[-3]
    assert lines[-2:] == [f"wrote {out}/haar.{suffix}" for suffix in ("json", "png")]
    found = json.loads((out / "haar.json").read_text())
    assert [row["is_bridge"] for row in found["kernels"]] == [row["kernel"] == "area" for row in found["kernels"]]
    assert (out / "haar.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--levels 1", "--levels must be at least 2, got 1."),
        ("--res 12 --levels 4", "use at most 3 levels"),
        ("--res 128", "--res must be at most 64, got 128"),
        ("--out /dev/null/x", "--out /dev/null/x cannot be a folder: /dev/null is a file."),
    ],
)
def test_mistakes_are_one_line(capsys, arguments: str, message: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(arguments.split())
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
