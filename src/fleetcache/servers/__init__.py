"""Servers that can be asked: remote ones, one in memory, one embedded, one of the caller's."""
