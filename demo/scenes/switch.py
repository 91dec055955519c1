"""Scene 1: the same site, one line of its settings changed."""

from __future__ import annotations

import plots
from outcome import NEW, OLD, Claim, Outcome, claimed
from plots import Series
from screen import spark
from sites import AFTER, BEFORE
from stage import NEW_NAME, OLD_NAME, PLAIN, Pairs, Stage

NAME = "switch"
QUESTION = "What changes when one line of the settings changes?"
SHARE = 0.20
SITES = PLAIN

BUSY = 0.5
"""The share of the CPU for other programs from which pages per second say little."""

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
    number, meaning, claims = judged(pairs, f"{NEW_NAME} serves", f"of {OLD_NAME}", f"A page of {NEW_NAME} costs")
    return Outcome(
        NAME,
        QUESTION,
        number=number,
        meaning=meaning,
        claims=claims,
        table=table(pairs, (OLD_NAME, NEW_NAME), ROWS),
        plot=plots.paired(
            "Pages per second in each round", series(pairs, ((OLD_NAME, OLD), (NEW_NAME, NEW))), "pages per second"
        ),
        chart=chart(pairs, (OLD_NAME, NEW_NAME)),
        setup=SETUP,
        notes=[
            measured(pairs),
            f"{NEW_NAME} reads what {OLD_NAME} had stored. Every page is compared with the facts.",
        ],
        faults=stage.faults(),
    )


def judged(pairs: Pairs, serves: str, whose: str, costs: str, reason: str = "") -> tuple[str, str, list[Claim]]:
    """Return the number to remember, what it is, and the claims.

    While other programs use most of the CPU, the clock says how busy the machine is; the time of the CPU still says
    what a page costs.
    """
    rate, cost = pairs.median("rate")[2], pairs.median("cost")[2]
    pages = f"{serves} {rate:.2f} times the pages per second {whose}".strip()
    cpu = (
        f"{costs} {100 * (1 - cost):.0f} % less CPU." if cost < 1 else f"{costs} {cost:.2f} times the CPU in this run."
    )
    claims = [Claim(cpu, cost < 1)]
    if pairs.others > BUSY:
        busy = f"{pages}, while other programs used {100 * pairs.others:.0f} % of the CPU: the clock says little."
        return f"{100 * (1 - cost):.0f} %", "less CPU for a page", [*claims, Claim(busy, None)]
    instead = f"{pages}: not faster in this run{reason}. Other programs used {100 * pairs.others:.0f} % of the CPU."
    return f"{rate:.2f}×", f"the pages per second {whose}".strip(), [claimed(f"{pages}.", instead, rate > 1), *claims]


def measured(pairs: Pairs) -> str:
    """Return how the figures of pairs were made."""
    return (
        f"The sites take turns, {len(pairs)} times each, with the same visits. "
        "Each row shows the pair of rounds whose ratio is the median of all pairs. "
        f"Other programs used {100 * pairs.others:.0f} % of the CPU meanwhile."
    )


def table(pairs: Pairs, names: tuple[str, str], rows: dict[str, tuple[str, str]]) -> list[list[str]]:
    """Return the figures of two sites, and their ratio."""
    found = [["", *names, "ratio"]]
    for title, (figure, form) in rows.items():
        one, other, ratio = pairs.median(figure)
        found.append([title, form.format(one), form.format(other), f"{ratio:.2f}"])
    return found


def series(pairs: Pairs, names: tuple[tuple[str, str], tuple[str, str]]) -> list[Series]:
    """Return the pages per second of each round."""
    return [
        Series(name, kind, [(place + 0.5, pair[side]) for place, pair in enumerate(pairs.of("rate"))])
        for side, (name, kind) in enumerate(names)
    ]


def chart(pairs: Pairs, names: tuple[str, str]) -> list[str]:
    """Return the pages per second of each round, in blocks."""
    rates = pairs.of("rate")
    most = max(map(max, rates))
    wide = max(map(len, names))
    return [
        f"{'pages per second, by round' if not side else '':28}{name:{wide}}  {spark([pair[side] for pair in rates], most)}"
        for side, name in enumerate(names)
    ]
