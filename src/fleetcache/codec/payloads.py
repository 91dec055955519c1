"""The codec: values to payloads and back.

An integer is stored as its digits, so that `INCR` works and every client reads the same.  Any other
value is stored as the serializer's bytes, compressed if a compressor is configured.  Serializers and
compressors write the same bytes as those of django-redis.

The first byte of a payload selects its decoder, through a table; decoders are not tried one after
another.  So the compressor may be changed at any time, and old values stay readable::

    0-9  -        digits, else the serializer
    78            zlib       04  lz4      fd  xz
    1f            gzip       28  zstd     each only with the rest of its signature
    C, B          a pickle with metadata, if the serializer pickles
    c1            with F, metadata before the bytes of another serializer; else reserved for a later release
    others        the serializer

This needs a serializer whose output starts with none of these: a pickle starts with 80 or a
letter, JSON with text, and a MessagePack value that starts like a signature is one byte long.
A serializer or compressor of the user's own may write any bytes.  Then django-redis' rule
applies: decompress, and on ``CompressorError`` use the bytes as they are.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from typing import Any, NoReturn

from fleetcache.codec.compressors import (
    KNOWN,
    MAX_VALUE_BYTES,
    Compressor,
    IdentityCompressor,
    LibraryCompressor,
)
from fleetcache.codec.metadata import (
    ENVELOPE,
    LONG,
    SHORT,
    Described,
    Metadata,
    UnreadableMetadata,
    alone,
    head,
    opened,
)
from fleetcache.codec.serializers import PickleSerializer, Serializer
from fleetcache.errors import FleetcacheError, SettingsError, UnreadableValue, UnstorableValue
from fleetcache.interrupts import is_stated, let_pass
from fleetcache.kinds import check_methods, short_name
from fleetcache.masking import with_article
from fleetcache.settings import Options

__all__ = ["Codec", "Compressor", "Serializer"]

Reader = Callable[[bytes], Any]

MINUS = 0x2D
NUMERIC = b"-0123456789"

# A serializer raises these for a value that it cannot write.  Any other exception while it runs, such
# as a database error from a lazy queryset, belongs to the value and reaches the caller.
REFUSALS = (pickle.PickleError, TypeError, AttributeError, ValueError, OverflowError, RecursionError)

# Larger integers, with more digits than Python converts to text (4300), go to the serializer.
MAX_BITS = 14_000

TOKEN = re.compile(rb"[0-9a-f]{32}")
"""The token of a lock, of fleetcache, redis-py or django-redis, unless its holder has chosen another one."""


class Codec:
    """Turns values into payloads and back.

    *serializer* and *compressor* are instances, or classes that are called with *options*.
    """

    def __init__(
        self,
        serializer: Serializer | type[Serializer] = PickleSerializer,
        compressor: Compressor | type[Compressor] = IdentityCompressor,
        options: Options | Mapping[str, Any] | None = None,
    ) -> None:
        options = Options.of(options or {})
        self.serializer: Serializer = _part("SERIALIZER", serializer, options, dumps="value", loads="payload")
        self.compressor: Compressor = _part("COMPRESSOR", compressor, options, compress="value", decompress="value")
        self._dumps: Callable[[Any], bytes] = self.serializer.dumps
        if type(self.serializer) is PickleSerializer and self.serializer.protocol == pickle.DEFAULT_PROTOCOL:
            self._dumps = pickle.dumps  # saves a call for each value; `partial` would take as long as pickle itself
        self._loads = self.serializer.loads
        self._compress = None if type(self.compressor) is IdentityCompressor else self.compressor.compress
        magic: tuple[bytes, ...] | bytes | None = getattr(self.compressor, "magic", None)
        self._magic = (magic,) if isinstance(magic, bytes) else magic
        self._distinct = bool(getattr(self.serializer, "distinct", False))
        self._pickles = self._distinct and bool(getattr(self.serializer, "pickles", False))
        self._heads = frozenset((SHORT, LONG, ENVELOPE[:1]) if self._pickles else (ENVELOPE[:1],))
        self._limit = options.max_value_bytes or MAX_VALUE_BYTES
        if self._compress is not None:
            _check_output(self.compressor, self._magic)
        self._readers = self._table()
        self._plain = (self._loads, int)
        """The decoders of payloads that can have no metadata."""

    def encode(self, value: Any, *, integers: bool = True) -> bytes | int:
        """Return the payload of *value*; an integer is returned unchanged, to be sent as digits.

        Without *integers*, as for members of sorted sets, integers are serialised too.
        """
        if integers and type(value) is int and value.bit_length() < MAX_BITS:
            return value
        try:
            payload = self._dumps(value)
        except REFUSALS as error:
            raise self._unstorable(value, error) from error
        return payload if self._compress is None else self._packed(payload)

    def describe(self, value: Any, metadata: Metadata) -> bytes:
        """Return the payload of *value* with its *metadata*; an integer is serialised, so that `INCR` refuses it."""
        try:
            payload = self._headed(metadata, self._dumps(value))
        except REFUSALS as error:
            raise self._unstorable(value, error) from error
        return payload if self._compress is None else self._packed(payload)

    def redescribe(self, payload: bytes, metadata: Metadata) -> bytes:
        """Return *payload*, which has metadata, with *metadata* in its place; raise UnreadableValue if it has none."""
        unpacked = self._opened(payload)
        found = opened(unpacked)
        if found is None:
            raise UnreadableValue("an entry without metadata")
        whole = self._headed(metadata, unpacked[found[1] :])
        return whole if self._compress is None else self._packed(whole)

    def _headed(self, metadata: Metadata, body: bytes) -> bytes:
        """Return *body*, the serializer's bytes, after its metadata."""
        begins = head(metadata, pickled=self._pickles)
        if begins.startswith(self._magic or ()):
            begins = head(metadata, pickled=False)  # what the compressor leaves as it is must not look compressed
        try:
            return begins + body
        except TypeError as error:
            self._check_bytes(body, error)
            raise

    def _packed(self, payload: bytes) -> bytes:
        """Return *payload*, compressed."""
        try:
            return self.compressor.compress(payload)
        except Exception as error:
            let_pass(error)
            self._check_bytes(payload, error)
            error.add_note(f"COMPRESSOR {short_name(self.compressor)!r} was given {len(payload)} bytes")
            raise

    def _check_bytes(self, payload: Any, error: Exception) -> None:
        """Refuse *payload*, the serializer's, which led to *error*, if it is no bytes."""
        if not isinstance(payload, (bytes, bytearray, memoryview)):
            raise UnstorableValue(_no_bytes("SERIALIZER", self.serializer, "dumps", payload)) from error

    def _unstorable(self, value: Any, error: Exception) -> UnstorableValue:
        let_pass(error)
        if isinstance(error, UnstorableValue):
            return error  # explained already
        return UnstorableValue(
            f"{type(self.serializer).__name__} cannot store {with_article(type(value).__qualname__)}: "
            f"{error}. Cache plain data, or configure a SERIALIZER that knows this type."
        )

    def encode_all(
        self, values: Collection[Any], *, integers: bool = True, metadata: Collection[Metadata] | None = None
    ) -> list[bytes | int]:
        """Return the payloads of *values*, each with its *metadata* if that is given."""
        if metadata is not None:
            return [self.describe(*pair) for pair in zip(values, metadata, strict=True)]
        dumps = self._dumps
        if self._compress is None:
            try:
                return [
                    value if integers and type(value) is int and value.bit_length() < MAX_BITS else dumps(value)
                    for value in values
                ]
            except REFUSALS as error:
                let_pass(error)  # otherwise encode one by one: the error then names the type that failed
        return [self.encode(value, integers=integers) for value in values]

    def decode_all(self, payloads: Iterable[bytes]) -> list[Any]:
        """Return what `decode` returns for each of *payloads*; raise UnreadableValue if one cannot be read."""
        readers = self._readers
        try:
            return [readers[payload[0]](payload) for payload in payloads]
        except Exception as error:
            let_pass(error)
            raise UnreadableValue(f"one of several payloads: {type(error).__name__}") from error

    def decode_member(self, payload: bytes) -> Any:
        """Return the member of a sorted set in *payload*, which is always serialised: digits are no integer here."""
        if isinstance(payload, bytes) and payload.isdigit() and getattr(self.serializer, "digits", False):
            try:
                return self._loads(payload)
            except Exception as error:  # noqa: BLE001 - _refuse() raises it, or an UnreadableValue
                self._refuse(payload, error)
        return alone(self.decode(payload))

    def decode(self, payload: bytes) -> Any:
        """Return the value in *payload*, `Described` if it has metadata; or raise UnreadableValue."""
        try:
            return self._readers[payload[0]](payload)
        except Exception as error:  # noqa: BLE001 - _refuse() raises it, or an UnreadableValue
            self._refuse(payload, error)

    @property
    def compresses(self) -> bool:
        """Whether the beginning of a payload may show nothing of its metadata, because it is compressed."""
        return self._compress is not None

    def may_be_compressed(self, payload: bytes) -> bool:
        """Whether *payload* may begin with bytes of the configured compressor, which may look like metadata."""
        return self._compress is not None and (self._magic is None or payload.startswith(self._magic))

    def may_have_metadata(self, unpacked: bytes) -> bool:
        """Whether the first byte of *unpacked*, a payload that is not compressed, is one with which metadata begins."""
        return unpacked[:1] in self._heads

    def is_plain(self, payload: bytes | None) -> bool:
        """Whether the first byte of *payload* tells that it has no metadata; or there is no payload."""
        return type(payload) is not bytes or not payload or self._readers[payload[0]] in self._plain

    def metadata(self, payload: bytes) -> Metadata | None:
        """Return the metadata in *payload*, None if it has none; `GLIMPSE` bytes of a payload show it too.

        Raise UnreadableValue if the bytes cannot be read, or are too few.
        """
        if self.is_plain(payload):
            return None
        try:
            found = opened(unpacked) if (unpacked := self._opened(payload))[:1] in self._heads else None
        except Exception as error:  # noqa: BLE001 - _refuse() raises it, or an UnreadableValue
            self._refuse(payload, error)
        return None if found is None else found[0]

    def behind(self, payload: bytes, begins: int) -> Any:
        """Return the value in *payload*, which has metadata; the serializer's bytes begin at *begins*, 0 for a pickle."""
        try:
            return self._loads(payload[begins:] if begins else payload)
        except Exception as error:  # noqa: BLE001 - _refuse() raises it, or an UnreadableValue
            self._refuse(payload, error)

    def bare(self, payload: bytes) -> bytes:
        """Return a payload of the same value without metadata: that of *payload* itself if its head can be cut off.

        *payload* holds metadata and no scalar, which may look like digits behind its head.
        """
        if self._distinct and payload[:1] in self._heads and (found := opened(payload)) is not None:
            return payload[found[1] :]
        return payload

    def _refuse(self, payload: bytes, error: Exception) -> NoReturn:
        """Raise UnreadableValue for the *error* of a decoder, or *error* itself if *payload* is not the cause."""
        let_pass(error)
        if isinstance(error, UnreadableMetadata):
            raise UnreadableValue(self._complaint(payload, error)) from error
        if isinstance(error, UnreadableValue) or (
            isinstance(error, MemoryError) and not self._is_greedy(payload, error)
        ):
            raise error
        raise UnreadableValue(self._complaint(payload, error)) from error

    def _is_greedy(self, payload: bytes, error: MemoryError) -> bool:
        """Whether *payload* announces more than it holds: a decoder in C reserves that memory before it reads on."""
        if is_stated(error):
            return False
        try:
            # More than any value of this length needs.  If it can be reserved, memory is not short.
            bytearray((1 << 20) + 256 * len(self._opened(payload)))
        except MemoryError:
            return False
        return True

    def _table(self) -> tuple[Reader, ...]:
        if self._distinct and self._magic is not None:
            self._general = self._signed
            table = [self._loads] * 256
            for begins in self._heads:
                table[begins[0]] = self._described
            # A compressor of the site's own may begin like metadata; the rest of its signature then decides.
            for magic in (*self._magic, *(magic for kind in KNOWN for magic in kind.magic)):
                table[magic[0]] = self._signed
            # No pickle starts like a number, so every payload that does is one.
            free = all(table[first] == self._loads for first in NUMERIC)
            number = int if free and isinstance(self.serializer, PickleSerializer) else self._number
        else:
            self._general = self._tried
            number = self._number
            table = [self._tried] * 256
        for first in NUMERIC:
            table[first] = number
        return tuple(table)

    def _number(self, payload: bytes) -> Any:
        digits = payload.isdigit() or (payload[0] == MINUS and payload[1:].isdigit())
        return int(payload) if digits else self._general(payload)

    def _signed(self, payload: bytes) -> Any:
        unpacked = self._unpacked(payload)
        return self._described(unpacked) if unpacked[:1] in self._heads else self._loads(unpacked)

    def _tried(self, payload: bytes) -> Any:
        unpacked = self._opened(payload)
        if unpacked[:1] not in self._heads:
            return self._loads(unpacked)
        try:
            return self._described(unpacked)
        except UnreadableValue:
            if self._distinct:
                raise
            return self._loads(unpacked)  # a value that begins like an envelope by chance

    def _described(self, payload: bytes) -> Described:
        """Return the value and the metadata in *payload*, which begins like one with metadata."""
        found = opened(payload)
        if found is None:
            raise UnreadableValue(
                f"{len(payload)} bytes that start {_start(payload)}: written by a newer release "
                f"of fleetcache. Upgrade this one, or let the value expire."
            )
        metadata, start = found
        return Described(self._loads(payload[start:]), metadata)

    def _opened(self, payload: bytes) -> bytes:
        """Return the serializer's bytes in *payload*: decompressed if necessary."""
        if self._distinct and self._magic is not None:
            return self._unpacked(payload)
        try:
            return self.compressor.decompress(payload)
        except Exception as error:
            let_pass(error)
            # A compressor written for django-redis may raise the class of this name in django-redis.
            if not any(kind.__name__ == "CompressorError" for kind in type(error).__mro__):
                raise
        return self._unpacked(payload) if self._distinct else payload

    def _unpacked(self, payload: bytes) -> bytes:
        """Return *payload*, decompressed if it starts with the signature of a compressor."""
        if payload.startswith(self._magic or ()):
            return self.compressor.decompress(payload)
        for kind in KNOWN:
            if payload.startswith(kind.magic):
                return _known(kind, self._limit).decompress(payload)  # type: ignore[arg-type]  # classes are hashable
        return payload

    def _complaint(self, payload: bytes, error: Exception) -> str:
        if not isinstance(payload, bytes):
            return f"{with_article(type(payload).__name__)} is no payload; the server replied to something else"
        # The text of a foreign exception may quote the value, so only its class is named.
        reason = str(error) if isinstance(error, FleetcacheError) else type(error).__name__
        token = ". It looks like the token of a lock: give the lock a key that no value has" * bool(
            TOKEN.fullmatch(payload)
        )
        return f"{type(self.serializer).__name__} cannot read {len(payload)} bytes that start {_start(payload)}: {reason}{token}"


