from fleetcache.codec.serializers import MSGPackSerializer

__all__ = ["MSGPackSerializer"]
