"""Making a prepared copy: in parallel, and so that a killed run continues where it was.

Every image has a row in `journal.npy`: the SHA-256 of its pixels, the index in the original that they were made of,
and what decoding changed. A row is written after its image, and an image counts as done only when its pixels still have
that hash, so that nothing half-written survives. The manifest comes last.

N images of H x W pixels.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import numpy as np
import PIL
from tqdm.auto import tqdm

from ...commands.errors import UsageError
from ...commands.files import PART, flush_to_disk, whole_file
from ...commands.lock import LOCK_NAME
from ...commands.picture_grids import image_grid
from ..conversions import Conversion, count_flags, name_of
from ..dataset import PixelDataset
from ..transforms import pixels_to_tensor
from .manifest import (
    EARLIER_VERSION,
    LABELS,
    MANIFEST,
    SETTINGS,
    VERSION,
    CopySettings,
    Manifest,
    read_record,
    write_record,
)
from .store import PixelStore

JOURNAL = "journal.npy"
PREVIEW = "preview.png"
ROW = np.dtype([("digest", np.uint8, 32), ("source", np.int64), ("conversions", np.uint8)])
BLOCK = 64
"""Images that a worker makes before it reports."""

PREVIEW_IMAGES = 64
PREVIEW_SIDE = 2048
"""Of the preview in pixels, at most."""


class CopyJob:
    """What a worker process needs to make its part of the copy.

    Parameters
    ----------
    dataset : PixelDataset
        The original.
    out : pathlib.Path
    settings : CopySettings
    """

    def __init__(self, dataset: PixelDataset, out: Path, settings: CopySettings) -> None:
        self.dataset = dataset
        self.out = out
        self.store = PixelStore(out, settings.count, dataset.size, settings.channels, writable=True)

    @cached_property
    def journal(self) -> np.ndarray:
        """One `ROW` per image, mapped into memory."""
        return np.load(self.out / JOURNAL, mmap_mode="r+")

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in self.__dict__.items() if key != "journal"}

    def make_block(self, start: int) -> tuple[int, int]:
        """Make the missing images from `start` on; returns how many are there now, and how many were made."""
        indices = range(start, min(start + BLOCK, len(self.dataset)))
        made = sum(self._make(index) for index in indices if not self._is_done(index))
        return len(indices), made

    def _is_done(self, index: int) -> bool:
        recorded = self.journal[index]["digest"].tobytes()
        return any(recorded) and _digest(self.store.read(index)) == recorded

    def _make(self, index: int) -> int:
        pixels, source = self.dataset.read(index)
        self.store.write(index, pixels)
        row = self.journal[index]
        row["source"] = source
        row["conversions"] = int(self.dataset.conversions[source])
        row["digest"] = np.frombuffer(_digest(pixels), dtype=np.uint8)
        return 1


def write_copy(dataset: PixelDataset, out: Path, workers: int = 1) -> tuple[Manifest, int]:
    """Write a prepared copy of a data set, or finish one.

    Parameters
    ----------
    dataset : PixelDataset
        The original, opened at the size and with the preset of the copy.
    out : pathlib.Path
        A new or empty folder, or one that an interrupted run with the same settings left.
    workers : int
        Number of processes; the result does not depend on it.

    Returns
    -------
    Manifest
    int
        How many images this run made; the others were there.

    Raises
    ------
    UsageError
        When the folder holds something else, and for unreadable images.
    """
    settings = settings_of(dataset)
    if is_finished(out, settings):
        return read_record(out / MANIFEST, Manifest), 0
    job = CopyJob(dataset, out, settings)
    start_folder(job, settings)
    made = _run(job, workers)
    return _finish(job, settings), made


def settings_of(dataset: PixelDataset) -> CopySettings:
    """What a copy of this data set would be made of."""
    origin = dict(dataset.provenance)
    source_hash = origin.pop("hash")
    return CopySettings(**origin, source_hash=source_hash, skip_bad_images=dataset.request.skip_bad_images)


def is_finished(out: Path, settings: CopySettings) -> bool:
    """Whether the folder holds the whole copy; raises `UsageError` when it holds something else."""
    for name, kind in ((MANIFEST, Manifest), (SETTINGS, CopySettings)):
        if (out / name).exists():
            there = asdict(read_record(out / name, kind))
            if there["version"] != VERSION:
                raise UsageError(f"{out} {EARLIER_VERSION}: give another --out, or delete it.")
            differing = [key for key, value in asdict(settings).items() if there[key] != value]
            if differing:
                key = differing[0]
                raise UsageError(
                    f"{out} holds a copy with another {key} ({there[key]!r}, not {asdict(settings)[key]!r}): "
                    "give another --out, or delete it."
                )
            return kind is Manifest
    if out.exists() and (
        not out.is_dir() or any(not file.name.startswith((PART, LOCK_NAME)) for file in out.iterdir())
    ):
        raise UsageError(f"{out} is not empty and is not a prepared copy: give a new folder to --out.")
    return False


def start_folder(job: CopyJob, settings: CopySettings) -> None:
    """Write down what the folder is for, and make room; keeps what an earlier run made."""
    for left_by_a_kill in job.out.glob(f"{PART}*"):
        left_by_a_kill.unlink()
    if not (job.out / SETTINGS).exists():
        write_record(job.out / SETTINGS, settings)
    job.store.create()
    if not (job.out / JOURNAL).exists():
        _save_array(job.out / JOURNAL, np.zeros(settings.count, dtype=ROW))


def _run(job: CopyJob, workers: int) -> int:
    """Make all blocks, with a bar; returns how many images were made."""
    starts = range(0, len(job.dataset), BLOCK)
    total = 0
    with (
        tqdm(total=len(job.dataset), desc="preparing", unit=" images") as bar,
        _block_results(job, starts, workers) as results,
    ):
        for present, made in results:
            bar.update(present)
            total += made
    return total


@contextmanager
def _block_results(job: CopyJob, starts: range, workers: int) -> Iterator[Iterator[tuple[int, int]]]:
    if workers <= 1:
        yield map(job.make_block, starts)
        return
    pool = ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(job,))
    try:
        futures = [pool.submit(_make_block, start) for start in starts]
        yield (future.result() for future in as_completed(futures))
    except BrokenProcessPool:
        raise UsageError(
            "A worker process was killed (out of memory?): run the same command again to continue."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _finish(job: CopyJob, settings: CopySettings) -> Manifest:
    """Write labels and preview, flush everything to the disk, then write the manifest."""
    dataset, sources = job.dataset, job.journal["source"]
    digest = hashlib.sha256(job.journal["digest"].tobytes())
    if dataset.labels is not None:
        labels = np.asarray(dataset.labels)[sources].astype("<i8")
        digest.update(labels.tobytes())
        _save_array(job.out / LABELS, labels)
    _save_preview(job)
    conversions = count_flags(job.journal["conversions"])
    if settings.channels == 3:
        del conversions[name_of(Conversion.GREYED)]  # which cannot have happened
    if not conversions[name_of(Conversion.ENLARGED)]:
        del conversions[name_of(Conversion.ENLARGED)]  # as in copies that were made before it was counted
    replaced = np.flatnonzero(sources != np.arange(len(sources)))
    manifest = Manifest(
        **asdict(settings),
        hash=digest.hexdigest(),
        labels=None if dataset.labels is None else LABELS,
        bad_images=[dataset.image_name(int(index)) for index in replaced],
        pillow=PIL.__version__,
        conversions=conversions,
        class_names=dataset.class_names,
    )
    for file in job.out.iterdir():
        flush_to_disk(file)
    write_record(job.out / MANIFEST, manifest)
    return manifest


def _save_preview(job: CopyJob) -> None:
    """A grid of the first images, to look at."""
    pixels = np.stack([job.store.read(index) for index in range(min(PREVIEW_IMAGES, len(job.dataset)))])
    grid = image_grid(pixels_to_tensor(pixels))
    grid.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    with whole_file(job.out / PREVIEW) as temporary:
        grid.save(temporary)


def _save_array(path: Path, array: np.ndarray) -> None:
    with whole_file(path) as temporary:
        np.save(temporary, array)


def _digest(pixels: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(pixels).data).digest()


_worker_job: CopyJob | None = None


def _start_worker(job: CopyJob) -> None:
    """Keep the job for all blocks of this process; leave Ctrl-C to the parent, and end when the parent ends."""
    global _worker_job
    _worker_job = job
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _make_block(start: int) -> tuple[int, int]:
    assert _worker_job is not None
    return _worker_job.make_block(start)
