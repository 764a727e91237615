"""Several modules in one file: what is carried over, what is renamed, and what is refused."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ssd.publishing import source_modules
from ssd.publishing.merged_source import classes_in, merged_source

FUTURE = "from __future__ import annotations\n"
Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch) -> Write:
    """Write the modules of a package `ours`, by name."""
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(source_modules, "PACKAGES", ("ours",))
    for name in [name for name in sys.modules if name.split(".")[0] == "ours"]:
        monkeypatch.delitem(sys.modules, name)

    def modules(**texts: str) -> None:
        for name, text in texts.items():
            (tmp_path / "ours" / f"{name}.py").write_text(text if name == "__init__" else FUTURE + text)
        importlib.invalidate_caches()

    return modules


def run(name: str = "Main", **settings: Any) -> dict[str, Any]:
    """The names of the file that a class of ours.main is merged into."""
    namespace: dict[str, Any] = {"__name__": "merged"}
    exec(compile(merged_source("ours.main", name, '"""A file."""', **settings), "merged", "exec"), namespace)
    return namespace


def test_names_of_two_modules_are_kept_apart(write: Write) -> None:
    write(
        first="def _check():\n    return 'first'\ndef first():\n    return _check()\n",
        second="TWO = 2\ndef _check(n=TWO):\n    return f'second {n}'\ndef second():\n    return _check()\n",
        main=(
            "from .first import first\nfrom .second import second as other\n_check = 'main'\n"
            "class Main:\n    def all(self):\n        return _check, first(), other()\n"
        ),
    )
    found = run()
    assert found["Main"]().all() == ("main", "first", "second 2")
    assert found["_check"]() == "first"
    assert found["_check_second"]() == "second 2"
    assert found["_check_main"] == "main"


def test_only_what_is_needed_is_carried_over_with_its_comments(write: Write) -> None:
    write(
        tools=(
            'import math\nimport os\nROOT = 2\n"""How often."""\n# why\ndef used(): return math.sqrt(ROOT)\n'
            "def unused(): os.x\n"
        ),
        main="from .tools import unused, used\nclass Main:\n    value = used()\n",
    )
    text = merged_source("ours.main", "Main", "")
    assert '"""How often."""' in text
    assert "# why\ndef used" in text
    assert "unused" not in text
    assert "import os" not in text
    assert run()["Main"].value == 2**0.5


def test_a_name_that_a_package_hands_on_is_followed(write: Write) -> None:
    write(
        __init__="from .deep import value\n",
        deep="value = 3\n",
        main="from ours import value\nclass Main:\n    v = value\n",
    )
    assert run()["Main"].v == 3


def test_what_completes_a_class_comes_with_it(write: Write) -> None:
    write(main="class Main:\n    pass\nMain.size = 4\n")
    assert run()["Main"].size == 4


def test_classes_of_other_files_are_names_in_annotations(write: Write) -> None:
    write(
        part="class Part: pass\nSize = tuple[int, int]\n",
        main="from .part import Part, Size\nclass Main:\n    def f(self, part: Part, size: Size) -> None: ...\n",
    )
    found = run(elsewhere=[("ours.part", "Part")])
    assert found["Part"] is Any
    assert found["Size"] == tuple[int, int]


def test_what_only_a_type_checker_imports_does_not_change_the_order(write: Write) -> None:
    """The base has to come before the class, though the base's module names the class's."""
    checked = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .second import Second, Size\n"
    write(
        first=checked + "class First:\n    def f(self, other: Second, size: Size) -> None: ...\n",
        second="from .first import First\nSize = tuple[int, int]\nclass Second(First): ...\n",
        main="from .first import First\nfrom .second import Second\nclass Main(Second): ...\n",
    )
    found = run()
    assert issubclass(found["Main"], found["First"])
    assert found["Size"] == tuple[int, int]


def test_a_second_run_keeps_the_classes_of_the_first(write: Write) -> None:
    write(main="class Main: pass\n")
    found = run()
    first = found["Main"]
    exec(merged_source("ours.main", "Main", ""), found)
    assert found["Main"] is first


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ({"part": "class Part: pass\n"}, "Main in ours.main needs Part, which has a file of its own"),
        ({"part": "def Part(): pass\nprint()\n"}, "part.py, line 3: only imports, functions, classes and constants"),
        ({"part": "def Part():\n    from .main import Main\n"}, "line 3: an import of ours inside a function"),
        ({"part": ""}, "ours.main imports Part, which is not"),
        ({}, "There is no module ours.part"),
    ],
)
def test_what_cannot_be_carried_over_is_named(modules: dict[str, str], message: str, write: Write) -> None:
    write(**modules, main="from .part import Part\nclass Main:\n    part = Part()\n")
    with pytest.raises(ValueError, match=message):
        merged_source("ours.main", "Main", "", elsewhere=[("ours.part", "Part")])


def test_a_name_that_is_local_elsewhere_is_not_renamed_by_guess(write: Write) -> None:
    write(
        part="check = 1\ndef part(): return check\n",
        main=(
            "from .part import part\ndef check(): pass\ndef use(check=check): return check\n"
            "class Main:\n    value = part(), use()\n"
        ),
    )
    with pytest.raises(ValueError, match=r"check in line 4 of main\.py cannot be renamed to check_main"):
        merged_source("ours.main", "Main", "")


def test_asking_for_a_class_that_another_file_has_too_is_refused(write: Write) -> None:
    """A part of a pipeline makes objects of its own file's class, so isinstance would be false of them."""
    write(
        operator="class Operator: ...\n",
        part="from .operator import Operator\nclass Part:\n    make = Operator\n",
        main="from .operator import Operator\nclass Main:\n    def f(self, x): return isinstance(x, (int, Operator))\n",
    )
    doubles = classes_in("ours.part", "Part")
    assert doubles == {("ours.part", "Part"), ("ours.operator", "Operator")}
    with pytest.raises(ValueError, match=r"Main in ours\.main asks whether objects are of the class Operator"):
        merged_source("ours.main", "Main", "", doubles=doubles)
    assert run()["Main"]().f(1)


def test_one_name_for_two_imports_is_refused(write: Write) -> None:
    write(
        part="import math as m\ndef part():\n    return m\n",
        main="import os as m\nfrom .part import part\nclass Main:\n    value = part, m\n",
    )
    with pytest.raises(ValueError, match=r"m is .*another module"):
        merged_source("ours.main", "Main", "")
