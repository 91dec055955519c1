"""Checks of a sample of entries: whose they are, how long they live, who can read them."""

from __future__ import annotations

from collections.abc import Iterator

from fleetcache.inspection.doctor.asking import Examination
from fleetcache.inspection.doctor.findings import Finding, finding
from fleetcache.inspection.doctor.formats import JSON, OTHER, PICKLE, library_of
from fleetcache.inspection.doctor.sampling import Sample, sample
from fleetcache.inspection.doctor.servers import policy_of

FEW = 0.05
"""Up to which share entries without a timeout are no finding, if TIMEOUT says that entries have one."""
TEXTUAL = frozenset(("JSONSerializer", "MsgspecJSONSerializer"))
BINARY = frozenset(("MSGPackSerializer", "MsgspecSerializer"))


def check_entries(examination: Examination) -> Iterator[Finding]:
    """What a sample of the entries shows."""
    if not examination.primaries:
        return
    found = sample(examination)
    if found.trouble is not None:
        advice = "Allow it: ACL SETUSER USER +scan +pttl +getrange +strlen; or run the command again."
        yield finding("not-checked", examination.subject, f"a sample of the entries: {found.trouble}", advice)
    if found.unnamed:
        yield finding("settings-refused", examination.subject, found.unnamed, "Correct this function.")
    yield from _shared(examination, found)
    yield from _lasting(examination, found)
    yield from _formats(examination, found)


def clears_all(examination: Examination) -> bool:
    """Whether `clear()` empties the whole database."""
    scope = examination.options.clear
    return scope == "database" or (scope == "auto" and not examination.settings.key_prefix)


def _shared(examination: Examination, found: Sample) -> Iterator[Finding]:
    if not found.foreign:
        return
    count = found.foreign.total()
    names = ", ".join(name for name, _ in found.foreign.most_common(5))
    what = (
        f"{count} of {found.seen} names are not this cache's, such as {names}: "
        "another program's, or the site's own, written with get_redis_connection"
    )
    if clears_all(examination):
        advice = (
            "clear() removes these entries too. Set a KEY_PREFIX, or CLEAR = 'prefix', or use a database of its own."
        )
        yield finding("database-shared", examination.subject, what, advice, "warning")
    else:
        yield finding("database-shared", examination.subject, what, "Nothing, if that is intended.")


def _lasting(examination: Examination, found: Sample) -> Iterator[Finding]:
    if not found.lasting:
        return
    what = f"{found.share(found.lasting)} have no timeout"
    policies = {policy for asked in examination.primaries if (policy := policy_of(asked)).startswith("volatile-")}
    if policies:
        advice = "Set maxmemory-policy to allkeys-lfu or allkeys-lru, or give all entries a timeout."
        yield finding("eviction-of-some", examination.subject, f"{what}; maxmemory-policy is {policies.pop()}", advice)
    if examination.settings.timeout is None or found.lasting > FEW * found.looked_at:
        by_default = (
            "TIMEOUT = None makes them so"
            if examination.settings.timeout is None
            else "calls with timeout=None make them"
        )
        advice = f"Set a timeout, so that values which nobody reads disappear: {by_default}."
        yield finding("timeout-missing", examination.subject, what, advice)


def _formats(examination: Examination, found: Sample) -> Iterator[Finding]:
    serializer = type(examination.cache.codec.serializer).__name__
    formats, subject = found.formats, examination.subject
    pickles = sum(count for form, count in formats.items() if form.body == PICKLE)
    if serializer in TEXTUAL | BINARY and pickles:
        advice = "Find out which process writes them. They expire by themselves, or remove them with delete_pattern."
        yield finding(
            "pickles-found", subject, f"{found.share(pickles)} are pickles; SERIALIZER is {serializer}", advice
        )
    strange = strange_to(serializer) - {PICKLE}  # which is a finding of its own
    if foreign := sum(count for form, count in formats.items() if form.body in strange):
        advice = "Give each program a KEY_PREFIX of its own, or all the same SERIALIZER; after a change of SERIALIZER they expire."
        yield finding("format-foreign", subject, f"{found.share(foreign)} were not written by {serializer}", advice)
    for name in sorted({form.compressed for form in formats if form.compressed}):
        if library := library_of(name):
            count = sum(number for form, number in formats.items() if form.compressed == name)
            what = f"{found.share(count)} are compressed by {name}; {library.partition('.')[0]} is not installed"
            yield finding("library-missing", subject, what, f"Install it: pip install {PACKAGES.get(name, library)}")
    if described := sum(count for form, count in formats.items() if form.metadata):
        envelopes = sum(count for form, count in formats.items() if form.metadata == "envelope")
        what = f"{found.share(described)} have metadata (tags, a stale life, a cost), {f'of which {envelopes} are' if envelopes else 'none of them'} in an envelope"
        advice = "Nothing, unless other libraries read them: envelopes are unreadable there; of the others they see the value alone."
        yield finding("unreadable-for-others", subject, what, advice)


PACKAGES = {"lz4": "lz4", "zstd": "backports.zstd"}


def body_of(serializer: str) -> str:
    """Return what a built-in serializer writes; "" for one of the site's own."""
    if serializer == "PickleSerializer":
        return PICKLE
    return JSON if serializer in TEXTUAL else OTHER if serializer in BINARY else ""


def strange_to(serializer: str) -> frozenset[str]:
    """Return the formats that a built-in serializer cannot read."""
    formats = {PICKLE: (JSON, OTHER), JSON: (PICKLE, OTHER), OTHER: (PICKLE,)}
    return frozenset(formats.get(body_of(serializer), ()))
