"""Hides secrets: every part of a setting that a message, a log line or a repr quotes passes through here.

A password that was written in a wrong place may stand anywhere: in the path, the port, or the name of a parameter.  So no
text is searched for passwords.  A URL is masked by its structure, and text without that structure is not quoted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

SECRETIVE = re.compile("PASS|USER|KWARGS|SENTINELS|CREDENTIAL|SECRET|TOKEN|AUTH|CA_DATA", re.IGNORECASE)
"""Names of settings whose values are not quoted."""

PLAIN = frozenset(
    [
        "client_name",
        "db",
        "is_master",
        "key_prefix",
        "max_connections",
        "near",
        "protocol",
        "service_name",
        "socket_connect_timeout",
        "socket_timeout",
        "timeout",
        "version",
        "ssl_ca_certs",
        "ssl_cert_reqs",
        "ssl_check_hostname",
    ]
)
"""Parameters of a URL whose values are quoted."""

WORD = re.compile(r"[A-Za-z_]\w*")
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
HOST = r"(?:[^\s:@/?#,\[\]]+|\[[\w:.%]+\])(?::\d*)?"
PLACE = re.compile(rf"(?:{HOST}(?:,\s*{HOST})*)?(?:/[^?#&=;]*)?", re.DOTALL)
BARE = re.compile(r"(?:localhost|[\w.-]+:\d+|\[[\da-fA-F:.]+\](?::\d+)?|[\w-]+(?:\.[\w-]+)+|\.{0,2}/.*)", re.DOTALL)
USER = re.compile(r"[\w.-]*")
PASSWORD = re.compile(r"[^\s:@/?#,;|]+")


def masked_url(url: str) -> str:
    """Return *url* without its secrets, even if it is not a valid URL.

    Everything before the last ``@`` is hidden; only the name of the user is shown, if the URL is well formed.
    """
    head, at, tail = url.rpartition("@")
    scheme, found, rest = (head if at else url).partition("://")
    if not found or not SCHEME.fullmatch(scheme):
        scheme, found, rest = "", "", head
    if at and re.search("[/?#]", rest):
        return f"{scheme}{found}***"  # nobody can tell which part ends at the last @
    place, mark, query = tail.partition("?")
    shown = f"{place}{mark}{_masked_query(query)}"
    if at:
        return f"{scheme}{found}{_masked_user(rest) if found else '***'}@{shown}"
    start = f"{scheme}{found}"
    place = place.removeprefix(start)
    if (PLACE if start else BARE).fullmatch(place):
        return shown
    return f"{start}***"


def _masked_user(text: str) -> str:
    """Return ``user:***`` for ``user:password``, or less."""
    user, colon, password = text.partition(":")
    if not colon:
        return "***"
    # If there is an unescaped special character, or no password, the "user" may be the password, or a part of it.
    known = not user or (USER.fullmatch(user) and PASSWORD.fullmatch(password))
    return f"{user}:***" if known else "***"


def _masked_query(query: str) -> str:
    parameters = (parameter.partition("=") for parameter in query.split("&")) if query else ()
    return "&".join(_masked_parameter(name, equals, value) for name, equals, value in parameters)


def _masked_parameter(name: str, equals: str, value: str) -> str:
    if name in PLAIN and re.fullmatch(r"[\w.,:/-]*", value):
        return f"{name}{equals}{value}"
    return f"{name}=***" if equals and WORD.fullmatch(name) else "***"


def quoted(name: Any) -> str:
    """Return the name of a setting, or a dotted path, for a message; text that cannot be a name is not quoted."""
    text = str(name)
    if isinstance(name, str) and re.search(r"[@?&=#\s]|://", text):
        return "a text that is no name"
    return repr(name)


def shown(name: str, value: Any) -> str:
    """Return the *value* of the setting *name* for a message; only its type, if the value may hold a secret."""
    kind = type(value).__name__
    if value is not None and not SECRETIVE.search(name):
        if isinstance(value, str):
            return repr(masked_url(value) if re.search("@|://", value) else value)
        if _is_plain(value) and not re.search("@|://", text := repr(value)):
            return text
    return with_article(kind) if value is not None else "None"


def with_article(kind: str) -> str:
    """Return the name of a class with its article: a list, an int, a UUID."""
    return f"{'an' if kind[0] in 'aeioAEIO' else 'a'} {kind}"


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(item, (int, float)) for item in value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(isinstance(item, (str, bytes, int, float)) or item is None for item in value)
    return True


class Secret(str):
    """A password as redis-py gets it: who shows the local variables of a traceback, as error pages and Sentry do, shows ``***``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class SecretBytes(bytes):
    """The same in bytes, or a command with one."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "b'***'"


def secret(password: Any) -> Any:
    """Return *password* as a `Secret`, if it is text or bytes."""
    if isinstance(password, str):
        return Secret(password)
    return SecretBytes(password) if isinstance(password, bytes) else password


def hide(arguments: dict[str, Any]) -> None:
    """Let the *arguments* of a connection hold its password as a `Secret`; without one, the user's name is often the password."""
    for name in ["password"] if arguments.get("password") else ["username"]:
        if name in arguments:
            arguments[name] = secret(arguments[name])


def without_frames(error: BaseException) -> BaseException:
    """Return *error* without its traceback and those of its causes: the local variables in their frames hold passwords."""
    chain = [error]
    for told in chain:
        told.__traceback__ = None
        chain += [cause for cause in (told.__cause__, told.__context__) if cause is not None and cause not in chain]
    return error
