"""One pass over images: features and their sums, patches of every scale, a hash of the pixels.

The same code measures files and data sets (through loader processes) and images as they are drawn (`--stream`).
Shape letters: B batch, D features, Q queries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ..commands.errors import UsageError
from ..seeding import numpy_generator
from .distances.patches import image_patches
from .distances.precision_recall import squared_distances
from .features.extractors import Extractor, resize_picture
from .processes import gather_list, merge_statistics, share, work_blocks
from .statistics import FeatureStatistics, ReferenceFeatures


@dataclass(frozen=True)
class Plan:
    """What is measured of which images.

    Parameters
    ----------
    count : int
        Number of images.
    keep : int
        Of so many images, chosen at random once and for all, the features are kept.
    num_patched : int
        From so many of them patches are cut.
    num_first : int
        Of the first so many images the pixels are kept.
    keep_pixels : bool
        Keep the pixels of all images in `keep`.
    """

    count: int
    keep: int = 0
    num_patched: int = 0
    num_first: int = 0
    keep_pixels: bool = False

    @property
    def kept(self) -> np.ndarray:
        """Numbers of the images whose features are kept, ascending; a function of `count` and `keep` alone."""
        return np.sort(self._order[: self.keep])

    @property
    def patched(self) -> np.ndarray:
        """Numbers of the images from which patches are cut, ascending."""
        return np.sort(self._order[: self.num_patched])

    @property
    def _order(self) -> np.ndarray:
        return numpy_generator(0, "kept images", self.count).permutation(self.count)


@dataclass
class Batch:
    """Pictures as the extractors take them, and what else is wanted of them.

    Parameters
    ----------
    indices : sequence of int
    inputs : dict
        Kind of resizing -> (B, 3, H, W), float32 in [0, 255].
    digests : list of bytes
        SHA-256 of every picture's pixels.
    patches, pixels : dict
        By the number of the image, for those of the plan.
    error : str
        What is wrong with a picture; the rest is then empty.
    """

    indices: Sequence[int]
    inputs: dict[str, torch.Tensor] = field(default_factory=dict)
    digests: list[bytes] = field(default_factory=list)
    patches: dict[int, dict[int, np.ndarray]] = field(default_factory=dict)
    pixels: dict[int, np.ndarray] = field(default_factory=dict)
    error: str = ""


class BatchMaker:
    """Makes a `Batch` of pictures; can be sent to worker processes."""

    def __init__(self, plan: Plan, resizes: Sequence[str]) -> None:
        self.resizes = sorted(set(resizes))
        self.patched = frozenset(plan.patched.tolist())
        self.with_pixels = frozenset(plan.kept.tolist() if plan.keep_pixels else ()) | frozenset(range(plan.num_first))

    def __call__(self, items: Sequence[tuple[int, np.ndarray | str]]) -> Batch:
        """A batch of (number, picture) pairs; a picture that could not be read is a text that says why."""
        indices = [index for index, _ in items]
        errors = [picture for _, picture in items if isinstance(picture, str)]
        if errors:
            return Batch(indices, error=errors[0])
        pictures = [np.ascontiguousarray(picture) for _, picture in items]
        return Batch(
            indices,
            {kind: torch.stack([resize_picture(picture, kind) for picture in pictures]) for kind in self.resizes},
            [hashlib.sha256(picture.tobytes()).digest() for picture in pictures],
            {i: image_patches(picture, i) for i, picture in zip(indices, pictures) if i in self.patched},
            {i: picture for i, picture in zip(indices, pictures) if i in self.with_pixels},
        )


class _Numbered(Dataset):
    """(number, picture) pairs; a picture's `UsageError` becomes a text, since workers wrap exceptions in tracebacks."""

    def __init__(self, pictures: Dataset) -> None:
        self.pictures = pictures

    def __getitem__(self, index: int) -> tuple[int, np.ndarray | str]:
        try:
            return index, self.pictures[index]
        except UsageError as error:
            return index, str(error)


