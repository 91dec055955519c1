"""Scene 1: the same site, one line of its settings changed."""

from __future__ import annotations

from dataclasses import dataclass

import plots
from findings import NEW, OLD, Claim, Outcome, claimed
from plots import Series
from screen import spark
from sites import AFTER, BEFORE
from stage import NEW_NAME, OLD_NAME, PLAIN, Pairs, Stage

NAME = "switch"
QUESTION = "What changes when one line of the settings changes?"
SHARE = 0.20
SITES = PLAIN

UNITS = {"rate": "pages per second", "cost": "worker CPU per page, ms"}
BUSY = 0.5
"""The share of the CPU for other programs from which pages per second say little."""

RINGED = "Ringed: the pair of rounds with the median ratio, from which the headline comes."

SETUP = f"""\
CACHES = {{"default": {{
-   "BACKEND": "{BEFORE}",
+   "BACKEND": "{AFTER}",
    "LOCATION": …, "KEY_PREFIX": "atlas", "TIMEOUT": 3600,
}}}}"""

ROWS = {
    "pages per second": ("rate", "{:,.0f}"),
    "worker CPU per page, ms": ("cost", "{:.2f}"),
    "page, median, ms": ("middle", "{:.1f}"),
    "page, 99th percentile, ms": ("late", "{:.1f}"),
    "server commands per page": ("asked", "{:.1f}"),
}


def play(stage: Stage, seconds: float) -> Outcome:
    """Let both sites take turns on the same warm keys."""
    before, after = stage.atlas()
    pairs = stage.take_turns(before, after, stage.old_pages, seconds)
    verdict = judged(pairs, f"{NEW_NAME} serves", f"of {OLD_NAME}", f"A page of {NEW_NAME} costs")
    return Outcome(
        NAME,
        QUESTION,
        number=verdict.number,
        meaning=verdict.meaning,
        claims=verdict.claims,
        table=table(pairs, (OLD_NAME, NEW_NAME), ROWS),
        plot=plot(pairs, verdict.figure, ((OLD_NAME, OLD), (NEW_NAME, NEW))),
        caption=RINGED,
        chart=chart(pairs, verdict.figure, (OLD_NAME, NEW_NAME)),
        setup=SETUP,
        notes=[
            measured(pairs),
            f"{NEW_NAME} reads what {OLD_NAME} had stored. Every page is compared with the facts.",
        ],
        faults=stage.faults(),
    )


@dataclass
class Verdict:
    """What pairs of rounds say: the figure to look at, the number to remember, and the claims."""

    figure: str
    number: str
    meaning: str
    claims: list[Claim]


def judged(pairs: Pairs, serves: str, whose: str, costs: str, reason: str = "") -> Verdict:
    """Return what pairs of rounds say.

    While other programs use most of the CPU, the clock says how busy the machine is; the time of the CPU still says
    what a page costs.
    """
    rate, cost = pairs.median("rate")[2], pairs.median("cost")[2]
    pages = f"{serves} {rate:.2f} times the pages per second {whose}".strip()
    less = f"{100 * (1 - cost):.0f} %" if cost < 1 else f"{cost:.2f}×"
    claims = [
        agreed(
            pairs,
            "cost",
            claimed(f"{costs} {less} less CPU.", f"{costs} {cost:.2f} times the CPU in this run.", cost < 1),
        )
    ]
    if pairs.others > BUSY:
        busy = f"Other programs used {100 * pairs.others:.0f} % of the CPU, so the clock says little: {rate:.2f} times the pages per second."
        meaning = f"{'less' if cost < 1 else 'the'} CPU for a page"
        return Verdict("cost", less, meaning + most(pairs, "cost"), [*claims, Claim(busy, None)])
    instead = f"{pages}: not faster in this run{reason}. Other programs used {100 * pairs.others:.0f} % of the CPU."
    claims.insert(0, agreed(pairs, "rate", claimed(f"{pages}.", instead, rate > 1)))
    return Verdict("rate", f"{rate:.2f}×", f"the pages per second {whose}".strip() + most(pairs, "rate"), claims)


def agreed(pairs: Pairs, figure: str, claim: Claim) -> Claim:
    """Return *claim*, or, if some rounds say the contrary, what most of them say, without a judgement."""
    if rounds := most(pairs, figure):
        return Claim(
            f"{claim.text.removesuffix('.')}{rounds}; the other rounds say the contrary, so this is not judged.", None
        )
    return claim


def most(pairs: Pairs, figure: str) -> str:
    """Return in how many rounds the figure speaks for the same site as the median; nothing if in all."""
    count = pairs.agreeing(figure)
    return "" if count == len(pairs) else f" in {count} of {len(pairs)} rounds"


def measured(pairs: Pairs) -> str:
    """Return how the figures of pairs were made."""
    return (
        f"The sites take turns, {len(pairs)} times each, with the same visits. "
        "Each row, and the number, is of the pair of rounds whose ratio is the median of all pairs. "
        f"Other programs used {100 * pairs.others:.0f} % of the CPU meanwhile."
    )


def table(pairs: Pairs, names: tuple[str, str], rows: dict[str, tuple[str, str]]) -> list[list[str]]:
    """Return the figures of two sites, and their ratio."""
    found = [["", *names, "ratio"]]
    for title, (figure, form) in rows.items():
        one, other, ratio = pairs.median(figure)
        found.append([title, form.format(one), form.format(other), f"{ratio:.2f}"])
    return found


def plot(pairs: Pairs, figure: str, names: tuple[tuple[str, str], tuple[str, str]]) -> str:
    """Return a figure of each round, as SVG."""
    series = [
        Series(name, kind, [(place + 0.5, pair[side]) for place, pair in enumerate(pairs.of(figure))])
        for side, (name, kind) in enumerate(names)
    ]
    return plots.paired(f"{UNITS[figure].capitalize()}, in each round", series, pairs.chosen(figure), UNITS[figure])


def chart(pairs: Pairs, figure: str, names: tuple[str, str]) -> list[str]:
    """Return a figure of each round, in blocks."""
    found = pairs.of(figure)
    most, wide = max(map(max, found)), max(map(len, names))
    return [
        f"{UNITS[figure] if not side else '':28}{name:{wide}}  {spark([pair[side] for pair in found], most)}"
        for side, name in enumerate(names)
    ]
