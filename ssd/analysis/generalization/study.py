"""All rows of the study: each is made once, in processes side by side, and kept on the disk."""

from __future__ import annotations

import json
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ...commands.errors import UsageError
from ...commands.files import whole_file, write_json
from ..denoisers.images import StudyImages
from .config import StudyConfig
from .row import make_row, row_name

STUDY, SETTINGS = "study.json", "settings.json"


def run_study(config: StudyConfig, data: StudyImages) -> list[dict[str, Any]]:
    """Make what is missing of the rows, write study.json, and return its rows in order."""
    missing = [(size, seed) for size, seed in config.rows if not _row_path(config, size, seed).exists()]
    jobs = min(number_of_jobs(config), max(1, len(missing)))
    with tqdm(
        total=len(config.rows), initial=len(config.rows) - len(missing), desc="study", unit=" rows", delay=2
    ) as bar:
        if jobs == 1:
            for size, seed in missing:
                keep_row(config, data.images, size, seed)
                bar.update()
        else:
            _run_side_by_side(config, data.images, missing, jobs, bar)
    rows = [json.loads(_row_path(config, size, seed).read_text(encoding="utf-8")) for size, seed in config.rows]
    about = {"settings": config.what, "images": len(data.images), "near_duplicates_dropped": data.dropped}
    write_json(Path(config.out) / STUDY, about | {"rows": rows})
    return rows


def claim(config: StudyConfig) -> None:
    """Write the settings into the folder, or raise a `UsageError` where rows of others are in it."""
    path = Path(config.out) / SETTINGS
    if not path.exists():
        write_json(path, config.what)
        return
    kept = json.loads(path.read_text(encoding="utf-8"))
    for name, value in config.what.items():
        if kept.get(name) != value:
            raise UsageError(
                f"--out {config.out} holds a study with --{name} {kept.get(name)}, not {value}: give another folder, "
                "or the same settings."
            )


def number_of_jobs(config: StudyConfig) -> int:
    """Rows to be made at once."""
    if config.jobs is not None:
        return config.jobs
    return len(os.sched_getaffinity(0)) if config.denoiser == "bf_unet" else 1


def read_arrays(config: StudyConfig, size: int, seed: int) -> dict[str, np.ndarray]:
    """The cosines and pictures of a row."""
    with np.load(_row_path(config, size, seed).with_suffix(".npz"), allow_pickle=False) as arrays:
        return dict(arrays)


def keep_row(config: StudyConfig, images: torch.Tensor, size: int, seed: int, threads: int | None = None) -> None:
    """Make one row and write it; its JSON comes last, so that a row with one is complete."""
    if threads is not None:
        torch.set_num_threads(threads)
    row, arrays = make_row(config, images, size, seed)
    path = _row_path(config, size, seed)
    with whole_file(path.with_suffix(".npz")) as temporary:
        np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]
    write_json(path, row)


def _run_side_by_side(
    config: StudyConfig, images: torch.Tensor, missing: list[tuple[int, int]], jobs: int, bar: tqdm
) -> None:
    threads = max(1, len(os.sched_getaffinity(0)) // jobs)
    context = torch.multiprocessing.get_context("spawn")  # which shares the images' memory
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        rows = [pool.submit(keep_row, config, images, size, seed, threads) for size, seed in missing]
        try:
            for row in as_completed(rows):
                row.result()
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _row_path(config: StudyConfig, size: int, seed: int) -> Path:
    return Path(config.out) / "rows" / f"{row_name(size, seed)}.json"
