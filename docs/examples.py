"""Copies each file of examples/ into the recipe that shows it, so that both are the same: ``python -m docs.examples``."""

from __future__ import annotations

import re
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
EXAMPLES = HOME / "examples"
RECIPES = HOME / "docs/recipes"

FILE = re.compile(r"^```(\w+)\n(# ([\w.]+)\n)(.*?)^```$", re.MULTILINE | re.DOTALL)
"""A block of code that begins with the name of its file."""


def files(page: str) -> dict[str, str]:
    """Return the files that *page* shows, by name."""
    return {found[3]: found[4] for found in FILE.finditer(page)}


def refreshed(page: str) -> str:
    """Return *page* with the files of examples/ as they are now."""

    def block(found: re.Match[str]) -> str:
        return f"```{found[1]}\n{found[2]}{(EXAMPLES / found[3]).read_text()}```"

    return FILE.sub(block, page)


if __name__ == "__main__":
    for path in RECIPES.glob("*.md"):
        path.write_text(refreshed(path.read_text()))
