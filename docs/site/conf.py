"""The site that ``make docs`` builds from the pages in docs/, with Sphinx.

Its source is the whole checkout, so that links from page to page, to the README and into the code are the same on the site
and in a checkout.  The order of the pages is that of the links in docs/README.md.

The reference names the coroutine of an operation, ``Cache.aget``, and `Faces` shows ``Cache.get`` with it.
"""

from __future__ import annotations

import inspect
import re
import sys
from importlib import import_module
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.domains.python import PyMethod
from sphinx.util.inspect import stringify_signature

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
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
autodoc_type_aliases = {name: name for name in ("Key", "Version", "Timeout", "Send", "Callback")}
default_role = "py:obj"  # a name in backticks links to what it names
python_use_unqualified_type_names = True
maximum_signature_line_length = 130

html_theme = "furo"
html_title = "fleetcache"
html_static_path = ["static"]
templates_path = ["templates"]
html_additional_pages = {"index": "first.html"}
html_css_files = ["site.css"]
html_show_sphinx = False
html_show_sourcelink = html_copy_source = False
html_theme_options = {"navigation_with_keys": True, "top_of_page_buttons": []}

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


class Faces(PyMethod):
    """The directive of a method.  A coroutine that has a blocking face is shown below it, without repeating the arguments."""

    still: frozenset[str] = frozenset()
    """The signatures that do not await, although the directive is that of a coroutine."""

    def get_signatures(self) -> list[str]:
        """Return the signatures of both faces."""
        written = super().get_signatures()
        path, name = NAME.match(written[0]).groups()
        owner = named(self.options.get("module") or self.env.ref_context["py:module"], path)
        if "async" not in self.options or not hasattr(owner, name[1:]):
            return written
        faces = [f"{path}{each.removeprefix(path)[1:]}".replace("-> AsyncIterator", "-> Iterator") for each in written]
        self.still = frozenset(faces)
        return [*faces, f"{path}{name}(...)"]

    def handle_signature(self, sig: str, signode: Any) -> tuple[str, str]:
        """Write ``Cache.get`` without the module's name, also outside of the class."""
        found = super().handle_signature(sig, signode)
        for node in list(signode.findall(addnodes.desc_addname)):
            if node.astext() == f"{signode['module']}.":
                node.parent.remove(node)
        return found

    def get_signature_prefix(self, sig: str) -> Any:
        """Write ``async`` before a face that awaits."""
        given = self.options
        if sig in self.still:
            self.options = {name: value for name, value in given.items() if name != "async"}
        try:
            return super().get_signature_prefix(sig)
        finally:
            self.options = given


NAME = re.compile(r"((?:\w+\.)*)(\w+)")


def named(module: str, path: str) -> Any:
    """Return what the dotted *path* names in the module."""
    found: Any = import_module(module)
    for part in path.split("."):
        found = getattr(found, part) if part else found
    return found


BREAK = re.compile(r"(?<=[._/:=,|])(?=[\w{])")
"""Where a name may be broken in a narrow column."""


def breakable(app: Any, tree: nodes.document, page: str) -> None:
    """Let the code in tables break after dots, underscores and the like, so that no column is wider than a word."""
    for table in tree.findall(nodes.table):
        for code in list(table.findall(nodes.literal)):
            first, *others = BREAK.split(code.astext())
            code.children = []
            code.append(nodes.Text(first))
            for part in others:
                code.extend([nodes.raw("", "<wbr>", format="html"), nodes.Text(part)])


def skip_still(app: Any, what: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    """Leave out a blocking face: its coroutine shows it."""
    path = member.__qualname__.rpartition(".")[0] if inspect.isfunction(member) else ""
    if not path or "<locals>" in path or not member.__module__.startswith("fleetcache"):
        return None
    coroutine = getattr(named(member.__module__, path), f"a{name}", None)
    return True if inspect.iscoroutinefunction(coroutine) or inspect.isasyncgenfunction(coroutine) else None


def show_init(
    app: Any, what: str, name: str, kind: Any, options: Any, sig: str, returned: str
) -> tuple[str, str] | None:
    """Show the arguments of ``__init__`` for a class whose ``__new__`` takes any."""
    if what != "class" or not (sig or "").startswith("(*args"):
        return None
    arguments = list(inspect.signature(kind.__init__).parameters.values())[1:]
    shown = stringify_signature(inspect.Signature(arguments), unqualified_typehints=True)
    return shown, returned


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", add_contents)
    app.connect("doctree-resolved", breakable)
    app.connect("autodoc-skip-member", skip_still)
    app.connect("autodoc-process-signature", show_init)
    app.add_directive_to_domain("py", "method", Faces, override=True)
