"""Copies of values in the process, kept current by the servers' invalidations."""
