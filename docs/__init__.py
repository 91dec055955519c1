"""The documentation, and `docs.settings`, which writes the part of it that is generated."""