def _part(setting: str, kind: Any, options: Options, **methods: str) -> Any:
    """Return the object that *kind* is, or makes; refuse one without *methods*, each given with its argument."""
    found = options.make(setting, kind) if isinstance(kind, type) else kind
    if not type(found).__module__.startswith("fleetcache."):
        check_methods(setting, found, **methods)
    return found


def _check_output(compressor: Any, magic: tuple[bytes, ...] | None) -> None:
    """Refuse a compressor whose output is no bytes, or does not start with its *magic*: no payload of it could be read."""
    sample = bytes(4096)
    try:
        packed = getattr(compressor, "pack", compressor.compress)(sample)
    except Exception as error:
        let_pass(error)
        if magic:
            raise
        return  # it may refuse the sample
    if not isinstance(packed, bytes):
        raise SettingsError(f"cache settings['OPTIONS']: {_no_bytes('COMPRESSOR', compressor, 'compress', packed)}")
    if magic and packed != sample and not packed.startswith(magic):
        raise SettingsError(
            f"cache settings['OPTIONS']: COMPRESSOR {type(compressor).__name__} writes bytes that start {_start(packed)}, but its magic says "
            f"{' or '.join(each.hex(' ') for each in magic)}. Set magic to the first bytes of all its output, or to None if they vary"
        )


def _no_bytes(setting: str, part: Any, method: str, found: Any) -> str:
    """Return what is wrong with *found*, which *method* of *part* returned in place of bytes."""
    return f"{setting} {short_name(part)!r}: {method}() returned {with_article(type(found).__name__)}. It has to return bytes"


@cache
def _known(kind: type[LibraryCompressor], limit: int) -> Compressor:
    return kind(Options(max_value_bytes=limit))


def _start(payload: bytes) -> str:
    # Four bytes identify any format, but show nothing of the value.
    return payload[:4].hex(" ") or "nowhere"
