"""Values to payloads and back: what is written, what is read, and what is refused."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import decimal
import enum
import importlib.util
import json
import lzma
import pickle
import re
import subprocess
import sys
import threading
import time
import tracemalloc
import uuid
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.golden.generate import METADATA, NAMES, SOFT_EXPIRY

from fleetcache.codec import compressors, serializers
from fleetcache.codec.compressors import (
    BaseCompressor,
    GzipCompressor,
    IdentityCompressor,
    LibraryCompressor,
    Lz4Compressor,
    LzmaCompressor,
    ZlibCompressor,
    ZStdCompressor,
)
from fleetcache.codec.herding import Herded, HerdSerializer, Marker
from fleetcache.codec.metadata import Described, Metadata
from fleetcache.codec.payloads import Codec
from fleetcache.codec.serializers import (
    BaseSerializer,
    JSONEncoder,
    JSONSerializer,
    MSGPackSerializer,
    MsgspecJSONSerializer,
    MsgspecSerializer,
    PickleSerializer,
)
from fleetcache.errors import CompressorError, SettingsError, UnreadableValue, UnstorableValue

SERIALIZERS = [
    PickleSerializer,
    HerdSerializer,
    JSONSerializer,
    MSGPackSerializer,
    MsgspecSerializer,
    MsgspecJSONSerializer,
]
COMPRESSORS: list[type[LibraryCompressor]] = [
    ZlibCompressor,
    GzipCompressor,
    LzmaCompressor,
    Lz4Compressor,
    ZStdCompressor,
]
# These formats carry a checksum of their content.
CHECKED = [ZlibCompressor, GzipCompressor, LzmaCompressor]

TEXT = "some text that is long enough to be compressed by every compressor there is, " * 4
MIB = 1 << 20

each_serializer = pytest.mark.parametrize("serializer", SERIALIZERS)
each_compressor = pytest.mark.parametrize("compressor", COMPRESSORS)


# --- golden payloads ------------------------------------------------------------------------------


@dataclasses.dataclass
class Golden:
    """One recorded payload."""

    producer: str
    codec: Codec
    value: Any
    reads: Any
    payload: bytes
    metadata: Metadata | None


def golden(file: Path) -> Iterator[Golden]:
    """Read the payloads of one producer."""
    for entry in json.loads(file.read_text()):
        kind = HerdSerializer if entry["serializer"] == "HerdSerializer" else getattr(serializers, entry["serializer"])
        yield Golden(
            file.stem,
            Codec(kind, getattr(compressors, entry["compressor"]), entry["options"]),
            eval(entry["value"], dict(NAMES)),
            eval(entry["reads"], dict(NAMES)),
            zlib.decompress(base64.b85decode(entry["payload"])),
            Metadata(*METADATA[entry["metadata"]]) if "metadata" in entry else None,
        )


FILES = sorted(Path(__file__).with_name("golden").glob("*.json"))
each_producer = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def stored(payload: bytes | int) -> bytes:
    """Return what the server would hold of *payload*."""
    return payload if isinstance(payload, bytes) else str(payload).encode()


@pytest.mark.few(1)
@each_producer
def test_golden_payloads_decode(file: Path) -> None:
    """What any recorded release wrote reads back as that release read it."""
    for found in golden(file):
        read = found.codec.decode(found.payload)
        if isinstance(read, Herded):
            assert read.soft_expiry == SOFT_EXPIRY
            read = read.value
        if found.metadata is not None:
            assert read.metadata == found.metadata
            assert type(read) is Described
            read = read.value

        assert read == found.reads
        assert type(read) is type(found.reads)


@pytest.mark.parametrize(
    "file", [file for file in FILES if not file.stem.startswith("fleetcache")], ids=lambda f: f.stem
)
def test_bytes_are_those_of_the_other_packages(file: Path) -> None:
    """What fleetcache writes is, byte for byte, what django-redis and Django write."""
    compared = 0
    for found in golden(file):
        if not isinstance(found.codec.compressor, IdentityCompressor):
            continue  # the compressed bytes depend on the release of the library: below
        herd = isinstance(found.codec.serializer, HerdSerializer)
        value = Herded(found.value, SOFT_EXPIRY) if herd else found.value

        assert stored(found.codec.encode(value)) == found.payload
        compared += 1
    assert compared > 30


@each_compressor
def test_compressed_bytes_are_those_of_django_redis(compressor: type[LibraryCompressor]) -> None:
    """Where django-redis is installed, its compressors and ours make the same bytes."""
    name = compressor.__name__.removesuffix("Compressor").lower()
    theirs = pytest.importorskip(f"django_redis.compressors.{name}")
    made = getattr(theirs, compressor.__name__)({})

    for text in (b"", b"x" * 15, b"x" * 16, b"x" * 100, b"x" * 101, TEXT.encode(), bytes(99999)):
        ours, other = compressor({}).compress(text), made.compress(text)
        if compressor is GzipCompressor and len(ours) > 15:
            # The time of day, and the name of the operating system, are left out.
            ours, other = ours[:4] + ours[10:], other[:4] + other[10:]
        assert ours == other
        assert made.decompress(compressor({}).compress(TEXT.encode())) == TEXT.encode()


def test_gzip_is_deterministic() -> None:
    """Equal values are equal bytes, whenever they are written."""
    assert GzipCompressor({}).compress(TEXT.encode())[4:8] == bytes(4)


# --- round trips ----------------------------------------------------------------------------------

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)
anything = plain | st.binary() | st.datetimes() | st.decimals(allow_nan=False) | st.uuids()


@each_serializer
@pytest.mark.parametrize("compressor", [IdentityCompressor, *COMPRESSORS])
@given(value=plain)
@settings(deadline=None, max_examples=30)
def test_plain_data_comes_back(serializer: Any, compressor: Any, value: Any) -> None:
    """Every serializer with every compressor gives back plain data, types and all."""
    codec = Codec(serializer, compressor, {"COMPRESS_MIN_LENGTH": 0})

    read = codec.decode(stored(codec.encode(value)))

    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("protocol", range(6))
@given(value=anything)
@settings(deadline=None, max_examples=30)
def test_objects_come_back_by_pickle(protocol: int, value: Any) -> None:
    """Whatever can be pickled comes back, in every protocol."""
    codec = Codec(PickleSerializer, options={"PICKLE_VERSION": protocol})

    assert codec.decode(stored(codec.encode(value))) == value


@each_serializer
@given(value=st.integers())
@settings(deadline=None, max_examples=30)
def test_integers_are_not_touched(serializer: Any, value: int) -> None:
    """An integer of any size is passed on to be sent as digits, and read from them."""
    codec = Codec(serializer, ZlibCompressor)

    assert codec.encode(value) is value
    assert codec.decode(b"%d" % value) == value


@each_serializer
def test_serialised_integers_come_back(serializer: Any) -> None:
    """An integer that had to be serialised reads back as itself, 53 in one byte too."""
    codec = Codec(serializer)

    for value in (*range(-130, 300), 2**63 - 1):
        payload = codec.encode(value, integers=False)

        assert isinstance(payload, bytes)
        assert codec.decode_member(payload) == value


class Size(enum.IntEnum):
    """Numbers whose MessagePack is one digit."""

    SMALL = 53
    BIG = 57


@each_serializer
def test_only_plain_integers_are_digits(serializer: Any) -> None:
    """A bool or an enum is serialised, and reads back equal."""
    codec = Codec(serializer)

    for value in (True, False, *Size):
        payload = codec.encode(value)
        assert isinstance(payload, bytes)
        assert codec.decode_member(payload) == value


def test_integers_too_long_to_print() -> None:
    """An integer of more digits than Python prints is pickled, or refused; never half-written."""
    assert Codec().decode(stored(Codec().encode(7**10000))) == 7**10000
    with pytest.raises(UnstorableValue):
        Codec(JSONSerializer).encode(7**10000)


def test_msgpack_reads_the_keys_it_writes() -> None:
    """A dict with integer keys comes back, which django-redis stores and then cannot read."""
    codec = Codec(MSGPackSerializer)

    assert codec.decode(stored(codec.encode({1: "one"}))) == {1: "one"}


@dataclasses.dataclass
class Point:
    """Something for msgspec to read back."""

    x: int
    y: float


@pytest.mark.parametrize("serializer", [MsgspecSerializer, MsgspecJSONSerializer])
@pytest.mark.parametrize("kind", [Point, f"{__name__}.Point", f"{__name__}:Point"])
def test_msgspec_reads_back_a_type(serializer: Any, kind: Any) -> None:
    """With MSGSPEC_TYPE, values are of that type or unreadable."""
    codec = Codec(serializer, options={"MSGSPEC_TYPE": kind})

    assert codec.decode(stored(codec.encode(Point(1, 2.5)))) == Point(1, 2.5)
    with pytest.raises(UnreadableValue):
        codec.decode(stored(codec.encode({"x": "one"})))


class Safe(str):
    """As Django's SafeString."""

    __slots__ = ()

    def __str__(self) -> str:
        return self


