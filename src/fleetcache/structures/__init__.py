"""Hashes, sets, sorted sets and lists.

Fields of hashes are plain text.  Values and members are encoded as cache values are, integers as
digits.  Members of sorted sets are the exception: they are always serialised, as in django-redis.

Its modules:

    hashes       entries of named fields
    sets         sets of hashable values
    sorted_sets  sets ordered by a score
    lists        values in the order they were pushed
    steps        what their operations have in common
"""

from fleetcache.structures.hashes import Hashes
from fleetcache.structures.lists import Lists
from fleetcache.structures.sets import Sets
from fleetcache.structures.sorted_sets import SortedSets

__all__ = ["Hashes", "Lists", "Sets", "SortedSets"]
