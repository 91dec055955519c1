"""What the bytes of a value show; none of it is trusted."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import json
import pickle
import time
import tracemalloc
import uuid
import zlib

import pytest

from fleetcache.codec.compressors import GzipCompressor, Lz4Compressor, LzmaCompressor, ZlibCompressor, ZStdCompressor
from fleetcache.codec.metadata import Metadata
from fleetcache.codec.payloads import Codec
from fleetcache.codec.serializers import JSONSerializer, MSGPackSerializer, MsgspecJSONSerializer, MsgspecSerializer
from fleetcache.errors import UnreadableValue
from fleetcache.inspection import previews
from fleetcache.inspection.pickles import told
from fleetcache.inspection.previews import taken_apart
from fleetcache.inspection.writing import as_json, as_python


class Trap:
    """Whoever unpickles it fails this test."""

    def __reduce__(self):
        return pytest.fail, ("unpickled",)


class Plain:
    def __init__(self):
        self.a = 1


VALUES = [
    *(2**70, -1, 1.5, "a", None, True, (), (1,), (1, 2), (1, 2, 3, 4), [], [1, 2], {}, {"a": [1]}),
    *({1}, frozenset({1}), bytearray(b"x"), b"x"),
    *(dt.datetime(2026, 1, 1), decimal.Decimal(1), collections.OrderedDict(a=1), uuid.UUID(int=1), Plain()),
    *([Plain(), {"b": Plain()}], {"x": Plain()}, ("a", [Plain()])),
]


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_tells_its_type_from_its_opcodes(protocol):
    """The stack of types ends with that of the value."""
    found = {type(value).__name__.removesuffix("Type"): told(pickle.dumps(value, protocol)) for value in VALUES}
    if protocol == 2:
        del found["bytes"]  # written as a call

    assert {name: each.type.rpartition(".")[2] for name, each in found.items()} == {name: name for name in found}
    assert all(each.whole for each in found.values())


def test_a_pickle_tells_what_it_would_import():
    """Classes and functions are named, and none is imported."""
    found = told(b"\x80\x04cno.such.module\nruin\n(S'everything'\ntR.")

    assert found.imports == ("no.such.module.ruin",)
    assert "made by no.such.module.ruin" in str(found)


def test_the_beginning_of_a_pickle_tells_what_it_can():
    """A list that is cut off is a list."""
    found = told(pickle.dumps([{"a": "x" * 100}] * 100)[:150])

    assert (found.type, found.whole) == ("list", False)


@pytest.mark.parametrize("junk", [b"", b"\x80", b"\x80\x04", b"\x80\x04.", b"\x80\x05" + b"0" * 50, bytes(range(256))])
def test_nonsense_is_no_error(junk):
    """Any bytes get an answer."""
    assert told(junk).imports == ()
    assert taken_apart(junk, Codec()).preview.text is not None
    assert taken_apart(junk, Codec(), whole=False).preview.text is not None


def test_a_pickle_is_not_unpickled():
    """Not at the top, not within a compressed value with metadata, not cut off."""
    for compressor in ZlibCompressor, GzipCompressor, LzmaCompressor, Lz4Compressor, ZStdCompressor:
        codec = Codec(compressor=compressor)
        payload = codec.describe(Trap(), Metadata())
        for whole in True, False:
            found = taken_apart(payload, codec, whole=whole)
            assert found.preview.form == "pickle"
            assert "pytest" in found.preview.text or "_pytest" in found.preview.text
    with pytest.raises(pytest.fail.Exception):  # so the trap works
        taken_apart(Codec().encode(Trap()), Codec(), unpickle=True)


def test_a_pickle_is_unpickled_when_asked_for():
    """The value is shown, and one that cannot be unpickled is an answer too."""
    payload = Codec().encode({"a": [1, decimal.Decimal("2.5")]})
    broken = b"\x80\x04cno.such.module\nruin\n."

    assert taken_apart(payload, Codec(), unpickle=True).preview.text == "{'a': [1, Decimal('2.5')]}"
    assert taken_apart(payload, Codec()).preview.text.startswith("A pickle of protocol 4, of type dict.")
    assert "ModuleNotFoundError" in taken_apart(broken, Codec(), unpickle=True).preview.problem


@pytest.mark.parametrize(
    ("serializer", "form"),
    [
        (JSONSerializer, "json"),
        (MsgspecJSONSerializer, "json"),
        (MSGPackSerializer, "msgpack"),
        (MsgspecSerializer, "msgpack"),
    ],
)
def test_plain_data_is_decoded(serializer, form):
    """With or without metadata, compressed or not."""
    for compressor in ZlibCompressor, ZStdCompressor, None:
        codec = Codec(serializer, compressor) if compressor else Codec(serializer)
        value = {"name": ["é" * 100, 1, None]}
        for payload in codec.encode(value), codec.describe(value, Metadata(cost=7)):
            found = taken_apart(payload, codec)
            assert (found.preview.form, found.preview.whole, found.codec[-1]) == (form, True, form)
            assert "é" * 100 in found.preview.text
        assert found.metadata.cost == 7 and "metadata" in found.codec


def test_the_serializer_may_have_been_another():
    """JSON is found among pickles, a pickle among JSON, and neither is an error."""
    assert taken_apart(b'{"a": 1}', Codec()).preview.form == "json"
    assert taken_apart(pickle.dumps(1), Codec(JSONSerializer)).preview.form == "pickle"
    assert taken_apart(b"plain text \xc3\xa9", Codec()).preview.text == "plain text é"
    assert taken_apart(b"plain text \xc3", Codec(), whole=False).preview.text == "plain text "
    assert taken_apart(b"-12", Codec()).preview.form == "integer"
    assert "00 01 02" in taken_apart(bytes(range(3)), Codec()).preview.text


def test_a_bomb_is_unpacked_in_part():
    """Of two hundred megabytes of zeros in a few kilobytes the beginning is unpacked."""
    packed = zlib.compressobj()
    bomb = b"".join(packed.compress(bytes(1 << 20)) for _ in range(200)) + packed.flush()

    tracemalloc.start()
    found = taken_apart(bomb, Codec())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 10_000_000
    assert found.codec == ("zlib", "bytes") and not found.preview.whole


def test_deep_and_long_values_are_shown_in_part():
    """Neither a nesting of thousands nor a million characters is written out."""
    deep = taken_apart(b"[" * 30_000 + b"]" * 30_000, Codec(JSONSerializer))
    long = taken_apart(b'"' + b"x" * 50_000 + b'"', Codec(JSONSerializer))

    assert len(deep.preview.text) <= previews.LONGEST_TEXT + 1
    assert len(long.preview.text) <= previews.LONGEST_TEXT + 1 and not long.preview.whole


def test_no_control_character_reaches_a_terminal():
    """A value cannot move the cursor or colour what follows."""
    found = taken_apart(b'"a\\u001b[31m\\u0000"', Codec(JSONSerializer))

    assert "\x1b" not in found.preview.text and "\x00" not in found.preview.text
    assert previews.printable("a\x1b\n\u202e\ud800") == "a\\x1b\n\\u202e\\ufffd"


def test_a_compressor_of_the_sites_own():
    """It is asked for values that are whole, and its refusal means that it did not write them."""

    class Reverse:
        def __init__(self, options):
            pass

        def compress(self, value):
            return b"!" + value[::-1]

        def decompress(self, value):
            if value[:1] != b"!":
                raise ValueError("not mine")
            return value[:0:-1]

    codec = Codec(JSONSerializer, Reverse)

    assert taken_apart(codec.encode({"a": 1}), codec).codec == ("reverse", "json")
    assert taken_apart(b'{"a": 1}', codec).codec == ("json",)


def deep(depth, begin, end, one):
    """Return a list within lists, of 64 kB."""
    return begin * depth + one + end * depth


NESTED = {
    "json": (JSONSerializer, [deep(depth, b"[", b"]", b",".join([b"1"] * 30_000)) for depth in (10, 100, 400)]),
    "msgpack": (
        MSGPackSerializer,
        [deep(depth, b"\x91", b"", b"\xdc\xea\x60" + b"\x01" * 60_000) for depth in (10, 100, 400)],
    ),
}


@pytest.mark.parametrize("form", NESTED)
def test_a_deep_value_costs_no_more_than_a_flat_one(form):
    """A few kilobytes of brackets take neither minutes nor gigabytes."""
    serializer, payloads = NESTED[form]
    for payload in payloads:
        began = time.process_time()
        tracemalloc.start()
        try:
            found = taken_apart(payload, Codec(serializer=serializer({})))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

        assert found.preview.text.lstrip("[\n ").startswith("1") or not found.preview.whole
        assert found.preview.form == form
        assert peak < 5_000_000
        assert time.process_time() - began < 1


WRITTEN = [
    *([], {}, (), (1,), [1, "a", None], {"a": [1, (2,)], 3: {4}}, b"x" * 200, "x" * 200, [["x" * 40] * 3]),
    *({"a": {"b": ["x" * 60] * 4}}, ("y" * 99, 1), [{1: 2}] * 30, collections.OrderedDict(a=1)),
]


@pytest.mark.parametrize("value", WRITTEN, ids=range(len(WRITTEN)))
def test_a_value_is_written_as_python_writes_it(value):
    """Over several lines where it does not fit into one; what is written is the value."""
    text, whole = as_python(value, 20_000)

    assert whole
    assert eval(text, {"OrderedDict": collections.OrderedDict}) == value  # noqa: S307 - its own writing
    assert all(len(line) <= 100 for line in text.split("\n")) or "xx" in text or "yy" in text
    assert text == repr(value) or len(repr(value)) > 90


def test_a_value_is_written_as_json():
    """Cut at the length that is asked for."""
    value = {"a": [1, 2.5, None, "ä"]}

    assert as_json(value, 1000) == (json.dumps(value, ensure_ascii=False, indent=2), True)
    text, whole = as_json(value, 10)
    assert json.dumps(value, ensure_ascii=False, indent=2).startswith(text) and not whole


READABLE = [
    *((Codec(), payload) for payload in (pickle.dumps({"a": [1]}, protocol) for protocol in range(6))),
    *(
        (Codec(kind), Codec(kind).encode({"a": [1, "é"]}))
        for kind in (JSONSerializer, MSGPackSerializer, MsgspecSerializer)
    ),
    *((Codec(kind), b"-12") for kind in (JSONSerializer, MSGPackSerializer)),
    (Codec(compressor=ZlibCompressor), Codec(compressor=ZlibCompressor).describe("a" * 500, Metadata(cost=7))),
    (Codec(), Codec(compressor=Lz4Compressor).encode("a" * 500)),
]
UNREADABLE = [
    (Codec(), b'{"a": 1}', "JSON"),
    (Codec(), b'"a"', "JSON"),
    (Codec(), b"12.5", "JSON"),
    (Codec(), b"true", "JSON"),
    (Codec(), b"hello, world", "text"),
    (Codec(), b"\x82\xa1a\x01\xa1b\x02", "bytes of an unknown format"),
    (Codec(), pickle.dumps({"a": 1})[:-3], "a pickle that is cut off"),
    (Codec(), Codec(JSONSerializer, ZlibCompressor).encode("a" * 500), "JSON"),
    (Codec(), b"\x78\x9c" + b"\x00" * 50, "zlib cannot read it: error"),
    (Codec(JSONSerializer), pickle.dumps({"a": 1}), "a pickle of protocol 4"),
    (Codec(JSONSerializer), b"hello", "text"),
    (Codec(MSGPackSerializer), b'{"a": 1}', "JSON"),
    (Codec(MSGPackSerializer), pickle.dumps({"a": 1}), "a pickle of protocol 4"),
]


@pytest.mark.parametrize(("codec", "payload"), READABLE, ids=range(len(READABLE)))
def test_what_the_serializer_reads_is_not_called_unreadable(codec, payload):
    """It is what the codec says itself."""
    codec.decode(payload)

    assert taken_apart(payload, codec).unreadable == ""
    assert taken_apart(payload[:20], codec, whole=False).unreadable == ""


@pytest.mark.parametrize(("codec", "payload", "what"), UNREADABLE, ids=range(len(UNREADABLE)))
def test_what_the_serializer_cannot_read_is_named(codec, payload, what):
    """The codec refuses it, and its preview says what it is instead, without unpickling."""
    with pytest.raises(UnreadableValue):
        codec.decode(payload)

    assert taken_apart(payload, codec).unreadable == what.replace("protocol 4", f"protocol {pickle.DEFAULT_PROTOCOL}")


def test_a_serializer_of_the_sites_own_is_not_judged():
    """Only running it could tell."""

    class Own(JSONSerializer.__base__):
        def dumps(self, value):
            return repr(value).encode()

    assert taken_apart(b'{"a": 1}', Codec(Own)).unreadable == ""
