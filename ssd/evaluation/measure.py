"""One pass over images: features and their sums, patches of every scale, a hash of the pixels.

The same code measures files and data sets (through loader processes) and images as they are drawn (`--stream`).
Shape letters: B batch, D features, K kept images, Q queries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ..commands.errors import UsageError
from ..sampling.pictures import from_uint8
from .batches import Batch, BatchMaker, NumberedPictures
from .features.extractors import Extractor
from .plan import ROUNDING, MeasurePlan
from .processes import Block, gather_list, merge_statistics, share, work_blocks
from .statistics import FeatureStatistics, ReferenceFeatures

EXACT = "donot_use_mm_for_euclid_dist"
"""torch's name for distances that are exactly 0 between equal vectors: a memorised image is seen as one."""


@dataclass
class Measured:
    """All that one pass finds, of all processes.

    Parameters
    ----------
    features : dict
        Label of the extractor -> statistics, with kept features.
    count : int
        Number of images.
    pixels_sha256 : str
        Of the pixels of all pictures in the order of their numbers: equal if and only if all pixels are. Empty if no
        pixels were seen.
    pixels : dict
        Number -> picture, of the plan's.
    first : np.ndarray
        (Q, D), features by the first extractor of the first Q images.
    neighbours : list of (distance, number)
        For every query the nearest of these images.
    """

    features: dict[str, ReferenceFeatures]
    count: int
    pixels_sha256: str = ""
    pixels: dict[int, np.ndarray] = field(default_factory=dict)
    first: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    neighbours: list[tuple[float, int]] = field(default_factory=list)

    @property
    def images(self) -> torch.Tensor:
        """The pictures of `pixels`, in the order of their numbers: (N, C, H, W), float32 in [-1, 1]."""
        return from_uint8(np.stack([self.pixels[i] for i in sorted(self.pixels)]))

    @property
    def provenance(self) -> dict[str, Any]:
        """What the pass adds to the account of where the images come from."""
        if not self.pixels_sha256:
            return {}
        return {"count": self.count, "pixels_sha256": self.pixels_sha256, "rounding": ROUNDING}


@dataclass(frozen=True)
class Measurer:
    """How images are measured; the plan of a pass says what.

    Parameters
    ----------
    extractors : sequence of Extractor
        With different labels.
    state : PartialState
    batch_size : int
        Pictures per call of an extractor; cannot change a pixel, and features only in the last bits.
    num_workers : int
        Processes that read and resize; they change nothing.
    """

    extractors: Sequence[Extractor]
    state: PartialState
    batch_size: int = 64
    num_workers: int = 0

    def blocks(self, count: int) -> list[Block]:
        """The image numbers, below `count`, that this process measures."""
        return share(work_blocks(count, self.batch_size), self.state)

    def measure(
        self,
        pictures: Dataset,
        count: int,
        plan: MeasurePlan,
        queries: np.ndarray | None = None,
        desc: str = "features",
    ) -> Measured:
        """Measure the pictures 0 .. count - 1.

        Parameters
        ----------
        pictures : Dataset
            Items are (H, W, C) uint8 arrays.
        count : int
        plan : MeasurePlan
        queries : np.ndarray, optional
            See `Measurement`.
        desc : str
            Title of the progress bar.
        """
        measurement = Measurement(plan, count, self.extractors, queries)
        blocks = self.blocks(count)
        loader = DataLoader(
            NumberedPictures(pictures),
            batch_sampler=[list(batch) for block in blocks for batch in block],
            collate_fn=measurement.make_batch,
            num_workers=self.num_workers,
        )
        arriving = iter(loader)
        own = sum(len(batch) for block in blocks for batch in block)
        hidden = not self.state.is_main_process
        with tqdm(total=own, desc=desc, unit=" images", delay=2, disable=hidden) as progress:
            for block in blocks:
                for batch in block:
                    measurement.add(next(arriving))
                    progress.update(len(batch))
                measurement.end_block()
        return measurement.result(self.state)


