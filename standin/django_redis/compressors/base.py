from fleetcache.codec.compressors import BaseCompressor

__all__ = ["BaseCompressor"]
