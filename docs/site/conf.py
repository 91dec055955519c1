"""The site that ``make docs`` builds from the pages in docs/, with Sphinx.

Its source is the whole checkout, so that links from page to page, to the README and into the code are the same on the site
and in a checkout.  The order of the pages is that of the links in docs/README.md.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(HOME / "src"))

project = "fleetcache"
author = "the fleetcache developers"
project_copyright = author
release = version = version_of("fleetcache")

root_doc = "docs/README"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_copybutton"]
include_patterns = [
    "docs/*.md",
    "docs/recipes/*.md",
    "standin/README.md",
    "examples/README.md",
    "docs/site/*.md",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
]
source_suffix = {".md": "markdown"}

myst_heading_anchors = 4
myst_links_external_new_tab = True

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_preserve_defaults = True
default_role = "py:obj"  # a name in backticks links to what it names
python_use_unqualified_type_names = True
add_module_names = False

html_theme = "furo"
html_title = "fleetcache"
html_show_sphinx = False
html_theme_options = {"source_repository": "", "navigation_with_keys": True}

LINK = re.compile(r"\]\(((?:\.\./)?[\w/-]+)\.md\)")
HEADING = re.compile(r"^\*\*(.+)\*\*$", re.MULTILINE)


def contents(text: str) -> str:
    """Return the table of contents of the page docs/README.md with this *text*: the pages that it links to, by question."""
    parts = HEADING.split(text)[1:]
    trees = []
    for caption, below in zip(parts[::2], parts[1::2], strict=True):
        pages = [f"/{page.removeprefix('../')}" if page.startswith("../") else page for page in LINK.findall(below)]
        trees.append("\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *dict.fromkeys(pages), "```"]))
    return "\n\n".join(trees)


def add_contents(app: Any, page: str, source: list[str]) -> None:
    """Let the first page hold the table of contents, which the site's navigation shows."""
    if page == root_doc:
        source[0] += "\n\n" + contents(source[0]) + "\n"
    elif page == "docs/recipes/README":
        pages = [link for link in LINK.findall(source[0]) if "/" not in link]
        source[0] += "\n\n" + "\n".join(["```{toctree}", ":hidden:", "", *dict.fromkeys(pages), "```"]) + "\n"


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", add_contents)
