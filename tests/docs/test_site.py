"""The documentation site: its configuration, its pages and links, and that all of it builds without a warning."""

from __future__ import annotations

import doctest
import importlib
import re
import runpy
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from ..conftest import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
TOCTREE = re.compile(r"^```\{toctree\}\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def test_every_page_is_in_the_table_of_contents() -> None:
    trees = TOCTREE.findall((DOCS / "index.md").read_text())
    entries = [line.strip() for tree in trees for line in tree.splitlines() if line.strip() and line[0] != ":"]
    entries = [re.sub(r".*<(.*)>", r"\1", entry) for entry in entries]
    assert sorted(entries) == sorted(
        [*(page.stem for page in PAGES if page.stem != "index"), "generated/tutorial/index"]
    )


def heading_anchors(text: str) -> set[str]:
    """The anchors that GitHub and the site give to headings."""
    headings = re.findall(
        r"^#+ (.+?)\s*$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_links(page: Path) -> None:
    """Files of the repository exist, anchors too, and other addresses are well-formed."""
    for link in LINK.findall(FENCED.sub("", page.read_text())):
        address = urlsplit(link)
        if address.scheme:
            assert address.scheme == "https", link
            assert "." in address.netloc, link
            continue
        target = page.parent / address.path if address.path else page
        assert target.exists(), f"{page.name} links to {link}"
        included = ROOT / "README.md" if target == DOCS / "index.md" else target
        if address.fragment:
            assert address.fragment in heading_anchors(included.read_text()), f"{page.name} links to {link}"


@pytest.mark.parametrize(
    ("role", "name"),
    [found for page in PAGES for found in re.findall(r"\{py:(\w+)\}`(?:[^`<]*<)?([\w.]+)>?`", page.read_text())],
)
def test_names_of_ours_exist(role: str, name: str) -> None:
    if role == "mod":
        importlib.import_module(name)
        return
    module, _, attribute = name.rpartition(".")
    assert getattr(importlib.import_module(module), attribute).__module__ == module


def test_docstrings_become_restructuredtext() -> None:
    namespace = runpy.run_path(str(DOCS / "docstrings.py"))
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    [example] = finder.find(namespace["as_rst"], "as_rst", module=False, globs=namespace)
    assert runner.run(example).failed == 0
    as_rst = namespace["as_rst"]
    assert as_rst(["D.", ">>> x_ * y", "x_t and a|b"]) == ["\\D.", ">>> x_ * y", "x_t and a\\|b"]
    section = ["Parameters", "----------", "x : int", "", "    The `x` of x_."]
    assert as_rst(section) == [*section[:-1], "    The ``x`` of x\\_."]


@pytest.fixture
def configuration() -> dict:
    for name in ("sphinx", "myst_parser", "sphinx_gallery", "furo", "sphinx-mathjax-offline"):
        pytest.importorskip(name)
    return runpy.run_path(str(DOCS / "conf.py"))


def test_the_configuration(configuration: dict) -> None:
    for extension in configuration["extensions"]:
        importlib.import_module(extension)
    assert configuration["MATHJAX"].is_file()
    assert not urlsplit(configuration["mathjax_path"]).netloc  # formulas need no internet
    relinked = configuration["relinked"]
    text = "[a](docs/data.md#labels) [b](CONTRIBUTING.md) [c](https://x.org/y.md) [d](#e) [f](LICENSE)"
    assert relinked(text, ROOT) == (
        "[a](data.md#labels) [b](contributing.md) [c](https://x.org/y.md) [d](#e) [f](../LICENSE)"
    )
    assert relinked("[a](../benchmarks/results.md) [b](tutorial/6_lora.py)", DOCS) == (
        "[a](benchmarks.md) [b](generated/tutorial/6_lora.rst)"
    )


def test_figures(tmp_path) -> None:
    pytest.importorskip("matplotlib")
    figures = runpy.run_path(str(DOCS / "figures.py"))
    figures["draw"](tmp_path)
    shown = set(re.findall(r"generated/figures/(\w+\.png)", (DOCS / "method.md").read_text()))
    assert {path.name for path in tmp_path.iterdir()} == shown


@pytest.mark.slow
@pytest.mark.usefixtures("configuration")
def test_the_site_builds_without_a_warning(tmp_path) -> None:
    """All but the outputs of the tutorial, whose pages have tests of their own."""
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("docs", "benchmarks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("generated", "runs"))
    site = tmp_path.resolve() / "site"
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", "-D", "plot_gallery=0"]
    done = subprocess.run([*command, tmp_path / "docs", site], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for page in (
        *(page.stem for page in PAGES),
        "generated/tutorial/1_operators",
        "generated/api/ssd.process.posterior",
    ):
        assert (site / f"{page}.html").is_file()
    assert (site / "_static" / "tex-svg.js").is_file()
    texts = {page: page.read_text() for page in site.rglob("*.html")}
    for page, text in texts.items():  # nothing is fetched when a page is read
        assert not re.search(r"<(script|img|iframe)[^>]* src=\"\w+:|<link[^>]* href=\"\w+:", text), page
    assert dead_links(texts) == []


def dead_links(texts: dict[Path, str]) -> list[str]:
    """Links of pages to files and anchors that are not there."""
    anchors = {page: set(re.findall(r"\bid=\"([^\"]+)\"", text)) for page, text in texts.items()}
    dead = []
    for page, text in texts.items():
        for link in {unescape(link) for link in re.findall(r"<a [^>]*href=\"([^\"]+)\"", text)}:
            address = urlsplit(link)
            target = (page.parent / unquote(address.path)).resolve() if address.path else page
            missing = address.fragment and target in anchors and unquote(address.fragment) not in anchors[target]
            if not address.scheme and (missing or not target.exists()):
                dead.append(f"{page.name}: {link}")
    return dead
