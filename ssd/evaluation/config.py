"""Settings of the evaluation command."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..commands.errors import UsageError
from ..sampling.many_images import SamplingSettings
from .features.extractors import Extractor, check_extractor_name, check_sha256, load_extractor
from .metrics import parse_metrics


@dataclass(frozen=True, kw_only=True)
class FeatureSettings:
    """How images are measured.

    Parameters
    ----------
    ref : str
        The data set to compare with, such as folder:PATH; or an .npz file of statistics.
    preset : str, optional
        How pictures of the reference are cropped and resized, such as adm. Default: the data set's.
    split : str, optional
        Part of the reference. Default: the data set's, the training split.
    features : str, optional
        pixels (8 x 8 by area, no weights), clean or legacy_pytorch (Inception as in clean-fid), module:PATH; or
        several with commas between. Default: the statistics' own, pixels for digits, else clean.
    inception_weights : str, optional
        Weights file of clean and legacy_pytorch, or a folder with the published files. Default: the environment
        variable SSD_INCEPTION_WEIGHTS, else torch hub's folder, else downloaded.
    inception_sha256 : str, optional
        What the weights file must have, or none. Default: a published one.
    resize : str
        Of module:PATH: clean or legacy_pytorch (to 299 x 299), or none.
    bf16 : bool
        Run the extractor in bfloat16: faster on GPUs, but other numbers.
    keep : int
        Of so many images the features are kept, for KID, precision and recall, and confidence intervals.
    num_workers : int
        Processes that load and resize images.
    batch_size : int
        Images per call of the extractor; no pixel depends on it.
    device : str, optional
        cpu, cuda, ..; default: the accelerator if there is one.
    """

    ref: str
    preset: str | None = None
    split: str | None = None
    features: str | None = None
    inception_weights: str | None = None
    inception_sha256: str | None = None
    resize: Literal["clean", "legacy_pytorch", "none"] = "clean"
    bf16: bool = False
    keep: int = 10000
    num_workers: int = 0
    batch_size: int = 64
    device: str | None = None

    def check_settings(self) -> None:
        """Raise a `UsageError` for settings that cannot be right, before anything is loaded."""
        names = self._extractor_names("clean")
        for name in names:
            check_extractor_name(name)
        labels = [name.partition(":")[0] for name in names]
        if len(set(labels)) < len(labels):
            raise UsageError(f"--features {self.features}: name every kind once.")
        check_sha256(self.inception_sha256)
        for name, low in (("keep", 4), ("num_workers", 0), ("batch_size", 1)):
            if getattr(self, name) < low:
                raise UsageError(f"--{name} must be at least {low}, got {getattr(self, name)}.")

    @property
    def ref_is_statistics(self) -> bool:
        """Whether --ref names a file of statistics rather than a data set."""
        return self.ref.endswith(".npz") and not re.match(r"\w+:", self.ref)

    def load_extractors(self, device: str, default: str) -> list[Extractor]:
        """The extractors of --features, or the default one."""
        weights = self.inception_weights, self.inception_sha256
        return [
            load_extractor(name, device, *weights, self.resize, self.bf16) for name in self._extractor_names(default)
        ]

    def _extractor_names(self, default: str) -> list[str]:
        return [name.strip() for name in (self.features or default).split(",")]


@dataclass(frozen=True, kw_only=True)
class StatsConfig(FeatureSettings):
    """Settings of `eval_fid.py stats`.

    Parameters
    ----------
    size : int
        Side of the images in pixels.
    out : str
        The .npz file to write.
    """

    size: int
    out: str

    def check_settings(self) -> None:
        """As for all measurements; and one extractor, one file."""
        super().check_settings()
        if self.size < 1:
            raise UsageError(f"--size must be at least 1, got {self.size}.")
        if "," in (self.features or ""):
            raise UsageError("Statistics are of one extractor: give --features one name, and make a file for each.")
        if not self.out.endswith(".npz"):
            raise UsageError(f"--out {self.out}: statistics are written to a file whose name ends in .npz.")
        if self.ref_is_statistics:
            raise UsageError(f"--ref {self.ref} is a file of statistics: give a data set, such as folder:PATH.")


@dataclass(frozen=True, kw_only=True)
class EvalConfig(FeatureSettings, SamplingSettings):
    """Settings of the evaluation.

    Parameters
    ----------
    model : str, optional
        Folder of a pipeline, such as a training run's --out.
    images : str, optional
        Instead of a model: a folder of generated images.
    metrics : str
        With commas between: fid, kid, swd (sliced Wasserstein distance per scale), pr (precision and recall),
        levels (the distance at every level of the model).
    num : int
        Number of images to draw.
    out : str, optional
        Folder for the images and the report; a name that ends in .json takes the report's numbers alone. Default:
        eval/ in the model's folder (beside --images: NAME_eval/), and no images are written.
    stream : bool
        Measure images as they are drawn, without writing them.
    overwrite : bool
        Remove images of another run from --out.
    baseline : str, optional
        The report.json of another run, to be put beside this one.
    labels : str
        Classes of a class-conditional model's images: balanced or random.
    num_classes : int, optional
        How many classes to draw. Default: all but the model's last, which stands for no class.
    guidance_scale : float
        Classifier-free guidance; 1 is off.
    network_batch : int
        Images per call of the network. Unlike batch_size it can change the last bit of a pixel.
    """

    model: str | None = None
    images: str | None = None
    metrics: str = "fid,kid,swd,pr"
    num: int = 50000
    out: str | None = None
    stream: bool = False
    overwrite: bool = False
    baseline: str | None = None
    labels: Literal["balanced", "random"] = "balanced"
    num_classes: int | None = None
    guidance_scale: float = 1.0
    network_batch: int = 32

    def check_settings(self) -> None:
        """As for all measurements; and one source of images."""
        super().check_settings()
        if (self.model is None) == (self.images is None):
            raise UsageError("Give one of --model FOLDER and --images FOLDER.")
        if self.num < 2:
            raise UsageError(f"--num must be at least 2, got {self.num}: a covariance needs two images.")
        if "pr" in self.metric_names and self.num <= 3:
            raise UsageError(
                f"pr needs more than 3 images, got --num {self.num}: choose others, such as --metrics fid."
            )
        if self.network_batch < 1:
            raise UsageError(f"--network_batch must be at least 1, got {self.network_batch}.")
        if "levels" in self.metric_names and (self.model is None or self.ref_is_statistics):
            raise UsageError("--metrics levels needs a model, and a data set rather than statistics as --ref.")
        if "," in (self.features or "") and self.ref_is_statistics:
            raise UsageError("Statistics are of one extractor: give --features one name, or a data set as --ref.")

    @property
    def metric_names(self) -> list[str]:
        """--metrics, split."""
        return parse_metrics(self.metrics)

    @property
    def report_folder(self) -> Path | None:
        """Where the report goes, unless --out names a file."""
        if self.out:
            return None if self.out.endswith(".json") else Path(self.out)
        return Path(self.model) / "eval" if self.model else Path(str(self.images).rstrip("/") + "_eval")

    @property
    def image_folder(self) -> Path | None:
        """Where drawn images go, if to files."""
        return self.report_folder if self.model and self.out and not self.stream else None