class Count(int):
    """A number by another name."""


class Ratio(float):
    """Another one."""


class Moment(dt.datetime):
    """As those of freezegun."""


class Money(decimal.Decimal):
    """And another."""


@pytest.mark.parametrize("serializer", [MsgspecSerializer, MsgspecJSONSerializer])
@pytest.mark.parametrize("kind", [None, Any])
@pytest.mark.parametrize(
    "value",
    [
        Safe("<b>"),
        Count(300),
        Count(53),
        Ratio(1.5),
        [Safe("<b>"), Count(5)],
        {"a": {Safe("b"): Safe("c")}},
        (Ratio(2.5),),
    ],
)
def test_msgspec_takes_derived_types(serializer: Any, kind: Any, value: Any) -> None:
    """Text and numbers of a derived type are stored as what they are, also within containers and as keys."""
    codec = Codec(serializer, options={} if kind is None else {"MSGSPEC_TYPE": kind})

    read = codec.decode(stored(codec.encode(value)))

    assert read == (list(value) if isinstance(value, tuple) else value)
    assert type(read) not in {Safe, Count, Ratio}


@pytest.mark.parametrize("serializer", [MsgspecSerializer, MsgspecJSONSerializer])
def test_msgspec_takes_derived_times_and_decimals(serializer: Any) -> None:
    """So are dates, decimals and UUIDs."""
    values = [Moment(2026, 11, 28, 12, 30, 1, 5, tzinfo=dt.UTC), Money("1.50"), type("Id", (uuid.UUID,), {})(int=7)]
    plain_values = [dt.datetime(2026, 11, 28, 12, 30, 1, 5, tzinfo=dt.UTC), decimal.Decimal("1.50"), uuid.UUID(int=7)]

    assert Codec(serializer).encode(values) == Codec(serializer).encode(plain_values)


