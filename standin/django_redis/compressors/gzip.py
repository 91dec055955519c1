from fleetcache.codec.compressors import GzipCompressor

__all__ = ["GzipCompressor"]
