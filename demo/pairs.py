"""Rounds in which two sites get the same pages in the same seconds, and what they prove.

A machine is now quicker, now slower, and both sites feel it alike, so each round compares the two with each other only.
Of two equal sites either wins a round as a coin falls (sign test): a difference counts if one site wins so many rounds
that one of two equal sites would win as many in fewer than one of 200 runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from load import Report

CHANCE = 0.005
"""The probability with which one of two equal sites may win as many rounds as a claim needs."""


@dataclass
class Round:
    """One stretch of load and what it cost."""

    report: Report
    cpu: float
    """Seconds of CPU that the workers used."""
    commands: int
    """Of the server; 0 if another site used it too."""
    others: float
    """The share of the machine's CPU that other programs used than the sites, the server and the visitors."""

    @property
    def pages(self) -> int:
        """How many pages were answered."""
        return len(self.report.latencies)

    @property
    def cost(self) -> float:
        """The workers' CPU milliseconds for each page."""
        return 1000 * self.cpu / (self.pages or 1)

    @property
    def middle(self) -> float:
        """The milliseconds of half of the pages."""
        return self.report.percentile(0.5)

    @property
    def asked(self) -> float:
        """The server's commands for each page."""
        return self.commands / (self.pages or 1)


Figures = tuple[float, float, float]
"""A figure of one site, of the other site, and their ratio."""


def compared(one: float, other: float) -> Figures:
    """Return two figures and their ratio."""
    return one, other, other / one if one else 1.0


def needed(rounds: int) -> int:
    """Return how many of some rounds a site has to win; more than there are if they are too few."""
    wins, chance = rounds + 1, 0.0
    while (chance := chance + math.comb(rounds, wins - 1) / 2**rounds) <= CHANCE:
        wins -= 1
    return wins


class Pairs:
    """Rounds of two sites side by side; their number is odd.  Less is better in all their figures."""

    def __init__(self, rounds: Sequence[tuple[Round, Round]], alone: tuple[Round, Round]) -> None:
        self.rounds = rounds
        self.alone = alone
        """What each site did without the other: the commands of the server are known of these visits only."""

    def __len__(self) -> int:
        return len(self.rounds)

    @property
    def others(self) -> float:
        """The share of the machine's CPU that other programs used than the sites, the server and the visitors."""
        return median(turn.others for pair in self.rounds for turn in pair)

    def of(self, figure: str) -> list[tuple[float, float]]:
        """Return a figure of both sites in every round: a property of `Round`."""
        return [(float(getattr(one, figure)), float(getattr(other, figure))) for one, other in self.rounds]

    def median(self, figure: str) -> Figures:
        """Return a figure of both sites, and its ratio, in the round that has the median ratio."""
        return compared(*self.of(figure)[self.chosen(figure)])

    def chosen(self, figure: str) -> int:
        """Return the place of that round."""
        ratios = [compared(one, other)[2] for one, other in self.of(figure)]
        return sorted(range(len(ratios)), key=ratios.__getitem__)[len(ratios) // 2]

    def percentile(self, share: float) -> Figures:
        """Return the milliseconds that *share* of the pages of all rounds did not exceed."""
        reports = Report(), Report()
        for pair in self.rounds:
            for report, turn in zip(reports, pair, strict=True):
                report.add(turn.report)
        return compared(*(report.percentile(share) for report in reports))

    @property
    def asked(self) -> Figures:
        """The server's commands for each page."""
        one, other = self.alone
        return compared(one.asked, other.asked)

    def wins(self, figure: str) -> tuple[int, int]:
        """Return in how many rounds the one site had less, and in how many the other."""
        found = self.of(figure)
        return sum(one < other for one, other in found), sum(other < one for one, other in found)

    def better(self, figure: str) -> bool | None:
        """Return whether the other site has less than the one; None if too few rounds agree."""
        lost, won = self.wins(figure)
        enough = needed(len(self))
        return True if won >= enough else False if lost >= enough else None
