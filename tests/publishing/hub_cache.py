"""A repository of the Hub as huggingface_hub keeps it on disk, which its own functions then find without a network."""

from __future__ import annotations

import shutil
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def put_into_cache(folder: Path, repo_id: str, cache: Path) -> Path:
    """Make a folder's content the repository's latest commit; returns where it lies."""
    repository = cache / ("models--" + repo_id.replace("/", "--"))
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    snapshot = repository / "snapshots" / COMMIT
    shutil.copytree(folder, snapshot)
    return snapshot
