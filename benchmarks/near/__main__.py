"""``python -m benchmarks.near`` measures and prints."""

from benchmarks import near
from benchmarks.contest import show

show(lambda server, pace: near.tables(near.measure(server, pace)), near.__doc__)
