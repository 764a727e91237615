"""Which downsampling is a projection in the Haar basis, and which processes are multi-resolution bridges.

    python -m ssd.analysis.haar --res 16 --levels 3
    python -m ssd.analysis.haar --res '[32, 16]' --levels 2 --out runs/haar

Prints for every kernel of the project, and for taking every second pixel, how far it is from the orthogonal projection
onto the images of half the size: the relative deviation of the coarse Haar coefficients of one white image, and its
root mean square over all white images, in closed form. Then whether scale space diffusion with it is a multi-resolution
bridge, and how much its states show of what lies outside of the space of their size (`ssd.process.bridge`). With
--out writes haar.json and haar.png. After arXiv:2301.08187, theorem 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..commands.drawing import pyplot, save_figure
from ..commands.errors import UsageError, exit_on_usage_error
from ..commands.files import write_json
from ..commands.output_paths import check_output_folder
from ..commands.parser import CommandParser
from ..data.sizes import parse_size
from ..operators import haar
from ..operators.kernels import KERNELS
from ..operators.linear import LinearOperator, SeparableOperator
from ..operators.resize import resize_operator
from ..operators.sizes import Size
from ..process.bridge import BridgeReport, check
from ..process.noise import NoiseSchedule, make_betas
from ..process.resolution import ResolutionSchedule, pyramid
from ..process.scale_space import ScaleSpaceProcess

LARGEST_RES = 64
"""Operators are written out."""


@dataclass(frozen=True, kw_only=True)
class HaarConfig:
    """Settings of the table.

    Parameters
    ----------
    res : int or list of int
        The full resolution in pixels: one side, or [height, width].
    levels : int
        The number of resolutions, each half of the one before, at least 2.
    seed : int
        Of the white image.
    out : str, optional
        A folder for haar.json and haar.png. Without it the table alone is printed.
    """

    res: int | list[int] = 16
    levels: int = 3
    seed: int = 0
    out: str | None = None

    def __post_init__(self) -> None:
        for name, low in (("levels", 2), ("seed", 0)):
            if getattr(self, name) < low:
                raise UsageError(f"--{name} must be at least {low}, got {getattr(self, name)}.")
        if max(parse_size(self.res)) > LARGEST_RES:
            raise UsageError(f"--res must be at most {LARGEST_RES}, got {self.res}: operators are written out.")

    @property
    def sizes(self) -> list[Size]:
        """Of the levels, finest first."""
        return pyramid(parse_size(self.res), self.levels)


@dataclass(frozen=True)
class KernelRow:
    """One line of the table.

    Attributes
    ----------
    kernel : str
    conjugacy_error : float
        Of one white image.
    expected_error : float
        Root mean square over white images.
    bridge : BridgeReport
    """

    kernel: str
    conjugacy_error: float
    expected_error: float
    bridge: BridgeReport


def subsampling(fine: Size, coarse: Size) -> LinearOperator:
    """Every second pixel, the first of each pair: the downsampling of a strided 1 x 1 convolution."""
    return SeparableOperator(
        *(torch.eye(n, dtype=torch.float64)[:: n // m] for n, m in zip(fine, coarse))  # (m, n) each
    )


Kernel = Callable[[Size, Size], LinearOperator]
ALL_KERNELS: dict[str, Kernel] = {name: partial(resize_operator, kernel=name) for name in KERNELS}
ALL_KERNELS["subsampling"] = subsampling


def white_image(size: Size, seed: int) -> torch.Tensor:
    """Standard normal pixels, (H, W), float64."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(size))


