"""Scene 5: old and new workers side by side on the same keys, and the way back."""

from __future__ import annotations

import random
from collections import Counter

import plots
from findings import NEW, OLD, Outcome, claimed, many
from load import Pages, Report
from screen import bar
from stage import NEW_NAME, OLD_NAME, PLAIN, Stage

NAME = "rollback"
QUESTION = "Can old and new share the keys, and can I go back?"
SHARE = 0.09
SITES = PLAIN

LEAST = 100
"""Pages of each part, at least, besides each page once."""

SETUP = """\
# 1  both sites, one server, the same KEY_PREFIX;
#    visitors change sides with every click
# 2  back: django-redis alone,
#    on what both have stored"""


def play(stage: Stage, seconds: float) -> Outcome:
    """Let visitors change sides with every click, then go back to the old site."""
    sites = stage.atlas()
    earlier = Counter({code: len(makings) for code, makings in stage.total.makings.items()})
    with stage.screen.step("both sites side by side", 2 + seconds / 2):
        # Each page once, the new ones too: whichever site is asked for these works them out.
        mixed = stage.visit(sites, stage.pages).report
        mixed.add(stage.visit(sites, shuffled(stage.pages), seconds=seconds / 2, least=LEAST, seed=101).report)
    with stage.screen.step(f"back to {OLD_NAME}", 1 + seconds / 2):
        back = stage.visit(sites[:1], stage.pages).report
        back.add(stage.visit(sites[:1], shuffled(stage.pages), seconds=seconds / 2, least=LEAST, seed=102).report)
    misses = sum(len(makings) - max(1, earlier[code]) for code, makings in stage.total.makings.items())
    return outcome(mixed, back, misses, stage.faults())


def shuffled(pages: Pages) -> Pages:
    """Return *pages* in another order of popularity."""
    return dict(random.Random(8).sample(list(pages.items()), len(pages)))


def crossings(report: Report, reader: str, writer: str) -> int:
    """Return how often one site's workers read a value that the other's had written."""
    return report.readings[f"{reader} {writer}"]


def outcome(mixed: Report, back: Report, misses: int, faults: list[str]) -> Outcome:
    """Return what was seen."""
    forth = crossings(mixed, NEW_NAME, OLD_NAME)
    over = crossings(mixed, OLD_NAME, NEW_NAME)
    home = crossings(back, OLD_NAME, NEW_NAME)
    whole = forth + over + home
    rows = [
        (f"side by side: {NEW_NAME} reads", NEW_NAME, mixed),
        (f"side by side: {OLD_NAME} reads", OLD_NAME, mixed),
        (f"rolled back: {OLD_NAME} reads", OLD_NAME, back),
    ]
    bars = [
        (
            title,
            [
                (f"of {OLD_NAME}", OLD, crossings(report, reader, OLD_NAME)),
                (f"of {NEW_NAME}", NEW, crossings(report, reader, NEW_NAME)),
            ],
        )
        for title, reader, report in rows
    ]
    pages = len(mixed.latencies) + len(back.latencies)
    return Outcome(
        NAME,
        QUESTION,
        number=many(misses, "miss"),
        meaning=f"in {whole:,} reads of the other side's entries",
        claims=[
            claimed(
                f"Side by side, {forth + over:,} reads found what the other side had written: {many(misses, 'miss')}, {many(len(faults), 'error')}.",
                f"Side by side, {forth + over:,} reads found what the other side had written, with {many(misses, 'miss')} and {many(len(faults), 'error')}.",
                not misses and not faults and all((forth, over, home)),
            ),
            claimed(
                f"Back on {OLD_NAME}, {home:,} reads found what {NEW_NAME} had written.",
                f"Back on {OLD_NAME}, no read found what {NEW_NAME} had written.",
                home > 0,
            ),
        ],
        table=[
            ["reads of entries", f"of {OLD_NAME}", f"of {NEW_NAME}"],
            *([title, *(f"{figure:,.0f}" for _, _, figure in parts)] for title, parts in bars),
        ],
        plot=plots.shares("Who reads whose entries", bars),
        caption="",
        chart=[
            f"{title:42}{bar(figure, max(forth, over, home), 28)} {figure:,}"
            for title, figure in (
                (f"{NEW_NAME} reads what {OLD_NAME} wrote", forth),
                (f"{OLD_NAME} reads what {NEW_NAME} wrote", over),
                ("the same, rolled back", home),
            )
        ],
        setup=SETUP,
        notes=[
            f"{pages:,} pages were compared with the facts: every visit is counted once, every page is worked out once, "
            "no session loses a step.",
            "An entry says who wrote it. Counted are the costly part of a page, and the note of the visitor before.",
        ],
        faults=faults + [f"{misses} pages were worked out again"] * bool(misses),
    )
