"""Distance to the data against training time for 1, 2 and 3 levels of one network, at equal wall-clock time.

python benchmarks/quality.py --data npz:images.npz
python benchmarks/quality.py --data digits --res 16 --minutes 0.5,1 --num 128 --plot quality.png

The runs take turns between two marks, so that whatever else the machine does slows all of them alike. Time is that of
training alone. The distances need no download: Frechet distance of 8 x 8 pixels and of EfficientNet-Lite0 (of the extra
`features`), sliced Wasserstein of Laplacian bands.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import PartialState
from measuring import DEVICE, read_settings
from tqdm.auto import tqdm

from flexi_unet import FlexiUNet2DModel
from ssd import SSDPipeline, SSDScheduler
from ssd.commands.errors import exit_on_usage_error
from ssd.data import open_dataset
from ssd.evaluation.features.extractors import load_extractor
from ssd.evaluation.images import PictureArray
from ssd.evaluation.measure import Measured, Measurer
from ssd.evaluation.metrics import all_metrics
from ssd.evaluation.plan import MeasurePlan
from ssd.process.losses import denoising_loss, training_pair
from ssd.sampling.many_images import SamplingSettings, generate
from ssd.sampling.pictures import image_grid, to_uint8
from ssd.seeding import numpy_generator, random_words, torch_generator, uniform
from ssd.training.ema import EmaNetworks
from ssd.training.routes import BatchRoutes

FEATURES = ("pixels", "efficientnet_lite0")
METRICS = {
    "pixels": ("frechet_distance_pixels", "Frechet distance of 8 x 8 pixels"),
    "efficientnet": ("frechet_distance_efficientnet_lite0", "Frechet distance of EfficientNet-Lite0"),
    "swd": ("swd", "sliced Wasserstein distance"),
}
"""Field of a `Point` -> name in reports, name in figures."""


@dataclass
class QualityBenchmark:
    """Settings of the benchmark.

    Parameters
    ----------
    data : str
        A data set, such as npz:images.npz or folder:/path.
    res : int
        Full resolution.
    levels : str
        Numbers of levels, separated by commas.
    minutes : str
        Training minutes at which the distances are measured, separated by commas, ascending.
    block_out_channels : tuple of int
    batch_size : int
    learning_rate : float
    transition_probability : float, optional
        Share of the batches that are level changes; default the uniform marginal's.
    num, steps : int
        Images per measurement, and their sampling steps.
    plot : str, optional
        Write a PNG; needs matplotlib. The last images of every run go beside it.
    seed : int
    """

    data: str
    res: int = 32
    levels: str = "1,2,3"
    minutes: str = "1,2,4,6,8"
    block_out_channels: tuple[int, ...] = (32, 64, 128)
    batch_size: int = 32
    learning_rate: float = 5e-4
    transition_probability: float | None = None
    num: int = 512
    steps: int = 20
    plot: str | None = None
    seed: int = 0


@dataclass
class Point:
    """One measurement."""

    levels: int
    minutes: float
    training_steps: int
    pixels: float
    efficientnet: float
    swd: float


def main() -> None:
    with exit_on_usage_error(ValueError):
        settings = read_settings(QualityBenchmark, __doc__)
        points, runs = measure(settings)
    print(table(points))
    if settings.plot:
        draw(points, settings, Path(settings.plot))
        for run in runs:
            path = Path(settings.plot).with_suffix(f".{run.levels}_levels.png")
            image_grid(run.sample(settings.num)[:64]).save(path)


def measure(settings: QualityBenchmark) -> tuple[list[Point], list[Run]]:
    dataset = open_dataset(settings.data, settings.res)
    count: int = dataset.provenance["count"]
    images = torch.stack([torch.as_tensor(dataset[index]["image"]) for index in range(count)])
    ruler = Ruler(images)
    torch.manual_seed(settings.seed)
    unet = FlexiUNet2DModel(settings.res, block_out_channels=tuple(settings.block_out_channels))
    runs = [Run(settings, int(levels), copy.deepcopy(unet), images) for levels in settings.levels.split(",")]
    marks = [60 * float(mark) for mark in settings.minutes.split(",")]
    points = []
    with tqdm(total=len(marks) * len(runs), desc="quality", unit=" measurements") as progress:
        for mark in marks:
            for run in runs:
                run.train_until(mark)
                distances = ruler.distances(run.sample(settings.num))
                points.append(Point(run.levels, mark / 60, run.step, **distances))
                progress.update()
                progress.write(str(points[-1]))
    half = torch.randperm(len(images), generator=torch_generator(settings.seed, "halves"))[: settings.num]
    points.append(Point(0, 0.0, 0, **ruler.distances(images[half])))
    return points, runs


class Ruler:
    """Measures images (N, 3, R, R) in [-1, 1] as the evaluation does, and compares them with a reference."""

    def __init__(self, reference: torch.Tensor) -> None:
        self._measurer = Measurer([load_extractor(name, DEVICE) for name in FEATURES], PartialState())
        self._reference = self._measured(reference)

    def distances(self, images: torch.Tensor) -> dict[str, float]:
        """The fields of a `Point` that are distances."""
        found = all_metrics(["fid", "swd"], FEATURES, self._reference, self._measured(images), levels={})
        return {field: found[metric] for field, (metric, _) in METRICS.items()}

    def _measured(self, images: torch.Tensor) -> Measured:
        plan = MeasurePlan(num_patched=len(images))
        return self._measurer.measure(PictureArray(to_uint8(images)), len(images), plan)


class Run:
    """One training run that can be continued for a while and sampled."""

    def __init__(self, settings: QualityBenchmark, levels: int, unet: FlexiUNet2DModel, images: torch.Tensor) -> None:
        self.levels, self.step, self.seconds = levels, 0, 0.0
        self._settings = settings
        self._images = images.to(DEVICE)
        self._unet = unet.to(DEVICE)
        self._scheduler = SSDScheduler(sample_size=settings.res, num_levels=levels)
        self._optimizer = torch.optim.AdamW(unet.parameters(), settings.learning_rate, weight_decay=0.0)
        self._ema = EmaNetworks(self._unet, [0.995], torch.device(DEVICE))
        self._routes = BatchRoutes(self._scheduler.process, settings.seed, settings.transition_probability)

    def train_until(self, seconds: float) -> None:
        """Train until the time spent in training is `seconds`."""
        self._unet.train()
        start = time.perf_counter() - self.seconds
        while self.seconds < seconds:
            self._train_step()
            self.seconds = time.perf_counter() - start

    def sample(self, num: int) -> torch.Tensor:
        """Images of the averaged network, always from the same seeds: (num, 3, R, R)."""
        pipeline = SSDPipeline(self._ema.networks[0], copy.deepcopy(self._scheduler))
        settings = SamplingSettings(steps=self._settings.steps, seed=self._settings.seed)
        return torch.cat([images for _, images in generate(pipeline, range(num), settings)])

    def _train_step(self) -> None:
        process, batch_size, seed = self._scheduler.process, self._settings.batch_size, self._settings.seed
        route = self._routes.route(self.step)
        numbers = range(self.step * batch_size, (self.step + 1) * batch_size)
        x_0 = self._images[numpy_generator(seed, "images", self.step).integers(len(self._images), size=batch_size)]
        t = self._routes.timesteps(route, uniform(random_words(seed, "image", numbers)[:, 0]))
        noise = torch.randn(batch_size, 3, *process.size(t), generator=torch_generator(seed, "noise", self.step))
        x_t, target = training_pair(process, x_0, t, noise.to(DEVICE))
        prediction = self._unet(x_t, t.to(DEVICE), output_size=route.output_size).sample
        loss = route.weight * denoising_loss(process, prediction, target, t).mean()
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        self._ema.update(self._unet.parameters())
        self.step += 1


def table(points: list[Point]) -> str:
    """Markdown."""
    distances = "Frechet, pixels | Frechet, EfficientNet | sliced Wasserstein"
    lines = [f"| levels | training minutes | training steps | {distances} |", "|" + "---|" * 6]
    for point in points:
        what = f"{point.levels} | {point.minutes:g} | {point.training_steps}" if point.levels else "the data | |"
        lines.append(f"| {what} | {point.pixels:.3f} | {point.efficientnet:.3f} | {point.swd:.3f} |")
    return "\n".join(lines)


def draw(points: list[Point], settings: QualityBenchmark, path: Path) -> None:
    """All distances against time, one line per number of levels."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(METRICS), figsize=(4.5 * len(METRICS), 3.6), layout="constrained")
    for axis, (field, (_, label)) in zip(axes, METRICS.items()):
        for levels in sorted({point.levels for point in points} - {0}):
            mine = [point for point in points if point.levels == levels]
            name = f"{levels} level{'s' if levels > 1 else ''}"
            axis.plot([p.minutes for p in mine], [getattr(p, field) for p in mine], marker="o", label=name)
        floor = next(getattr(point, field) for point in points if not point.levels)
        axis.axhline(floor, color="k", linestyle="--", linewidth=1, label="as many real images")
        axis.set(xlabel="training minutes", ylabel=label, yscale="log")
        axis.grid(alpha=0.3, which="both")
        axis.legend()
    figure.suptitle(f"{settings.res} pixels, {settings.num} images, {settings.steps} sampling steps")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
