from fleetcache.codec.compressors import LzmaCompressor

__all__ = ["LzmaCompressor"]
