"""The documentation site: `make docs` builds it into build/docs. Neither building nor reading it needs the internet.

Pages are the Markdown files beside this one, which GitHub shows as well, the tutorial's scripts with their outputs, and
the reference from the docstrings. Figures of the method are drawn by figures.py.
"""

from __future__ import annotations

import os
import re
import runpy
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import ssd

DOCS = Path(__file__).parent
ROOT = DOCS.parent
FIGURES = runpy.run_path(str(DOCS / "figures.py"))
DOCSTRINGS = runpy.run_path(str(DOCS / "docstrings.py"))

os.environ.setdefault("TQDM_DISABLE", "1")  # progress bars are no outputs

project = "Scale Space Diffusion"
author = "The Scale Space Diffusion authors"
release = version = ssd.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["tutorial"]

# Pages in Markdown
myst_enable_extensions = ["dollarmath", "amsmath", "deflist", "fieldlist"]
myst_heading_anchors = 4
myst_dmath_double_inline = True

# Formulas: MathJax from a package, one file that needs no fonts
with as_file(files("sphinx-mathjax-offline") / "static" / "mathjax" / "tex-svg.js") as MATHJAX:
    mathjax_path = MATHJAX.name
mathjax3_config: dict[str, Any] = {"options": {"enableMenu": False}}

# The reference
autosummary_generate = True
autodoc_typehints = "none"  # numpydoc sections say the types
autodoc_member_order = "bysource"
add_module_names = False
viewcode_follow_imported_members = False
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
default_role = "code"
suppress_warnings = ["ref.python"]  # a type in a docstring may name several things; tests check the names in pages

# The tutorial
sphinx_gallery_conf = {
    "examples_dirs": "tutorial",
    "gallery_dirs": "generated/tutorial",
    "filename_pattern": "/",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "write_computation_times": False,
    "min_reported_time": 10_000,
    "show_memory": False,
    "show_signature": False,
    "capture_repr": (),
    "remove_config_comments": True,
    "thumbnail_size": (320, 224),
}

# The pages
html_theme = "furo"
html_title = project
html_static_path = ["_static", str(MATHJAX)]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False

PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/results.md": "benchmarks.md",
    "docs/tutorial/GALLERY_HEADER.rst": "generated/tutorial/index.rst",
    **{
        f"docs/tutorial/{page.name}": f"generated/tutorial/{page.stem}.rst" for page in (DOCS / "tutorial").glob("*.py")
    },
}
"""Files of the repository that are pages here."""

LINK = re.compile(r"(\]\()([^)#\s:]+)(#[^)]*)?(\))")


def relinked(text: str, folder: Path) -> str:
    """The Markdown of a file in `folder`, with its links to files as they are from here."""

    def replaced(link: re.Match[str]) -> str:
        target = (folder / link[2]).resolve()
        try:
            here = PAGES.get(target.relative_to(ROOT).as_posix(), os.path.relpath(target, DOCS))
        except ValueError:  # outside of the repository: sphinx will say so
            here = link[2]
        return f"{link[1]}{here}{link[3] or ''}{link[4]}"

    return LINK.sub(replaced, text)


def relink_page(app: Any, docname: str, source: list[str]) -> None:
    """The links of a page beside this file."""
    if "/" not in docname:
        source[0] = relinked(source[0], DOCS)


def relink_included(app: Any, path: Path, docname: str, source: list[str]) -> None:
    """The links of a file that a page includes."""
    source[0] = relinked(source[0], (DOCS / path).resolve().parent)


def draw_figures(app: Any) -> None:
    """Before anything is read."""
    FIGURES["draw"](DOCS / "generated" / "figures")


def setup(app: Any) -> None:
    app.connect("builder-inited", draw_figures, priority=100)
    app.connect("source-read", relink_page)
    app.connect("include-read", relink_included)
    app.connect("autodoc-process-docstring", DOCSTRINGS["process"], priority=100)  # before napoleon
