from fleetcache.codec.compressors import IdentityCompressor

__all__ = ["IdentityCompressor"]
