"""Commands out and replies in, blocking or awaiting.

Its modules:

    contract     the words: `Verb`, `Command`, `Reply`, and the protocol `Server`
    runtime      the two ways to wait
    wakers       waiting for another caller, in the same two ways
    repeating    what may be sent again, and to which server: every kind of retry
    blocking     one connection for one caller
    multiplexed  one connection for all tasks of an event loop
    wire         commands to bytes, bytes to replies
    connecting   new connections, by redis-py
    diagnosis    why a connection could not be made
    breaker      refuses calls while a server is away
    probing      asks a server that is away, in the background
    seats        the limit MAX_CONNECTIONS
    sentinels    asks Sentinels for the primary
"""
