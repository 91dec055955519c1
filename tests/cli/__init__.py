"""Tests of loading calls, tags, and entries that say of themselves how long they are fresh."""
