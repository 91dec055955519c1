from fleetcache.codec.compressors import Lz4Compressor

__all__ = ["Lz4Compressor"]
