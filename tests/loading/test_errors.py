"""What a loader raises, as its callers get it: a StopIteration as any other, and to each caller an exception of his own."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetcache import Cache, cached
from fleetcache.loading.errors import copied
from fleetcache.loading.flights import Failed

there = Cache("memory://loader-errors", {"KEY_PREFIX": "errors"})


class End(StopIteration):
    """A kind of it."""


def empty(*_):
    return next(iter(()))


def ended(*_):
    raise End("of", "it")


@pytest.fixture(autouse=True)
def clean():
    there.clear()


# --- StopIteration ------------------------------------------------------------------------------------


@cached(60, cache=there)
def stopping(number):
    return next(iter(()))


@cached(60, key="{number}", cache=there)
def stopping_many(number): ...


@stopping_many.loads_many
def load_many(numbers):
    return next(iter(()))


BLOCKING = {
    "get_or_set": lambda: there.get_or_set("key", empty),
    "get_or_set with refresh": lambda: there.get_or_set("key", empty, refresh=True),
    "get_or_set_many": lambda: there.get_or_set_many(["a", "b"], empty),
    "within another loader": lambda: there.get_or_set("key", lambda: there.get_or_set("other", empty)),
    "within its own loader": lambda: there.get_or_set("key", lambda: there.get_or_set("key", empty)),
    "cached": lambda: stopping(1),
    "refresh": lambda: stopping.refresh(1),
    "many": lambda: stopping.many([1, 2]),
    "loads_many": lambda: stopping_many.many([1, 2]),
    "pipeline": lambda: there.pipeline().get_or_set("key", empty).execute(),
}


@pytest.mark.parametrize("case", BLOCKING)
def test_stop_iteration_reaches_a_blocking_caller(case):
    """A StopIteration of a loader is what it raised, not a RuntimeError of the coroutine that called it."""
    with pytest.raises(StopIteration) as raised:
        BLOCKING[case]()

    assert raised.value.__cause__ is None
    assert traceback.extract_tb(raised.value.__traceback__)[-1].filename == __file__
    assert there.set("after", 1) and there.get("after") == 1


def test_a_kind_of_stop_iteration_is_the_same_object():
    """Its class, its value and its arguments stay."""
    with pytest.raises(End) as raised:
        there.get_or_set("key", ended)

    assert raised.value.args == ("of", "it")
    assert raised.value.value == "of"


def test_stop_iteration_is_a_result_of_a_pipeline():
    """Without *raise_on_error* it stands among the results."""
    results = there.pipeline().get_or_set("key", empty).get("other").execute(raise_on_error=False)

    assert [type(each) for each in results] == [StopIteration, type(None)]
    assert results.errors == {0: results[0]}


def test_an_old_value_answers_for_stop_iteration():
    """It is an error as any other."""
    options = {"timeout": 0.05, "stale_if_error": 60, "retry_after": 0}
    there.get_or_set("key", lambda: "old", **options)
    threading.Event().wait(0.1)

    assert there.get_or_set("key", empty, **options) == "old"


async def awaited(*_):
    return next(iter(()))


@cached(60, key="{number}", cache=there)
async def stopping_coroutine(number):
    return next(iter(()))


AWAITING = {
    "a function": lambda: there.aget_or_set("key", empty),
    "a coroutine function": lambda: there.aget_or_set("key", awaited),
    "many": lambda: there.aget_or_set_many(["a"], awaited),
    "cached": lambda: stopping_coroutine(1),
}


@pytest.mark.parametrize("case", AWAITING)
async def test_in_a_coroutine_it_is_what_python_makes_of_it(case):
    """No coroutine can raise StopIteration: Python raises RuntimeError, with or without a cache."""
    with pytest.raises(RuntimeError, match="^coroutine raised StopIteration$") as plain:
        await awaited()
    with pytest.raises(RuntimeError, match="^coroutine raised StopIteration$") as raised:
        await AWAITING[case]()

    assert type(raised.value.__cause__) is type(plain.value.__cause__) is StopIteration


# --- to each caller his own ---------------------------------------------------------------------------


class Plain(Exception):  # noqa: N818
    pass


class Formatting(Exception):  # noqa: N818
    """Its arguments are not those of its constructor."""

    def __init__(self, code, *, detail):
        super().__init__(f"code {code}")
        self.code, self.detail = code, detail


class Slotted(Exception):  # noqa: N818
    __slots__ = ("code",)


class Strict(Exception):  # noqa: N818
    def __setattr__(self, name, value):
        raise AttributeError(name)


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):  # noqa: N818
    code: int


class Refusing(OSError):
    def __init__(self, url):
        super().__init__(5, "refused", url)
        self.url = url


def with_cause():
    error = Plain("with a cause")
    error.__cause__ = KeyError("cause")
    error.add_note("a note")
    return error


COPIED = [
    *(ValueError("x", 5), KeyError("a"), Plain(), Formatting(5, detail="d"), Strict("s"), Frozen(7), with_cause()),
    *(OSError(2, "none", "a", None, "b"), OSError("one"), BlockingIOError(11, "later", 7), Refusing("http://x")),
    *(UnicodeDecodeError("ascii", b"\xff", 0, 1, "odd"), ImportError("no", name="n", path="p"), StopIteration(5)),
    *(SyntaxError("bad", ("file", 1, 2, "text", 1, 3)), AttributeError("a", name="n", obj=5), NameError("n", name="n")),
    *(ExceptionGroup("several", [ValueError(1), Plain(2)]), TimeoutError(), ConnectionResetError(104, "reset")),
]


def shown(error):
    """Return all that can be seen of *error*."""
    lines = traceback.format_exception(error)
    return type(error), str(error), repr(error), error.args, vars(error), lines, error.__suppress_context__


@pytest.mark.parametrize("error", COPIED, ids=lambda error: f"{type(error).__name__}-{str(error)[:12]}")
def test_a_copy_shows_what_the_error_shows(error):
    """Type, arguments, fields, attributes, notes and causes are the same; the object is another."""
    copy = copied(error)

    assert copy is not None and copy is not error
    assert shown(copy) == shown(error)
    vars(copy).setdefault("__notes__", []).append("of this caller")
    assert "of this caller" not in getattr(error, "__notes__", [])


def test_what_cannot_be_copied_is_shared():
    """A class may keep what nobody else can see: then all callers get the one object."""
    error = Slotted()
    failed = Failed.of(error)

    assert copied(error) is None
    assert failed.again(own=False) is failed.again(own=True) is error


@given(st.lists(st.sampled_from(["note", "attribute", "raise"]), max_size=4))
def test_nobody_sees_what_another_caller_does(deeds):
    """The leader gets the error itself; what anybody does to an error is in no later copy."""
    error = Plain("x")
    failed = Failed.of(error)

    for own in (True, False, False):
        mine = failed.again(own=own)
        assert (mine is error) == own
        assert vars(mine) == {}
        for deed in deeds:
            if deed == "note":
                mine.add_note("mine")
            elif deed == "attribute":
                mine.request = 5
            else:
                with pytest.raises(Plain):
                    raise mine


CALLERS = 12


def test_callers_that_joined_have_errors_of_their_own():
    """Traceback and notes of a caller's exception are not those of others."""
    gate, errors = threading.Barrier(CALLERS), []

    def load():
        while there.info()["loading"]["joined"] - joined < CALLERS - 1:
            threading.Event().wait(0.005)
        raise Formatting(5, detail="d")

    def call(number):
        gate.wait()
        try:
            there.get_or_set("key", load)
        except Formatting as error:
            error.add_note(f"request {number}")
            errors.append((error, len(traceback.extract_tb(error.__traceback__))))

    joined = there.info()["loading"]["joined"]
    threads = [threading.Thread(target=call, args=(number,)) for number in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert len({id(error) for error, _ in errors}) == CALLERS
    assert {len(error.__notes__) for error, _ in errors} == {1}
    assert {(error.code, error.detail, str(error)) for error, _ in errors} == {(5, "d", "code 5")}
    assert max(length for _, length in errors) < 25


async def test_tasks_that_joined_have_errors_of_their_own():
    """The same for tasks, and for a batch."""

    async def load(*_):
        await asyncio.sleep(0.02)
        raise Formatting(5, detail="d")

    for calls in (
        [there.aget_or_set("key", load) for _ in range(CALLERS)],
        [there.aget_or_set_many(["a", "b"], load) for _ in range(CALLERS)],
    ):
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(error) for error in errors} == {Formatting}
        assert len({id(error) for error in errors}) == CALLERS
