"""Serializers: values to bytes and back, in the formats of django-redis and a few more.

A serializer is any class that takes the options and has ``dumps`` and ``loads``.  To add one, derive from
`BaseSerializer`; sites name it by its dotted path in the option ``SERIALIZER``.  `fleetcache.kinds` has the short names.
"""

from __future__ import annotations

import datetime as dt
import decimal
import json
import math
import pickle
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Protocol, cast

from fleetcache.codec.extras import library
from fleetcache.errors import SettingsError
from fleetcache.kinds import is_lazy
from fleetcache.settings import Options


class Serializer(Protocol):
    """The interface of a serializer; it need not derive from any class of ours."""

    def dumps(self, value: Any, /) -> bytes: ...
    def loads(self, payload: bytes, /) -> Any: ...


class BaseSerializer:
    """A base class for serializers: constructed with the options; ``dumps`` and ``loads`` are abstract."""

    digits: ClassVar[bool] = False
    """Whether some output looks like the digits of an integer but is not one."""

    distinct: ClassVar[bool] = False
    """Whether no output starts like a compressed value or an envelope, so that these are recognised by
    their first bytes.  A subclass with its own ``dumps`` must set this again."""

    pickles: ClassVar[bool] = False
    """Whether all output is pickles.  Then metadata stands within the pickle, where every unpickler skips it.
    A subclass with its own ``dumps`` must set this again, and ``distinct``, without which it has no effect."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "dumps" in vars(cls):
            cls.distinct = vars(cls).get("distinct", False)
            cls.pickles = vars(cls).get("pickles", False)

    def __init__(self, options: Options | Mapping[str, Any]) -> None:
        pass

    def dumps(self, value: Any, /) -> bytes:
        raise NotImplementedError

    def loads(self, payload: bytes, /) -> Any:
        raise NotImplementedError


class PickleSerializer(BaseSerializer):
    """Any Python object.  Use it only if you trust everybody who can write to the server: unpickling runs code.

    ``PICKLE_VERSION`` is the protocol; -1 means the highest of this Python.
    """

    distinct = True
    pickles = True

    def __init__(self, options: Options | Mapping[str, Any]) -> None:
        super().__init__(options)
        written = Options.of(options).pickle_version
        self.protocol = pickle.DEFAULT_PROTOCOL if written is None else written
        if self.protocol > pickle.HIGHEST_PROTOCOL:
            raise SettingsError(
                f"PICKLE_VERSION is {self.protocol}, but the highest protocol of this Python is "
                f"{pickle.HIGHEST_PROTOCOL}"
            )

    def dumps(self, value: Any, /) -> bytes:
        return pickle.dumps(value, self.protocol)

    # The builtin itself, since a method around it would add a third to the decoding of a small value.
    loads = staticmethod(cast("Callable[[bytes], Any]", pickle.loads))


def _plain(value: Any) -> Any:
    """Return *value*, of a type derived from plain data or lazy, as plain data."""
    match value:
        case str():
            return str.__str__(value)
        case int():
            return int.__index__(value)
        case float():
            return float.__float__(value)
        case bytes():
            return bytes(value)
        case dt.datetime():
            return dt.datetime.combine(dt.date(*value.timetuple()[:3]), value.timetz())
        case dt.date():
            return dt.date(*value.timetuple()[:3])
        case decimal.Decimal():
            return decimal.Decimal(value)
        case uuid.UUID():
            return uuid.UUID(int=value.int)
    if is_lazy(value):
        return str(value)
    raise TypeError(f"{type(value).__qualname__} is no plain data")


def _iso_duration(duration: dt.timedelta) -> str:
    sign, duration = ("-", -duration) if duration < dt.timedelta() else ("", duration)
    minutes, seconds = divmod(duration.seconds, 60)
    fraction = f".{duration.microseconds:06d}" if duration.microseconds else ""
    return f"{sign}P{duration.days}DT{minutes // 60:02d}H{minutes % 60:02d}M{seconds:02d}{fraction}S"


class JSONEncoder(json.JSONEncoder):
    """Writes what Django's ``DjangoJSONEncoder`` writes, without importing Django."""

    def default(self, o: Any) -> Any:
        match o:
            case dt.datetime():
                text = o.isoformat()
                if o.microsecond:  # JavaScript has only milliseconds
                    text = text[:23] + text[26:]
                return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text
            case dt.date():
                return o.isoformat()
            case dt.time():
                if o.utcoffset() is not None:
                    raise ValueError("JSON has no times of day with a time zone")
                return o.isoformat()[:12]
            case dt.timedelta():
                return _iso_duration(o)
            case decimal.Decimal() | uuid.UUID():
                return str(o)
        return str(o) if is_lazy(o) else super().default(o)


