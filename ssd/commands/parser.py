"""The parser of all commands: jsonargparse with errors of one line, switches, and flags in either spelling."""

from __future__ import annotations

import argparse
import difflib
import keyword
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse

from .errors import UsageError
from .settings_file import read_settings


class _HelpFormatter(jsonargparse.DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows types and defaults, and keeps the line breaks of examples."""


UNION = re.compile(r'Parser key "([\w.]+)": Does not validate .*? Subtypes: \[(.*?)\] Errors: .* Given value:(.*)$')
"""jsonargparse's message on a value that is of none of several types."""

TYPES = {
    "<class 'int'>": "an integer",
    "<class 'float'>": "a number",
    "<class 'str'>": "a text",
    "<class 'bool'>": "true or false",
    "list[int]": "a list of integers",
    "list[float]": "a list of numbers",
    "list[int | list[int]]": "a list of integers or of lists of integers",
}


def plain_union(text: str) -> str:
    """The message of `UNION` in plain words; any other message as it is.

    Examples
    --------
    >>> plain_union(
    ...     'Parser key "res": Does not validate against any of the Union subtypes '
    ...     "Subtypes: [<class 'int'>, list[int]] Errors: - .. Given value type: .. Given value: abc"
    ... )
    'res must be an integer or a list of integers, got abc.'
    """
    found = UNION.match(text)
    if found is None:
        return text
    names = [name for name in re.split(r", (?=<class|list|typing)", found[2]) if name != "<class 'NoneType'>"]
    words = [TYPES.get(name, name.replace("typing.Literal", "one of ")) for name in names]
    return f"{found[1]} must be {' or '.join(words)}, got {found[3].strip() or 'nothing'}."


class CommandParser(jsonargparse.ArgumentParser):
    """jsonargparse's parser as every command of the project uses it.

    - An error is one line, with the nearest valid name for an unknown one; the exit code is 2.
    - A switch is written `--resume`, `--resume true` or `--resume false`.
    - `--inception-weights` is `--inception_weights`.
    - A flag that is a word of Python has an underscore behind it there: `--class` is `class_`.
    - Flags that were renamed are still understood, with a note. Those that are gone say what to use instead.
    - A command may have subcommands, each with flags of its own: the first word of the command line chooses one.

    Parameters
    ----------
    renamed : mapping of str to str
        Earlier name of a flag -> its present name.
    removed : mapping of str to str
        Name of a flag that is gone -> what to use instead.
    """

    def __init__(
        self,
        *args: Any,
        renamed: Mapping[str, str] | None = None,
        removed: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("formatter_class", _HelpFormatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)
        self._renamed, self._removed = dict(renamed or {}), dict(removed or {})
        self._subcommands: dict[str, CommandParser] = {}

    def add_class_arguments(self, *args: Any, **kwargs: Any) -> list[str]:
        """As jsonargparse's; a bool becomes a switch that needs no value.

        jsonargparse takes any value, in silence, where it cannot resolve a type: of a class with several bases every
        name of a type must be known in the module of that class.
        """
        added = super().add_class_arguments(*args, **kwargs)
        for action in self._actions:
            hint = getattr(action, "_typehint", None)
            assert "Unvalidated" not in str(hint), f"The type of --{action.dest} is not resolved: {hint}"
            if hint is bool:
                action.nargs, action.const = "?", True
        return added

    def add_subcommand(self, name: str, parser: CommandParser) -> None:
        """Let the first word `name` hand the rest of the command line to `parser`.

        jsonargparse's own subcommands would ask for the command's required flags beside the subcommand's, drop flags
        before the subcommand's name in silence, and take the value of a misspelled flag for such a name.
        """
        parser.prog = f"{self.prog} {name}"
        self._subcommands[name] = parser
        self.epilog = f"Subcommands, each with its own --help: {', '.join(self._subcommands)}."

    def parse_args(self, args: Sequence[str] | None = None, *more: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """As jsonargparse's, after the flags were brought to their present spelling.

        A subcommand's settings are the only entry of the result, under the subcommand's name.
        """
        given = sys.argv[1:] if args is None else list(args)
        if given and given[0] in self._subcommands:
            settings = self._subcommands[given[0]].parse_args(given[1:], *more, **kwargs)
            return jsonargparse.Namespace({given[0]: settings})
        present = [self._present_spelling(str(argument)) for argument in given]
        self._check_config_files(present)
        return super().parse_args(present, *more, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        text = " ".join(str(message).split())
        is_list = "Expected a <class 'list'>" in text
        text = plain_union(text)
        if is_list:
            text += " A list is written '[32,64]'."
        if "Unexpected config" in text:
            text = "--config is not a list of settings (name: value, one per line), or it is empty"
        print(f"error: {text.rstrip('.')}.{self._suggestion(text)} See --help.", file=sys.stderr)  # noqa: T201
        raise SystemExit(2)

    def _check_config_files(self, arguments: Sequence[str]) -> None:
        """End with one line if a file of settings is not plain YAML, which may take jsonargparse hours."""
        actions = [action for action in self._actions if isinstance(action, jsonargparse.ActionConfigFile)]
        flags = [flag for action in actions for flag in action.option_strings]
        for number, argument in enumerate(arguments):
            flag, equals, value = argument.partition("=")
            path = value if equals else next(iter(arguments[number + 1 :]), "")
            if flag in flags and Path(path).is_file():
                try:
                    read_settings(path, f"The {flag} file {path}")
                except UsageError as error:
                    self.error(str(error))

    def _present_spelling(self, argument: str) -> str:
        flag = re.match(r"--([A-Za-z][\w-]*)", argument)
        if flag is None:
            return argument
        name = flag[1].replace("-", "_")
        if keyword.iskeyword(name):
            name += "_"
        if name in self._renamed:
            print(f"note: --{name} is now called --{self._renamed[name]}.", file=sys.stderr)  # noqa: T201
            name = self._renamed[name]
        return f"--{name}{argument[flag.end() :]}"

    def _suggestion(self, text: str) -> str:
        """' Did you mean ..?' for the unknown key or flag that an error message names."""
        match = re.search(r"Option '([\w.]+)' is not accepted|unrecognized arguments: (?:--)?([\w-]+)", text)
        if match is None:
            return ""
        unknown = (match[1] or match[2]).replace("-", "_")
        if unknown in self._removed:
            return f" It is gone: {self._removed[unknown]}."
        if unknown in self._renamed:
            return f" It is now called '{self._renamed[unknown]}'."
        known = [action.dest for action in self._actions if action.dest != "help"] + list(self._subcommands)
        nearest = difflib.get_close_matches(unknown, known, n=1, cutoff=0.4)
        return f" Did you mean '{nearest[0]}'?" if nearest else f" Known are: {', '.join(known)}."
