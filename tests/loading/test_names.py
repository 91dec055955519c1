"""The library's own names: a lease is in its entry's slot of a cluster, whatever braces the entry's name has."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.topology.test_cluster import run

from fleetcache.keys import epoch_name, lease_name
from fleetcache.topology.cluster import slot_of

NAMES = st.text(alphabet="ab{}:é", max_size=9) | st.text(st.characters(exclude_categories=["Cs"]), max_size=9)


@settings(deadline=None)  # the first odd name makes a table
@given(name=NAMES)
def test_a_lease_is_in_the_slot_of_its_entry(name):
    """Any braces, in any order, leave the lease beside the entry."""
    assert slot_of(lease_name(name)) == slot_of(name)


@settings(deadline=None)
@given(first=NAMES.filter(bool), second=NAMES.filter(bool))
def test_two_entries_have_two_leases(first, second):
    """A lease permits the load of one entry only."""
    assert (lease_name(first) == lease_name(second)) == (first == second)


@settings(max_examples=50, deadline=None)
@given(name=st.text(alphabet="ab{}:é", min_size=1, max_size=9))
def test_the_server_counts_the_same_slot(valkey_cluster, name):
    """The slot is the one of CLUSTER KEYSLOT, not only ours."""
    node = valkey_cluster.nodes[0]

    assert run(node, "CLUSTER", "KEYSLOT", lease_name(name)) == run(node, "CLUSTER", "KEYSLOT", name)


def test_a_plain_name_stands_in_its_lease_once():
    """The name of an entry with an ordinary key can be read in its lease."""
    assert lease_name("shop:1:report") == "fleetcache:lease:{shop:1:report}"
    assert lease_name("shop:1:{user:5}:report") == "fleetcache:lease:{user:5}shop:1:{user:5}:report"
    assert epoch_name("shop") == "fleetcache:epoch:shop"
