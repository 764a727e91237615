"""Images per second of the data loader: from JPEG originals and from a prepared copy, by worker processes.

python benchmarks/loader.py
python benchmarks/loader.py --res 128 --workers '[0, 4, 8]' --repeats 5
python benchmarks/loader.py --data celeba:/data/celeba
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from measuring import read_settings, seconds
from PIL import Image
from torch.utils.data import DataLoader, RandomSampler, default_collate

from ssd.commands.errors import exit_on_usage_error
from ssd.data import open_dataset
from ssd.data.dataset import PixelDataset
from ssd.data.prepared.copying import write_copy
from ssd.data.transforms import pixels_to_tensor


@dataclass
class LoaderBenchmark:
    """Settings of the benchmark.

    Parameters
    ----------
    data : str, optional
        The originals. By default JPEGs of CelebA's 178 x 218 pixels are made up, with the spectrum of photographs.
    res : int
        The side of the images in pixels.
    num_images : int
        How many pictures are made up.
    batch_size : int
        The number of images per batch.
    workers : list of int
        The numbers of worker processes to try.
    duration : float
        The length of one measurement in seconds.
    repeats : int
        The number of measurements of each kind, taken in turn. The best one counts, since other work only slows down.
    """

    data: str | None = None
    res: int = 64
    num_images: int = 2000
    batch_size: int = 64
    workers: list[int] = field(default_factory=lambda: [0, 1, 2])
    duration: float = 2.0
    repeats: int = 3


def main() -> None:
    with exit_on_usage_error(ValueError):
        settings = read_settings(LoaderBenchmark, __doc__)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, exit_on_usage_error():
        datasets = make_datasets(settings, Path(folder))
        print(f"torch {torch.__version__}, Pillow {Image.__version__}, {settings}\n")
        rates, stages = measure(datasets, settings)
    print("images/s    " + "".join(f"{workers:>4} workers" for workers in settings.workers))
    for form in datasets:
        print(f"{form:12}" + "".join(f"{rates[form, workers]:12.0f}" for workers in settings.workers))
    print("\nmicroseconds per image, one process")
    for name, seconds_per_image in stages.items():
        print(f"{name:30}{1e6 * seconds_per_image:8.1f}")


def make_datasets(settings: LoaderBenchmark, folder: Path) -> dict[str, PixelDataset]:
    """The same images as originals and as a prepared copy."""
    spec = settings.data
    if spec is None:
        (folder / "jpeg").mkdir()
        for index in range(settings.num_images):
            photograph(index).save(folder / "jpeg" / f"{index:06d}.jpg", quality=90)
        spec = f"folder:{folder / 'jpeg'}"
    originals = cast(PixelDataset, open_dataset(spec, settings.res))
    write_copy(originals, folder / "copy", workers=2)
    copy = cast(PixelDataset, open_dataset(f"prepared:{folder / 'copy'}", settings.res))
    return {"originals": originals, "prepared": copy}


def photograph(seed: int) -> Image.Image:
    """Noise of 178 x 218 pixels whose amplitudes fall with frequency as in photographs: as hard to compress."""
    height, width = 218, 178
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    frequency[0, 0] = 1 / height
    noise = np.random.default_rng(seed).normal(size=(3, height, width))
    smooth = np.fft.ifft2(np.fft.fft2(noise) / frequency**1.2).real
    smooth = 128 + 50 * (smooth - smooth.mean()) / smooth.std()
    return Image.fromarray(smooth.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


def measure(
    datasets: dict[str, PixelDataset], settings: LoaderBenchmark
) -> tuple[dict[tuple[str, int], float], dict[str, float]]:
    """Best images per second by (form, workers), and best seconds per image by stage."""
    rates = {(form, workers): 0.0 for form in datasets for workers in settings.workers}
    stages = stages_of(datasets, settings)
    times = dict.fromkeys(stages, float("inf"))
    for _ in range(settings.repeats):
        for form, workers in rates:
            rates[form, workers] = max(rates[form, workers], rate(datasets[form], workers, settings))
            for name, (work, count) in stages.items():
                times[name] = min(times[name], seconds(work) / count)
    return rates, times


def rate(dataset: PixelDataset, workers: int, settings: LoaderBenchmark) -> float:
    """Images per second once the workers run, counting only batches that were touched."""
    order = RandomSampler(dataset, num_samples=10**9)  # without end, for all that matters here
    batches = iter(DataLoader(dataset, settings.batch_size, sampler=order, num_workers=workers))
    for _ in range(2 * workers + 1):
        next(batches)["image"].sum()
    images, start = 0, time.perf_counter()
    while time.perf_counter() - start < settings.duration:
        images += len(next(batches)["image"].sum((1, 2, 3)))
    return images / (time.perf_counter() - start)


def stages_of(
    datasets: dict[str, PixelDataset], settings: LoaderBenchmark
) -> dict[str, tuple[Callable[[], object], int]]:
    """What one image goes through: the work, and for how many images it is."""
    indices = [int(index) for index in np.random.default_rng(0).permutation(len(datasets["originals"]))[:128]]
    batch = indices[: settings.batch_size]
    pixels = np.stack([datasets["prepared"].pixels(index) for index in batch])
    items = datasets["prepared"].__getitems__(batch)
    return {
        **{
            f"pixels from {form}": (partial(read_all, dataset, indices), len(indices))
            for form, dataset in datasets.items()
        },
        "8 bits to [-1, 1], per batch": (lambda: pixels_to_tensor(pixels), len(batch)),
        "collate, per batch": (lambda: default_collate(items), len(batch)),
    }


def read_all(dataset: PixelDataset, indices: list[int]) -> None:
    for index in indices:
        dataset.pixels(index)


if __name__ == "__main__":
    main()
