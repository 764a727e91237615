"""What `learning.py` measures of one training run, or of real images: one JSON file, in a process of its own.

python benchmarks/learning_rulers.py --settings run.yaml --reference reference --out real.json
python benchmarks/learning_rulers.py --settings run.yaml --reference reference --out mark_5.json --model run

The settings are a training run's. The reference is its data, measured once into the folder of that name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from measuring import DEVICE, read_settings
from torch.utils.data import Dataset, Subset

from ssd import SSDPipeline, SSDScheduler
from ssd.analysis.moments import data_moments
from ssd.commands.errors import UsageError, exit_on_usage_error
from ssd.commands.files import whole_file, write_json
from ssd.data.dataset import ImageDataset
from ssd.data.some_images import NUM_IMAGES, some_images
from ssd.evaluation.denoising import Denoiser
from ssd.evaluation.distances.bootstrap import bootstrap_interval
from ssd.evaluation.features.extractors import load_extractor
from ssd.evaluation.given_images import NumberedImages
from ssd.evaluation.images import PictureArray, ReferencePictures
from ssd.evaluation.likelihood import LikelihoodSettings, estimate_bits_per_dim
from ssd.evaluation.measure import Measured, Measurer
from ssd.evaluation.metrics import all_metrics
from ssd.evaluation.normalised_residual import normalised_residuals
from ssd.evaluation.plan import MeasurePlan
from ssd.evaluation.statistics import load_statistics, save_statistics
from ssd.publishing.saving import load_pipeline
from ssd.sampling.many_images import SamplingSettings, default_batch_size, generate
from ssd.sampling.pictures import from_uint8, image_grid, to_uint8
from ssd.seeding import numpy_generator
from ssd.training.checkpoints import Description, find_newest, read_description
from ssd.training.config import TrainConfig, parse_train_config
from ssd.training.setup import open_training_data
from ssd.training.summary import sampling_gflops, training_gflops

FEATURES = ("pixels", "efficientnet_lite0")
MAIN = "frechet_distance_efficientnet_lite0"
"""The distance that has a bootstrap interval."""

SHOWN = 64
"""Images in the picture."""

SEED = 0
"""Of sampling and of all choices here, the same for every run."""


@dataclass
class RulerSettings:
    """What is measured, and where it goes.

    Parameters
    ----------
    settings : str
        The YAML file of a training run.
    reference : str
        The folder of the data's statistics, which are made if they are not there.
    out : str
        The JSON file; the picture goes beside it.
    model : str, optional
        The folder of the run. Default: real images are measured.
    held_out : str, optional
        Data that the runs have not learned from. Default: the training data.
    num : int
        Images that are drawn.
    num_held_out : int
        Images whose likelihood and residuals are measured.
    threads : int
    """

    settings: str
    reference: str
    out: str
    model: str | None = None
    held_out: str | None = None
    num: int = 2048
    num_held_out: int = 200
    threads: int = 1


def main() -> None:
    settings = read_settings(RulerSettings, __doc__)
    torch.set_num_threads(settings.threads)
    with exit_on_usage_error():
        config = parse_train_config(["--config", settings.settings])
        train = open_images(config)
        ruler = Ruler(train, Path(settings.reference))
        if settings.model is None:
            found = measure_real(settings, config, train, ruler)
        else:
            found = measure_run(settings, config, train, ruler)
        write_json(Path(settings.out), found)


def open_images(config: TrainConfig) -> ImageDataset:
    """The data of a run, as training sees them."""
    dataset = open_training_data(config)
    if not isinstance(dataset, ImageDataset):
        raise UsageError(f"--data {config.data} is a stream: give data with a length, such as prepared:DIR.")
    return dataset


class Ruler:
    """Measures images as the evaluation does, and compares them with the training data."""

    def __init__(self, reference: ImageDataset, folder: Path) -> None:
        self._measurer = Measurer([load_extractor(name, DEVICE) for name in FEATURES], PartialState())
        files = {name: folder / f"{name}.npz" for name in FEATURES}
        if not all(file.exists() for file in files.values()):
            measured = self._measured(ReferencePictures(reference), len(reference), 0)
            for name, file in files.items():
                save_statistics(file, measured.features[name])
        self._count = len(reference)
        self._reference = {name: load_statistics(file) for name, file in files.items()}

    def distances(self, pictures: Dataset, count: int) -> dict[str, Any]:
        """All distances of (H, W, C) uint8 pictures, by the names of reports, and the interval of `MAIN`."""
        measured, reference = self._measured(pictures, count, count), Measured(self._reference, self._count)
        channels = pictures[0].shape[-1]
        found = all_metrics(["fid", "swd"], FEATURES, reference, measured, levels={}, channels=channels)
        of_features, kept = self._reference[FEATURES[1]], measured.features[FEATURES[1]].kept
        assert kept is not None  # the plan keeps them
        interval = bootstrap_interval(of_features.mean, of_features.covariance, kept, SEED)
        return found | {f"{MAIN}_bootstrap_low": interval[0], f"{MAIN}_bootstrap_high": interval[1]}

    def _measured(self, pictures: Dataset, count: int, num_kept: int) -> Measured:
        return self._measurer.measure(pictures, count, MeasurePlan.of_generated(num_kept))


def measure_real(
    settings: RulerSettings, config: TrainConfig, train: ImageDataset, ruler: Ruler
) -> dict[str, dict[str, Any]]:
    """As many real images as are drawn, if there are so many: of the held-out data, else of half the training data."""
    dataset = open_images(replace(config, data=settings.held_out)) if settings.held_out else train
    limit = len(dataset) if settings.held_out else len(dataset) // 2
    chosen = choose(dataset, min(settings.num, limit))
    pictures = Subset(ReferencePictures(dataset), chosen)
    shown = from_uint8(np.stack([pictures[number] for number in range(min(SHOWN, len(chosen)))]))
    save_picture(shown, Path(settings.out))
    return {"metrics": ruler.distances(pictures, len(chosen))}


def measure_run(
    settings: RulerSettings, config: TrainConfig, train: ImageDataset, ruler: Ruler
) -> dict[str, dict[str, Any]]:
    """All rulers of a training run as its newest checkpoint left it."""
    model = str(settings.model)
    pipeline = load_pipeline(model, DEVICE)
    given = open_images(replace(config, data=settings.held_out)) if settings.held_out else train
    numbers = choose(given, min(settings.num_held_out, len(given)))
    images = NumberedImages(given, numbers, default_batch_size(pipeline), pipeline.device, config.class_conditional)
    learned, residuals = of_network(pipeline, images, train)
    sampling = SamplingSettings(seed=SEED).prepare(pipeline)
    drawn = np.concatenate([to_uint8(part) for _, part in generate(pipeline, range(settings.num), sampling)])
    save_picture(from_uint8(drawn[:SHOWN]), Path(settings.out))
    pipeline.scheduler.set_timesteps(sampling.steps)
    state = newest_state(Path(model))
    assert state is not None  # a run is measured after it was trained
    progress = state.progress
    return {
        "training": {
            "steps": progress.step,
            "images": progress.images,
            "seconds": 3600 * progress.hours,
            "gflops_per_image": training_gflops(config, pipeline.unet, pipeline.scheduler),
        },
        "sampling": {"steps": sampling.steps, "gflops": sampling_gflops(pipeline.unet, pipeline.scheduler)},
        "metrics": ruler.distances(PictureArray(drawn), len(drawn)) | learned,
        "residuals": residuals,
    }


def of_network(
    pipeline: SSDPipeline, images: NumberedImages, train: ImageDataset
) -> tuple[dict[str, Any], dict[str, float]]:
    """Bits per dimension and normalised residuals; nothing for other processes than the scale space's."""
    if not isinstance(pipeline.scheduler, SSDScheduler):
        return {}, {}
    bits = estimate_bits_per_dim(pipeline, images, LikelihoodSettings(), SEED, PartialState())
    moments = data_moments(some_images(train, NUM_IMAGES, SEED), pipeline.scheduler.process)
    return bits, normalised_residuals(Denoiser(pipeline), images, moments, SEED)


def newest_state(model: Path) -> Description | None:
    """What the newest checkpoint of a run says of itself; None without one."""
    checkpoint, _ = find_newest(model / "checkpoints")
    return None if checkpoint is None else read_description(checkpoint)


def choose(dataset: ImageDataset, number: int) -> list[int]:
    """Numbers of that many random images, ascending."""
    chosen: Iterable[int] = numpy_generator(SEED, "given images").choice(len(dataset), number, replace=False).tolist()
    return sorted(chosen)


def save_picture(images: torch.Tensor, out: Path) -> None:
    with whole_file(out.with_suffix(".png")) as temporary:
        image_grid(images).save(temporary)


if __name__ == "__main__":
    main()
