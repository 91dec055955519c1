"""docs/cli.md: its reference is made from the parser, and its transcripts are what commands print."""

from __future__ import annotations

import re

import docs.cli
import pytest

from fleetcache.cli import COMMANDS

pytestmark = pytest.mark.newest

PAGE = docs.cli.PAGE.read_text(encoding="utf-8")
TRANSCRIPTS = docs.cli.CONSOLE.findall(PAGE)

FIGURE = re.compile(
    r"(?<![\w…])-?\d[\d.,:-]*( ?(µs|ms|s|min|h|d|B|kB|MB|%)(/s)?(?!\w))?( \d+ (h|min|s)(?!\w))?|(?<=\s)-(?=\s|$)|(?<=\d)/s"
)


def test_the_reference_is_up_to_date():
    """It is what ``make docs`` would write."""
    assert docs.cli.page(PAGE) == PAGE


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_explained(command):
    """It has its heading, and is in the table of questions."""
    assert re.search(rf"^### fleetcache {command}\b", PAGE, re.MULTILINE)
    assert f"(#fleetcache-{command}" in PAGE


def test_every_argument_has_a_sentence():
    """No argument is listed without a meaning."""
    assert "| . |" not in PAGE
    assert len(re.findall(r"^\| `", docs.cli.reference(), re.MULTILINE)) > 40


def lines_of(text: str) -> list[str]:
    """Return the lines without their figures, which differ from run to run, in any order."""
    text = re.sub(r"\s+(Something else is busy here: measure again|This rests on few reads yet)\.", "", text)
    lines = [re.sub(r"#( [µmk]?[sB]| %)?", "#", FIGURE.sub("#", line)) for line in text.splitlines()]
    return sorted(" ".join(line.split()) for line in lines)


def test_transcripts_fit_into_the_site():
    """Nobody has to scroll sideways."""
    assert [line for _, shown in TRANSCRIPTS for line in shown.splitlines() if len(line) > docs.cli.WIDTH] == []


def test_transcripts_are_true():
    """Each command prints what the page shows, apart from times and other figures."""
    with docs.cli.shop() as where:
        for command, shown in TRANSCRIPTS:
            found = docs.cli.ran(command, where)
            if command.endswith("--by command"):
                # Of a command that was timed seldom, "-" stands for a percentile.
                both = [{line.replace(" -", " #") for line in lines_of(text)} for text in (found, shown)]
                assert {"GET # # # # # #", "SET # # # # # #"} <= both[0] & both[1]
            elif command == "fleetcache probe":
                assert len(lines_of(found)) == len(lines_of(shown))
                assert found.endswith("\nThe near cache works here.\n")
            else:
                assert lines_of(found) == lines_of(shown), command
    assert len(TRANSCRIPTS) >= 14
