from fleetcache.codec.compressors import ZlibCompressor

__all__ = ["ZlibCompressor"]
