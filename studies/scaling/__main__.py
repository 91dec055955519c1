"""``python -m studies.scaling`` computes, and writes the page."""

from studies.scaling.page import main

main()
