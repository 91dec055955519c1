"""The arguments of a call as a text, for the keys of `@cached`.

The text is the same for the same arguments, in every process, and it differs if any argument differs in value or type:
1, 1.0, True and "1" are four arguments.  Only objects of types that are known to have such a text are accepted.  The
``str`` of any other object may hold its address, run a query, or be the same for two users of one name.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from hashlib import blake2b
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any, NoReturn
from uuid import UUID

from fleetcache.errors import InvalidKey

LONGEST = 200
"""The length of a key from which on it is shortened; with prefix and version its name stays within memcached's 250."""

DIGITS = 32
"""Hexadecimal digits of the digest in a shortened key."""

HINTS = {
    "list": "pass a tuple",
    "set": "pass a frozenset",
    "dict": "pass tuple(sorted(….items()))",
    "bytearray": "pass bytes",
    "__proxy__": "pass its str(), since it is a lazy text",
}
"""What to pass in place of an object that cannot be part of a key, by its type."""


SIMPLE = re.compile(r"[\w-]+\Z")
COMPOSED = re.compile(r"[\w|-]+\Z")
"""Names of members of enumerations that need no quotes; of flags that are made of others."""


def shortened(key: str) -> str:
    """Return *key*, or if it is long its beginning and a digest of all of it.

    Shortened keys have exactly the length `LONGEST`, all others are shorter: none can be taken for another.
    """
    if len(key) < LONGEST:
        return key
    digest = blake2b(key.encode(errors="surrogatepass"), digest_size=DIGITS // 2).hexdigest()
    return f"{key[: LONGEST - DIGITS - 1]}#{digest}"


def written(value: Any, what: str) -> str:
    """Return the text of an argument; *what* names it in the error if it has none."""
    kind = type(value)
    write = WRITERS.get(kind)
    if write is not None:
        return write(value)
    # `issubclass`, because `isinstance` would evaluate a lazy object, such as ``request.user``.
    if issubclass(kind, Enum):
        return _member(value, what)
    if kind is tuple:
        return _members(value, what)
    if kind is frozenset:
        return f"frozenset({','.join(sorted(written(each, what) for each in value))})"
    if (moment := MOMENTS.get(kind) or FROZEN.get((kind.__module__, kind.__name__))) is not None:
        return _dated(value) if moment == "date" else _moment(moment, value, what)
    if issubclass(kind, type):
        return _path(value, what)
    for base in (str, int, float, bytes, tuple):
        if issubclass(kind, base) and not _has_state(value):
            # A text that is marked as safe, for example, is not the plain text.
            inner = _members(value, what) if base is tuple else f"({WRITERS[base](value)})"
            return _path(kind, what) + inner
    return refuse(value, what)


def refuse(value: Any, what: str) -> NoReturn:
    """Raise the error for an argument that cannot be part of a key; it does not show the value."""
    kind = type(value)
    hint = HINTS.get(kind.__name__, "pass a part of it that identifies it, such as its primary key")
    raise InvalidKey(
        f"{what} is of type {kind.__name__}, which has no stable text and cannot be part of a key: {hint}, or give "
        f"@cached a key= that is a template with an attribute or a callable"
    )


def _text(value: str) -> str:
    # Spaces would make Django warn of the key, braces would decide its slot in a cluster.
    text = str.__repr__(value)
    return text.replace(" ", "\\x20").replace("{", "\\x7b").replace("}", "\\x7d") if _is_odd(text) else text


def _is_odd(text: str) -> bool:
    return " " in text or "{" in text or "}" in text


def _whole(value: int) -> str:
    # Python refuses to write very long numbers in decimal.
    return int.__repr__(value) if -(2**64) < value < 2**64 else hex(value)


def _bytes(value: bytes) -> str:
    return f"b{_text(bytes(value).decode('latin-1'))}"


def _named(value: Any) -> str:
    return f"{type(value).__name__}({_text(str(value))})"


def _members(value: tuple[Any, ...], what: str) -> str:
    return f"({','.join(written(each, what) for each in tuple.__iter__(value))})"


def _member(value: Enum, what: str) -> str:
    kind, name = type(value), value._name_
    members = kind.__members__
    if name is None or members.get(name) is not value:  # a flag that is made of others, ``A|B``
        if name and COMPOSED.match(name) and all(map(str.isidentifier, members)):
            return f"{_path(kind, what)}.{name}"
        return f"{_path(kind, what)}({written(value._value_, what)})"
    # Any text may be a name: Enum("E", {"a,b": 1}).
    return f"{_path(kind, what)}.{name}" if SIMPLE.match(name) else f"{_path(kind, what)}[{_text(name)}]"


def _dated(value: date) -> str:
    return f"date({_text(str(value))})"


def _moment(name: str, value: datetime | time, what: str) -> str:
    # Of the hour that a clock passes twice, an offset tells which one is meant; without an offset only `fold` does.
    fold = value.fold and value.utcoffset() == value.replace(fold=0).utcoffset()
    zone = "" if value.tzinfo is None else _zone(value.tzinfo, what)
    return f"{name}({value.isoformat()}{zone}{',fold=1' if fold else ''})"


def _zone(zone: tzinfo, what: str) -> str:
    """Return the text of a time zone: the offset alone would not do, since two zones with one offset may differ later."""
    kind = type(zone)
    text = str(zone)
    if (kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__) or " at 0x" in text:
        refuse(zone, f"the time zone of {what}")  # its text is its address
    named = kind is timezone and not text.startswith(("UTC", "+", "-"))  # as it may be that of a place
    return f"{'timezone' if named else ''}{_text(text)}"


def _path(kind: type, what: str) -> str:
    if "<" in kind.__qualname__:
        raise InvalidKey(
            f"{what}: the class {kind.__qualname__} was made inside a function, so its name may be that of another class "
            f"too, and cannot be part of a key"
        )
    path = f"{kind.__module__}.{kind.__qualname__}"
    if not is_found(kind):
        raise InvalidKey(
            f"{what}: the class {path} is not what has this name in its module, so the name may be that of another class "
            f"too, and cannot be part of a key: give the class the name by which it can be imported"
        )
    return path


def is_found(named: Any) -> bool:
    """Whether *named*, a class or a function, is what its module has under its name."""
    found: Any = sys.modules.get(getattr(named, "__module__", None) or "")
    for part in str(getattr(named, "__qualname__", "")).split("."):
        found = getattr(found, part, None)
    return found is named


def _has_state(value: Any) -> bool:
    """Whether an object of a subclass of a plain type may hold more than a plain one."""
    kind = type(value)
    if bool(getattr(value, "__dict__", None)) or any(vars(each).get("__slots__") for each in kind.__mro__):
        return True
    # The result of ``os.stat``, for example, is a tuple with more fields than members.
    return getattr(kind, "n_fields", 0) != getattr(kind, "n_sequence_fields", 0)


WRITERS: dict[type, Callable[[Any], str]] = {
    **dict.fromkeys((bool, float, complex, type(None), type(...)), repr),
    **dict.fromkeys((Decimal, Fraction, UUID), _named),
    **dict.fromkeys((IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network), _named),
    **dict.fromkeys((PosixPath, PurePosixPath, PureWindowsPath, WindowsPath), _named),
    str: _text,
    int: _whole,
    bytes: _bytes,
    date: _dated,
    float: float.__repr__,
    timedelta: lambda value: f"timedelta({value // timedelta(microseconds=1)})",
    range: lambda value: f"range({value.start},{value.stop},{value.step})",
}
"""How an object of exactly this type is written."""

MOMENTS: dict[type, str] = {datetime: "datetime", time: "time"}
"""The types of moments, by their names.  A table, because freezegun replaces the names in this module, not their values."""

FROZEN = {("freezegun.api", "FakeDatetime"): "datetime", ("freezegun.api", "FakeDate"): "date"}
"""What stands for these types while freezegun has stopped the clock; the keys are those of the types themselves."""


class Parameters:
    """The parameters of a function: arguments in, a value for each parameter out."""

    def __init__(self, function: Callable[..., Any], called: str) -> None:
        self.called = called
        self.signature = inspect.signature(function)
        parameters = self.signature.parameters
        self.names = tuple(parameters)
        self.known = {name: self.argument(name) for name in parameters}
        """What errors call each argument."""
        self.keywords = next((name for name, each in parameters.items() if each.kind is each.VAR_KEYWORD), None)
        """The name of ``**kwargs``, if there is one."""
        self.plain = all(each.kind is each.POSITIONAL_OR_KEYWORD for each in parameters.values())
        self.defaults = {name: each.default for name, each in parameters.items() if each.default is not each.empty}

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the value of each parameter; raise TypeError as the function would."""
        names = self.names
        if self.plain and len(args) <= len(names):  # by hand: `Signature.bind` takes several times as long
            values = self.defaults | dict(zip(names, args, strict=False))
            if kwargs and kwargs.keys() <= set(names[len(args) :]):
                values |= kwargs
                kwargs = {}
            if not kwargs and len(values) == len(names):
                return values
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.called}() {error}") from None
        bound.apply_defaults()
        return bound.arguments

    def text(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """Return the arguments as in a call: ``(user_id=5,language='en')``."""
        values = self.bind(args, kwargs)
        parts = [f"{name}={written(values[name], self.known[name])}" for name in self.names if name != self.keywords]
        for name, value in sorted(values[self.keywords].items()) if self.keywords else ():
            # Any text may be a keyword: f(**{"a=1,b": 2}).
            parts.append(f"{name if name.isidentifier() else _text(name)}={written(value, self.argument(name))}")
        return f"({','.join(parts)})"

    def argument(self, name: str) -> str:
        """Return what an error calls the argument *name*."""
        return f"{self.called}(): the argument {name!r}"
