"""The keys of calls: from the arguments, from a template, from a callable."""

from __future__ import annotations

import decimal
import enum
import os
import subprocess
import sys
import uuid
from collections import namedtuple
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from fractions import Fraction
from functools import partial
from ipaddress import ip_address
from pathlib import PurePosixPath
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fleetcache.errors import InvalidKey
from fleetcache.loading.arguments import LONGEST, Parameters, shortened, written
from fleetcache.loading.recipes import named_by
from fleetcache.loading.templates import Template


class Colour(enum.Enum):
    RED = 1
    CRIMSON = 1  # noqa: PIE796
    BLUE = 2


class Level(enum.IntEnum):
    ONE = 1


class Flags(enum.Flag):
    A = 1
    B = 2


class Safe(str):
    __slots__ = ()


class Tagged(str):  # noqa: SLOT000
    language = None


Point = namedtuple("Point", "x y")  # noqa: PYI024


class User:
    def __init__(self, pk, name="Ann"):
        self.pk = pk
        self._secret = "secret"
        self.names = {"first": name}

    def __str__(self):
        return self.names["first"]


def key_of(function, key=None):
    """Return a function that returns the key of a call."""
    naming = named_by(key, function)
    return lambda *args, **kwargs: naming(args, kwargs)


def plain(a, b=2, *rest, c=3, **more): ...


def one(value): ...


def two(first, second): ...


automatic, of_one = key_of(plain), key_of(one)

TELLING = [
    *(
        None,
        "None",
        True,
        False,
        "True",
        1,
        1.0,
        "1",
        b"1",
        1 + 0j,
        decimal.Decimal(1),
        decimal.Decimal("1.0"),
        Fraction(1),
    ),
    *(
        0.0,
        -0.0,
        float("nan"),
        float("inf"),
        2**70,
        10**5000,
        "",
        b"",
        (),
        (1,),
        ("1",),
        ((1,),),
        (1, 1),
        ("1,1",),
        "(1,)",
    ),
    *(Point(1, 1), Colour.RED, Colour.BLUE, Level.ONE, Flags.A, Flags.A | Flags.B, Flags(0), "RED", Safe("1"), ...),
    *(
        date(2026, 1, 2),
        datetime(2026, 1, 2),
        datetime(2026, 1, 2, tzinfo=UTC),
    ),
    *(
        datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=1))),
        datetime(2026, 1, 2, tzinfo=ZoneInfo("Europe/Berlin")),
    ),
    *(
        "2026-01-02",
        time(1),
        time(1, 0, 1),
        timedelta(1),
        timedelta(0, 1),
        timedelta(0, 0, 1),
        86400,
        range(3),
        range(1, 3),
    ),
    *(frozenset(), frozenset("ab"), frozenset("a"), uuid.UUID(int=1), str(uuid.UUID(int=1)), ip_address("::1"), "::1"),
    *(
        PurePosixPath("a"),
        int,
        str,
        User,
        "a b",
        "a\\x20b",
        "a\tb",
        "a\\tb",
        "{a}",
        "a'b",
        'a"b',
        "é",
        "\ud800",
        "a=1,b=2",
    ),
]


def test_arguments_of_other_types_or_values_are_others():
    """No two of these arguments make one key: not what looks alike, and not what is equal, as True and 1 are."""
    keys = [of_one(value) for value in TELLING]

    assert len(set(keys)) == len(TELLING)


def test_a_key_is_printable_and_short():
    """No key of any argument has white space, braces or control characters, or is too long for memcached."""
    for value in TELLING:
        key = of_one(value)
        assert key.isprintable() and not set(" {}") & set(key), key
        assert len(key) <= LONGEST
        key.encode()


def test_a_key_reads_like_the_call():
    """The key is the function's module and name, with all arguments by their names."""
    assert automatic(1) == f"{__name__}.plain(a=1,b=2,rest=(),c=3)"
    assert automatic(1, "x", 5, 6, d=b"y", c=None).endswith(".plain(a=1,b='x',rest=(5,6),c=None,d=b'y')")
    assert of_one(Colour.CRIMSON).endswith(f".one(value={__name__}.Colour.RED)")
    assert of_one(Safe("x")).endswith(f"(value={__name__}.Safe('x'))")
    assert of_one("a b").endswith(r".one(value='a\x20b')")


def test_ways_to_pass_an_argument_are_the_same():
    """Positions, keywords in any order and defaults make the same key."""
    same = [
        automatic(1),
        automatic(a=1),
        automatic(1, 2),
        automatic(b=2, a=1),
        automatic(c=3, b=2, a=1),
        automatic(1, b=2),
    ]

    assert len(set(same)) == 1
    assert automatic(1, x=1, y=2) == automatic(y=2, x=1, a=1)


@pytest.mark.parametrize("args, kwargs", [((), {}), ((1, 2), {}), ((1,), {"value": 1}), ((), {"other": 1})])
def test_a_wrong_call_is_refused_as_by_the_function(args, kwargs):
    """Arguments that the function does not take raise TypeError with its name."""
    with pytest.raises(TypeError, match=r"^one\(\) "):
        of_one(*args, **kwargs)


