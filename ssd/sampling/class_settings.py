"""Which classes are drawn, and how strongly they guide: settings of the commands that draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from diffusers.models.modeling_utils import ModelMixin

from ..commands.errors import UsageError
from ..pipelines.denoising import guided_steps
from ..pipelines.denoising_pipeline import DenoisingPipeline
from ..pipelines.guidance import check_labels, class_number, number_of_classes
from .image_folder import model_sha256
from .many_images import image_labels


@dataclass(frozen=True, kw_only=True)
class ClassSettings:
    """Classes, for class-conditional models.

    Parameters
    ----------
    class_ : str or list, optional
        The class of all images, by its name or its number; several, such as '[cat, dog]', take turns. Default: all
        classes take turns.
    guidance_scale : float
        The strength of guidance, away from no class or from --guide; 1 is off.
    guidance_start : float
        Where guidance begins, as a share of the steps from noise to the image, in [0, 1].
    guidance_end : float
        Where guidance ends.
    guide : str, optional
        A weaker model of the same process, from which guidance leads away (autoguidance): the folder of a pipeline or
        of a checkpoint, such as runs/digits/checkpoints/step_00000500. It needs a --guidance_scale above 1.
    """

    class_: list[str | int] | str | None = None
    guidance_scale: float = 1.0
    guidance_start: float = 0.0
    guidance_end: float = 1.0
    guide: str | None = None

    def check_classes(self, pipeline: DenoisingPipeline) -> None:
        """Raise a `UsageError` for classes and guidance that the model does not have."""
        try:
            guided_steps(1, self.guidance_start, self.guidance_end)
            if self.guide is not None and self.guidance_scale == 1:
                raise ValueError("--guide has no effect with a guidance_scale of 1: try 1.5.")
            scale = self.guidance_scale if self.guide is None else 1.0
            check_labels(pipeline.unet, self.labels([0], pipeline), 1, scale)
            if self.class_ is not None:
                check_labels(pipeline.unet, self._chosen(pipeline), len(self._chosen(pipeline)), scale)
        except ValueError as error:
            raise UsageError(f"--class and --guidance_scale do not fit this model: {error}") from error

    def labels(self, indices: Sequence[int], pipeline: DenoisingPipeline) -> list[int] | None:
        """The class of every image, a function of its number alone; None for an unconditional model."""
        if self.class_ is None:
            return image_labels(indices, number_of_classes(pipeline.unet))
        chosen = self._chosen(pipeline)
        return [chosen[index % len(chosen)] for index in indices]

    def arguments(
        self, indices: Sequence[int], pipeline: DenoisingPipeline, guide: ModelMixin | None = None
    ) -> dict[str, Any]:
        """What the pipeline is given for images of these numbers; `guide` is the network of --guide."""
        guidance = {name: getattr(self, name) for name in ("guidance_scale", "guidance_start", "guidance_end")}
        return {"class_labels": self.labels(indices, pipeline), "guide": guide, **guidance}

    @property
    def decisive(self) -> Mapping[str, Any]:
        """What decides over the pixels, where it is not the default: folders of earlier versions have no such entry."""
        own = {field.name: field.default for field in fields(ClassSettings)}
        changed = {name.rstrip("_"): value for name, value in asdict(self).items() if own.get(name, value) != value}
        return changed | ({"guide": model_sha256(Path(self.guide))} if self.guide else {})

    def _chosen(self, pipeline: DenoisingPipeline) -> list[int]:
        """The numbers of the classes that were asked for. A name that is a number comes first."""
        texts = [self.class_] if isinstance(self.class_, str) else [str(entry) for entry in self.class_ or []]
        if not texts:
            raise ValueError("there is no class in the list.")
        names = pipeline.class_names or []
        return [
            int(text) if text not in names and text.isdecimal() else class_number(pipeline.unet, text) for text in texts
        ]
