"""The fleet: what all processes that use a cache have counted, together.

Each process publishes its figures in a small entry that expires; any process can read the entries of all.

Its modules:

    publishing  the thread that writes the figures of this process, and the history
    gathering   `gather` reads the entries of all processes, and adds their figures
    history     `history` returns what the fleet did in each five minutes of the last day
    means       what a load takes, by group, in all processes
    figures     sums of snapshots, and differences between two of them
    capacity    the advice on MAX_BYTES of several processes, as one
    entries     the entry of a process: written small enough, and read without trust
    checking    what is trusted of an entry
    places      the names of what is stored, and the parts of a cluster where it lies
"""

from fleetcache.fleet.gathering import Fleet, Worker, agather, gather
from fleetcache.fleet.history import Period, ahistory, history

__all__ = ["Fleet", "Period", "Worker", "agather", "ahistory", "gather", "history"]
