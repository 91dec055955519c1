"""What an entry says of itself: when its fresh life ends, what it cost to make, which tags it has.

Metadata stands before the serializer's bytes, in one of two forms.  Before a pickle it is part of the pickle::

    C <1 byte: length>  <metadata> 0 <pickle>      up to 255 bytes
    B <4 bytes: length> <metadata> 0 <pickle>      more

``C`` and ``B`` push a bytes object and ``0`` drops it again, so pickle, Django's own backend and django-redis read the
value alone.  No pickle of another origin begins with these letters: protocols 2 and higher begin with 80, and the
protocols below have no bytes objects.  Before the bytes of any other serializer it is an envelope that only
fleetcache reads::

    c1 F <4 bytes: length> <metadata> <the serializer's bytes>

Numbers are little-endian, as in a pickle.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from typing import Any

from fleetcache.errors import UnreadableValue

MAX_TAGS = 16
"""The most tags of one entry."""

STAMP = VERSION = 8
"""The length of a stamp, and of a tag's version, in bytes."""

FORM = 1
"""The first byte of the metadata: how the rest is laid out."""

SHORT, LONG, DROP = b"C", b"B", b"0"
ENVELOPE = b"\xc1F"

_fixed = struct.Struct("<B8sQQQIHB")
_length = struct.Struct("<I")
_number = struct.Struct("<H")

GLIMPSE = 2 + 255 + 1 + 1
"""How many bytes of a payload show short metadata whole: its head, and one byte more."""

MOST = 64 * 1024
"""The longest metadata that is read, in bytes; 16 tags with names of 4,000 bytes."""


class UnreadableMetadata(UnreadableValue):
    """The metadata of a payload cannot be read; the codec's error says of which payload."""


def new_stamp() -> bytes:
    """Return random bytes, by which an entry is told from a later one of the same name."""
    return os.urandom(STAMP)


# Neither class is frozen, although nobody changes one: to make a frozen object takes twice as long.
@dataclass(slots=True, unsafe_hash=True)
class Metadata:
    """What an entry says of itself."""

    fresh_until: int = 0
    """When its fresh life ends, in milliseconds since 1970 on the server's clock; 0: when the entry expires."""
    stale: int = 0
    """How many milliseconds the entry is kept after its fresh life."""
    cost: int = 0
    """How many milliseconds its load took."""
    tags: tuple[tuple[str, bytes], ...] = ()
    """Its tags, each with the version that it had before the value was made."""
    stamp: bytes = field(default_factory=new_stamp)
    """Random bytes that no other entry has."""
    early: float = 0.0
    """XFetch's β, to a hundredth: how much earlier than necessary the value is renewed; 0 renews nothing early."""
    scope: str = ""
    """The version of the cache under which its tags are named; "" is the reader's own."""
    made: int = 0
    """When its load began, in milliseconds since 1970 on the server's clock; 0 if that is not known."""

    def pack(self) -> bytes:
        """Return the metadata as bytes."""
        cost, early = min(self.cost, 2**32 - 1), min(round(self.early * 100), 2**16 - 1)
        tags = self.tags
        parts = [_fixed.pack(FORM, self.stamp, self.fresh_until, self.stale, self.made, cost, early, len(tags))]
        if tags:
            scope = self.scope.encode()
            parts += (_number.pack(len(scope)), scope)
        for tag, version in tags:
            name = tag.encode()
            parts += (_number.pack(len(name)), name, version)
        return b"".join(parts)

    @classmethod
    def unpack(cls, packed: bytes) -> Metadata:
        """Return the metadata in *packed*, or raise UnreadableValue."""
        try:
            form, stamp, fresh_until, stale, made, cost, early, count = _fixed.unpack_from(packed)
            if form != FORM or count > MAX_TAGS:
                raise UnreadableMetadata("an entry's metadata has a form of a newer release")
            at, tags, scope = _fixed.size, [], ""
            if count:
                (length,) = _number.unpack_from(packed, at)
                at += _number.size + length
                scope = packed[at - length : at].decode()
            for _ in range(count):
                (length,) = _number.unpack_from(packed, at)
                start, end = at + _number.size, at + _number.size + length
                at = end + VERSION
                tags.append((packed[start:end].decode(), packed[end:at]))
        except (struct.error, UnicodeDecodeError) as error:
            raise UnreadableMetadata("an entry's metadata is cut off") from error
        if at != len(packed):
            raise UnreadableMetadata("an entry's metadata does not end where it says")
        return cls(fresh_until, stale, cost, tuple(tags), stamp, early / 100, scope, made)


@dataclass(slots=True)
class Described:
    """A value with its metadata, as a codec returns it; operations return the value alone."""

    value: Any
    metadata: Metadata


def alone(value: Any) -> Any:
    """Return *value* without its metadata."""
    return value.value if type(value) is Described else value


def head(metadata: Metadata, *, pickled: bool) -> bytes:
    """Return the bytes that stand before the serializer's, which are a pickle if *pickled*."""
    packed = metadata.pack()
    if not pickled:
        return ENVELOPE + _length.pack(len(packed)) + packed
    if len(packed) < 256:
        return SHORT + bytes((len(packed),)) + packed + DROP
    return LONG + _length.pack(len(packed)) + packed + DROP


def opened(payload: bytes) -> tuple[Metadata, int] | None:
    """Return the metadata at the beginning of *payload* and where the serializer's bytes begin; None if it has none.

    Raise UnreadableValue if the payload begins like one with metadata and is none.
    """
    first = payload[:1]
    if first == SHORT:
        start, length = 2, payload[1] if len(payload) > 1 else MOST
    elif first == LONG or payload.startswith(ENVELOPE):
        start = 1 + _length.size if first == LONG else len(ENVELOPE) + _length.size
        length = int.from_bytes(payload[start - _length.size : start], "little") if len(payload) > start else MOST
    else:
        return None
    end = start + length
    ends = end + (payload[:1] != ENVELOPE[:1])
    if length >= MOST or ends >= len(payload) or (ends != end and payload[end : end + 1] != DROP):
        raise UnreadableMetadata("an entry's metadata is cut off")
    return Metadata.unpack(payload[start:end]), ends


def stamped(payload: bytes) -> bytes:
    """Return the beginning of *payload*, which has metadata, up to its stamp."""
    start = {SHORT: 2, LONG: 1 + _length.size}.get(payload[:1], len(ENVELOPE) + _length.size)
    return payload[: start + 1 + STAMP]
