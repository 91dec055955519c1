"""Locks.

Its modules:

    lock         the lock: acquire, extend, release
    tokens       takes a lock on the server, with a token that grows
    renewing     renews locks while they are held
    leftovers    releases locks that an interrupted caller left
    chores       the thread that does what is due
"""
