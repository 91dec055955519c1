"""Values to bytes and back: the codec (``payloads``), its ``serializers`` and its ``compressors``."""
