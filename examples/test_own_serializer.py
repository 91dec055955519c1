"""The serializer gives back what it got, and the change to it loses nothing."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from fleetcache import Cache
from fleetcache.errors import UnstorableValue

URL = "memory://own-serializer"
NEW = {"SERIALIZER": "own_serializer.TypedJSONSerializer", "COMPRESSOR": "own_serializer.Bz2Compressor"}

old = Cache(URL)
new = Cache(URL, {"OPTIONS": NEW})


@pytest.mark.parametrize(
    "value", [1, "text", None, Decimal("1.20"), {"when": datetime(2026, 1, 2, tzinfo=UTC)}, ["x"] * 999]
)
def test_values_come_back(value):
    """Also as part of a tagged entry, which carries metadata before the serializer's bytes."""
    new.set("plain", value)
    new.set("tagged", value, tags=["group"])

    assert [new.get("plain"), new.get("tagged")] == [value, value]


def test_entries_from_before_the_change_are_read():
    old.set("before", {"a": (1, 2)})

    assert new.get("before") == {"a": (1, 2)}


def test_entries_with_tags_from_before_the_change_are_missing():
    """Only a serializer that pickles finds their metadata, within the pickle: they are made anew."""
    old.set("before", 1.5, tags=["group"])

    assert new.get_or_set("before", lambda: 2.5, 60) == 2.5


def test_old_processes_do_not_see_new_entries():
    """They take them as missing, and write the old format again."""
    new.set("after", "text")

    assert old.get("after") is None


def test_what_cannot_be_written_is_refused():
    with pytest.raises(UnstorableValue):
        new.set("bad", object())
