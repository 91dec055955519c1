"""Rounds in which two sites get the same pages in the same seconds, and what they prove.

A machine is now quicker, now slower, and both sites feel it alike, so only figures of the same moment are compared: the CPU
for a page in each round, and the times of a page that a visitor opened on both sites, one right after the other.  Of two
equal sites, either is the better one as a coin falls.  So a difference counts if a site is better so often that one of two
equal sites would be in fewer than 1 of 200 runs (a sign test).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Self

from load import Report

CHANCE = 0.005
"""The probability with which one of two equal sites may be better as often as a claim needs."""
MARGIN = 0.05
"""The part by which a figure has to be less to be better: the processes of two equal sites differ by 1 or 2 %, run for run."""


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


def needed(count: int) -> int:
    """Return how many of some comparisons a site has to win; more than there are if they are too few."""
    wins, chance = count + 1, 0.0
    while (chance := chance + math.comb(count, wins - 1) / 2**count) <= CHANCE:
        wins -= 1
    return wins


@dataclass
class Score:
    """How often the other site was better than the one, and how often worse."""

    won: int
    lost: int
    count: int
    """Of comparisons; some may be ties."""

    @classmethod
    def of(cls, found: Sequence[tuple[float, float]]) -> Self:
        """Compare figures of both sites; less is better."""
        won = sum(other < one * (1 - MARGIN) for one, other in found)
        lost = sum(one < other * (1 - MARGIN) for one, other in found)
        return cls(won, lost, len(found))

    @property
    def better(self) -> bool | None:
        """Whether the other site is better; None if too few comparisons agree."""
        enough = needed(self.count)
        return True if self.won >= enough else False if self.lost >= enough else None


class Pairs:
    """Rounds of two sites side by side; their number is odd."""

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

    @property
    def cost(self) -> Score:
        """In how many rounds a page took less CPU."""
        return Score.of(self.of("cost"))

    @property
    def time(self) -> Score:
        """How many pages came sooner, of those that a visitor opened on both sites."""
        return Score.of(
            [
                times
                for one, other in self.rounds
                for times in zip(one.report.latencies, other.report.latencies, strict=False)
            ]
        )
