from fleetcache.errors import CompressorError, ConnectionInterrupted

__all__ = ["CompressorError", "ConnectionInterrupted"]