class JSONSerializer(BaseSerializer):
    """JSON text.  Dates, decimals and UUIDs can be written; they read back as strings."""

    distinct = True
    encoder_class: type[json.JSONEncoder] = JSONEncoder

    def dumps(self, value: Any, /) -> bytes:
        return json.dumps(value, cls=self.encoder_class).encode()

    def loads(self, payload: bytes, /) -> Any:
        return json.loads(payload.decode())


def _keyed(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return a dict of *pairs* whose keys may be lists."""
    return {_frozen(key): value for key, value in pairs}


def _frozen(key: Any) -> Any:
    return tuple(map(_frozen, key)) if isinstance(key, list) else key


def _check_numbers(value: Any) -> None:
    """Raise ValueError if plain *value* holds a number that JSON cannot express: NaN or an infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"JSON has no {value}")
    if isinstance(value, (dict, list, tuple, set, frozenset)):
        for part in value.values() if isinstance(value, dict) else value:
            _check_numbers(part)


def _undigit(value: Any, packed: bytes) -> bytes:
    # MessagePack writes 53 as the single byte "5", which would read back as the integer 5.  The longer
    # form of 53 is equally valid.  Plain integers come here only as members of sorted sets, and
    # `Codec.decode_member` never reads those as digits: their bytes stay the same as django-redis'.
    return b"\xcc" + packed if packed.isdigit() and type(value) is not int else packed


class MSGPackSerializer(BaseSerializer):
    """MessagePack by ``msgpack``: plain data only; tuples read back as lists."""

    digits = True
    distinct = True

    def __init__(self, options: Options | Mapping[str, Any]) -> None:
        super().__init__(options)
        self._msgpack = library("msgpack", extra="serializers")

    def dumps(self, value: Any, /) -> bytes:
        return _undigit(value, self._msgpack.packb(value, default=_plain))

    def loads(self, payload: bytes, /) -> Any:
        # msgpack packs dicts with integer keys, so they must be readable too.
        try:
            return self._msgpack.unpackb(payload, raw=False, strict_map_key=False)
        except TypeError:  # it also packs keys that are tuples, and unpacks them as lists
            return self._msgpack.unpackb(payload, raw=False, strict_map_key=False, object_pairs_hook=_keyed)


class MsgspecSerializer(BaseSerializer):
    """MessagePack by ``msgspec``: plain data, dates, dataclasses and Structs; runs no code.

    A value of a derived type, such as Django's ``SafeString``, or a lazy one, such as a translation, reads back as
    plain data.

    With ``MSGSPEC_TYPE``, a type or the dotted path of one, values are checked against this type and read back as
    it; without it a Struct reads back as a dict.
    """

    digits = True
    distinct = True
    wire: ClassVar[str] = "msgspec.msgpack"

    def __init__(self, options: Options | Mapping[str, Any]) -> None:
        super().__init__(options)
        msgspec = library(self.wire, extra="serializers")
        kind = Options.of(options).msgspec_type
        try:
            self._decode = msgspec.Decoder(Any if kind is None else kind).decode
        except (AttributeError, ValueError, TypeError) as error:
            raise SettingsError(f"MSGSPEC_TYPE: {kind!r} is no type for msgspec: {error}") from error
        self._encode = msgspec.Encoder(enc_hook=_plain).encode
        self._plainly = partial(library("msgspec", extra="serializers").to_builtins, enc_hook=_plain)

    def dumps(self, value: Any, /) -> bytes:
        return _undigit(value, self._encode(value))

    def loads(self, payload: bytes, /) -> Any:
        return self._decode(payload)


class MsgspecJSONSerializer(MsgspecSerializer):
    """JSON text by ``msgspec``, several times faster than ``json``; otherwise like `MsgspecSerializer`."""

    digits = False
    distinct = True
    wire = "msgspec.json"

    def dumps(self, value: Any, /) -> bytes:
        encoded: bytes = self._encode(value)
        if b"null" in encoded:  # msgspec writes NaN and infinities as null
            _check_numbers(self._plainly(value))
        return encoded
