"""The arguments of a call as a text, for the keys of `@cached`.

The text is the same for the same arguments, in every process, and it differs if any argument differs in value or type:
1, 1.0, True and "1" are four arguments.  Only objects of types that are known to have such a text are accepted.  The
``str`` of any other object may hold its address, run a query, or be the same for two users of one name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
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
        name = value._name_
        return f"{_path(kind, what)}.{name}" if name else f"{_path(kind, what)}({written(value._value_, what)})"
    if kind is tuple:
        return _members(value, what)
    if kind is frozenset:
        return f"frozenset({','.join(sorted(written(each, what) for each in value))})"
    if kind is datetime or kind is time:
        return _moment(value, what)
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


def _moment(value: datetime | time, what: str) -> str:
    zone = value.tzinfo
    if zone is not None and type(zone).__str__ is object.__str__ and type(zone).__repr__ is object.__repr__:
        refuse(zone, f"the time zone of {what}")
    # The offset alone would not do: what a function makes of two zones with one offset may differ.
    return f"{type(value).__name__}({value.isoformat()}{'' if zone is None else _text(str(zone))})"


def _path(kind: type, what: str) -> str:
    if "<" in kind.__qualname__:
        raise InvalidKey(
            f"{what}: the class {kind.__qualname__} was made inside a function, so its name may be that of another class "
            f"too, and cannot be part of a key"
        )
    return f"{kind.__module__}.{kind.__qualname__}"


def _has_state(value: Any) -> bool:
    """Whether an object of a subclass of a plain type may hold more than a plain one."""
    return bool(getattr(value, "__dict__", None)) or any(vars(kind).get("__slots__") for kind in type(value).__mro__)


WRITERS: dict[type, Callable[[Any], str]] = {
    **dict.fromkeys((bool, float, complex, type(None), type(...)), repr),
    **dict.fromkeys((Decimal, Fraction, UUID, date), _named),
    **dict.fromkeys((IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network), _named),
    **dict.fromkeys((PosixPath, PurePosixPath, PureWindowsPath, WindowsPath), _named),
    str: _text,
    int: _whole,
    bytes: _bytes,
    float: float.__repr__,
    timedelta: lambda value: f"timedelta({value // timedelta(microseconds=1)})",
    range: lambda value: f"range({value.start},{value.stop},{value.step})",
}
"""How an object of exactly this type is written."""


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