class Measurement:
    """Takes batches, process by process; `result` puts them together.

    Parameters
    ----------
    plan : MeasurePlan
    count : int
        Number of images of all processes.
    extractors : sequence of Extractor
        With different labels.
    queries : np.ndarray, optional
        (Q, D) features by the first extractor, of which the nearest neighbours among these images are sought.
    """

    def __init__(
        self, plan: MeasurePlan, count: int, extractors: Sequence[Extractor], queries: np.ndarray | None = None
    ) -> None:
        self.make_batch = BatchMaker(plan, count, [extractor.resize for extractor in extractors])
        self._num_first = plan.num_first
        self._sums = [_FeatureSums(extractor, plan.kept(count)) for extractor in extractors]
        self._first: dict[int, np.ndarray] = {}
        self._digests: dict[int, bytes] = {}
        self._patches: dict[int, dict[int, np.ndarray]] = {}
        self._pixels: dict[int, np.ndarray] = {}
        self._queries = torch.empty(0) if queries is None else torch.from_numpy(queries).double()
        self._nearest: list[tuple[float, int]] = [(np.inf, -1)] * len(self._queries)

    def add(self, batch: Batch) -> None:
        """Measure one batch; its sums are added by `end_block`."""
        if batch.error:
            raise UsageError(batch.error)
        self._digests.update(zip(batch.indices, batch.digests))
        self._patches.update(batch.patches)
        self._pixels.update(batch.pixels)
        features, *_ = [sums.add(batch) for sums in self._sums]
        self._first.update({i: features[k].numpy().copy() for k, i in enumerate(batch.indices) if i < self._num_first})
        if self._nearest:
            self._seek_neighbours(features, batch.indices)

    def add_pictures(self, indices: Sequence[int], pictures: np.ndarray) -> None:
        """Measure (B, H, W, C) uint8 pictures as they are."""
        self.add(self.make_batch(list(zip(indices, pictures))))

    def end_block(self) -> None:
        """Add the sums of the batches since the last block."""
        for sums in self._sums:
            sums.end_block()

    def result(self, state: PartialState) -> Measured:
        """The measurements of all processes together, the same on each."""
        patches = _gathered(self._patches, state)
        sides = sorted(next(iter(patches.values()), {}), reverse=True)
        stacked = {side: np.concatenate([patches[i][side] for i in sorted(patches)]) for side in sides}
        digests = _gathered(self._digests, state)
        first = _gathered(self._first, state)
        nearest = gather_list([self._nearest], state)
        return Measured(
            {sums.extractor.label: sums.result(state, stacked) for sums in self._sums},
            len(digests),
            hashlib.sha256(b"".join(digests[i] for i in sorted(digests))).hexdigest(),
            _gathered(self._pixels, state),
            np.stack([first[i] for i in sorted(first)]) if first else np.empty((0, 0)),
            [min(candidates) for candidates in zip(*nearest)],
        )

    def _seek_neighbours(self, features: torch.Tensor, indices: Sequence[int]) -> None:
        distances, places = torch.cdist(self._queries, features.double(), compute_mode=EXACT).min(dim=1)
        for query, (distance, place) in enumerate(zip(distances.tolist(), places.tolist())):
            self._nearest[query] = min(self._nearest[query], (distance, int(indices[place])))


class _FeatureSums:
    """What one extractor finds: sums block by block, and one table of the features of the kept images.

    One table, because rows one by one would scatter over the heap.
    """

    def __init__(self, extractor: Extractor, kept: np.ndarray) -> None:
        self.extractor = extractor
        self._statistics = FeatureStatistics()
        self._waiting: list[torch.Tensor] = []
        self._places = {int(number): place for place, number in enumerate(kept)}
        self._table = np.empty((0, 0), dtype=np.float32)
        self._filled: list[int] = []

    def add(self, batch: Batch) -> torch.Tensor:
        """Features (B, D) of a batch, which wait for the end of the block."""
        features = self.extractor(batch.inputs[self.extractor.resize])
        _check_finite(features, batch.indices, self.extractor.name)
        self._waiting.append(features)
        kept = [(self._places[i], row) for row, i in enumerate(batch.indices) if i in self._places]
        self._put([place for place, _ in kept], features[[row for _, row in kept]].numpy())
        self._filled += [place for place, _ in kept]
        return features

    def end_block(self) -> None:
        """Add the features that wait."""
        if self._waiting:
            self._statistics.add(torch.cat(self._waiting))
            self._waiting.clear()

    def result(self, state: PartialState, patches: dict[int, np.ndarray]) -> ReferenceFeatures:
        """The statistics of all processes; `patches` are theirs too."""
        merged = merge_statistics(self._statistics, state)
        if state.num_processes > 1:
            for places, rows in gather_list([(self._filled, self._table[self._filled])], state):
                self._put(places, rows)
        kept = self._table if self._places else None
        return ReferenceFeatures(merged.mean, merged.covariance, merged.count, kept, patches)

    def _put(self, places: list[int], rows: np.ndarray) -> None:
        if not places:
            return
        if not len(self._table):
            self._table = np.empty((len(self._places), rows.shape[1]), dtype=np.float32)
        self._table[places] = rows


def _check_finite(features: torch.Tensor, indices: Sequence[int], name: str) -> None:
    """Name the first image whose features are not finite."""
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
