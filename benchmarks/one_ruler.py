"""Models of both families on one ruler: likelihood of the same held-out images, and what a sample costs and looks like.

    python benchmarks/one_ruler.py --models runs/digits_8px,runs/digits_vdvae --data digits --num_valid 297 \\
        --grey_levels 17 --out runs/one_ruler

The models have one size and one number of channels. A VDVAE must have the --grey_levels of the others. Written to OUT:
table.md, table.json with all numbers, and a picture of the first samples of every model. Distances are to all images of
--data; seconds are those of one image among 64 on this machine, and compare within the table.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from learning_rulers import MAIN, Ruler, save_picture
from measuring import DEVICE, machine, read_settings

from ssd import SSDPipeline, VDVAEPipeline
from ssd.commands.errors import UsageError, exit_on_usage_error
from ssd.commands.files import write_json, write_text
from ssd.evaluation.any_likelihood import estimate_any_bits_per_dim, own_grey_levels
from ssd.evaluation.given_images import GivenImages
from ssd.evaluation.images import PictureArray
from ssd.evaluation.likelihood import LikelihoodSettings
from ssd.evaluation.processes import start_processes
from ssd.evaluation.vdvae_likelihood import check_importance_samples
from ssd.publishing.saving import load_any_pipeline
from ssd.sampling.many_images import SamplingSettings, generate
from ssd.sampling.pictures import from_uint8, to_uint8
from ssd.sampling.vdvae import generate_vdvae

SHOWN = 32
"""Samples in the picture of a model."""

TIMED = 64
"""Images whose time is measured, after a first pass."""


@dataclass
class OneRulerSettings:
    """Settings of the comparison.

    Parameters
    ----------
    models : str
        Folders of pipelines, with commas between.
    data : str
    out : str
        The folder for the table and the pictures.
    num_valid : int
        The --num_valid of their training: the images whose likelihood is measured.
    grey_levels : int
        Of the images.
    importance_samples : int
        Of a VDVAE, beside its bound.
    steps : int
        Sampling steps of the diffusion models.
    num : int
        Images that are drawn for the distances.
    threads : int
    """

    models: str
    data: str
    out: str
    num_valid: int
    grey_levels: int = 256
    importance_samples: int = 64
    steps: int = 20
    num: int = 1024
    threads: int = 1


def main() -> None:
    settings = read_settings(OneRulerSettings, __doc__)
    torch.set_num_threads(settings.threads)
    with exit_on_usage_error():
        check_importance_samples(settings.importance_samples)
        pipelines = {Path(name).name: load_any_pipeline(name, DEVICE) for name in settings.models.split(",")}
        for name, pipeline in pipelines.items():
            own = own_grey_levels(pipeline, settings.grey_levels)
            if own != settings.grey_levels:
                raise UsageError(f"{name} has {own} grey levels: give --grey_levels {own}, and models that have it.")
        rows = {name: measure(name, pipeline, settings) for name, pipeline in pipelines.items()}
    out = Path(settings.out)
    write_json(out / "table.json", {"machine": machine(), "rows": rows})
    write_text(out / "table.md", table(rows))
    print(table(rows))


def measure(name: str, pipeline: SSDPipeline | VDVAEPipeline, settings: OneRulerSettings) -> dict[str, Any]:
    """All numbers of a model."""
    state = start_processes(DEVICE)
    given = GivenImages(model=name, data=settings.data, num_valid=settings.num_valid, num=settings.num_valid)
    images = given.open(pipeline, grey_levels=settings.grey_levels)
    bits = estimate_any_bits_per_dim(pipeline, images, LikelihoodSettings(), settings.importance_samples, 0, state)
    drawn, seconds = samples(pipeline, settings)
    save_picture(from_uint8(drawn[:SHOWN]), Path(settings.out) / f"{name}.json")
    everything = GivenImages(model=name, data=settings.data).open(pipeline).dataset
    side = drawn.shape[1]
    ruler = Ruler(everything, Path(settings.out) / f"reference_{side}px_{drawn.shape[-1]}")
    network = pipeline.vdvae if isinstance(pipeline, VDVAEPipeline) else pipeline.unet
    return {
        "parameters": network.num_parameters(),
        "network_calls": 1 if isinstance(pipeline, VDVAEPipeline) else settings.steps,
        "seconds_per_image": seconds,
        **bits,
        **ruler.distances(PictureArray(drawn), len(drawn)),
    }


def samples(pipeline: SSDPipeline | VDVAEPipeline, settings: OneRulerSettings) -> tuple[np.ndarray, float]:
    """Images (N, H, W, C), uint8, and the seconds of one."""

    def draw(count: int) -> np.ndarray:
        if isinstance(pipeline, VDVAEPipeline):
            parts = generate_vdvae(pipeline, range(count))
        else:
            parts = generate(pipeline, range(count), SamplingSettings(steps=settings.steps).prepare(pipeline))
        return np.concatenate([to_uint8(images) for _, images in parts])

    drawn = draw(settings.num)  # which warms up, too
    start = time.perf_counter()
    draw(TIMED)
    return drawn, (time.perf_counter() - start) / TIMED


COLUMNS = {
    "parameters": "parameters",
    "bits per dimension": "bits_per_dim",
    "its standard error": "bits_per_dim_standard_error",
    "importance-weighted": "bits_per_dim_importance",
    "network calls per image": "network_calls",
    "seconds per image": "seconds_per_image",
    "Frechet, EfficientNet": MAIN,
    "Frechet, 8 x 8 pixels": "frechet_distance_pixels",
    "sliced Wasserstein": "swd",
}


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Markdown, a model per line; the importance-weighted bound is that of the most draws."""
    lines = ["| model | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, row in rows.items():
        weighted = [key for key in row if key.startswith("bits_per_dim_importance_") and not key.endswith("error")]
        shown = row | ({"bits_per_dim_importance": row[weighted[-1]]} if weighted else {})
        cells = [
            f"{shown[key]:.4g}" if isinstance(shown.get(key), float) else str(shown.get(key, ""))
            for key in COLUMNS.values()
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
