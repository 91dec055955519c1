from fleetcache.codec.serializers import BaseSerializer

__all__ = ["BaseSerializer"]