def conjugacy_error(operator: LinearOperator, images: torch.Tensor | None = None) -> float:
    """How far an operator D is from the Haar projection on its output's size: 0 for averaging over squares.

        |analysis(D c) - coarse(analysis(c))| / |coarse(analysis(c))|

    Parameters
    ----------
    operator : LinearOperator
        From a size to one 2^k times smaller.
    images : torch.Tensor, optional
        c, (..., H, W), float64. Without them the root mean square over white images, in closed form: by Frobenius'
        norm of the matrices.

    Examples
    --------
    >>> round(conjugacy_error(resize_operator((16, 16), (8, 8), "bilinear"), white_image((16, 16), 0)), 3)
    0.456
    >>> conjugacy_error(resize_operator((16, 16), (8, 8), "area"), white_image((16, 16), 0)) < 1e-15
    True
    """
    levels = (operator.in_size[0] // operator.out_size[0]).bit_length() - 1
    if images is None:
        images = torch.eye(operator.in_size[0] * operator.in_size[1], dtype=torch.float64).view(-1, *operator.in_size)
    expected = haar.coarse(haar.analysis(images, levels), levels)
    found = haar.analysis(operator.forward(images), 0)
    return float((found - expected).norm() / expected.norm())


def kernel_rows(sizes: Sequence[Size], seed: int) -> list[KernelRow]:
    """The table: every kernel, from the finest size to the next and as a process of all sizes."""
    noise = NoiseSchedule.from_betas(make_betas())
    resolution = ResolutionSchedule.from_curve(sizes, noise.num_timesteps)
    image, rows = white_image(sizes[0], seed), []
    for name, make in ALL_KERNELS.items():
        operator = make(*next(pairwise(sizes)))
        report = check(ScaleSpaceProcess(noise, resolution, make))
        rows.append(KernelRow(name, conjugacy_error(operator, image), conjugacy_error(operator), report))
    return rows


def format_table(rows: Sequence[KernelRow]) -> str:
    """A line per kernel, and what is the same for all."""
    lines = [f"{'kernel':12} {'one image':>10} {'expected':>10} {'outside':>10}  bridge"]
    for row in rows:
        numbers = (row.conjugacy_error, row.expected_error, row.bridge.outside)
        lines.append(f"{row.kernel:12}" + "".join(f" {x:10.3g}" for x in numbers) + f"  {_yes(row.bridge.is_bridge)}")
    report = rows[0].bridge
    jumps = ", ".join(f"{jump:.3f}" for jump in report.jumps)
    height, width = report.start_size
    lines.append(
        f"largest step in a level {report.largest_step:.5f}, jumps {jumps}; starts at {height} x {width} pixels with "
        f"noise of standard deviation {report.start_std:.5f} (a point mass: {_yes(report.is_from_a_point_mass)})"
    )
    return "\n".join(lines)


def draw(rows: Sequence[KernelRow], image: torch.Tensor) -> Any:
    """The coarse Haar coefficients of one white image after every kernel, beside the projection's."""
    figure, axes = pyplot().subplots(
        1, len(rows), figsize=(2 * len(rows), 2.3), layout="constrained", sharex=True, sharey=True
    )
    size = (image.shape[0], image.shape[1])
    expected = haar.coarse(haar.analysis(image, 1)).flatten()
    for axis, row in zip(axes, rows):
        shrunk = ALL_KERNELS[row.kernel](size, (size[0] // 2, size[1] // 2)).forward(image)
        axis.axline((0, 0), slope=1, color="k", linewidth=0.6)
        axis.plot(expected, haar.analysis(shrunk, 0).flatten(), ".", markersize=3)
        axis.set_title(f"{row.kernel}\n{row.conjugacy_error:.2g}", fontsize="small")
        axis.set_aspect("equal")
    axes[0].set(xlabel="projection", ylabel="after the kernel")
    return figure


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def main(arguments: list[str] | None = None) -> None:
    with exit_on_usage_error(ValueError, OSError):
        parser = CommandParser(prog="python -m ssd.analysis.haar", description=__doc__)
        parser.add_class_arguments(HaarConfig)
        config = HaarConfig(**parser.parse_args(arguments).as_dict())
        sizes = config.sizes
        if config.out:
            check_output_folder(config.out, "--out")
            pyplot()
    with exit_on_usage_error():
        rows = kernel_rows(sizes, config.seed)
        print(format_table(rows))  # noqa: T201
        if config.out:
            out = Path(config.out)
            content = [asdict(row) | {"is_bridge": row.bridge.is_bridge} for row in rows]
            write_json(out / "haar.json", {"sizes": sizes, "seed": config.seed, "kernels": content})
            save_figure(draw(rows, white_image(sizes[0], config.seed)), out / "haar.png")
            for name in ("haar.json", "haar.png"):
                print(f"wrote {out / name}")  # noqa: T201


if __name__ == "__main__":
    main()
