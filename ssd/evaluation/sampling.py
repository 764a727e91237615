"""Images of a model for evaluation: split over processes, in files that a stopped run continues, or as a stream.

Image i depends on (seed, i) alone. The network always runs on the same number of images at once, with copies filling up
an incomplete batch, since other batch lengths round differently in the last bits: so neither the number of
processes, nor `batch_size`, nor an interruption can change a pixel.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from PIL import Image
from tqdm.auto import tqdm

from ..commands.errors import UsageError
from ..pipeline_ssd import SSDPipeline
from ..sampling.many_images import SamplingSettings, draw, image_labels
from ..sampling.pictures import to_uint8
from .features.inception import file_sha256
from .images import Size
from .levels import LevelRecorder
from .processes import share

FULL = "generated"
SETTINGS_FILE = "samples.json"
LABELS_FILE = "labels.json"


@dataclass(frozen=True)
class Sampler:
    """Draws numbered images as 8-bit pictures.

    Parameters
    ----------
    pipeline : SSDPipeline
    settings : SamplingSettings
    network_batch : int
        Images per network call.
    num_labels : int
        Classes; 0 for an unconditional model.
    labels : {"balanced", "random"}
    guidance_scale : float
    levels : tuple of (height, width)
        Coarser levels whose last predictions are wanted too.
    """

    pipeline: SSDPipeline
    settings: SamplingSettings
    network_batch: int = 32
    num_labels: int = 0
    labels: str = "balanced"
    guidance_scale: float = 1.0
    levels: tuple[Size, ...] = ()

    def draw(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
        """Pictures (B, H, W, 3), uint8, by the name of their folder: `generated`, and `generated_HxW` per level."""
        parts = [
            self._draw_padded(indices[start : start + self.network_batch])
            for start in range(0, len(indices), self.network_batch)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _draw_padded(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
        padded = [*indices, *[indices[-1]] * (self.network_batch - len(indices))]
        labels = image_labels(padded, self.num_labels, self.labels, self.settings.seed)
        recorder = LevelRecorder()
        images = draw(self.pipeline, padded, self.settings, labels, self.guidance_scale, recorder)
        wanted = {FULL: images} | {level_folder(size): recorder.predictions[size] for size in self.levels}
        return {name: to_uint8(tensor[: len(indices)]) for name, tensor in wanted.items()}

    def provenance(self, model: str) -> dict[str, Any]:
        """What decides over every pixel; written beside the images."""
        return {
            "model": model_sha256(Path(model)),
            "steps": self.settings.steps,
            "eta": self.settings.eta,
            "seed": self.settings.seed,
            "network_batch": self.network_batch,
            "dtype": self.settings.dtype,
            "compile": self.settings.compile,
            "labels": self.labels if self.num_labels else None,
            "num_labels": self.num_labels,
            "guidance_scale": self.guidance_scale,
        }


def level_folder(size: Size) -> str:
    """Folder of the predictions of one level."""
    return f"{FULL}_{size[0]}x{size[1]}"


def model_sha256(model: Path) -> str:
    """One hash of a saved pipeline: its configurations and weights."""
    files = [f for part in ("unet", "scheduler") for f in sorted((model / part).iterdir()) if f.is_file()]
    lines = [f"{file.relative_to(model)} {file_sha256(file)}" for file in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def prepare_folder(folder: Path, provenance: dict[str, Any], overwrite: bool) -> None:
    """Make sure that all images of a folder are of one origin, and write it down; main process only.

    Raises
    ------
    UsageError
        When the folder holds images drawn in another way.
    """
    path = folder / SETTINGS_FILE
    before = _read_json(path) if path.is_file() else None
    if before is not None and before != provenance:
        if not overwrite:
            name = next(key for key in provenance if before.get(key) != provenance[key])
            raise UsageError(
                f"{folder} holds images of another run: {name} is {before.get(name)!r} there and {provenance[name]!r} "
                "here; choose another --out, or remove them with --overwrite true."
            )
        for file in folder.glob(f"{FULL}*/[0-9]*.png"):
            file.unlink()
    for leftover in folder.glob(f"{FULL}*/.*.tmp"):
        leftover.unlink(missing_ok=True)
    write_json(path, provenance)


def missing_images(folder: Path, num: int, names: Sequence[str]) -> list[int]:
    """Numbers below `num` whose picture is missing in any of the subfolders, ascending."""
    present = [
        {entry.name for entry in os.scandir(folder / name)} if (folder / name).is_dir() else set() for name in names
    ]
    return [i for i in range(num) if any(picture_name(i) not in files for files in present)]


def picture_name(index: int) -> str:
    """File name of a picture."""
    return f"{index:06d}.png"


def sample_to_folder(sampler: Sampler, folder: Path, num: int, state: PartialState) -> None:
    """Draw the images 0 .. num - 1 that `folder` lacks, each in a file of its own that appears whole or not at all."""
    names = [FULL, *map(level_folder, sampler.levels)]
    missing = missing_images(folder, num, names)
    state.wait_for_everyone()  # nobody writes before all have looked
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
    size = sampler.network_batch
    batches = share([missing[i : i + size] for i in range(0, len(missing), size)], state)
    for indices in with_progress(batches, state, done=num - len(missing), total=num):
        for name, pictures in reversed(sampler.draw(indices).items()):  # the full image last: it marks completion
            for index, pixels in zip(indices, pictures):
                save_picture(folder / name / picture_name(index), pixels)
    state.wait_for_everyone()


def save_picture(path: Path, pixels: np.ndarray) -> None:
    """Write (H, W, 3) uint8 as PNG under a temporary name, then rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    Image.fromarray(pixels).save(temporary, format="PNG")
    temporary.replace(path)


def with_progress(
    batches: Sequence[Sequence[int]], state: PartialState, done: int, total: int
) -> Iterator[Sequence[int]]:
    """The batches, with a bar of the images of all processes on the main one: images/s and time left."""
    hidden = not state.is_main_process
    with tqdm(total=total, initial=done, desc="sampling", unit=" images", disable=hidden, delay=1) as progress:
        for batch in batches:
            yield batch
            progress.update(min(len(batch) * state.num_processes, total - progress.n))


def save_labels(folder: Path, sampler: Sampler, num: int) -> None:
    """Write the class of every image, if the model has classes; main process only."""
    labels = image_labels(range(num), sampler.num_labels, sampler.labels, sampler.settings.seed)
    if labels is not None:
        write_json(folder / LABELS_FILE, {"kind": sampler.labels, "labels": labels})


def write_json(path: Path, content: dict) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    temporary.replace(path)


def _read_json(path: Path) -> dict:
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, OSError) as error:
        raise UsageError(f"{path} cannot be read ({error}): remove it and the images beside it.") from error
