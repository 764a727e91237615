"""What all pipelines share: how they are loaded from folders and from the Hub, and pushed there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from .hub import DOWNLOAD_SETTINGS, model_folder
from .saved_files import by_our_modules
from .staging import complete_pipeline


class StagedPipeline(DiffusionPipeline):
    """A `DiffusionPipeline` whose folder `ssd.publishing.saving.save_pipeline` writes."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        """As diffusers'; of a folder where a writer was killed the complete pipeline is loaded, never a mixture.

        A name on the Hub is downloaded without its code, and its weights are compared with their digests.
        """
        download = {name: kwargs.pop(name) for name in DOWNLOAD_SETTINGS if name in kwargs}
        folder = model_folder(pretrained_model_name_or_path, **download)
        if not folder.is_dir():
            return super().from_pretrained(pretrained_model_name_or_path, **download, **kwargs)
        return super().from_pretrained(complete_pipeline(folder), **kwargs)

    @classmethod
    def load_config(cls, *args: Any, **kwargs: Any) -> Any:
        """As diffusers'; where a folder brings the code of its classes, our own modules are named instead."""
        found = super().load_config(*args, **kwargs)
        return (by_our_modules(found[0]), *found[1:]) if isinstance(found, tuple) else by_our_modules(found)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:
        """Upload the pipeline with its card, sample images and code; arguments as those of `ssd.push_pipeline`."""
        from .. import push_pipeline

        return push_pipeline(self, repo_id, **kwargs)

    def save_pretrained(self, save_directory: Any, *args: Any, push_to_hub: bool = False, **kwargs: Any) -> None:
        """As diffusers'; what `push_to_hub` uploads is what `StagedPipeline.push_to_hub` does."""
        pushed = ("repo_id", "private", "token", "commit_message", "create_pr")
        settings = {name: kwargs.pop(name) for name in pushed if name in kwargs} if push_to_hub else {}
        super().save_pretrained(save_directory, *args, **kwargs)
        if push_to_hub:
            self.push_to_hub(**({"repo_id": Path(save_directory).name} | settings))