class Address: ...


class Lazy:
    """A lazy object, as Django's: any look at it evaluates it."""

    @property
    def __class__(self):
        raise AssertionError("evaluated")

    def __str__(self):
        raise AssertionError("evaluated")

    __iter__ = __len__ = __repr__ = __str__


class Zone(tzinfo):
    def utcoffset(self, moment):
        return timedelta(0)


REFUSED = [
    *([1], {"a": 1}, {1}, bytearray(b"a"), memoryview(b"a"), Address(), User(1), lambda: 1, iter(())),
    *((1, [2]), frozenset({Address()}), Point(1, {}), datetime(2026, 1, 2, tzinfo=Zone())),
]


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: type(value).__name__)
def test_what_cannot_be_a_key_is_refused_with_its_name(value):
    """Mutable objects and those without a stable text are refused when the function is called; nothing is evaluated."""
    with pytest.raises(
        InvalidKey, match=r"one\(\): the argument 'value' is of type|time zone of one\(\): the argument 'value'"
    ):
        of_one(value)
    with pytest.raises(InvalidKey, match="value"):
        key_of(one, "one:{value}")(value)
    with pytest.raises(InvalidKey, match="'x'"):
        automatic(1, x=value)


def test_a_lazy_object_is_not_evaluated():
    """A queryset or a lazy user runs no query to be refused."""
    for function in (of_one, key_of(one, "one:{value}")):
        with pytest.raises(InvalidKey, match="of type Lazy"):
            function(Lazy())


def test_texts_with_attributes_are_refused():
    """A text that carries more than its characters cannot be told from another by them."""
    text = Tagged("a")
    text.language = "de"

    with pytest.raises(InvalidKey, match="Tagged"):
        of_one(text)


def test_the_error_does_not_show_the_value():
    """Messages end in logs, values may be private."""
    with pytest.raises(InvalidKey) as raised:
        of_one(["secret"])

    assert "secret" not in str(raised.value)
    assert "pass a tuple" in str(raised.value)


def test_local_classes_have_no_name():
    """A class or an enumeration that a function makes is another each time."""

    class Local(enum.Enum):
        A = 1

    for value in (Local, Local.A):
        with pytest.raises(InvalidKey, match="inside a function"):
            of_one(value)


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.decimals()
    | st.dates()
    | st.datetimes()
    | st.times()
    | st.timedeltas()
    | st.uuids()
    | st.fractions()
    | st.sampled_from([*Colour, *Level])
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3).map(tuple))


def told(value):
    """Return what two arguments have in common only if they are the same in type and value."""
    if type(value) is tuple:
        return tuple, tuple(map(told, value))
    return type(value), repr(value)


@given(values, values)
def test_keys_are_equal_only_for_equal_arguments(first, second):
    """Two arguments make one key if and only if they are of one type and value, at any depth."""
    assert (written(first, "") == written(second, "")) == (told(first) == told(second))


@given(
    st.dictionaries(st.text(min_size=1), scalars, max_size=3), st.dictionaries(st.text(min_size=1), scalars, max_size=3)
)
@example({"x": 1, "y": 2}, {"x=1,y": 2})
def test_keywords_cannot_be_forged(first, second):
    """Keywords of any text are told apart."""

    def keyword(**given): ...

    text = Parameters(keyword, "keyword").text
    same = {name: told(value) for name, value in first.items()} == {name: told(value) for name, value in second.items()}

    assert (text((), first) == text((), second)) == same


