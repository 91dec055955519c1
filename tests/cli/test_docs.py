"""``fleetcache docs``: errors name it, so each page must be there wherever the package is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fleetcache.cli import FINE, UNREACHABLE, main
from fleetcache.inspection.doctor import KINDS

HOME = Path(__file__).resolve().parents[2]


def test_pages_are_listed(capsys):
    """Each by its name and title."""
    assert main(["docs", "--json"]) == FINE

    listed = json.loads(capsys.readouterr().out)
    assert listed["settings"] == "Settings"
    recipes = {f"recipes/{page.stem}" for page in (HOME / "docs/recipes").glob("*.md")} - {"recipes/README"}
    assert listed.keys() == {page.stem for page in (HOME / "docs").glob("*.md")} - {"README"} | {"recipes"} | recipes


def test_a_page_and_a_part_of_it(capsys):
    """As it is, without a pager where no terminal is."""
    assert main(["docs", "settings"]) == FINE
    whole = capsys.readouterr().out
    assert main(["docs", "settings#the-near-cache"]) == FINE
    part = capsys.readouterr().out

    assert whole == (HOME / "docs/settings.md").read_text() + "\n"
    assert part.startswith("## The near cache")
    assert whole.endswith(part)


@pytest.mark.parametrize(("page", "said"), [("setings", "'settings'?"), ("settings#nowhere", "no heading 'nowhere'")])
def test_what_is_not_there(page, said, capsys):
    """The nearest name is quoted."""
    assert main(["docs", page]) == UNREACHABLE

    assert said in capsys.readouterr().err


def test_messages_name_pages_that_exist(capsys):
    """Every `fleetcache docs …` in the package, every page that a report or a screen names, and the place of every finding."""
    package = HOME / "src/fleetcache"
    texts = [path.read_text() for path in package.rglob("*") if path.suffix in {".py", ".html", ".js"}]
    named = {name for text in texts for name in re.findall(r"`fleetcache docs ([\w#/-]+)`", text)}
    pages = {name + place for text in texts for name, place in re.findall(r"docs/([\w/-]+)\.md(#[\w-]+)?", text)}
    findings = {f"doctor#{id}" for id in KINDS}

    assert named >= {"settings", "migration"}
    assert len(pages) > 20
    for name in named | pages | findings:
        assert main(["docs", name]) == FINE, name
    capsys.readouterr()
