"""What images are compared with: a data set that is measured now, or statistics that were made before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState

from ..commands.errors import UsageError
from .config import EvalConfig, FeatureSettings
from .features.extractors import Extractor
from .images import ReferencePictures, Size, open_reference, reference_provenance
from .levels import LevelReduction
from .measure import Measured, Measurement, Plan, measure
from .metrics import check_reference
from .statistics import ReferenceFeatures, check_compatible, load_statistics
from .subjects import PATCHED_IMAGES

ROUNDING = "uint8, to the nearest"


class DatasetReference:
    """A data set of `ssd.data`.

    Parameters
    ----------
    config : FeatureSettings
    size : int
        Side of the images.
    """

    def __init__(self, config: FeatureSettings, size: int) -> None:
        dataset = open_reference(config.ref, size, config.preset, config.split)
        self.config = config
        self.pictures = ReferencePictures(dataset)
        self.origin = reference_provenance(dataset, config.ref, size)
        self.default_extractor = "pixels" if config.ref == "digits" else "clean"
        if len(self.pictures) < 2:
            raise UsageError(f"--ref {config.ref} holds one image: a covariance needs at least 2.")

    def check(self, size: Size, extractors: Sequence[Extractor]) -> list[str]:
        """Nothing can disagree with a data set that is read at the images' size."""
        return []

    @property
    def preset(self) -> str | None:
        """How its pictures are cropped and resized, if that is known."""
        return self.origin.get("preset")

    def measure(
        self, extractors: Sequence[Extractor], state: PartialState, queries: np.ndarray | None = None
    ) -> Measured:
        """Measure all images; `queries` are features whose nearest images are sought."""
        plan = Plan(len(self.pictures), self.config.keep, PATCHED_IMAGES)
        return self._measure(self.pictures, Measurement(plan, extractors, queries), state, "reference")

    def measure_level(
        self, reduction: LevelReduction, extractors: Sequence[Extractor], state: PartialState
    ) -> Measured:
        """Measure all images reduced to a level of the model."""
        pictures = ReferencePictures(self.pictures.dataset, reduction)
        return self._measure(pictures, Measurement(Plan(len(pictures)), extractors), state, "reference, coarser")

    def provenance(self, measured: Measured | None = None) -> dict[str, Any]:
        """The data set's own account, with a hash of what was measured."""
        if measured is None:
            return self.origin
        found = {"count": measured.count, "pixels_sha256": measured.pixels_sha256, "rounding": ROUNDING}
        return {**self.origin, **found}

    def _measure(
        self, pictures: ReferencePictures, measurement: Measurement, state: PartialState, desc: str
    ) -> Measured:
        return measure(pictures, measurement, state, self.config.batch_size, self.config.num_workers, desc=desc)


class StatisticsReference:
    """A file of statistics.

    Parameters
    ----------
    config : EvalConfig
    """

    def __init__(self, config: EvalConfig) -> None:
        self.config = config
        self.statistics = load_statistics(Path(config.ref))
        self.default_extractor = self.statistics.provenance.get("extractor", "clean")
        if self.default_extractor == "module" and not config.features:
            raise UsageError(f"{config.ref} was made with an extractor of its own: name it, --features module:PATH.")

    def check(self, size: Size, extractors: Sequence[Extractor]) -> list[str]:
        """Refuse statistics that were made in another way; returns what is to be known about them."""
        path, theirs = self.config.ref, self.statistics.provenance
        ours: dict[str, Any] = {"size": size[0], **extractors[0].provenance}
        if self.config.preset is not None:
            ours["preset"] = self.config.preset
        if self.config.split not in (None, theirs.get("split")) and theirs:
            raise UsageError(f"{path} is of the split {theirs.get('split')!r}, not {self.config.split!r}.")
        check_compatible(ours, theirs, path)
        check_reference(self.statistics, self.config.metric_names, extractors[0].label)
        if theirs:
            return []
        return [f"{path} does not say how it was made: nobody can tell whether its preset, size and extractor agree."]

    @property
    def preset(self) -> str | None:
        """How its pictures were cropped and resized, if that is known."""
        return self.statistics.provenance.get("preset")

    def measure(
        self, extractors: Sequence[Extractor], state: PartialState, queries: np.ndarray | None = None
    ) -> Measured:
        """The statistics as they are; neighbours cannot be sought in them."""
        count = self.statistics.count
        features: dict[str, ReferenceFeatures] = {extractors[0].label: self.statistics}
        return Measured(features, count, "", {}, np.empty((0, 0)), [])

    def measure_level(
        self, reduction: LevelReduction, extractors: Sequence[Extractor], state: PartialState
    ) -> Measured:
        """Not possible: the images are gone."""
        raise UsageError("--metrics levels needs a data set rather than statistics as --ref.")

    def provenance(self, measured: Measured | None = None) -> dict[str, Any]:
        """Of the images behind the statistics; empty when unknown."""
        return without_extractor(self.statistics.provenance)


def preset_notes(trained: str | None, reference: DatasetReference | StatisticsReference) -> list[str]:
    """A warning if a model was trained on pictures prepared in another way than the reference's."""
    preset = reference.preset
    if trained is None or preset in (None, "none", trained):
        return []
    return [
        f"The model was trained with the preset '{trained}', but the reference is prepared with '{preset}': the "
        "distance measures that difference too."
    ]


def without_extractor(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a provenance that is about images."""
    return {
        name: value
        for name, value in provenance.items()
        if name not in ("extractor", "resize", "weights_sha256", "precision")
    }
