"""Locks, and the locks that an interrupted caller has left behind."""
