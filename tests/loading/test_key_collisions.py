"""Keys of two calls are equal only if the calls are: a search over arguments of many kinds, and over templates."""

from __future__ import annotations

import datetime as dt
import enum
import os
import sys
import time
import types
import zoneinfo
from collections import namedtuple
from decimal import Decimal
from io import BytesIO
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from freezegun import freeze_time
from hypothesis import assume, example, given
from hypothesis import strategies as st

from fleetcache.errors import InvalidKey
from fleetcache.loading.arguments import Parameters, written
from fleetcache.loading.recipes import named_by

Odd = enum.Enum(
    "Odd", {"a": 1, "b": 2, f"a,{__name__}.Odd.b": 3, "a|b": 4, "a b": 5, "{": 6, "é": 7, "b-c": 8, "a'": 9}
)
OddFlags = enum.Flag("OddFlags", {"a": 1, "b": 2, "a|b": 4, "c,d": 8})


class Flags(enum.Flag):
    A = 1
    B = 2
    C = 4


class Kept(enum.IntFlag, boundary=enum.KEEP):
    A = 1


class Word(enum.StrEnum):
    A = "a"


class Text(str):
    __slots__ = ()


class Number(int):
    __slots__ = ()


class Raw(bytes):
    __slots__ = ()


class Row(tuple):
    __slots__ = ()


Point = namedtuple("Point", "x y")  # noqa: PYI024
Pixel = namedtuple("Pixel", "x y")  # noqa: PYI024

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
zones = st.sampled_from(
    [None, dt.UTC, BERLIN, zoneinfo.ZoneInfo("Europe/Paris"), dt.timezone(dt.timedelta(hours=2), "Europe/Berlin")]
)
folds = st.sampled_from([0, 1])
twice = st.builds(dt.datetime, st.just(2026), st.just(10), st.just(25), st.integers(1, 3), st.just(30), fold=folds)
texts = st.text(max_size=4) | st.text(alphabet="a1,=()'\"\\x20:%{} |", max_size=6) | st.sampled_from(["a", "None", "1"])
members = st.sampled_from([*Odd, *OddFlags, OddFlags.a | OddFlags.b, OddFlags(9), *Flags, Flags.A | Flags.B])
numbers = (
    st.integers(-3, 300)
    | st.integers(2**64 - 2, 2**64 + 2)
    | st.floats(width=16)
    | st.decimals(places=1).filter(lambda number: not number.is_snan())
)
moments = st.builds(lambda moment, zone: moment.replace(tzinfo=zone), twice | st.datetimes(), zones)
scalars = st.one_of(
    numbers,
    texts,
    texts.map(Text),
    st.binary(max_size=4),
    st.binary(max_size=2).map(Raw),
    st.integers(0, 3).map(Number),
    members,
    st.sampled_from([Flags(0), Flags(7), Kept(1), Kept(9), Kept(8), Word.A, None, True, False, ..., Text, Number, Odd]),
    moments,
    st.builds(lambda moment: moment.timetz(), moments),
    st.dates(),
    st.timedeltas(),
    st.complex_numbers(allow_nan=False),
    st.sampled_from([ip_address("::1"), ip_interface("::1"), ip_network("::1"), ip_address("0.0.0.1")]),
    texts.map(PurePosixPath),
    texts.map(PureWindowsPath),
    st.builds(range, st.integers(0, 2), st.integers(0, 2)),
    st.uuids(),
)


def nested(inner):
    """Return what holds *inner*."""
    several = st.lists(inner, max_size=3)
    pair = st.tuples(inner, inner)
    rows = pair.map(lambda given: Point(*given)) | pair.map(lambda given: Pixel(*given)) | several.map(Row)
    return several.map(tuple) | rows | several.map(frozenset)


values = st.recursive(scalars, nested, max_leaves=6)


def told(value):
    """Return what two arguments have in common only if they are the same in type and value."""
    if isinstance(value, (tuple, frozenset)):
        return type(value), (tuple if isinstance(value, tuple) else frozenset)(map(told, value))
    if isinstance(value, (dt.datetime, dt.time)):
        return type(value), repr(value), str(value.tzinfo)
    if isinstance(value, enum.Enum):
        return type(value), value._value_
    return type(value), repr(value)


