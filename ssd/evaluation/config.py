"""Settings of the evaluation command."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..commands.errors import UsageError
from ..data.sizes import check_channels, parse_size
from ..pipelines.hub import is_hub_id
from ..sampling.many_images import SamplingSettings
from .features.extractors import Extractor, check_extractor_name, check_sha256, load_extractor
from .metrics import parse_metrics


@dataclass(frozen=True, kw_only=True)
class FeatureSettings:
    """How images are measured.

    Parameters
    ----------
    ref : str
        The reference data set, such as folder:PATH. For an evaluation also an .npz file of statistics.
    crop_preset : str, optional
        How pictures of the reference are cropped and resized, such as adm. Default: the data set's.
    split : str, optional
        The part of the reference to take. Default: the data set's, which is the training split.
    features : str, optional
        The feature extractor: pixels (8 x 8 by area, no weights), clean or legacy_pytorch (Inception as in clean-fid),
        efficientnet_lite0 (its weights are in the extra `features`) or module:PATH; or several with commas between.
        Default: the statistics' own, pixels for digits, else clean.
    inception_weights : str, optional
        The weights file of clean and legacy_pytorch, or a folder with the published files. Default: the environment
        variable SSD_INCEPTION_WEIGHTS, else torch hub's folder, else the file is downloaded.
    inception_sha256 : str, optional
        The SHA-256 that the weights file of clean and legacy_pytorch must have, or none. Default: a published one.
    resize : {"clean", "legacy_pytorch", "none"}
        How pictures are resized for module:PATH: to 299 x 299 as clean or legacy_pytorch do, or not at all.
    bf16 : bool
        Run the extractor in bfloat16. This is faster on GPUs, but gives other numbers.
    keep_features : int
        The features of this many images are kept, for KID, precision and recall, and confidence intervals.
    num_workers : int
        The number of processes that load and resize images.
    batch_size : int
        Images per call of the feature extractor, which looks at finished images. It changes speed and memory; no pixel
        depends on it.
    device : str, optional
        The device, such as cpu or cuda. Default: the accelerator if there is one.
    """

    ref: str
    crop_preset: str | None = None
    split: str | None = None
    features: str | None = None
    inception_weights: str | None = None
    inception_sha256: str | None = None
    resize: Literal["clean", "legacy_pytorch", "none"] = "clean"
    bf16: bool = False
    keep_features: int = 10000
    num_workers: int = 0
    batch_size: int = 64
    device: str | None = None

    def check_settings(self) -> None:
        """Raise a `UsageError` for settings that cannot be right, before anything is loaded."""
        for name in self.extractor_names:
            check_extractor_name(name)
        labels = [name.partition(":")[0] for name in self.extractor_names]
        if len(set(labels)) < len(labels):
            raise UsageError(f"--features {self.features}: name every kind once.")
        check_sha256(self.inception_sha256)
        for name, low in (("keep_features", 4), ("num_workers", 0), ("batch_size", 1)):
            if getattr(self, name) < low:
                raise UsageError(f"--{name} must be at least {low}, got {getattr(self, name)}.")

    @property
    def ref_is_statistics(self) -> bool:
        """Whether --ref names a file of statistics rather than a data set."""
        return self.ref.endswith(".npz") and not re.match(r"\w+:", self.ref)

    @property
    def extractor_names(self) -> list[str]:
        """--features, split; empty when it is not given."""
        return [name.strip() for name in self.features.split(",")] if self.features else []

    def load_extractors(self, names: Sequence[str], device: str) -> list[Extractor]:
        """Extractors as these settings have them; their weights may be downloaded."""
        weights = self.inception_weights, self.inception_sha256
        return [load_extractor(name, device, *weights, self.resize, self.bf16) for name in names]


@dataclass(frozen=True, kw_only=True)
class StatsConfig(FeatureSettings):
    """Settings of `eval_fid.py stats`.

    Parameters
    ----------
    res : int or list of int
        The side of square images in pixels, or '[height, width]'.
    out : str
        The .npz file to write.
    channels : int
        The channels of the images: 3 for RGB, 1 for grey.
    """

    res: int | list[int]
    out: str
    channels: int = 3

    def check_settings(self) -> None:
        """As for all measurements; and one extractor, one file."""
        super().check_settings()
        parse_size(self.res)
        check_channels(self.channels)
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
        The folder of a pipeline, such as a training run's --out.
    images : str, optional
        Instead of a model: a folder of generated images, or an .npz or .npy file of them.
    metrics : str
        The metrics, with commas between: fid, kid, swd (sliced Wasserstein distance per scale), pr (precision and
        recall), levels (the distance at every level of the model), bits_per_dim (the likelihood of
        reference images, best of a split that the model has not learned from).
    num : int
        The number of images to draw.
    out : str, optional
        The folder for the images and the report; a name that ends in .json takes the report's numbers alone. Default:
        eval/ in the model's folder (beside --images: NAME_eval/), and no images are written.
    stream : bool
        Measure images as they are drawn, without writing them.
    overwrite : bool
        Remove images of another run from --out.
    baseline : str, optional
        The report.json of another run, to be put beside this one.
    labels : {"balanced", "random"}
        How the classes of a class-conditional model's images are chosen.
    num_classes : int, optional
        The number of classes to draw. Default: all but the model's last, which stands for no class.
    guidance_scale : float
        The strength of classifier-free guidance; 1 is off.
    likelihood_images : int
        The number of reference images whose bits_per_dim is estimated.
    network_batch : int
        Images per call of the model's network, which draws them. Networks round differently in batches of another
        length, so unlike batch_size it can change the last bit of a pixel.
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
    likelihood_images: int = 1000
    network_batch: int = 32

    def check_settings(self) -> None:
        """As for all measurements; and one source of images."""
        super().check_settings()
        if (self.model is None) == (self.images is None):
            raise UsageError("Give one of --model FOLDER and --images FOLDER.")
        if self.model and not self.out and is_hub_id(self.model):
            raise UsageError(f"--model {self.model} is on the Hub: say with --out where the report goes.")
        if self.num < 2:
            raise UsageError(f"--num must be at least 2, got {self.num}: a covariance needs two images.")
        if "pr" in self.metric_names and self.num <= 3:
            raise UsageError(
                f"pr needs more than 3 images, got --num {self.num}: choose others, such as --metrics fid."
            )
        for name, low in (("network_batch", 1), ("likelihood_images", 2)):
            if getattr(self, name) < low:
                raise UsageError(f"--{name} must be at least {low}, got {getattr(self, name)}.")
        for name in ("levels", "bits_per_dim"):
            if name in self.metric_names and (self.model is None or self.ref_is_statistics):
                raise UsageError(f"--metrics {name} needs a model, and a data set rather than statistics as --ref.")
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
