"""For sphinx: our docstrings, which are plain text with Markdown's backticks, as reStructuredText.

Code stays code, and names of ours become links. Everywhere else the characters with which reStructuredText would begin
markup are escaped. Doctests and indented equations are shown as they are written.
"""

from __future__ import annotations

import re
from typing import Any

CODE = re.compile(r"(``?)(?!`)(.+?)\1")
MARKUP = re.compile(r"[*|\\]|(?<=\w)_(?!\w)")
LIST_OF_ONE = re.compile(r"^(\s*)([A-Z]\.)(?=\s|$)")
"""A line such as "D." would begin a list that counts with letters."""
OURS = re.compile(r"(ssd|flexi_unet|vdvae)(\.\w+)+")
SECTION_LINE = re.compile(r"\s*-{3,}\s*")


def as_rst(lines: list[str]) -> list[str]:
    """A whole docstring: what is indented after a blank line, before numpydoc's sections, is shown as it is.

    Examples
    --------
    >>> as_rst(["x_ is *not* `code`, see `ssd.seeding`.", "", "    y = a x_"])
    ['x\\\\_ is \\\\*not\\\\* ``code``, see :py:obj:`ssd.seeding`.', '', '.. code-block:: text', '', '    y = a x_']
    """
    result: list[str] = []
    in_sections = shown_as_is = False
    for number, line in enumerate(lines):
        in_sections = in_sections or (number + 1 < len(lines) and bool(SECTION_LINE.fullmatch(lines[number + 1])))
        begins = line.startswith("    ") and number > 0 and not lines[number - 1].strip() and not _is_doctest(line)
        if begins and not in_sections and not shown_as_is:
            result += [".. code-block:: text", ""]
            shown_as_is = True
        if line.strip() and not line.startswith(" "):
            shown_as_is = False
        as_is = shown_as_is or _is_doctest(line) or SECTION_LINE.fullmatch(line)
        result.append(line if as_is else escaped(line))
    return result


def escaped(line: str) -> str:
    """One line of text; what stands between backticks becomes a literal or a link."""
    parts, end = [], 0
    for code in CODE.finditer(line):
        parts += [_escape(line[end : code.start()]), _literal(code[2])]
        end = code.end()
    return LIST_OF_ONE.sub(r"\1\\\2", "".join([*parts, _escape(line[end:])]))


def _literal(code: str) -> str:
    return f":py:obj:`{code}`" if OURS.fullmatch(code) else f"``{code}``"


def _escape(text: str) -> str:
    return MARKUP.sub(lambda found: "\\" + found[0], text)


def _is_doctest(line: str) -> bool:
    return line.lstrip().startswith((">>> ", "... "))


def process(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Called by autodoc, before napoleon reads the sections."""
    lines[:] = as_rst(lines)
