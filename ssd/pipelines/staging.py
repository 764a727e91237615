"""Where a complete pipeline lies in a folder: a pipeline that is being put in place is complete before it is there."""

from __future__ import annotations

from pathlib import Path

STAGED = ".next-pipeline"
"""A pipeline that was written whole and flushed, and whose files are being put in place."""


def complete_pipeline(folder: Path) -> Path:
    """The folder that holds the complete pipeline of `folder`: itself, unless a writer was killed at its work there."""
    return folder / STAGED if (folder / STAGED).is_dir() else folder
