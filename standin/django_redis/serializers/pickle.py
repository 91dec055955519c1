from fleetcache.codec.serializers import PickleSerializer

__all__ = ["PickleSerializer"]
