"""What those read who write something wrong, or ask for help."""

from __future__ import annotations

import inspect
import pydoc

import pytest
from tests.caches import own_prefix
from tests.faces import Face, settled

import fleetcache
from fleetcache import Cache, Policy, cached
from fleetcache.client import HerdClient
from fleetcache.errors import InvalidTimeout, LoadFailed, ServerGone, SettingsError
from fleetcache.owed import SHOWN, Owed
from fleetcache.values import Lookup


@pytest.fixture
def memory(face) -> Face:
    """A cache for cases that no server decides."""
    return Face(Cache("memory://messages", {"KEY_PREFIX": own_prefix()}), face)


# --- wrong words ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("tag", "tags"), ("keys", "key"), ("stale", "stale_while_revalidate"), ("version_", "version"), ("erly", "early")],
)
async def test_the_option_that_is_meant(memory, wrong, meant):
    """It may be any argument of the call, and not only a field of a policy."""
    question = f"unknown option '{wrong}'. Did you mean '{meant}'?"
    with pytest.raises(TypeError) as caught:
        cached(60, cache=memory.whole, **{wrong: 1})
    assert question in str(caught.value)
    if wrong == "keys":
        return  # an argument of `get_or_set_many`
    for call in (
        memory.get_or_set("key", lambda: 1, **{wrong: 1}),
        memory.get_or_set_many(["key"], dict, **{wrong: 1}),
    ):
        assert question in str(await settled(call))


@pytest.mark.parametrize("name", ["add", "aadd"])
def test_an_operation_is_called_by_its_own_name(name):
    """A blocking method does not tell of the coroutine within."""
    with pytest.raises(TypeError, match=rf"^Values.{name}\(\) got an unexpected keyword argument 'tags'"):
        getattr(Cache("memory://"), name)("key", 1, tags=["x"])


@pytest.mark.parametrize("name", ["STALE_WHILE_REVALIDATE", "stale_if_error", "Early", "JITTER"])
def test_a_field_of_a_policy_beside_the_options(name):
    """It belongs into LOADING, wherever it stands."""
    for params in ({"OPTIONS": {name: 60}}, {name: 60}):
        with pytest.raises(SettingsError) as caught:
            Cache("memory://", params)
        assert f"It is a field of LOADING: {{'OPTIONS': {{'LOADING': {{'{name.upper()}': …}}}}}}" in str(caught.value)


# --- HerdClient -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stale_while_revalidate", "early"])
async def test_a_herd_client_refuses_what_it_would_ignore(face, name):
    """In a call, in a policy, and in the settings."""
    cache = Face(HerdClient("memory://", {"KEY_PREFIX": own_prefix()}), face)
    text = f"HerdClient takes no {name}: it keeps each value for HERD_TIMEOUT"
    for call in (
        cache.get_or_set("key", lambda: 1, 60, **{name: 5}),
        cache.get_or_set("key", lambda: 1, Policy(**{name: 5})),
        cache.get_or_set_many(["key"], lambda keys: {}, 60, **{name: 5}),
    ):
        error = await settled(call)
        assert isinstance(error, ValueError)
        assert text in str(error)

    with pytest.raises(SettingsError, match=f"CACHES.'pages'.* LOADING: {text}|^LOADING: {text}"):
        HerdClient("memory://", {"OPTIONS": {"LOADING": {name.upper(): 5}}}, alias="pages")
    handler = fleetcache.caches.__class__()
    handler.configure(
        {"pages": {"LOCATION": "memory://", "OPTIONS": {"CLIENT_CLASS": "HerdClient", "LOADING": {name.upper(): 5}}}}
    )
    with pytest.raises(SettingsError, match=rf"CACHES\['pages'\]: LOADING: {text}"):
        handler["pages"]


async def test_a_herd_client_takes_the_other_fields(face):
    """They mean the same to it."""
    params = {"KEY_PREFIX": own_prefix(), "OPTIONS": {"LOADING": {"JITTER": 0.1, "LEASE": 5}}}
    cache = Face(HerdClient("memory://", params), face)

    assert await cache.get_or_set("key", lambda: 1, 60, retry_after=5, stale_if_error=60) == 1


# --- errors and help --------------------------------------------------------------------------------


def test_errors_show_their_texts():
    """Also those that are redis-py's too, which shows only the class."""
    for kind in (InvalidTimeout, ServerGone, SettingsError, LoadFailed):
        assert repr(kind("it's wrong")) == f'{kind.__name__}("it\'s wrong")'


def test_the_help_of_cached():
    """It is a function with arguments, under its own name."""
    for function in (fleetcache.cached, pytest.importorskip("fleetcache.django").cached):
        assert pydoc.render_doc(function, renderer=pydoc.plaintext).splitlines()[2].startswith("cached(")
        assert "key" in inspect.signature(function).parameters


@pytest.mark.parametrize("kind", [Policy, Lookup])
def test_the_help_of_the_fields(kind):
    """Each is explained."""
    text = inspect.getdoc(kind)
    for name in kind.__dataclass_fields__:
        assert f"- ``{name}``: " in text


# --- what is owed -----------------------------------------------------------------------------------


def test_what_was_owed_to_the_end_is_named(caplog):
    """The first few tags, and how many there are."""
    owed = Owed()
    owed.names = {f"shop:1:~tag:user:{number}": print for number in range(SHOWN + 2)}
    assert owed.owed_tags == SHOWN + 2

    owed.end()

    (record,) = caplog.records
    assert record.getMessage().startswith("12 tags were not invalidated before the process ended: user:0, user:1, ")
    assert record.getMessage().endswith("user:9, and 2 more")