@pytest.mark.parametrize("serializer", [JSONSerializer, MSGPackSerializer, MsgspecSerializer, MsgspecJSONSerializer])
def test_lazy_text_is_stored_as_text(serializer: Any) -> None:
    """A lazy translation is its text, alone, in a container and as a key."""
    lazy = pytest.importorskip("django.utils.functional").lazystr
    safe = pytest.importorskip("django.utils.safestring").mark_safe
    codec = Codec(serializer)

    for value, read in ((lazy("a"), "a"), ({"k": [lazy("b")]}, {"k": ["b"]}), (safe("<b>"), "<b>")):
        assert codec.decode(stored(codec.encode(value))) == read


# --- JSON without Django --------------------------------------------------------------------------


@given(
    value=st.datetimes(timezones=st.none() | st.timezones())
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals()
    | st.uuids()
)
@settings(deadline=None)
def test_json_is_that_of_django(value: Any) -> None:
    """Dates, durations, decimals and UUIDs are written as Django's encoder writes them."""
    django = pytest.importorskip("django.core.serializers.json")

    assert json.dumps(value, cls=JSONEncoder) == json.dumps(value, cls=django.DjangoJSONEncoder)


def test_json_of_lazy_text() -> None:
    """A lazy translation is written as its text."""
    functional = pytest.importorskip("django.utils.functional")

    assert Codec(JSONSerializer).encode([functional.lazystr("hello")]) == b'["hello"]'


def test_json_refuses_times_with_a_zone() -> None:
    """As Django's encoder does, since their date is missing."""
    with pytest.raises(UnstorableValue):
        Codec(JSONSerializer).encode(dt.time(12, tzinfo=dt.timezone.utc))


def test_json_encoder_can_be_chosen() -> None:
    """A subclass with an encoder_class writes by that, as with django-redis."""

    class Encoder(JSONEncoder):
        def default(self, o: Any) -> Any:
            return sorted(o) if isinstance(o, set) else super().default(o)

    class Sets(JSONSerializer):
        encoder_class = Encoder

    assert Codec(Sets).encode({3, 1}) == b"[1, 3]"


def test_nothing_imports_django() -> None:
    """The codecs work, JSON too, without Django being imported."""
    code = (
        "import sys, datetime, decimal\n"
        "from fleetcache.codec.payloads import Codec\n"
        "from fleetcache.codec.serializers import JSONSerializer\n"
        "Codec(JSONSerializer).encode([datetime.date.today(), decimal.Decimal(1)])\n"
        "sys.exit(any(name.split('.')[0].startswith('django') for name in sys.modules))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- what is refused ------------------------------------------------------------------------------


@each_serializer
def test_a_value_that_cannot_be_stored(serializer: Any) -> None:
    """The error names the type, and is the TypeError or PicklingError that callers catch."""
    with pytest.raises(UnstorableValue, match=r"cannot store a (lock|list)") as caught:
        Codec(serializer).encode(threading.Lock())

    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, pickle.PicklingError)
    with pytest.raises(UnstorableValue):
        Codec(serializer).encode([lambda: None])


