"""``fleetcache docs``: the pages of the documentation, of the release that is installed."""

from __future__ import annotations

import pydoc
import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from fleetcache.cli.calls import FINE, Call, WrongUse
from fleetcache.cli.parsing import Table
from fleetcache.cli.showing import table
from fleetcache.kinds import nearest

CHECKOUT = Path(__file__).resolve().parents[3] / "docs"
"""Where the pages are if the package was not built, but runs in a checkout."""

TITLE = re.compile(r"^# (.+)$", re.MULTILINE)


def add(commands: Table) -> None:
    """Add the command."""
    command = commands.command(
        "docs",
        run,
        place="none",
        help="read the documentation of this release",
        description="Without PAGE, list the pages. With PAGE, such as `settings`, print it; `settings#the-near-cache` begins at a "
        "heading. Exits with 2 if there is no such page.",
    )
    command.add_argument("page", metavar="PAGE", nargs="?", help="the name of a page, and perhaps # and a heading")


def run(call: Call) -> int:
    """``fleetcache docs``."""
    found = pages()
    if call.arguments.page is None:
        titles = {name: title_of(page) for name, page in found.items()}
        call.answer(titles, table(("page", "title"), titles.items(), left=2))
        return FINE
    name, _, heading = call.arguments.page.partition("#")
    if name not in found:
        raise WrongUse(f"there is no page {name!r}.{nearest(name, found)} `fleetcache docs` lists them")
    text = from_heading(found[name].read_text(encoding="utf-8"), heading)
    if text is None:
        raise WrongUse(f"the page {name} has no heading {heading!r}")
    if call.on_terminal:
        pydoc.pager(text)
    else:
        call.answer({"page": name, "text": text}, text)
    return FINE


def pages() -> dict[str, Traversable]:
    """Return the pages by name."""
    packed = files("fleetcache") / "pages"
    place: Traversable = packed if packed.is_dir() else CHECKOUT
    found = {name: page for name, page in beneath(place).items() if name != "README"}
    recipes = beneath(place / "recipes")
    return found | {f"recipes/{name}" if name != "README" else "recipes": page for name, page in recipes.items()}


def beneath(place: Traversable) -> dict[str, Traversable]:
    """Return the pages in the directory *place* by name, in order."""
    found = {page.name.removesuffix(".md"): page for page in place.iterdir() if page.name.endswith(".md")}
    return {name: found[name] for name in sorted(found)}


def title_of(page: Traversable) -> str:
    """Return the first heading of *page*."""
    found = TITLE.search(page.read_text(encoding="utf-8"))
    return found[1] if found else ""


def from_heading(text: str, heading: str) -> str | None:
    """Return *text* from *heading* on, which is written as in a link; None if it is not there."""
    if not heading:
        return text
    for found in re.finditer(r"^#+ (.+)$", text, re.MULTILINE):
        if re.sub(r"[^\w\- ]", "", found[1].lower()).replace(" ", "-") == heading.lower():
            return text[found.start() :]
    return None
