"""Values to bytes and back.

Its modules:

    payloads     the codec: the first byte of a payload selects its decoder
    metadata     what an entry says of itself: its fresh life, its tags
    serializers  pickle, JSON, MessagePack; a new one goes here
    compressors  zlib, Zstandard, LZ4, gzip, xz; a new one goes here
    herding      values with a soft expiry, in django-redis' format
    extras       optional libraries
"""