@dataclass
class Measured:
    """All that one pass finds, of all processes.

    Parameters
    ----------
    features : dict
        Label of the extractor -> statistics, with kept features.
    count : int
    pixels_sha256 : str
        Of the pixels of all pictures in the order of their numbers: equal if and only if all pixels are.
    pixels : dict
        Number -> picture, of the plan's.
    first : np.ndarray
        (Q, D), features by the first extractor of the first Q images.
    neighbours : list of (distance, number)
        For every query the nearest of these images.
    """

    features: dict[str, ReferenceFeatures]
    count: int
    pixels_sha256: str
    pixels: dict[int, np.ndarray]
    first: np.ndarray
    neighbours: list[tuple[float, int]]

    @property
    def images(self) -> torch.Tensor:
        """The pictures of `pixels`, in the order of their numbers: (N, 3, H, W), float32 in [-1, 1]."""
        pictures = np.stack([self.pixels[i] for i in sorted(self.pixels)])
        return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


class Measurement:
    """Takes batches, process by process; `result` puts them together.

    Parameters
    ----------
    plan : Plan
    extractors : sequence of Extractor
        With different labels.
    queries : np.ndarray, optional
        (Q, D) features by the first extractor, of which the nearest neighbours among these images are sought.
    """

    def __init__(self, plan: Plan, extractors: Sequence[Extractor], queries: np.ndarray | None = None) -> None:
        self.plan = plan
        self.extractors = extractors
        self.queries = queries
        self.make_batch = BatchMaker(plan, [extractor.resize for extractor in extractors])
        self._statistics = [FeatureStatistics() for _ in extractors]
        self._waiting: list[list[torch.Tensor]] = [[] for _ in extractors]
        self._kept = [_KeptRows(plan.kept) for _ in extractors]
        self._first: dict[int, np.ndarray] = {}
        self._digests: dict[int, bytes] = {}
        self._patches: dict[int, dict[int, np.ndarray]] = {}
        self._pixels: dict[int, np.ndarray] = {}
        self._nearest: list[tuple[float, int]] = [] if queries is None else [(np.inf, -1)] * len(queries)

    def add(self, batch: Batch) -> None:
        """Measure one batch; its sums are added by `end_block`."""
        if batch.error:
            raise UsageError(batch.error)
        self._digests.update(zip(batch.indices, batch.digests))
        self._patches.update(batch.patches)
        self._pixels.update(batch.pixels)
        for number, extractor in enumerate(self.extractors):
            features = extractor(batch.inputs[extractor.resize])
            _check_finite(features, batch.indices, extractor.name)
            self._waiting[number].append(features)
            rows = features.numpy()
            self._kept[number].put(batch.indices, rows)
            if number == 0:
                first = self.plan.num_first
                self._first.update({i: rows[k].copy() for k, i in enumerate(batch.indices) if i < first})
                self._seek_neighbours(rows, batch.indices)

    def add_pictures(self, indices: Sequence[int], pictures: np.ndarray) -> None:
        """Measure (B, H, W, 3) uint8 pictures as they are."""
        self.add(self.make_batch(list(zip(indices, pictures))))

    def end_block(self) -> None:
        """Add the sums of the batches since the last block."""
        for statistics, waiting in zip(self._statistics, self._waiting):
            if waiting:
                statistics.add(torch.cat(waiting))
                waiting.clear()

    def result(self, state: PartialState) -> Measured:
        """The measurements of all processes together, the same on each."""
        patches = _gathered(self._patches, state)
        sides = sorted(next(iter(patches.values()), {}), reverse=True)
        stacked = {side: np.concatenate([patches[i][side] for i in sorted(patches)]) for side in sides}
        digests = _gathered(self._digests, state)
        hashed = hashlib.sha256(b"".join(digests[i] for i in sorted(digests))).hexdigest()
        features = {}
        for extractor, statistics, kept in zip(self.extractors, self._statistics, self._kept):
            merged = merge_statistics(statistics, state)
            features[extractor.label] = ReferenceFeatures(
                merged.mean, merged.covariance, merged.count, kept.result(state), stacked
            )
        first = _gathered(self._first, state)
        return Measured(
            features,
            len(digests),
            hashed,
            _gathered(self._pixels, state),
            np.stack([first[i] for i in sorted(first)]) if first else np.empty((0, 0)),
            self._all_neighbours(state),
        )

    def _seek_neighbours(self, rows: np.ndarray, indices: Sequence[int]) -> None:
        if self.queries is None:
            return
        distances = np.sqrt(squared_distances(self.queries, rows))
        for query, nearest in enumerate(distances.argmin(axis=1)):
            found = (float(distances[query, nearest]), int(indices[nearest]))
            self._nearest[query] = min(self._nearest[query], found)

    def _all_neighbours(self, state: PartialState) -> list[tuple[float, int]]:
        everyone = gather_list([self._nearest], state)
        return [min(candidates) for candidates in zip(*everyone)]


