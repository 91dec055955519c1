"""Scene 1: the same site, one line of its settings changed."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan

import plots
from findings import NEW, OLD, Claim, Outcome
from pairs import CHANCE, Pairs, needed
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
        meaning=verdict.meaning,
        claims=verdict.claims,
        table=table(pairs, (OLD_NAME, NEW_NAME)),
        plot=plot(pairs, verdict.figure, ((OLD_NAME, OLD), (NEW_NAME, NEW))),
        caption=RINGED,
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


def judged(pairs: Pairs, page: str, median_page: str) -> Verdict:
    """Return what rounds say of the CPU and of the time that a page takes."""
    claims = {
        "cost": claim(pairs, "cost", f"{page} costs", "CPU"),
        "middle": claim(pairs, "middle", f"{median_page} takes", "time"),
    }
    if isnan(pairs.median("cost")[2]):  # not Linux
        del claims["cost"]
    figure = next(iter(claims))
    number, comparison = change(pairs.median(figure)[2])
    meaning = f"{comparison} {'CPU for a page' if figure == 'cost' else 'time for the median page'}"
    if claims[figure].holds is None:
        meaning += f" in {most(pairs, figure)}"
    return Verdict(figure, number, meaning, list(claims.values()))


def change(ratio: float) -> tuple[str, str]:
    """Return a ratio as a number, and what follows: a part that is less, or how many times *the* whole."""
    return (f"{100 * (1 - ratio):.0f} %", "less") if ratio < 1 else (f"{ratio:.2f}×", "the")


def claim(pairs: Pairs, figure: str, beginning: str, what: str) -> Claim:
    """Return what most rounds say of a figure, and whether they are enough."""
    holds = pairs.better(figure)
    text = f"{beginning} {' '.join(change(pairs.median(figure)[2]))} {what}, in {most(pairs, figure)}"
    if holds is None:
        return Claim(f"{text}: fewer than {needed(len(pairs))} agree, so this is not judged.", None)
    return Claim(f"{text}." if holds else f"{text}: not less in this run.", holds)


def most(pairs: Pairs, figure: str) -> str:
    """Return in how many rounds the figure speaks for the same site as the median."""
    lost, won = pairs.wins(figure)
    return f"{won if pairs.median(figure)[2] < 1 else lost} of {len(pairs)} rounds"


def measured(pairs: Pairs) -> list[str]:
    """Return how the figures of rounds were made."""
    return [
        f"Visitors open each page on both sites, one right after the other, in {len(pairs)} rounds. "
        "The number, and the rows of CPU and of the median page, are each of the round whose ratio is the median of all rounds; "
        "the 99th percentile is of all pages. The server's commands are counted while each site is visited alone.",
        f"A claim needs {needed(len(pairs))} of the {len(pairs)} rounds: one of two equal sites would win as many "
        f"in fewer than 1 of {1 / CHANCE:.0f} runs. A round before them warms up and does not count. "
        f"Other programs used {100 * pairs.others:.0f} % of the CPU meanwhile.",
    ]


def table(pairs: Pairs, names: tuple[str, str]) -> list[list[str]]:
    """Return the figures of two sites, and their ratio."""
    rows = [
        ("worker CPU per page, ms", "{:.2f}", pairs.median("cost")),
        ("page, median, ms", "{:.1f}", pairs.median("middle")),
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
