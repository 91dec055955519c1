"""Checks of what the user may do, and of who else could read or change what is sent.

Whether a command is allowed is asked within a transaction that is never executed: the server refuses a command that the
user may not run when it is queued.  So nothing runs, and the user needs no right to read the rules (`ACL GETUSER`).
"""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any, NamedTuple

import redis

from fleetcache.inspection.doctor.asking import TROUBLE, Asked, Examination, line_to, permitted
from fleetcache.inspection.doctor.findings import Finding, Severity, finding
from fleetcache.keys import lease_name

MOMENT = "1000"
NO_DIGEST = "0" * 40


class Right(NamedTuple):
    """Commands that the user should be allowed, and the rule that allows them."""

    what: str
    rule: str
    commands: tuple[tuple[str, ...], ...]
    severity: Severity | None = None


def rights(examination: Examination, name: str) -> Iterator[Right]:
    """Return the rights that this cache needs; the commands are about the entry *name*."""
    used = (
        *(("GET", name), ("MGET", name), ("PTTL", name), ("SET", name, "1", "PX", MOMENT), ("INCRBY", name, "1")),
        *(("DEL", name), ("UNLINK", name), ("PEXPIRE", name, MOMENT), ("EXISTS", name), ("SCAN", "0")),
    )
    yield Right("reading and writing", "+@read +@write", used)
    scripts = (("EVALSHA", NO_DIGEST, "1", name), ("EVAL", "return 0", "1", name))
    yield Right("scripts: counting, leases of loads, locks", "+eval +evalsha", scripts, "warning")
    yield Right("the server's clock", "+time", (("TIME",),), "warning")
    if examination.options.near is not None:
        near = (("CLIENT", "TRACKING", "OFF"), ("INFO", "server"), ("TOUCH", name))
        yield Right("the near cache", "+client|tracking +info +touch", near)
    if examination.is_cluster:
        yield Right("a cluster", "+cluster|slots +asking", (("CLUSTER", "SLOTS"), ("ASKING",)))


def check_rights(examination: Examination) -> Iterator[Finding]:
    """Whether the user may run the commands and use the names that this cache needs."""
    name = str(examination.cache.make_key(f"~doctor:{secrets.token_hex(8)}"))
    for asked in examination.primaries:
        try:
            yield from _of_server(examination, asked, name)
        except TROUBLE as error:
            found = f"the rights of the user: {error}"
            yield finding("not-checked", asked.address, found, "Run the command again.")


def _of_server(examination: Examination, asked: Asked, name: str) -> Iterator[Finding]:
    user = asked.user or _user_of(asked) or "USER"
    needed = list(rights(examination, name))
    lease = lease_name(name)
    with line_to(asked.remote) as line:
        (began,) = line.ask(("MULTI",))
        if not permitted(began):
            yield _missing(asked, user, Right("transactions", "+multi +exec", ()), ["MULTI"])
            return
        if began != b"OK":
            return  # a proxy without transactions: the commands would run
        refused: set[str] = set()
        for right in needed:
            replies = line.ask(*right.commands)
            missing = [_words(command) for command, reply in zip(right.commands, replies, strict=True) if _lacks(reply)]
            refused |= {str(reply) for reply in replies if _is_about_names(reply)}
            if missing:
                yield _missing(asked, user, right, missing)
        if refused:
            rule = f"~{examination.settings.key_prefix}:*"
            advice = f"Allow them: ACL SETUSER {user} {rule}"
            yield finding(
                "names-refused", asked.address, f"names such as {name.rpartition('~')[0]}…: {refused.pop()}", advice
            )
        (reply,) = line.ask(("SET", lease, "1", "PX", MOMENT))
        if _is_about_names(reply):
            advice = (
                f"Allow them: ACL SETUSER {user} ~fleetcache:*. Without them values that are missing are loaded by several "
                f"callers at once."
            )
            yield finding("names-refused", asked.address, f"names under fleetcache:: {reply}", advice, "warning")


def _missing(asked: Asked, user: str, right: Right, commands: list[str]) -> Finding:
    found = f"{right.what}: the user {user!r} may not run {', '.join(commands)}"
    advice = f"Allow it: ACL SETUSER {user} {right.rule}"
    return finding("right-missing", asked.address, found, advice, right.severity)


def _words(command: tuple[str, ...]) -> str:
    return " ".join(command[:2]) if command[0] in {"CLIENT", "CLUSTER"} else command[0]


def _is_about_names(reply: Any) -> bool:
    return not permitted(reply) and "key" in str(reply)


def _lacks(reply: Any) -> bool:
    """Whether *reply* refuses the command itself, not the names in it."""
    return not permitted(reply) and not _is_about_names(reply)


def _user_of(asked: Asked) -> str:
    return str(asked.remote.pool.connection_kwargs.get("username") or "")


# --- on the way -----------------------------------------------------------------------------------


def check_way(examination: Examination) -> Iterator[Finding]:
    """Whether others on the way to the server could read the password, or change pickles."""
    pickles = bool(getattr(examination.cache.codec.serializer, "pickles", False))
    seen = set[str]()
    for asked in examination.servers:
        pool = getattr(asked.remote, "pool", None)
        if pool is None or "path" in pool.connection_kwargs or asked.address in seen:
            continue
        seen.add(asked.address)
        given = pool.connection_kwargs
        if issubclass(pool.connection_class, redis.SSLConnection):
            if given.get("ssl_cert_reqs") in {"none", ssl.CERT_NONE}:
                found = "TLS, but ssl_cert_reqs is 'none'"
                advice = "Name the authority in ssl_ca_certs, and leave ssl_cert_reqs out."
                yield finding("certificate-unchecked", asked.address, found, advice)
            continue
        host = _host(asked)
        if is_loopback(host):
            continue
        advice = f"Use TLS: write rediss:// in {examination.location}, and set tls-port on the server. Or use a network that nobody else is in."
        if given.get("password") or given.get("credential_provider"):
            yield finding("password-in-clear", asked.address, f"a password is sent to {host} without TLS", advice)
        if pickles:
            severity: Severity | None = "info" if is_private(host) else None
            advice += " Or use a SERIALIZER that cannot run code: json, msgpack or msgspec."
            yield finding("pickle-in-clear", asked.address, f"pickles come from {host} without TLS", advice, severity)


def _host(asked: Asked) -> str:
    """Return the host that *asked* leads to."""
    sentinels = asked.remote.sentinels
    if sentinels is not None:
        return str(sentinels.last[0]) if sentinels.last else sentinels.service
    return str(asked.remote.pool.connection_kwargs.get("host") or "localhost")


def is_loopback(host: str) -> bool:
    """Whether *host* is this machine; names are not looked up."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost" or host.lower().endswith(".localhost")


def is_private(host: str) -> bool:
    """Whether *host* looks like one in a network of the site's own: a private address, or a name without a dot."""
    try:
        return ip_address(host).is_private
    except ValueError:
        return "." not in host