class _KeptRows:
    """The features of some images, in one table: rows one by one would scatter over the heap."""

    def __init__(self, numbers: np.ndarray) -> None:
        self._places = {int(number): place for place, number in enumerate(numbers)}
        self._table: np.ndarray | None = None
        self._filled: list[int] = []

    def put(self, indices: Sequence[int], rows: np.ndarray) -> None:
        """Keep those of the rows (B, D) whose images are wanted."""
        if self._table is None:
            self._table = np.empty((len(self._places), rows.shape[1]), dtype=np.float32)
        for index, row in zip(indices, rows):
            if index in self._places:
                self._table[self._places[index]] = row
                self._filled.append(self._places[index])

    def result(self, state: PartialState) -> np.ndarray | None:
        """The tables of all processes in one, (K, D) float32; None if nothing is kept."""
        if not self._places:
            return None
        if state.num_processes > 1:
            for places, rows in gather_list([(self._filled, self._own_rows())], state):
                if self._table is None:
                    self._table = np.empty((len(self._places), rows.shape[1]), dtype=np.float32)
                self._table[places] = rows
        return self._table

    def _own_rows(self) -> np.ndarray:
        return np.empty((0, 1), dtype=np.float32) if self._table is None else self._table[self._filled]


def measure(
    pictures: Dataset,
    measurement: Measurement,
    state: PartialState,
    batch_size: int = 64,
    num_workers: int = 0,
    start_method: str | None = None,
    desc: str = "features",
) -> Measured:
    """Measure pictures 0 .. count - 1 of the plan.

    Parameters
    ----------
    pictures : Dataset
        Items are (H, W, 3) uint8 arrays.
    measurement : Measurement
    state : PartialState
    batch_size : int
        Pictures per call of an extractor; cannot change a pixel, and features only in the last bits.
    num_workers : int
        Processes that read and resize; they change nothing.
    start_method : {"fork", "spawn", "forkserver"}, optional
        How those are started; default: the system's.
    desc : str
        Of the progress bar.
    """
    blocks = share(work_blocks(measurement.plan.count, batch_size), state)
    loader = DataLoader(
        _Numbered(pictures),
        batch_sampler=[list(batch) for block in blocks for batch in block],
        collate_fn=partial(_make, measurement.make_batch),
        num_workers=num_workers,
        multiprocessing_context=start_method if num_workers else None,
    )
    arriving = iter(loader)
    hidden = not state.is_main_process
    with tqdm(total=sum(map(_length, blocks)), desc=desc, unit=" images", delay=2, disable=hidden) as progress:
        for block in blocks:
            for batch in block:
                measurement.add(next(arriving))
                progress.update(len(batch))
            measurement.end_block()
    return measurement.result(state)


def _make(make_batch: BatchMaker, items: list[Any]) -> Batch:
    return make_batch(items)


def _length(block: Sequence[range]) -> int:
    return sum(map(len, block))


def _check_finite(features: torch.Tensor, indices: Sequence[int], name: str) -> None:
    """Name the first image whose features are no numbers."""
    broken = (~torch.isfinite(features)).any(dim=1)
    if broken.any():
        index = indices[int(broken.int().argmax())]
        raise UsageError(
            f"The features of image {index} by {name} hold NaN or infinity: the extractor's weights or the image are "
            "broken."
        )


def _gathered(own: dict[int, Any], state: PartialState) -> dict[int, Any]:
    """The dictionaries of all processes in one."""
    merged: dict[int, Any] = {}
    for part in gather_list([own], state):
        merged.update(part)
    return merged
