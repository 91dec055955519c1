from fleetcache.structures import SortedSets as SortedSetMixin

__all__ = ["SortedSetMixin"]
