"""The documentation, and `docs.settings` and `docs.cli`, which write the parts of it that are generated."""
