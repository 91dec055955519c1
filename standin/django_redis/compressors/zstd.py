from fleetcache.codec.compressors import ZStdCompressor

__all__ = ["ZStdCompressor"]
