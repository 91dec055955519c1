"""How plots look, and how they are written so that the same figures give the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def pyplot() -> Any:
    """Return matplotlib's pyplot, set up for small SVGs on white, which is readable on a dark page too."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    # Text stays text, so that a browser shows it in its own font, and a search finds it.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "fleetcache", "font.size": 9, "path.simplify": True})
    return plt


def save(figure: Any, path: Path) -> None:
    """Write *figure* in the format that the name of *path* ends with, without the date."""
    figure.savefig(path, metadata={"Date": None, "Creator": None} if path.suffix == ".svg" else None)
