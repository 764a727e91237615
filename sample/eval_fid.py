"""Frechet distance between a model's images and a data set.

    python sample/eval_fid.py --model runs/digits --ref digits --features pixels --num 512
    python sample/eval_fid.py --model runs/flowers --ref folder:/data/flowers --num 10000 --steps 250

The numbers are printed and written to metrics.json in the model's folder (or to --out).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ssd import SSDPipeline
from ssd.cli import CommandParser
from ssd.data import open_dataset
from ssd.errors import UsageError, exit_on_usage_error
from ssd.evaluation.digit_classifier import digit_recognition
from ssd.evaluation.features import EXTRACTORS
from ssd.evaluation.frechet import FeatureStatistics, frechet_distance
from ssd.generate import SamplingSettings, generate, load_pipeline
from ssd.pictures import to_uint8


@dataclass(frozen=True, kw_only=True)
class EvalConfig(SamplingSettings):
    """Settings of the evaluation command.

    Parameters
    ----------
    model : str
        Folder of a pipeline, such as a training run's --out.
    ref : str
        The data set to compare with: digits, folder:PATH or npz:PATH.
    features : str
        Feature extractor; pixels is the image reduced to 8 x 8 by area and needs no weights.
    num : int
        Number of generated images.
    out : str, optional
        Where the numbers are written. Default: metrics.json in the model's folder.
    num_workers : int
        Processes that load the reference images.
    device : str, optional
        cpu, cuda, ..; default: the accelerator if there is one.
    """

    model: str
    ref: str
    features: Literal["pixels"] = "pixels"
    num: int = 10000
    out: str | None = None
    num_workers: int = 0
    device: str | None = None


def main() -> None:
    with exit_on_usage_error():
        parser = CommandParser(description=__doc__)
        parser.add_class_arguments(EvalConfig)
        config = EvalConfig(**parser.parse_args().as_dict())
        if config.num < 2:
            raise UsageError(f"--num must be at least 2, got {config.num}: a covariance needs two images.")
        pipeline = load_pipeline(config.model, config.device)
        config.check(pipeline)
        height, width = pipeline.scheduler.size_at(-1)
        if height != width:
            raise UsageError(f"Reference data are square, but the model makes {height} x {width} images.")
        reference = open_dataset(config.ref, height)
        metrics = evaluate(config, pipeline, reference)
        path = Path(config.out) if config.out else Path(config.model) / "metrics.json"
        write_json(path, {"metrics": metrics, "settings": asdict(config)})
    for name, value in metrics.items():
        text = f"{value:.4f}" if isinstance(value, float) else value
        print(f"{name:28} {text}")
    print(f"wrote {path}")


def evaluate(config: EvalConfig, pipeline: SSDPipeline, reference: Dataset) -> dict:
    """All numbers of the report."""
    extractor = EXTRACTORS[config.features]
    real, fake = FeatureStatistics(), FeatureStatistics()
    loader = DataLoader(reference, config.batch_size, num_workers=config.num_workers)
    for batch in tqdm(loader, desc="reference", unit=" batches", delay=2):
        real.add(extractor(batch["image"].to(pipeline.device)))

    generated = []
    for _, images in generate(pipeline, range(config.num), config):
        rounded = torch.from_numpy(to_uint8(images)).permute(0, 3, 1, 2).float() / 127.5 - 1  # what a PNG would hold
        fake.add(extractor(rounded.to(pipeline.device)))
        if config.ref == "digits":
            generated.append(rounded)

    metrics: dict[str, Any] = {
        f"frechet_distance_{config.features}": frechet_distance(real.mean, real.covariance, fake.mean, fake.covariance),
        "num_generated": fake.count,
        "num_reference": real.count,
    }
    if generated:
        metrics |= digit_recognition(generated)
    return metrics


def write_json(path: Path, content: dict) -> None:
    """Write a JSON file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    temporary.replace(path)


if __name__ == "__main__":
    main()
