"""YAML files of settings, read strictly: plain names and values, and nothing that could expand, run or hide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .errors import UsageError

MAX_BYTES = 2**20
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_settings(path: str | Path, name: str = "") -> dict[str, Any]:
    """The settings in a YAML file: a mapping of names to numbers, texts, and lists or mappings of these.

    Refused are aliases, with which a short file can stand for gigabytes, tags, which ask for types of their own, and
    names that stand there twice, of which one would be dropped.

    Parameters
    ----------
    path : str or pathlib.Path
    name : str
        What the file is, for messages; default: its path.

    Raises
    ------
    UsageError
        One line with the file and what is wrong with it.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.yaml"
    >>> _ = path.write_text("res: 64")
    >>> read_settings(path)
    {'res': 64}
    """
    name = name or str(path)
    text = _read_text(Path(path), name)
    try:
        for event in yaml.parse(text, Loader=LOADER):
            _check_event(event, name)
        node = yaml.compose(text, Loader=LOADER)
        if not isinstance(node, yaml.MappingNode):
            raise UsageError(f"{name} is not a list of settings (name: value, one per line), or it is empty.")
        keys = [str(key.value) for key, _ in node.value]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            raise UsageError(f"{name} sets {twice[0]} twice: keep one.")
        return dict(yaml.load(text, Loader=LOADER))
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:  # ValueError: such as the date 2020-99-99
        if isinstance(error, UsageError):
            raise
        cause = " ".join(str(error).replace('"<unicode string>"', "the file").split())
        raise UsageError(f"Problems parsing config: {name} is not YAML: {cause}.") from error


def _read_text(path: Path, name: str) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{name} has {path.stat().st_size} bytes: a file of settings has at most {MAX_BYTES}.")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} is not a text file in UTF-8: byte {error.start} cannot be decoded.") from error


def _check_event(event: yaml.Event, name: str) -> None:
    """Raise a `UsageError` for what a file of settings does not need."""
    line = event.start_mark.line + 1 if event.start_mark else 1
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
        raise UsageError(f"{name}, line {line}: anchors (&) and aliases (*) are not allowed: write the value out.")
    tag = getattr(event, "tag", None)
    if tag is not None:
        raise UsageError(f"{name}, line {line}: the tag {tag} is not allowed: write the value alone.")
