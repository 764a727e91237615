"""What all pipelines share: they are loaded whole from a folder where a writer was killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from .staging import complete_pipeline


class StagedPipeline(DiffusionPipeline):
    """A `DiffusionPipeline` whose folder `ssd.publishing.saving.save_pipeline` writes."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        """As diffusers'; of a folder where a writer was killed the complete pipeline is loaded, never a mixture."""
        folder = Path(pretrained_model_name_or_path)
        return super().from_pretrained(
            complete_pipeline(folder) if folder.is_dir() else pretrained_model_name_or_path, **kwargs
        )
