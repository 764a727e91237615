"""Half of the pictures are small: what a network learns from them with each way of --small_images.

    python benchmarks/small_images.py
    python benchmarks/small_images.py --data folder:/data/pictures --res 32 --max_steps 20000

Every second picture is stored at half of its sides. Four runs of the same settings: with all pictures large (what could
be reached), and with each of the three ways. Said of each, over images that were held out: the normalised residual of
every route (1 is no better than a linear filter, less is better), and the variance of the finest details of drawn
images, as a part of that of the held-out ones (1 is right, less is blurred).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import torch
from measuring import read_settings
from PIL import Image

from ssd import SSDPipeline
from ssd.analysis.moments import data_moments
from ssd.analysis.switches import detail_variance
from ssd.commands.errors import exit_on_usage_error
from ssd.data import open_dataset
from ssd.evaluation.denoising import Denoiser
from ssd.evaluation.given_images import GivenImages
from ssd.evaluation.normalised_residual import normalised_residuals
from ssd.operators.resize import resize_operator
from ssd.sampling.pictures import to_uint8
from ssd.seeding import torch_generator

TRAIN = Path(__file__).parent.parent / "train" / "train_ssd.py"
WAYS = {"all large": "upscale", "levels": "levels", "upscale": "upscale", "skip": "skip"}


@dataclass
class SmallImagesBenchmark:
    """Settings of the benchmark.

    Parameters
    ----------
    data : str
        Pictures to learn from, of its training split.
    num : int
        How many of them, half of which become small.
    num_test : int
        How many held-out images of its split test, and how many drawn ones.
    res, levels, max_steps, seed : int
    block_out_channels : list of int
    """

    data: str = "calpha:2"
    num: int = 400
    num_test: int = 256
    res: int = 16
    levels: int = 3
    max_steps: int = 1200
    seed: int = 0
    block_out_channels: list[int] = field(default_factory=lambda: [32, 32, 32])


def main() -> None:
    with exit_on_usage_error(), tempfile.TemporaryDirectory() as folder:
        settings = read_settings(SmallImagesBenchmark, str(__doc__))
        rows = []
        for name, way in WAYS.items():
            pictures = Path(folder) / name / "pictures"
            write_pictures(settings, pictures, half_small=name != "all large")
            train(settings, pictures, way, Path(folder) / name / "run")
            rows.append((name, *judge(settings, Path(folder) / name / "run")))
    routes = list(rows[0][1])
    print(f"| pictures | {' | '.join(routes)} | finest details |")
    print("|---|" + "---|" * (len(routes) + 1))
    for name, residuals, details in rows:
        print(f"| {name} | {' | '.join(f'{residuals[route]:.3f}' for route in routes)} | {details:.2f} |")


def write_pictures(settings: SmallImagesBenchmark, folder: Path, half_small: bool) -> None:
    """Grey PNG files, every second one small."""
    folder.mkdir(parents=True)
    dataset = open_dataset(settings.data, settings.res, channels=1)
    for number in range(settings.num):
        [pixels] = to_uint8(torch.as_tensor(dataset[number]["image"])[None])
        picture = Image.fromarray(pixels[..., 0])
        if half_small and number % 2:
            picture = picture.resize((settings.res // 2, settings.res // 2), Image.Resampling.BOX)
        picture.save(folder / f"{number:05d}.png")


def train(settings: SmallImagesBenchmark, pictures: Path, way: str, out: Path) -> None:
    """One run, by the recipe of configs/ours/pictures32.yaml."""
    flags = {
        **{"data": f"folder:{pictures}", "small_images": way, "res": settings.res, "levels": settings.levels},
        **{"channels": 1, "block_out_channels": settings.block_out_channels, "layers_per_block": 1},
        **{"norm_num_groups": 8, "loss": "sqrt_snr", "max_snr": 1, "clipped_loss": True, "random_flip": False},
        **{"max_steps": settings.max_steps, "global_batch_size": 16, "learning_rate": 1e-3, "lr_scheduler": "cosine"},
        **{"ema_decays": [0.995], "num_workers": 0, "sample_every": 0, "save_every": settings.max_steps},
        **{"seed": settings.seed, "report_to": "none", "out": out, "cpu_threads": torch.get_num_threads()},
    }
    given = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
    subprocess.run([sys.executable, str(TRAIN), *given], check=True, stdout=subprocess.DEVNULL)


def judge(settings: SmallImagesBenchmark, run: Path) -> tuple[dict[str, float], float]:
    """Residuals by route, and the variance of the finest details relative to that of held-out images."""
    pipeline = SSDPipeline.from_pretrained(run)
    pipeline.set_progress_bar_config(disable=True)
    process, sizes = pipeline.scheduler.process, pipeline.scheduler.resolutions
    images = GivenImages(model=str(run), data=settings.data, split="test", num=settings.num_test).open(pipeline)
    held_out = [image for batch in images for image in batch.x_0]
    residuals = normalised_residuals(Denoiser(pipeline), images, data_moments(held_out, process), settings.seed)
    generators = [torch_generator(settings.seed, "drawn", number) for number in range(settings.num_test)]
    drawn = pipeline(settings.num_test, generator=generators, output_type="latent").images
    downsample = resize_operator(sizes[0], sizes[1])
    return residuals, detail_variance(drawn, downsample).variance / detail_variance(held_out, downsample).variance


if __name__ == "__main__":
    main()
