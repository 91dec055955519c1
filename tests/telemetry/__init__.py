"""Tests of what watchers, and tools that show spans, see of a cache."""