def test_what_a_value_raises_itself() -> None:
    """An error that is not about storing, such as a lazy query's, is the caller's to see."""

    class Query:
        def __reduce__(self) -> str:
            raise LookupError("no such table")

    with pytest.raises(LookupError, match="no such table"):
        Codec().encode(Query())


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (PickleSerializer, {"PICKLE_VERSION": pickle.HIGHEST_PROTOCOL + 1}),
        (PickleSerializer, {"PICKLE_VERSION": "newest"}),
        (MsgspecSerializer, {"MSGSPEC_TYPE": "nowhere.to.be.found"}),
        (MsgspecSerializer, {"MSGSPEC_TYPE": 5}),
        (ZlibCompressor, {"COMPRESS_LEVEL": 10}),
        (LzmaCompressor, {"COMPRESS_LEVEL": 10}),
        (ZStdCompressor, {"COMPRESS_LEVEL": 1000}),
        (ZlibCompressor, {"COMPRESS_MIN_LENGTH": "short"}),
        (ZlibCompressor, {"MAX_VALUE_BYTES": "1 gigabyte"}),
        (ZlibCompressor, {"MAX_VALUE_BYTES": -1}),
        (ZlibCompressor, {"MAX_VALUE_BYTES": 0}),
    ],
)
def test_wrong_options(kind: Any, options: dict[str, Any]) -> None:
    """A wrong option is told when the codec is made, by its name."""
    with pytest.raises(SettingsError, match=next(iter(options))):
        kind(options)


def test_highest_protocol() -> None:
    """PICKLE_VERSION -1 is the highest protocol, as for pickle itself; text digits will do."""
    highest = Codec(PickleSerializer, options={"PICKLE_VERSION": -1})

    assert highest.encode("a") == pickle.dumps("a", pickle.HIGHEST_PROTOCOL)
    assert Codec(PickleSerializer, options={"PICKLE_VERSION": "2"}).encode("a")[1] == 2  # type: ignore[index]


