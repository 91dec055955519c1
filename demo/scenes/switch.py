"""Scene 1: the same site, one line of its settings changed."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan

import plots
from findings import NEW, OLD, Claim, Outcome
from pairs import CHANCE, MARGIN, Pairs, Score, needed
from plots import Series
from screen import spark
from sites import AFTER, BEFORE
from stage import NEW_NAME, OLD_NAME, PLAIN, Stage

NAME = "switch"
QUESTION = "What changes when one line of the settings changes?"
SHARE = 0.20
SITES = PLAIN

UNITS = {"cost": "worker CPU per page, ms", "middle": "median page, ms"}
RINGED = "Ringed: the round with the median ratio, from which the headline comes."

SETUP = f"""\
CACHES = {{"default": {{
-   "BACKEND": "{BEFORE}",
+   "BACKEND": "{AFTER}",
    "LOCATION": …, "KEY_PREFIX": "atlas", "TIMEOUT": 3600,
}}}}"""


def play(stage: Stage, seconds: float) -> Outcome:
    """Compare both sites on the same warm keys."""
    before, after = stage.atlas()
    pairs = stage.compare(before, after, stage.old_pages, seconds)
    verdict = judged(pairs, f"A page of {NEW_NAME}", f"The median page of {NEW_NAME}")
    return Outcome(
        NAME,
        QUESTION,
        number=verdict.number,
        meaning=f"{verdict.meaning}, compared with {OLD_NAME}",
        claims=verdict.claims,
        table=table(pairs, (OLD_NAME, NEW_NAME)),
        plot=plot(pairs, verdict.figure, ((OLD_NAME, OLD), (NEW_NAME, NEW))),
        caption=verdict.caption,
        chart=chart(pairs, verdict.figure, (OLD_NAME, NEW_NAME)),
        setup=SETUP,
        notes=[
            *measured(pairs),
            f"{NEW_NAME} reads what {OLD_NAME} had stored. Every page is compared with the facts.",
        ],
        faults=stage.faults(),
    )


@dataclass
class Verdict:
    """What rounds say: the figure to look at, the number to remember, and the claims."""

    figure: str
    number: str
    meaning: str
    claims: list[Claim]

    @property
    def caption(self) -> str:
        """What stands below the plot."""
        return RINGED if self.figure == "cost" else ""


def judged(pairs: Pairs, page: str, median_page: str) -> Verdict:
    """Return what rounds say of the CPU and of the time that a page takes."""
    cost, time = pairs.median("cost")[2], pairs.percentile(0.5)[2]
    of_time = claim(f"{median_page} takes", time, "time", pairs.time, "visits")
    if isnan(cost):  # not Linux
        return Verdict("middle", *headline(time, "time for the median page", pairs.time, "visits"), [of_time])
    of_cost = claim(f"{page} costs", cost, "CPU", pairs.cost, "rounds")
    return Verdict("cost", *headline(cost, "CPU for a page", pairs.cost, "rounds"), [of_cost, of_time])


def change(ratio: float) -> tuple[str, str]:
    """Return a ratio as a number, and what follows: a part that is less, or how many times *the* whole."""
    return (f"{100 * (1 - ratio):.0f} %", "less") if ratio < 1 else (f"{ratio:.2f}×", "the")


def agreed(ratio: float, score: Score) -> bool | None:
    """Return whether there is less, if the ratio and enough comparisons agree; else None."""
    return score.better if score.better is (ratio < 1) else None


def headline(ratio: float, what: str, score: Score, comparisons: str) -> tuple[str, str]:
    """Return the number, and what it is."""
    number, comparison = change(ratio)
    doubt = f" in {most(ratio, score, comparisons)}" if agreed(ratio, score) is None else ""
    return number, f"{comparison} {what}{doubt}"


def claim(beginning: str, ratio: float, what: str, score: Score, comparisons: str) -> Claim:
    """Return a sentence with the ratio, and whether enough comparisons agree with it."""
    holds = agreed(ratio, score)
    doubt = f"; {needed(score.count)} are needed, so this is not judged" if holds is None else ""
    text = f"{beginning} {' '.join(change(ratio))} {what} ({most(ratio, score, comparisons)}{doubt})."
    return Claim(text, holds)


def most(ratio: float, score: Score, comparisons: str) -> str:
    """Return how many comparisons agree with the ratio."""
    return f"{score.won if ratio < 1 else score.lost:,} of {score.count:,} {comparisons}"


def measured(pairs: Pairs) -> list[str]:
    """Return how the figures of rounds were made."""
    return [
        f"Visitors open each page on both sites, one right after the other, in {len(pairs)} rounds; a round before them warms up "
        "and does not count. The CPU is of the round whose ratio is the median of all rounds, the times are of all pages. "
        "The server's commands are counted while each site is visited alone.",
        f"A difference of less than {100 * MARGIN:.0f} % counts for neither site. A claim needs {needed(len(pairs))} of "
        f"{len(pairs)} rounds, or {needed(pairs.time.count):,} of {pairs.time.count:,} visits: one of two equal sites would "
        f"be better as often in fewer than 1 of {1 / CHANCE:.0f} runs. "
        f"Other programs used {100 * pairs.others:.0f} % of the CPU meanwhile.",
    ]


def table(pairs: Pairs, names: tuple[str, str]) -> list[list[str]]:
    """Return the figures of two sites, and their ratio."""
    rows = [
        ("worker CPU per page, ms", "{:.2f}", pairs.median("cost")),
        ("page, median, ms", "{:.1f}", pairs.percentile(0.5)),
        ("page, 99th percentile, ms", "{:.1f}", pairs.percentile(0.99)),
        ("server commands per page", "{:.1f}", pairs.asked),
    ]
    found = [["", *names, "ratio"]]
    for title, form, (one, other, ratio) in rows:
        found.append([title, form.format(one), form.format(other), f"{ratio:.2f}"])
    return found


def plot(pairs: Pairs, figure: str, names: tuple[tuple[str, str], tuple[str, str]]) -> str:
    """Return a figure of each round, as SVG."""
    series = [
        Series(name, kind, [(place + 0.5, pair[side]) for place, pair in enumerate(pairs.of(figure))])
        for side, (name, kind) in enumerate(names)
    ]
    return plots.paired(f"{UNITS[figure]}, in each round", series, pairs.chosen(figure), UNITS[figure])


def chart(pairs: Pairs, figure: str, names: tuple[str, str]) -> list[str]:
    """Return a figure of each round, in blocks."""
    found = pairs.of(figure)
    most, wide = max(map(max, found)), max(map(len, names))
    return [
        f"{UNITS[figure] if not side else '':28}{name:{wide}}  {spark([pair[side] for pair in found], most)}"
        for side, name in enumerate(names)
    ]
