"""Locks.

Its modules:

    lock         the lock: acquire, extend, release
    leftovers    releases locks that an interrupted caller left
"""
