"""What images are compared with: a data set that is measured now, or statistics that were made before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..commands.errors import UsageError
from ..data.sizes import written_size
from .config import FeatureSettings
from .features.extractors import Extractor
from .generated import GeneratedImages
from .images import ReferencePictures, open_reference_data
from .measure import Measured, Measurer
from .metrics import check_reference
from .plan import MeasurePlan
from .statistics import check_compatible, load_statistics

OF_EXTRACTORS = frozenset(("extractor", "resize", "weights_sha256", "precision"))
"""Entries of the provenance of statistics that are not about images."""


class Reference(Protocol):
    """The other side of the comparison."""

    @property
    def pictures(self) -> ReferencePictures | None:
        """The images themselves; None if there are statistics alone."""

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the images come from; empty when unknown."""

    @property
    def notes(self) -> Sequence[str]:
        """What reading has changed in the images that this process has read so far."""

    @property
    def default_extractor(self) -> str:
        """The extractor to take when --features names none."""

    def check(self, images: GeneratedImages, extractors: Sequence[Extractor], metrics: Sequence[str]) -> list[str]:
        """Refuse what cannot be compared with `images`; returns warnings about what should not be."""

    def measure(self, measurer: Measurer, plan: MeasurePlan, queries: np.ndarray | None = None) -> Measured:
        """Measure the images; the nearest ones of `queries` are sought if there are images."""


class DatasetReference:
    """A data set of `ssd.data`.

    Parameters
    ----------
    spec : str
        Such as "celeba:/data/celeba".
    size : int or (height, width)
        Of the images.
    channels : {3, 1}
        3 for RGB, 1 for grey.
    crop_preset, split : str, optional
        Default: the data set's.
    """

    def __init__(
        self,
        spec: str,
        size: int | Sequence[int],
        channels: int = 3,
        crop_preset: str | None = None,
        split: str | None = None,
    ) -> None:
        dataset = open_reference_data(spec, size, crop_preset, split, channels)
        self.pictures = ReferencePictures(dataset)
        self.provenance: dict[str, Any] = dict(dataset.provenance)
        self.default_extractor = "pixels" if spec == "digits" else "clean"
        if len(self.pictures) < 2:
            raise UsageError(f"--ref {spec} holds one image: a covariance needs at least 2.")

    @property
    def notes(self) -> list[str]:
        """Turned, composited, scaled and greyed pictures, counted."""
        return self.pictures.dataset.conversion_notes()

    def check(self, images: GeneratedImages, extractors: Sequence[Extractor], metrics: Sequence[str]) -> list[str]:
        """Every extractor and metric suits a data set that is read at the images' size; the crop may differ."""
        return _crop_warnings(images.crop_preset, self.provenance)

    def measure(self, measurer: Measurer, plan: MeasurePlan, queries: np.ndarray | None = None) -> Measured:
        """Measure all images; `queries` are features whose nearest images are sought."""
        return measurer.measure(self.pictures, len(self.pictures), plan, queries, desc="reference")


class StatisticsReference:
    """A file of statistics; it stands for the images from which it was made.

    Parameters
    ----------
    path : str
        The .npz file.
    crop_preset, split : str, optional
        What the statistics must be of, if that is given.
    """

    pictures: ReferencePictures | None = None
    notes: Sequence[str] = ()

    def __init__(self, path: str, crop_preset: str | None = None, split: str | None = None) -> None:
        self.path = path
        self.statistics = load_statistics(Path(path))
        self._required = {"preset": crop_preset} if crop_preset is not None else {}
        self._split = split

    @property
    def provenance(self) -> dict[str, Any]:
        """Of the images behind the statistics; empty when unknown."""
        return {name: value for name, value in self.statistics.provenance.items() if name not in OF_EXTRACTORS}

    @property
    def default_extractor(self) -> str:
        """The one that the statistics were made with."""
        name = self.statistics.provenance.get("extractor", "clean")
        if name == "module":
            raise UsageError(f"{self.path} was made with an extractor of its own: name it, --features module:PATH.")
        return name

    def check(self, images: GeneratedImages, extractors: Sequence[Extractor], metrics: Sequence[str]) -> list[str]:
        """Refuse statistics that were made differently, or lack what a metric needs."""
        theirs = self.statistics.provenance
        if self._split not in (None, theirs.get("split")) and theirs:
            raise UsageError(f"{self.path} is of the split {theirs.get('split')!r}, not {self._split!r}.")
        ours = {"size": written_size(images.size), "channels": images.channels}
        check_compatible({**ours, **extractors[0].provenance, **self._required}, theirs, self.path)
        check_reference(self.statistics, metrics, extractors[0].label, images.channels)
        if theirs:
            return _crop_warnings(images.crop_preset, theirs)
        return [
            f"{self.path} does not say how it was made: nobody can tell whether its preset, size and extractor agree."
        ]

    def measure(self, measurer: Measurer, plan: MeasurePlan, queries: np.ndarray | None = None) -> Measured:
        """The statistics as they are, whatever the plan; there are no images to seek neighbours among."""
        return Measured({measurer.extractors[0].label: self.statistics}, self.statistics.count)


def open_reference(
    config: FeatureSettings, size: int | Sequence[int], channels: int
) -> DatasetReference | StatisticsReference:
    """What --ref names, for images of this size and of this many channels."""
    if config.ref_is_statistics:
        return StatisticsReference(config.ref, config.crop_preset, config.split)
    return DatasetReference(config.ref, size, channels, config.crop_preset, config.split)


def _crop_warnings(trained: str | None, provenance: dict[str, Any]) -> list[str]:
    """A warning if a model was trained on pictures that were prepared differently from the reference's."""
    preset = provenance.get("preset")
    if trained is None or preset in (None, "none", trained):
        return []
    return [
        f"The model was trained with the preset '{trained}', but the reference is prepared with '{preset}': the "
        "distance measures that difference too."
    ]
