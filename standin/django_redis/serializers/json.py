from fleetcache.codec.serializers import JSONSerializer

__all__ = ["JSONSerializer"]