@given(values, values)
@example(Odd.a, Odd["a|b"])
@example((Odd.a, Odd.b), (Odd[f"a,{__name__}.Odd.b"],))
@example(OddFlags.a | OddFlags.b, OddFlags["a|b"])
@example(dt.datetime(2026, 10, 25, 2, 30), dt.datetime(2026, 10, 25, 2, 30, fold=1))
@example(dt.time(2, 30, tzinfo=BERLIN), dt.time(2, 30, tzinfo=BERLIN, fold=1))
@example(dt.datetime(2026, 1, 2, tzinfo=dt.UTC), dt.datetime(2026, 1, 2, tzinfo=dt.UTC, fold=1))
def test_two_arguments_make_one_key_only_if_they_are_the_same(first, second):
    """Whatever the types of two arguments are, their texts differ unless type and value are equal."""
    assert (written(first, "") == written(second, "")) == (told(first) == told(second))


def anything(a, /, b=2, *rest, c=3, **more): ...


calls = st.tuples(
    st.lists(scalars, min_size=1, max_size=4),
    st.dictionaries(
        st.sampled_from(["a", "c", "rest", "more", "d"]) | texts.filter(lambda text: text != "b"), scalars, max_size=3
    ),
)


@given(calls, calls)
def test_two_calls_make_one_key_only_if_they_are_the_same(first, second):
    """Positions, defaults, further arguments and keywords of any name are told apart."""
    parameters = Parameters(anything, "anything")
    bound = [parameters.bind(tuple(args), kwargs) for args, kwargs in (first, second)]
    whole = [
        (
            told(each["a"]),
            told(each["b"]),
            told(each["rest"]),
            told(each["c"]),
            {n: told(v) for n, v in each["more"].items()},
        )
        for each in bound
    ]
    keys = [parameters.text(tuple(args), kwargs) for args, kwargs in (first, second)]

    assert (keys[0] == keys[1]) == (whole[0] == whole[1])


# --- templates ----------------------------------------------------------------------------------------


def three(a, b, c): ...


SPECS = ["", ":3", ":<2", ":>4", ":_^3", ":%<3"]
fields = st.tuples(st.sampled_from("abc"), st.sampled_from(SPECS))
literals = st.sampled_from(["", "", ":", "-", "2", "(", ")", "%", "x", "é", "0:"])
templates = st.lists(st.tuples(literals, fields), min_size=2, max_size=4)
short = st.text(alphabet="a12:%() -{é\ud800", max_size=6)


@given(templates, st.tuples(short, short, short), st.tuples(short, short, short))
@example([("", ("a", ":4")), ("", ("b", ":2"))], ("12345", "67", ""), ("1234", "567", ""))
@example([("", ("a", "")), ("%", ("b", ""))], ("x%", "25Z", ""), ("x", "25%Y", ""))
@example([("", ("a", ":3")), ("", ("b", ":3")), ("", ("c", ""))], ("12345", "(1", "%)"), ("123", "45%)(1", "%)"))
def test_two_calls_make_one_key_of_a_template_only_if_its_fields_are_the_same(parts, first, second):
    """Whatever separates fields, or nothing but their widths, one key has one text for each field."""
    template = "".join(f"{literal}{{{name}{spec}}}" for literal, (name, spec) in parts)
    try:
        naming = named_by(template, three)
    except ValueError:
        assume(False)
    shown = [[format(values["abc".index(name)], spec[1:]) for _, (name, spec) in parts] for values in (first, second)]

    assert (naming(first, {}) == naming(second, {})) == (shown[0] == shown[1])


@pytest.mark.parametrize(
    "template", ["{a}{b}", "{a:x}{b}", "{a:d}{b:3}", "{a:.2f}{b}", "{a:%B}{b}", "{a!r}{b}", "{a}%{b}"]
)
def test_fields_whose_ends_cannot_be_seen_are_refused(template):
    """Without a separator or a width it is unknown where one value ends."""
    with pytest.raises(ValueError, match="has to be separated"):
        named_by(template, three)


