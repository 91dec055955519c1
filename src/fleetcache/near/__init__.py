"""The near cache: copies of values in this process, kept current by the servers' announcements.

Its modules:

    near        the near cache of one configuration: `copy`, `depart`, `arrive`
    reads       which reads leave copies: the rules, in `leaves_copy`
    door        the doorkeeper: only the second read of a name leaves a copy
    journal     recent writes and reads of each name: whether a reply is still current
    store       the copies, and their eviction
    listener    the connection to one primary for its announcements, and its thread
    tracking    the protocol on that connection, without I/O: lease, canary, epoch
    stages      how far a primary's announcements are trusted
    refusals    refusals of a server, for now or for good
    touching    `TOUCH`: reports entries in use to the server
    audience    which near caches an announced name concerns
    gate        one change at a time
    pauses      pauses between attempts to connect
    advice      which hit ratio other values of MAX_BYTES would have
    credit      how much CPU time it may take
    minisim     the simulation behind it, of stores of other sizes, on a sample of the names
    audit       compares some hits with the server, and keeps what happened before one that was wrong
    counts      counters, for ``info()``
    clock       the clock
"""
