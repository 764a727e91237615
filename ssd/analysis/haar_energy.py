"""What a Flexi-UNet predicts without the skips of its finer stages, in the Haar basis.

    python -m ssd.analysis.haar_energy --model runs/digits --data digits --out runs/digits/haar
    python -m ssd.analysis.haar_energy --model runs/faces --data folder:/data/held_out --timesteps '[100, 400]'

Averages between stages (`--downsample_type average`) are projections in the Haar basis of features
(arXiv:2301.08187): without the skips of the finer stages nothing of the features' details finer than stage k, k
halvings below the output, passes. What details the output has is then made up by the convolutions of the decoder, from
features of stage k's size, whose many channels may know much of the image's details. With the skips of all stages finer
than stage k set to zero this prints for every timestep and k, and beside it with all skips (full):

    details    the share of the output's energy in details finer than stage k's size; that of the truth, too
    remaining  their energy over that with all skips
    wrong      |details(output) - details(truth)| / |details(truth)|: 1 for an output without details
    error      |pool(output) - pool(truth)| / |pool(truth)| at stage k's size

as ratios of means over images. Writes haar_energy.json, with the share of every sub-band, and haar_energy.png. The
truth is D_s x_0, s = t - 1. Predictions are not clipped. Networks with strided convolutions can be asked, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from flexi_unet import FlexiUNet2DModel

from ..commands.drawing import pyplot, save_figure
from ..commands.errors import UsageError, exit_on_usage_error
from ..commands.files import write_json
from ..commands.output_paths import check_output_folder
from ..commands.parser import CommandParser
from ..evaluation.calibrate import timesteps_of
from ..evaluation.denoising import Denoiser
from ..evaluation.given_images import GivenImages, ImageBatch, NumberedImages
from ..operators import haar
from ..operators.sizes import Size
from ..pipeline_ssd import SSDPipeline
from ..publishing.saving import load_pipeline
from ..seeding import torch_generator

AUTOMATIC = 3
"""Timesteps of the finest level."""


@dataclass(frozen=True, kw_only=True)
class HaarEnergyConfig(GivenImages):
    """Settings of the study.

    Parameters
    ----------
    timesteps : list of int, optional
        The timesteps to look at. The default is three of the finest level, evenly in the log-SNR.
    out : str
        A folder for haar_energy.json and haar_energy.png.
    """

    num: int = 64
    timesteps: list[int] | None = None
    out: str = "haar_energy"

    def chosen(self, denoiser: Denoiser) -> list[int]:
        """The timesteps, ascending; their predictions have the size of a stage."""
        process = denoiser.process
        found = timesteps_of(process, 0, AUTOMATIC) if self.timesteps is None else sorted(set(self.timesteps))
        if not found:
            raise UsageError("--timesteps must name at least one, got an empty list.")
        for t in found:
            if not 0 <= t < process.num_timesteps:
                raise UsageError(f"--timesteps must be in 0..{process.num_timesteps - 1}, got {t}.")
            if process.size(t - 1) not in denoiser.unet.stage_sizes:
                raise UsageError(
                    f"--timesteps {t}: its prediction has {process.size(t - 1)} pixels, and the network's stages have "
                    f"{denoiser.unet.stage_sizes}."
                )
        return found


def open_denoiser(pipeline: SSDPipeline) -> Denoiser:
    """The pipeline's network, whose output is the image itself; its predictions are not clipped.

    Raises
    ------
    UsageError
        For other networks, predictions of the noise or the velocity, or blur.
    """
    if not isinstance(pipeline.unet, FlexiUNet2DModel):
        raise UsageError(f"This is for networks with stages, FlexiUNet2DModel; got {type(pipeline.unet).__name__}.")
    denoiser = Denoiser(pipeline)
    config = denoiser.scheduler.config
    if config.prediction_type != "sample" or config.blur_sigma_max:
        raise UsageError(
            "This is for networks that predict the image, without blur; this model has prediction_type="
            f"{config.prediction_type} and blur_sigma_max={config.blur_sigma_max}."
        )
    denoiser.scheduler = type(denoiser.scheduler).from_config(config, clip_sample=False)
    return denoiser


@contextmanager
def without_skips(unet: FlexiUNet2DModel, stages: Sequence[int]) -> Iterator[None]:
    """Inside, the decoder blocks of these stages (0 the finest) get zeros instead of the encoder's features."""

    def no_skips(module: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        x, temb, _, *rest = inputs
        return (x, temb, [], *rest)

    handles = [unet.up_blocks[-1 - stage].register_forward_pre_hook(no_skips) for stage in stages]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Ablation:
    """One timestep and one k; energies are means over images and channels, of the norm mean(c^2).

    Attributes
    ----------
    t, halvings : int
        k.
    kept : (height, width)
        The size of stage k.
    energies, full, truth : dict
        Energies of all sub-bands of the output without skips, with all skips, and of the truth: (size, orientation) ->
        energy.
    wrong, full_wrong : float or None
        Relative errors of the details finer than `kept`; None where there are none.
    error, full_error : float
        Relative errors at the size `kept`.
    pictures : torch.Tensor
        Of the first image: the output, its projection, the truth's; (3, C, H, W).
    """

    t: int
    halvings: int
    kept: Size
    energies: dict[tuple[Size, str], float]
    full: dict[tuple[Size, str], float]
    truth: dict[tuple[Size, str], float]
    wrong: float | None
    full_wrong: float | None
    error: float
    full_error: float
    pictures: torch.Tensor

    def details(self, energies: dict[tuple[Size, str], float]) -> float:
        """The energy of details finer than `kept`."""
        return sum(energy for (size, _), energy in energies.items() if size[0] > self.kept[0])

    def share(self, energies: dict[tuple[Size, str], float]) -> float:
        """That of all energy."""
        return self.details(energies) / sum(energies.values())

    @property
    def remaining(self) -> float | None:
        """The energy of details over that with all skips; None where there are no details to speak of."""
        return self.details(self.energies) / self.details(self.full) if self.halvings else None


@torch.no_grad()
def ablate(denoiser: Denoiser, images: Sequence[ImageBatch], t: int, seed: int) -> list[Ablation]:
    """Predictions from x_t without the skips of the finest 0, 1, .. stages, k ascending.

    Parameters
    ----------
    denoiser : Denoiser
        From `open_denoiser`.
    images : sequence of ImageBatch
    t : int
    seed : int
        Of the noise: that of an image depends on the seed, t and the image's number alone.
    """
    process, unet = denoiser.process, denoiser.unet
    exit_stage = unet.stage_sizes.index(process.size(t - 1))
    depths = range(len(unet.stage_sizes) - exit_stage)
    outputs: list[list[torch.Tensor]] = [[] for _ in depths]
    truths = []
    for batch in images:
        generators = [torch_generator(seed, "haar noise", t, number) for number in batch.numbers]
        x_t = denoiser.noisy(batch.x_0, t, generators)
        truths.append(process.degrade(batch.x_0, t - 1).double().cpu() / process.image_scale(t - 1))
        for k in depths:
            with without_skips(unet, range(exit_stage + k)):
                outputs[k].append(denoiser.prediction(x_t, t - 1, t, batch.labels).double().cpu())
    truth, full = torch.cat(truths), torch.cat(outputs[0])
    return [_compare(t, k, torch.cat(outputs[k]), full, truth) for k in depths]


def _compare(t: int, k: int, output: torch.Tensor, full: torch.Tensor, truth: torch.Tensor) -> Ablation:
    levels = haar.halvings((output.shape[-2], output.shape[-1]))
    energies, full_energies, true_energies = (
        {key: float(energy.mean()) for key, energy in haar.energies(images, levels).items()}
        for images in (output, full, truth)
    )
    pooled, full_pooled, true_pooled = (haar.pool(images, k) for images in (output, full, truth))
    details, full_details, true_details = (images - haar.project(images, k) for images in (output, full, truth))
    return Ablation(
        t=t,
        halvings=k,
        kept=(pooled.shape[-2], pooled.shape[-1]),
        energies=energies,
        full=full_energies,
        truth=true_energies,
        wrong=_relative(details, true_details) if k else None,
        full_wrong=_relative(full_details, true_details) if k else None,
        error=_relative(pooled, true_pooled),
        full_error=_relative(full_pooled, true_pooled),
        pictures=torch.stack([output[0], haar.project(output[0], k), haar.project(truth[0], k)]),
    )


def _relative(found: torch.Tensor, truth: torch.Tensor) -> float:
    return float((found - truth).norm() / truth.norm())


def format_table(found: Sequence[Ablation]) -> str:
    """A line per timestep and k, for people."""
    columns = ("details", "full", "truth", "remaining", "wrong", "full", "error", "full")
    lines = [f"{'t':>4} {'without':>8} {'kept':>9} " + " ".join(f"{name:>9}" for name in columns)]
    for row in found:
        shares = [row.share(energies) for energies in (row.energies, row.full, row.truth)]
        numbers = [*shares, row.remaining, row.wrong, row.full_wrong, row.error, row.full_error]
        cells = ["" if number is None else f"{number:.4f}" for number in numbers]
        kept = f"{row.kept[0]} x {row.kept[1]}"
        stages = "none" if row.halvings == 0 else f"finest {row.halvings}"
        lines.append(f"{row.t:4d} {stages:>8} {kept:>9} " + " ".join(f"{cell:>9}" for cell in cells))
    return "\n".join(lines)


def as_json(row: Ablation) -> dict[str, Any]:
    """The numbers of one line, and the shares of all sub-bands."""
    content: dict[str, Any] = {"t": row.t, "halvings": row.halvings, "kept": row.kept}
    for name, energies in (("output", row.energies), ("full", row.full), ("truth", row.truth)):
        total = sum(energies.values())
        bands = {f"{h} x {w} {orientation}": e / total for ((h, w), orientation), e in energies.items()}
        content[name] = {"energy": total, "shares": bands, "details": row.share(energies)}
    names = ("remaining", "wrong", "full_wrong", "error", "full_error")
    return content | {name: getattr(row, name) for name in names}


def draw(found: Sequence[Ablation]) -> Any:
    """A row per k, three columns per timestep: the output of the first image, its projection, the truth's."""
    timesteps = sorted({row.t for row in found})
    rows = 1 + max(row.halvings for row in found)
    figure, axes = pyplot().subplots(
        rows, 3 * len(timesteps), figsize=(3.6 * len(timesteps), 1.35 * rows), layout="constrained", squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    for row in found:
        first = 3 * timesteps.index(row.t)
        names = (f"t = {row.t}, output", "projection", "truth")
        for offset, (picture, name) in enumerate(zip(row.pictures, names)):
            axis = axes[row.halvings, first + offset]
            shown = (picture.clamp(-1, 1) / 2 + 0.5).permute(1, 2, 0).numpy()
            axis.imshow(shown.squeeze(-1) if shown.shape[-1] == 1 else shown, cmap="gray", vmin=0, vmax=1)
            axis.set_title(name if row.halvings == 0 else f"{row.kept[0]} x {row.kept[1]}", fontsize="x-small", pad=2)
    return figure


def write(config: HaarEnergyConfig, images: NumberedImages, found: Sequence[Ablation]) -> list[Path]:
    """The files, and their paths."""
    out = Path(config.out)
    about = {"model": config.model, "data": config.data, "images": images.numbers, "seed": config.seed}
    write_json(out / "haar_energy.json", {**about, "rows": [as_json(row) for row in found]})
    save_figure(draw(found), out / "haar_energy.png")
    return [out / "haar_energy.json", out / "haar_energy.png"]


def main(arguments: list[str] | None = None) -> None:
    with exit_on_usage_error(ValueError, OSError):
        parser = CommandParser(prog="python -m ssd.analysis.haar_energy", description=__doc__)
        parser.add_class_arguments(HaarEnergyConfig)
        config = HaarEnergyConfig(**parser.parse_args(arguments).as_dict())
        check_output_folder(config.out, "--out")
        pyplot()
        pipeline = load_pipeline(config.model, config.device or "cpu")
        denoiser = open_denoiser(pipeline)
        timesteps, images = config.chosen(denoiser), config.open(pipeline)
    with exit_on_usage_error():
        batches = list(images)
        found = [row for t in timesteps for row in ablate(denoiser, batches, t, config.seed)]
        print(f"means over {len(images)} images of {config.data}")  # noqa: T201
        print(format_table(found))  # noqa: T201
        for path in write(config, images, found):
            print(f"wrote {path}")  # noqa: T201


if __name__ == "__main__":
    main()
