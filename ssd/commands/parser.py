"""What the commands share: argument parsing with one-line errors."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from typing import Any, NoReturn

import jsonargparse


class _HelpFormatter(jsonargparse.DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows types and defaults, and keeps the line breaks of examples."""


class CommandParser(jsonargparse.ArgumentParser):
    """jsonargparse's parser whose errors are one line, with the nearest valid name for an unknown one; exit code 2."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", _HelpFormatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        text = " ".join(str(message).split())
        if "Expected a <class 'list'>" in text:
            text += " A list is written '[32,64]'."
        if "Unexpected config" in text:
            text = "The --config file is no list of settings (name: value, one per line), or empty"
        if text.endswith("expected one argument"):
            text += ": switches are written --name true or --name false"
        print(f"error: {text.rstrip('.')}.{self._suggestion(text)} See --help.", file=sys.stderr)  # noqa: T201
        raise SystemExit(2)

    def _suggestion(self, text: str) -> str:
        """' Did you mean ..?' for the unknown key or flag that an error message names."""
        match = re.search(r"Option '([\w.]+)' is not accepted|unrecognized arguments: --([\w-]+)", text)
        if match is None:
            return ""
        unknown = (match[1] or match[2]).replace("-", "_")
        known = [action.dest for action in self._actions if action.dest != "help"]
        nearest = difflib.get_close_matches(unknown, known, n=1, cutoff=0.4)
        return f" Did you mean '{nearest[0]}'?" if nearest else f" Known are: {', '.join(known)}."