def test_values_within_their_width_stay_as_they_are():
    """Only a value that is longer is marked."""
    day = dt.date(2026, 1, 2)
    made = named_by("{a:%Y%m%d}{b:02}{c}", three)

    assert made((day, 7, 5), {}) == "20260102075"
    assert made((day, 123, 5), {}) == "20260102%(123%)5"
    assert named_by("{a:4}{b:2}", three)((12345, 67, 0), {}) != named_by("{a:4}{b:2}", three)((1234, 567, 0), {})


# --- moments ------------------------------------------------------------------------------------------


def test_fold_is_told_only_where_nothing_else_tells_it():
    """Of a moment with a place an offset tells which of two hours is meant, as before."""
    for moment in (dt.datetime(2026, 10, 25, 2, 30), dt.datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN)):
        assert written(moment, "") != written(moment.replace(fold=1), "")
    assert written(dt.datetime(2026, 1, 2, fold=1), "") == "datetime(2026-01-02T00:00:00,fold=1)"
    assert written(dt.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=BERLIN), "") == (
        "datetime(2026-10-25T02:30:00+01:00'Europe/Berlin')"
    )


def test_a_zone_whose_text_is_an_address_is_refused():
    """A zone from a file without a name has another text in each process."""
    path = next(f"{each}/Europe/Berlin" for each in zoneinfo.TZPATH if os.path.exists(f"{each}/Europe/Berlin"))
    with open(path, "rb") as file:
        zone = zoneinfo.ZoneInfo.from_file(BytesIO(file.read()))

    with pytest.raises(InvalidKey, match="time zone"):
        written(dt.datetime(2026, 1, 2, tzinfo=zone), "")


def test_a_clock_that_freezegun_has_stopped():
    """What it puts in place of dates has the keys of dates; real ones are accepted meanwhile, too."""
    day, moment, clock = dt.date(2026, 1, 2), dt.datetime(2026, 1, 2, 3), dt.time(3)
    keys = [written(each, "") for each in (day, moment, clock)]

    with freeze_time("2026-01-02 03:00"):
        frozen = [dt.date.today(), dt.datetime.now(), dt.datetime.now().time()]  # noqa: DTZ011, DTZ005
        assert [written(each, "") for each in frozen] == keys
        assert [written(each, "") for each in (day, moment, clock)] == keys
        assert written(dt.datetime.now(dt.UTC), "") == "datetime(2026-01-02T03:00:00+00:00'UTC')"
    assert keys == ["date('2026-01-02')", "datetime(2026-01-02T03:00:00)", "time(03:00:00)"]


# --- classes ------------------------------------------------------------------------------------------


def test_a_class_that_is_not_found_under_its_name_is_refused():
    """Two of them may have one name: only that of an importable class tells which it is."""
    colour = enum.Enum("Odd", {"a": 1})
    point = namedtuple("Point", "x y")  # noqa: PYI024
    text = type("Text", (str,), {"__slots__": ()})

    for value in (colour.a, point(1, 2), text("a"), colour):
        with pytest.raises(InvalidKey, match="cannot be part of a key"):
            written(value, "the argument")


def test_a_class_in_a_class_is_found():
    """A name may have several parts."""
    module = sys.modules[__name__]
    assert isinstance(module, types.ModuleType)
    assert written(Outer.Status.OPEN, "") == f"{__name__}.Outer.Status.OPEN"


class Outer:
    class Status(enum.Enum):
        OPEN = 1


@pytest.mark.parametrize("value", [time.localtime(), os.stat(__file__)], ids=["time", "stat"])
def test_a_tuple_with_more_fields_than_members_is_refused(value):
    """Two of them may differ in what their members do not show."""
    with pytest.raises(InvalidKey):
        written(value, "the argument")


def test_usual_keys_are_those_of_other_releases():
    """Workers of two releases share their entries."""
    assert [
        written(value, "") for value in (Decimal("1.0"), Flags.A | Flags.B, Word.A, Point(1, "a b"), Number(3))
    ] == [
        "Decimal('1.0')",
        f"{__name__}.Flags.A|B",
        f"{__name__}.Word.A",
        rf"{__name__}.Point(1,'a\x20b')",
        f"{__name__}.Number(3)",
    ]
    assert written(Flags(0), "") == f"{__name__}.Flags(0)"
    assert written(Odd["b-c"], "") == f"{__name__}.Odd.b-c"
    assert written(Kept(9), "") == f"{__name__}.Kept.A|8"
