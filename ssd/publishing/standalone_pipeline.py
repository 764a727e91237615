"""The base of a pipeline in a self-contained folder, where `ssd.pipelines.staged_pipeline` stands in our package.

diffusers copies the code of such a folder into a cache and imports it from there, but it does not save it again. This
class does.
"""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import DIFFUSERS_DYNAMIC_MODULE_NAME


class StagedPipeline(DiffusionPipeline):
    """A `DiffusionPipeline` that saves the code of its classes with them."""

    def save_config(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Write model_index.json, and beside the parts of the pipeline the files that define their classes."""
        for part, file in self._code_files().items():
            folder = Path(save_directory) if part == "_class_name" else Path(save_directory, part)
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / file.name)
        super().save_config(save_directory, *args, **kwargs)

    def to_json_string(self) -> str:
        """The text of model_index.json, in which classes are named by their files: [file, class]."""
        index = json.loads(super().to_json_string())
        for part, file in self._code_files().items():
            name = type(self).__name__ if part == "_class_name" else index[part][1]
            index[part] = [file.stem, name]
        return json.dumps(index, indent=2, sort_keys=True) + "\n"

    def _code_files(self) -> dict[str, Path]:
        """Part of the pipeline (`_class_name` for itself) -> the file of its class, for those of this folder."""
        parts = {"_class_name": self, **self.components}
        classes = {name: type(getattr(part, "_orig_mod", part)) for name, part in parts.items()}  # under torch.compile
        return {
            name: Path(inspect.getfile(each))
            for name, each in classes.items()
            if each.__module__.split(".")[0] == DIFFUSERS_DYNAMIC_MODULE_NAME
        }