@pytest.mark.parametrize(
    ("kind", "module"),
    [
        (MSGPackSerializer, "msgpack"),
        (MsgspecSerializer, "msgspec.msgpack"),
        (Lz4Compressor, "lz4.frame"),
        (ZStdCompressor, "compression.zstd"),
        (ZStdCompressor, "backports.zstd"),
    ],
)
def test_missing_library(kind: Any, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the optional library the error says what to install."""
    if (module == "compression.zstd") != (sys.version_info >= (3, 14)) and "zstd" in module:
        pytest.skip("another Python's")
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(SettingsError, match=r"pip install '\.\[(serializers|compression)]'"):
        kind({})


# --- telling formats apart ------------------------------------------------------------------------


@each_serializer
@pytest.mark.parametrize("before", COMPRESSORS)
@pytest.mark.parametrize("after", [IdentityCompressor, *COMPRESSORS])
def test_compression_may_change(serializer: Any, before: Any, after: Any) -> None:
    """What one compressor wrote is read whatever compressor is configured now."""
    payload = Codec(serializer, before).encode(TEXT)
    plain_payload = Codec(serializer).encode(TEXT)

    assert payload != plain_payload
    assert Codec(serializer, after).decode(stored(payload)) == TEXT
    assert Codec(serializer, after).decode(stored(plain_payload)) == TEXT


def test_options_of_one_compressor_do_not_trouble_another() -> None:
    """A level that only the configured compressor has leaves the others readable."""
    payload = Codec(PickleSerializer, ZlibCompressor).encode(TEXT)

    assert Codec(PickleSerializer, ZStdCompressor, {"COMPRESS_LEVEL": 19}).decode(stored(payload)) == TEXT


SIGNATURES = [magic for kind in COMPRESSORS for magic in kind.magic] + [b"\xc1"]


@each_serializer
@given(value=plain)
@settings(deadline=None)
def test_no_serializer_writes_a_signature(serializer: Any, value: Any) -> None:
    """No serialised value starts like a compressed one or an envelope, or is all digits."""
    codec = Codec(serializer)

    payload = codec.encode(value)

    if isinstance(payload, bytes):
        assert not payload.startswith(tuple(SIGNATURES))
        assert not re.fullmatch(rb"-?[0-9]+", payload)


@pytest.mark.parametrize("protocol", range(6))
@given(value=anything)
@settings(deadline=None)
def test_no_pickle_starts_like_something_else(protocol: int, value: Any) -> None:
    """A pickle of any protocol starts like no signature and no number."""
    payload = pickle.dumps(value, protocol)

    assert not payload.startswith(tuple(SIGNATURES))
    assert payload[0] not in b"-0123456789"


@pytest.mark.parametrize(
    ("payload", "value"),
    [(b"1.5", 1.5), (b"-1.5", -1.5), (b"1e300", 1e300), (b"-Infinity", float("-inf"))],
)
@pytest.mark.parametrize("compressor", [IdentityCompressor, ZlibCompressor])
def test_json_numbers(compressor: Any, payload: bytes, value: float) -> None:
    """JSON that starts like an integer and is none is left to JSON."""
    assert Codec(JSONSerializer, compressor).decode(payload) == value


@pytest.mark.parametrize("payload", [b"1_000", b" 12", b"12\n", b"1 2", b"-", b"--1", b"1-", b"5."])
def test_almost_integers(payload: bytes) -> None:
    """What is nearly an integer is one if Python says so, with pickle, as with django-redis."""
    try:
        expected = int(payload)
    except ValueError:
        expected = None

    if expected is None or payload[0] == 32:
        with pytest.raises(UnreadableValue):
            Codec().decode(payload)
    else:
        assert Codec().decode(payload) == expected


@each_serializer
def test_an_envelope_is_left_for_a_newer_release(serializer: Any) -> None:
    """What a later release wraps is unreadable by this one, and the message says why."""
    with pytest.raises(UnreadableValue, match="newer release"):
        Codec(serializer).decode(b"\xc1\x01whatever")


@pytest.mark.parametrize("other", [JSONSerializer, MSGPackSerializer, MsgspecSerializer])
@each_compressor
def test_only_pickle_unpickles(other: Any, compressor: Any) -> None:
    """A pickle is never run where pickle is not configured, plain or compressed."""

    class Bomb:
        def __reduce__(self) -> Any:
            return pytest.fail, ("unpickled",)

    for payload in (pickle.dumps(Bomb()), pickle.dumps([Bomb()], 0)):
        for packed in (payload, compressor({}).pack(payload)):
            with pytest.raises(UnreadableValue):
                Codec(other).decode(packed)


# --- the user's own -------------------------------------------------------------------------------


class Reversed(BaseCompressor):
    """A compressor that says nothing about its bytes."""

    def compress(self, value: bytes, /) -> bytes:
        return b"<" + value[::-1] if len(value) > 20 else value

    def decompress(self, value: bytes, /) -> bytes:
        if value[:1] != b"<":
            raise CompressorError("not mine")
        return value[:0:-1]


class Signed(Reversed):
    """One that does."""

    magic = (b"<",)


class Numbered(Reversed):
    """One whose signature starts like a number, and is not in a tuple."""

    magic = b"7z"  # type: ignore[assignment]

    def compress(self, value: bytes, /) -> bytes:
        return b"7z" + value[::-1]

    def decompress(self, value: bytes, /) -> bytes:
        return value[:1:-1]


class Foreign(Reversed):
    """One that was written for django-redis and raises that package's error."""

    def decompress(self, value: bytes, /) -> bytes:
        if value[:1] != b"<":
            raise type("CompressorError", (Exception,), {})
        return super().decompress(value)


@each_serializer
@pytest.mark.parametrize("compressor", [Reversed, Signed, Foreign])
def test_own_compressor(serializer: Any, compressor: Any) -> None:
    """A user's compressor reads what it wrote, what it left alone, and what others compressed."""
    codec = Codec(serializer, compressor)

    assert stored(codec.encode(TEXT))[:1] == b"<"
    for value in (TEXT, "short", 5, 1.5, None):
        assert codec.decode(stored(codec.encode(value))) == value
    for before in COMPRESSORS:
        assert codec.decode(stored(Codec(serializer, before).encode(TEXT))) == TEXT


@each_serializer
def test_own_signature(serializer: Any) -> None:
    """A signature may start like anything, a digit too."""
    codec = Codec(serializer, Numbered)

    for value in (TEXT, "short", 5, 77, -7, 1.5, None):
        assert codec.decode(stored(codec.encode(value))) == value


class Text(BaseSerializer):
    """A serializer of which nothing is known, and whose bytes look like anything."""

    def dumps(self, value: Any, /) -> bytes:
        return str(value).encode("latin-1")

    def loads(self, payload: bytes, /) -> Any:
        return payload.decode("latin-1")


@pytest.mark.parametrize("compressor", [IdentityCompressor, *COMPRESSORS])
@given(value=st.text(st.characters(max_codepoint=255), min_size=1))
@settings(deadline=None, max_examples=30)
def test_own_serializer(compressor: Any, value: str) -> None:
    """Bytes of a user's serializer come back even if they start like a signature."""
    codec = Codec(Text, compressor)

    for start in ("", "\xc1", "\x80", *(magic.decode("latin-1") for magic in SIGNATURES)):
        text = start + value
        if not re.fullmatch("-?[0-9]+", text):
            assert codec.decode(stored(codec.encode(text))) == text


def test_own_dumps_says_nothing_about_its_bytes() -> None:
    """A subclass with its own dumps or compress inherits no promise about first bytes."""

    class Quirky(JSONSerializer):
        def dumps(self, value: Any, /) -> bytes:
            return b"".join((b"\x78\x9c", super().dumps(value)))

        def loads(self, payload: bytes, /) -> Any:
            return super().loads(payload[2:])

    class Louder(ZlibCompressor):
        def compress(self, value: bytes, /) -> bytes:
            return b"!" + super().compress(value)

    assert (JSONSerializer.distinct, Quirky.distinct) == (True, False)
    assert (ZlibCompressor.magic is None, Louder.magic is None) == (False, True)
    assert Codec(Quirky).decode(stored(Codec(Quirky).encode([1]))) == [1]


class RawDeflate(ZlibCompressor):
    """zlib without its header, so not how its parent's output starts."""

    def pack(self, value: bytes) -> bytes:
        return zlib.compress(value, wbits=-15)

    def unpacker(self) -> Any:
        return zlib.decompressobj(wbits=-15)


class ByForm(ZlibCompressor):
    """The same by the arguments alone."""

    form = {"wbits": -15}


class Prefixed(ZlibCompressor):
    """zlib behind a mark of its own, which it names."""

    magic = (b"!z",)

    def pack(self, value: bytes) -> bytes:
        return b"!z" + super().pack(value)

    def decompress(self, value: bytes, /) -> bytes:
        return super().decompress(value.removeprefix(b"!z"))


@each_serializer
@pytest.mark.parametrize("compressor", [RawDeflate, ByForm, Prefixed])
def test_derived_compressor(serializer: Any, compressor: Any) -> None:
    """A compressor that writes otherwise than its parent reads what it wrote, and what its parent wrote."""
    codec = Codec(serializer, compressor)

    assert stored(codec.encode(TEXT)) != stored(Codec(serializer, ZlibCompressor).encode(TEXT))
    for value in (TEXT, "short", 5, 1.5, None):
        assert codec.decode(stored(codec.encode(value))) == value
    assert codec.decode(stored(Codec(serializer, ZlibCompressor).encode(TEXT))) == TEXT


def test_a_signature_that_is_not_written() -> None:
    """A compressor whose magic is not how its output starts is refused: nobody could read it."""

    class Wrong(ZlibCompressor):
        magic = (b"!z",)

    with pytest.raises(SettingsError, match="Wrong writes bytes that start 78 9c"):
        Codec(JSONSerializer, Wrong)


def test_without_a_base_class() -> None:
    """A serializer or compressor need not derive from anything."""

    class Shout:
        def __init__(self, options: Mapping[str, Any]) -> None:
            self.mark = options["MARK"]

        def dumps(self, value: Any, /) -> bytes:
            return f"{value}{self.mark}".encode()

        def loads(self, payload: bytes, /) -> Any:
            return payload.decode().removesuffix(self.mark)

    codec = Codec(Shout, ZlibCompressor({}), {"MARK": "!"})

    assert codec.decode(stored(codec.encode("hello"))) == "hello"


def test_thresholds_and_levels() -> None:
    """Class attributes and options say from where on and how hard to compress."""

    class Patient(ZlibCompressor):
        min_length = 50
        preset = 1

    text = b"x" * 50
    options = {"COMPRESS_MIN_LENGTH": "10", "COMPRESS_LEVEL": 9}

    assert Patient({}).compress(text) == text
    assert Patient({}).compress(text + b"x") == zlib.compress(text + b"x", 1)
    assert Patient(options).compress(text) == zlib.compress(text, 9)


# --- bytes that are broken ------------------------------------------------------------------------


@each_serializer
@pytest.mark.parametrize("compressor", [IdentityCompressor, *COMPRESSORS])
def test_truncated_anywhere(serializer: Any, compressor: Any) -> None:
    """A payload that lost its end is unreadable, wherever it was cut."""
    codec = Codec(serializer, compressor)
    payload = stored(codec.encode([TEXT, {"a": 1}]))

    for end in range(len(payload)):
        if end == 1 and serializer in (MSGPackSerializer, MsgspecSerializer) and compressor in COMPRESSORS:
            continue  # one byte is a number in MessagePack
        with pytest.raises(UnreadableValue):
            codec.decode(payload[:end])


@pytest.mark.parametrize("serializer", SERIALIZERS[2:])
@each_compressor
def test_flipped_bytes(serializer: Any, compressor: Any) -> None:
    """A changed byte makes a payload unreadable; a format without a checksum may misread it."""
    codec = Codec(serializer, compressor)
    payload = stored(codec.encode([TEXT, {"a": 1}]))

    for place in range(len(payload)):
        for flip in (0x01, 0x80, 0xFF):
            broken = bytearray(payload)
            broken[place] ^= flip
            try:
                read = codec.decode(bytes(broken))
            except UnreadableValue:
                continue
            if compressor in CHECKED:
                assert read == [TEXT, {"a": 1}]


@each_serializer
def test_flipped_bytes_uncompressed(serializer: Any) -> None:
    """Whatever a changed byte does to a serializer, callers see one class of error."""
    codec = Codec(serializer)
    payload = stored(codec.encode({"id": 1, "tags": ["a", "b"], "at": 2.5}))

    for place in range(len(payload)):
        for flip in (0x01, 0x80, 0xFF):
            broken = bytearray(payload)
            broken[place] ^= flip
            try:
                codec.decode(bytes(broken))
            except UnreadableValue as error:
                assert error.__cause__ or "newer" in str(error)


@each_serializer
@given(payload=st.binary(max_size=60))
@settings(deadline=None)
def test_garbage(serializer: Any, payload: bytes) -> None:
    """Bytes from anywhere are a value or unreadable."""
    if issubclass(serializer, PickleSerializer | HerdSerializer) and set(payload) & set(b"pr"):
        return  # a forged memo number may really take gigabytes
    codec = Codec(serializer)
    for read in (codec.decode, codec.decode_member, lambda payload: codec.decode_all([payload])):
        with suppress(UnreadableValue):
            read(payload)


@each_compressor
def test_something_after_the_end(compressor: Any) -> None:
    """What follows a compressed value must be another one."""
    codec = Codec(JSONSerializer, compressor)
    packed = compressor({}).pack

    assert codec.decode(packed(b'["con') + packed(b'catenated"]')) == ["concatenated"]
    for rest in (b"\x00", b"rest", packed(b"")[:-1]):
        with pytest.raises(UnreadableValue):
            codec.decode(packed(b'"whole"') + rest)


@each_compressor
def test_bombs(compressor: Any) -> None:
    """A payload that would unfold beyond MAX_VALUE_BYTES is given up about there, and soon."""
    options = {"MAX_VALUE_BYTES": MIB}
    packed = compressor({}).pack
    bombs = [packed(bytes(32 * MIB)), packed(bytes(MIB // 2)) * 50, packed(b"") * 20_000]
    decode = Codec(JSONSerializer, compressor, options).decode

    for bomb in bombs:
        # Configured or not, the format has the same limit.
        for codec in (decode, Codec(JSONSerializer, options=options).decode):
            codec(packed(b"[]"))
            tracemalloc.start()
            begun = time.process_time()
            with pytest.raises(UnreadableValue):
                codec(bomb)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()

            assert time.process_time() - begun < 1
            assert peak < 8 * MIB + len(bomb)  # xz has a dictionary of 4 MiB


@each_compressor
def test_the_limit_is_exact(compressor: Any) -> None:
    """A value of exactly MAX_VALUE_BYTES is compressed and read; a larger one is left alone."""
    made = compressor({"MAX_VALUE_BYTES": 1000})

    assert made.decompress(made.compress(bytes(1000))) == bytes(1000)
    assert made.compress(bytes(1001)) == bytes(1001)
    with pytest.raises(CompressorError):
        made.decompress(made.pack(bytes(1001)))


def test_xz_may_not_ask_for_much_memory() -> None:
    """An xz header that asks for a dictionary of gigabytes is refused."""
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}]
    packed = bytearray(lzma.compress(TEXT.encode(), filters=filters))
    packed[16] = 40  # 4 GiB, in the notation of the header
    packed[20:24] = zlib.crc32(packed[12:20]).to_bytes(4, "little")

    with pytest.raises(CompressorError, match="[Mm]emory"):
        LzmaCompressor({}).decompress(bytes(packed))


def test_foreign_classes() -> None:
    """A pickle of a class that is gone is unreadable; the import error is its cause."""
    payload = pickle.dumps(decimal.Decimal(1), 2).replace(b"cdecimal", b"cnowhere")

    with pytest.raises(UnreadableValue, match="ModuleNotFoundError") as caught:
        Codec().decode(payload)

    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


@each_serializer
def test_deep_nesting(serializer: Any) -> None:
    """Nesting that exhausts the stack is unreadable, not a crash."""
    name = serializer.__name__
    deep = b"[" * 200_000 if "JSON" in name else b"\x91" * 200_000
    if "JSON" in name:
        deep += b"]" * 200_000

    with pytest.raises(UnreadableValue):
        Codec(serializer).decode(deep)


def test_running_out_of_memory_is_not_hidden() -> None:
    """A MemoryError is the process' trouble and not the value's."""

    class Greedy(JSONSerializer):
        def loads(self, payload: bytes, /) -> Any:
            raise MemoryError

    with pytest.raises(MemoryError):
        Codec(Greedy).decode(b"[]")


@each_serializer
@pytest.mark.parametrize("compressor", [IdentityCompressor, ZlibCompressor, Reversed])
def test_messages_do_not_show_values(serializer: Any, compressor: Any) -> None:
    """The message names the format and the first bytes, and nothing of the value."""
    codec = Codec(serializer, compressor)
    payload = stored(codec.encode(["secret" * 10]))[:-3]

    with pytest.raises(UnreadableValue) as caught:
        codec.decode(payload)

    assert "secret" not in str(caught.value)
    assert serializer.__name__ in str(caught.value)
    assert payload[:4].hex(" ") in str(caught.value)


# --- herd values ----------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("compressor", [IdentityCompressor, ZlibCompressor])
@given(value=anything | st.just("django_redis.client.herd") | st.just("fleetcache.codec.herding"))
@settings(deadline=None, max_examples=30)
def test_herd_values_come_back(compressor: Any, protocol: int, value: Any) -> None:
    """A value with a soft expiry comes back with it; others as they are."""
    codec = Codec(HerdSerializer, compressor, {"PICKLE_VERSION": protocol})

    read = codec.decode(stored(codec.encode(Herded(value, 99))))

    assert type(read) is Herded
    assert (read.value, read.soft_expiry) == (value, 99)
    assert codec.decode(stored(codec.encode(value))) == value
    assert codec.decode(stored(codec.encode((value, 1, 2)))) == (value, 1, 2)


def test_herd_values_of_django_redis() -> None:
    """Where django-redis is installed, its HerdClient reads ours and we read its, same bytes."""
    theirs = pytest.importorskip("django_redis.client.herd").Marker
    codec = Codec(HerdSerializer)

    payload = stored(codec.encode(Herded({"a": 1}, 99)))
    marker, value, soft_expiry = pickle.loads(payload)

    assert type(marker) is theirs
    assert (value, soft_expiry) == ({"a": 1}, 99)
    assert payload == pickle.dumps((theirs(), {"a": 1}, 99))


@pytest.mark.skipif(importlib.util.find_spec("django_redis") is not None, reason="django-redis is installed")
def test_herd_values_need_the_serializer() -> None:
    """Without HerdSerializer or django-redis a herd value is unreadable, as any foreign class."""
    with pytest.raises(UnreadableValue):
        Codec().decode(stored(Codec(HerdSerializer).encode(Herded(1, 99))))


@pytest.mark.parametrize("serializer", [s for s in SERIALIZERS if s is not HerdSerializer])
def test_herd_values_need_pickle(serializer: Any) -> None:
    """Any other serializer refuses a soft expiry with a TypeError, as with django-redis."""
    with pytest.raises(UnstorableValue):
        Codec(serializer).encode(Herded(1, 99))


def test_the_marker_keeps_its_length() -> None:
    """The trick with the names needs them to be equally long."""
    assert len(Marker.__module__) == len("django_redis.client.herd") == 0x18


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan")])
def test_msgspec_json_refuses_numbers_that_json_does_not_have(number):
    """They would read back as None; None itself is stored."""

    @dataclasses.dataclass
    class Point:
        x: float

    codec = Codec(MsgspecJSONSerializer)
    for value in (number, [None, number], {"a": {"b": (number,)}}, Point(number)):
        with pytest.raises(UnstorableValue, match="JSON has no"):
            codec.encode(value)
    for value in (None, [None, 1.5], {"a": None, "b": "null"}):
        assert codec.decode(codec.encode(value)) == value


def test_msgpack_reads_keys_that_are_tuples():
    """They are packed without complaint, so they have to be readable."""
    codec = Codec(MSGPackSerializer)
    for value in ({(1, 2): 3}, [{(1, ("a",)): {1: None}}], {"a": {(): 1}}):
        assert codec.decode(codec.encode(value)) == value
    with pytest.raises(UnreadableValue):
        codec.decode(b"\x81\x80\x01")  # a dict for a key
