"""Train one bias-free denoiser, draw samples from it, and measure how well it denoises.

    python -m ssd.analysis.denoisers --data digits --res 8 --steps 2000 --out runs/denoiser
    python -m ssd.analysis.denoisers --data folder:/data/faces --res 40 --network bf_cnn --steps 20000 --out runs/bf_cnn
    python -m ssd.analysis.denoisers --data calpha:2 --res 32 --drop_duplicates false --steps 20000 --out runs/c2

Writes denoiser.safetensors and denoiser.json, which `ssd.analysis.denoisers.saved.load_denoiser` reads, samples.png,
and psnr.png and psnr.json: output against input peak signal-to-noise ratio, of images it learned and of images it has
not seen. The method is that of arXiv:2310.02557.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from ...commands.drawing import pyplot, save_figure
from ...commands.errors import UsageError, exit_on_usage_error
from ...commands.files import whole_file, write_json
from ...commands.lock import hold_folder
from ...commands.output_paths import check_output_folder
from ...commands.parser import CommandParser
from ...data.sizes import check_channels
from ...sampling.pictures import image_grid
from .bias_free import BiasFreeDenoiser
from .coarse_to_fine import sample, seeded_noise
from .denoising import SIGMAS, decibels, noise_probes, psnr
from .images import StudyImages, read_images, split
from .saved import DESCRIPTION, WEIGHTS, build_denoiser, save_denoiser
from .training import DenoiserTraining, train_denoiser

SAMPLES, PSNR_PICTURE, PSNR = "samples.png", "psnr.png", "psnr.json"


@dataclass(frozen=True, kw_only=True)
class DenoiserConfig:
    """Settings of the command.

    Parameters
    ----------
    data : str
        The data set, as for training: digits, folder:PATH and so on; not a stream.
    res : int
        The side of the images in pixels.
    channels : int
        1 for grey, 3 for colour.
    num : int, optional
        N, the number of images to learn, at most half of them. Default: half.
    drop_duplicates : bool
        Leave near duplicates out. Not for image classes such as discs, which are all alike: --drop_duplicates false.
    network : str
        The UNet, or the chain of convolutions at full resolution.
    width : int
        Channels of the network's first layers.
    depth : int
        How often the UNet halves the image; the number of convolutions of the chain.
    steps : int
        Training steps.
    batch : int
        Images of a training step.
    lr : float
        The highest learning rate.
    samples : int
        Samples in the picture.
    seed : int
        The seed of everything: which images, weights, batches, noise.
    out : str
        The folder for the results.
    overwrite : bool
        Replace a denoiser that is there.
    """

    data: str
    res: int
    channels: int = 1
    num: int | None = None
    drop_duplicates: bool = True
    network: Literal["bf_unet", "bf_cnn"] = "bf_unet"
    width: int = 16
    depth: int = 1
    steps: int = 2000
    batch: int = 32
    lr: float = 1e-2
    samples: int = 64
    seed: int = 0
    out: str
    overwrite: bool = False

    def __post_init__(self) -> None:
        lowest = {"res": 1, "width": 1, "depth": 1 if self.network == "bf_unet" else 2, "steps": 2, "batch": 1}
        for name, low in (lowest | {"samples": 1, "seed": 0}).items():
            if getattr(self, name) < low:
                raise UsageError(f"--{name} must be at least {low}, got {getattr(self, name)}.")
        if not self.lr > 0:
            raise UsageError(f"--lr must be positive, got {self.lr}.")
        check_channels(self.channels)

    @property
    def arguments(self) -> dict[str, Any]:
        """Of the network."""
        depth = "blocks" if self.network == "bf_unet" else "layers"
        return {"channels": self.channels, "width": self.width, depth: self.depth}


def check(config: DenoiserConfig) -> None:
    """Say before the work what would go wrong after it."""
    check_output_folder(config.out, "--out")
    if (Path(config.out) / DESCRIPTION).exists() and not config.overwrite:
        raise UsageError(f"--out {config.out} holds a denoiser already: give another folder, or --overwrite.")
    build_denoiser(config.network, config.arguments).check_size((config.res, config.res))
    pyplot()


def study(config: DenoiserConfig, data: StudyImages) -> None:
    """Train, save, draw and measure."""
    out, images = Path(config.out), data.images
    chosen = split(len(images), learned(config, data), config.seed, flag="--num")
    seen, unseen = images[chosen.train[0]], images[chosen.test[0]]
    network = build_denoiser(config.network, config.arguments)
    how = DenoiserTraining(steps=config.steps, batch=config.batch, lr=config.lr, seed=config.seed)
    losses = train_denoiser(network, seen, how)
    about = {"settings": asdict(config), "images": len(seen), "loss": sum(losses[-100:]) / len(losses[-100:])}
    save_denoiser(network, config.network, config.arguments, out, **about)
    noise = seeded_noise(range(config.samples), images.shape[1:], config.seed)
    drawn = sample(network.denoise, float(images.mean()), noise)
    with whole_file(out / SAMPLES) as temporary:
        image_grid(2 * drawn.images - 1).save(temporary)
    curves = {
        "sigma": list(SIGMAS),
        "input": [decibels(sigma) for sigma in SIGMAS],
        "learned": psnr_curve(network, seen[: len(unseen)], config.seed),
        "unseen": psnr_curve(network, unseen, config.seed),
        "samples": config.samples,
        "diverged": int(drawn.diverged.sum()),
    }
    draw_curves(curves, out / PSNR_PICTURE)
    write_json(out / PSNR, curves)


def learned(config: DenoiserConfig, data: StudyImages) -> int:
    """N."""
    return data.half if config.num is None else config.num


def psnr_curve(network: BiasFreeDenoiser, images: torch.Tensor, seed: int) -> list[float]:
    return psnr(lambda y, sigma: network.denoise(y), noise_probes(images, seed))


def draw_curves(curves: dict[str, Any], path: Path) -> None:
    figure, axes = pyplot().subplots(figsize=(4, 3.5), layout="constrained")
    for name in ("learned", "unseen"):
        axes.plot(curves["input"], curves[name], marker="o", label=f"{name} images")
    axes.plot(curves["input"], curves["input"], color="grey", linestyle=":", label="not denoised")
    axes.set(xlabel="PSNR of the noisy images, dB", ylabel="PSNR after denoising, dB")
    axes.legend()
    save_figure(figure, path)


def main(arguments: list[str] | None = None) -> None:
    with exit_on_usage_error(ValueError, OSError):
        parser = CommandParser(prog="python -m ssd.analysis.denoisers", description=__doc__)
        parser.add_class_arguments(DenoiserConfig)
        config = DenoiserConfig(**parser.parse_args(arguments).as_dict())
        check(config)
        data = read_images(config.data, config.res, config.channels, config.drop_duplicates)
        split(len(data.images), learned(config, data), config.seed, flag="--num")
    with exit_on_usage_error(), hold_folder(config.out):
        study(config, data)
    print(f"{len(data.images)} images, {data.dropped} near duplicates left out; learned {learned(config, data)}.")  # noqa: T201
    print(f"Wrote {', '.join((WEIGHTS, DESCRIPTION, SAMPLES, PSNR_PICTURE, PSNR))} in {config.out}.")  # noqa: T201


if __name__ == "__main__":
    main()
