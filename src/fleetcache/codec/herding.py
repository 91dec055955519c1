"""The soft expiry of django-redis' HerdClient, byte for byte, without django-redis.

HerdClient pickles ``(Marker(), value, soft_expiry)``, and a pickle names the module of each
class.  The name of this module is as long as the name of theirs, so one can replace the other
in the pickle: no length prefix, frame or memo number changes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NoReturn

from fleetcache.codec.serializers import PickleSerializer, Serializer
from fleetcache.settings import Options

OURS = __name__.encode()
THEIRS = b"django_redis.client.herd"

# A pickle whose first object is their marker, in protocol 2 to 5 or in 0 and 1.  The same words
# inside a value do not match: there they are a string, not the name of a class.
MARKED = re.compile(
    rb"(?s)(?:\x80.(?:\x95.{8})?|\(ccopy_reg\n_reconstructor\n.{2,3}\()"
    rb"(?:\x8c\x18%(theirs)s\x94\x8c\x06Marker\x94\x93|c%(theirs)s\nMarker\n)" % {b"theirs": re.escape(THEIRS)}
)


class Marker:
    """The first item of the tuple, as django-redis' class of that name is."""


class Herded:
    """A value that callers should begin to renew at *soft_expiry*, in seconds since 1970."""

    __slots__ = ("soft_expiry", "value")

    def __init__(self, value: Any, soft_expiry: float) -> None:
        self.value = value
        self.soft_expiry = soft_expiry

    def __reduce__(self) -> NoReturn:
        raise TypeError("a value with a soft expiry can only be stored by HerdSerializer")


class HerdSerializer:
    """A serializer that reads and writes django-redis' marked tuples as ``Herded``.

    All other values pass to *plain*, a serializer, or the options of a `PickleSerializer`.  Marked tuples
    exist only in pickles.
    """

    def __init__(self, plain: Serializer | Options | Mapping[str, Any]) -> None:
        self.plain: Serializer = PickleSerializer(plain) if isinstance(plain, (Options, Mapping)) else plain
        self.distinct = bool(getattr(self.plain, "distinct", False))
        self.pickles = bool(getattr(self.plain, "pickles", False))

    def dumps(self, value: Any, /) -> bytes:
        if type(value) is not Herded:
            return self.plain.dumps(value)
        return self.plain.dumps((Marker(), value.value, value.soft_expiry)).replace(OURS, THEIRS, 1)

    def loads(self, payload: bytes, /) -> Any:
        if not MARKED.match(payload):
            return self.plain.loads(payload)
        _, value, soft_expiry = self.plain.loads(payload.replace(THEIRS, OURS, 1))
        return Herded(value, soft_expiry)
