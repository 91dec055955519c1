"""``python -m benchmarks`` is the whole report."""

from benchmarks.report import main

main()
