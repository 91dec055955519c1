"""The soft expiry of django-redis' HerdClient, byte for byte, without django-redis.

HerdClient pickles ``(Marker(), value, soft_expiry)``, and a pickle names the module of each
class.  This module's name is as long as that of theirs, so in the pickle one can stand for the
other: no length prefix, frame or memo number changes.
"""

from __future__ import annotations

import pickle
import re
from typing import Any, NoReturn

from fleetcache.codec.serializers import PickleSerializer

OURS = __name__.encode()
THEIRS = b"django_redis.client.herd"

# A pickle whose first object is their marker, in protocol 2 to 5 or in 0 and 1.  The same words
# in a value look different: they are a string, and not the name of a class.
MARKED = re.compile(
    rb"(?s)(?:\x80.(?:\x95.{8})?|\(ccopy_reg\n_reconstructor\n.{2,3}\()"
    rb"(?:\x8c\x18%(theirs)s\x94\x8c\x06Marker\x94\x93|c%(theirs)s\nMarker\n)" % {b"theirs": re.escape(THEIRS)}
)


class Marker:
    """Stands first in the tuple, as django-redis' class of that name does."""


class Herded:
    """A value that callers should begin to renew at *soft_expiry*, in seconds since 1970."""

    __slots__ = ("soft_expiry", "value")

    def __init__(self, value: Any, soft_expiry: float) -> None:
        self.value = value
        self.soft_expiry = soft_expiry

    def __reduce__(self) -> NoReturn:
        raise TypeError("a value with a soft expiry can only be stored by HerdSerializer")


class HerdSerializer(PickleSerializer):
    """Pickle that knows django-redis' marked tuples: they come and go as ``Herded``."""

    distinct = True

    def dumps(self, value: Any, /) -> bytes:
        if type(value) is not Herded:
            return super().dumps(value)
        return super().dumps((Marker(), value.value, value.soft_expiry)).replace(OURS, THEIRS, 1)

    @staticmethod
    def loads(payload: bytes, /) -> Any:
        if not MARKED.match(payload):
            return pickle.loads(payload)
        _, value, soft_expiry = pickle.loads(payload.replace(THEIRS, OURS, 1))
        return Herded(value, soft_expiry)
