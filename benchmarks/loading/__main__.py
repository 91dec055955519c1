"""``python -m benchmarks.loading`` measures and prints, the targets first; unless ``--quick``, it also draws."""

import sys

from benchmarks import loading
from benchmarks.contest import FULL, arguments
from benchmarks.loading.plot import plot
from benchmarks.report import loading_targets, verdicts


def main() -> None:
    pace = arguments(loading.__doc__).pace
    found = loading.measure(pace)
    for table in (verdicts(loading_targets(found)), *loading.tables(found)):
        sys.stdout.write(f"{table}\n\n")
    if pace == FULL:
        plot(found.hot)


if __name__ == "__main__":  # the processes that it starts import this file
    main()