def test_keys_are_the_same_in_every_process():
    """Neither the seed of hashes nor an address in memory is in a key."""
    script = (
        "from tests.loading.test_call_keys import of_one, key_of, two, TELLING\n"
        "print([of_one(value).encode() for value in TELLING], of_one(frozenset('abcdefg')), "
        "key_of(two, '{first}:{second!r}')(frozenset('abcdefg'), (frozenset('xyz'), 1)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    found = {
        subprocess.run(
            [sys.executable, "-c", script], env={**environment, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in "12"
    }

    assert len(found) == 1


# --- long keys ----------------------------------------------------------------------------------------


def test_a_long_key_is_shortened():
    """A long key keeps its beginning, has one length, and differs where the whole differs."""
    first, second = of_one("a" * 500), of_one("a" * 499 + "b")

    assert first != second
    assert len(first) == len(second) == LONGEST
    assert first.startswith(f"{__name__}.one(value='aaaa")
    assert of_one("a" * 500) == first


@given(st.text(max_size=300), st.text(max_size=300))
def test_shortened_keys_do_not_collide(first, second):
    """A short key is never that of a long one, whatever it was made to look like."""
    assert (shortened(first) == shortened(second)) == (first == second)
    assert shortened(shortened(first)) == shortened(first) or len(first) >= LONGEST


# --- templates ----------------------------------------------------------------------------------------


def test_a_template_is_filled_as_by_format():
    """Fields are arguments, with defaults, attributes, indexes, conversions and formats."""

    def report(user, day=date(2026, 1, 2), *, names=("a", "b"), count=7): ...

    def made(template, *args, **kwargs):
        return key_of(report, template)(*args, **kwargs)

    assert made("report:{user.pk}", User(5)) == "report:5"
    assert made("{user.names[first]}:{names[1]}:{count:03}", User(5)) == "Ann:b:007"
    assert made("{day:%Y/%m}-{count!r:>3}", 1) == "2026/01-%20%207"
    assert made("{{{user}}}:{count}", 5) == "{5}:7"
    assert made("{user}", user=None) == "None"
    assert made("report", 1) == "report"
    assert made("{names}:{user}", Colour.RED) == "('a','b'):Colour.RED"
    assert made("{count:02}{user:02}", 1) == "0701"


def test_a_template_is_text():
    """A number and its text are the same there, since other code names the entry by that text too; True is not 1."""
    made = key_of(one, "one:{value}")

    assert made(5) == made("5") == made(Safe("5")) == "one:5"
    assert made(True) == "one:True"


@given(st.text(), st.text(), st.text(), st.text())
@example("1:2", "3", "1", "2:3")
@example("1%3A2", "3", "1:2", "3")
@example(" ", "", "%20", "")
def test_values_in_a_template_cannot_be_shifted(a, b, c, d):
    """Two calls make one key only if each field has the same text, whatever separators the texts hold."""
    for template in ("x:{first}:{second}", "{first}2{second}", "{second} {first}"):
        made = key_of(two, template)
        assert (made(a, b) == made(c, d)) == ((a, b) == (c, d))


@given(st.text(max_size=50))
def test_a_value_in_a_template_is_printable(value):
    """White space, control characters and braces of a value do not reach the server."""
    key = key_of(one, "one:{value}")(value)

    assert key.isprintable() and not set(" {}") & set(key)


@pytest.mark.parametrize("value", ["a:b", "a/b", "Ünïcödé", "a'b", "x=1", "5"])
def test_usual_values_stay_as_they_are(value):
    """Where nothing has to be told apart, the value is its own text."""
    assert key_of(one, "one:{value}")(value) == f"one:{value}"


WRONG = {
    "{nope}": r"one\(\) has no argument 'nope'; it has value",
    "{0}": "no argument '0'",
    "{}": "not an argument's name",
    "{value.__class__}": "'__class__' is private",
    "{value._secret}": "'_secret' is private",
    "{value.pk.__init__.__globals__}": "private",
    "{value:{value}}": "cannot hold another field",
    "{value!x}": "no conversion 'x'",
    "{value": "is no template",
    "}": "is no template",
    "{value}{value}": "has to be separated",
    "{value.}": "not an argument's name",
    "{value +1}": "not an argument's name",
}


@pytest.mark.parametrize("template", WRONG)
def test_a_wrong_template_is_refused_at_once(template):
    """What is wrong with a template shows where the function is decorated."""
    with pytest.raises(ValueError, match=WRONG[template]):
        named_by(template, one)
    with pytest.raises(ValueError, match="^tag "):
        Template(template, Parameters(one, "one"), "tag")


def test_an_index_is_no_attribute():
    """No index reaches an attribute."""
    with pytest.raises((TypeError, KeyError)):
        key_of(one, "{value[.__class__]}")(User(1).names)
    with pytest.raises((TypeError, KeyError)):
        key_of(one, "{value[__class__]}")(User(1).names)


# --- callables ----------------------------------------------------------------------------------------


def test_a_callable_makes_the_key():
    """It gets what the function gets, and what it returns is the key, shortened if it is long."""
    made = key_of(plain, lambda *args, **kwargs: f"{args}:{kwargs}")

    assert made(1, c=2) == "(1,):{'c': 2}"
    assert len(made("a" * 300)) == LONGEST
    with pytest.raises(InvalidKey, match=r"one\(\): the callable given as key= returned int"):
        key_of(one, lambda value: value)(5)


# --- functions that need a key ------------------------------------------------------------------------


def closure(factor):
    def scaled(value):
        return value * factor

    return scaled


class Shop:
    def total(self): ...

    def all(cls): ...  # noqa: N805


@pytest.mark.parametrize(
    "function, message",
    [
        (lambda x: x, "needs a key"),
        (partial(one, 1), "needs a key"),
        (closure(1), r"variables of the function around it \(factor\)"),
        (Shop.total, "is a method, so it needs a key, such as key='total:{self.pk}'"),
        (Shop.all, "is a method"),
        (staticmethod(one), "write @staticmethod above"),
        (5, "decorates a function, not int"),
    ],
)
def test_a_function_that_needs_a_key(function, message):
    """Where module and name do not tell the function, it is refused when it is decorated."""
    with pytest.raises(TypeError, match=message):
        named_by(None, function)


def test_generators_are_refused():
    """A generator runs once; its results are a list."""

    def generator():
        yield 1

    async def asynchronous():
        yield 1

    for function in (generator, asynchronous):
        with pytest.raises(TypeError, match="generator, which can run only once"):
            named_by("key", function)
