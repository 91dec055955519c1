"""What is counted: plain integers, shared by all cache objects of one configuration."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Stats:
    """Counters since the process began."""

    unreadable: int = 0
    """Payloads that could not be turned into a value, and were taken as missing."""
