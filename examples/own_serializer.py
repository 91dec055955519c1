"""A serializer and a compressor of your own: JSON that brings dates and decimals back, and bzip2."""

import bz2
import json
import pickle
from datetime import datetime
from decimal import Decimal

from fleetcache.codec.compressors import BaseCompressor
from fleetcache.codec.serializers import BaseSerializer

READS_OLD = True
"""Whether pickles from before the change can be read.  Set it to False when the last one has expired."""


class TypedJSONSerializer(BaseSerializer):
    """Plain data, dates and decimals, as JSON; unknown types are refused."""

    distinct = True  # JSON begins neither like a compressed value nor like metadata, whose first byte is C1

    def dumps(self, value) -> bytes:
        return json.dumps(value, default=self.tagged).encode()

    def loads(self, payload: bytes):
        if READS_OLD and payload.startswith(b"\x80"):  # every pickle begins so, and no JSON
            return pickle.loads(payload)
        return json.loads(payload, object_hook=self.untagged)

    def tagged(self, value):
        if isinstance(value, datetime):
            return {"$datetime": value.isoformat()}
        if isinstance(value, Decimal):
            return {"$decimal": str(value)}
        raise TypeError(f"a {type(value).__name__} cannot be written")  # the caller gets UnstorableValue

    def untagged(self, found: dict):
        match found:
            case {"$datetime": text}:
                return datetime.fromisoformat(text)
            case {"$decimal": text}:
                return Decimal(text)
        return found


class Bz2Compressor(BaseCompressor):
    """Compresses values of more than a kilobyte; the first bytes tell its output from other payloads."""

    magic = (b"BZh",)

    def compress(self, value: bytes) -> bytes:
        return bz2.compress(value) if len(value) > 1024 else value

    def decompress(self, value: bytes) -> bytes:
        return bz2.decompress(value)
