"""Templates of keys and tags, ``"profile:{user_id}"``: the fields of ``str.format``, filled from a call's arguments.

A template is text, so 5 and "5" make the same key.  Two calls never make the same key by where one value ends and the
next begins: in a value, the character that separates it from the next field is written as in a URL, ``%3A``; so are
``%``, braces, white space and control characters.  A field with a width, ``{year:04}{month:02}``, needs no separator: a
value that is longer than its width stands in ``%(`` and ``%)``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from string import Formatter
from typing import Any

from fleetcache.loading.arguments import Parameters, written

FIELD = re.compile(r"(?P<name>\w+)(?P<path>(?:\.\w+|\[[^\[\]]+\])*)\Z")
STEP = re.compile(r"\.(\w+)|\[([^\[\]]+)\]")
SPECIAL = re.compile(r"[%{}]")
WIDE = re.compile(r"(?:.?[<>=^])?[-+ ]?z?#?0?(\d+)[,_]?(?:\.\d+)?[a-zA-Z%]?\Z", re.DOTALL)
"""A format with a width."""
DIRECTIVE = re.compile(r"%(.)", re.DOTALL)
WIDTHS = {"Y": 4, "j": 3, "f": 6, "%": 1, **dict.fromkeys("mdyHMSIUWV", 2), "G": 4, "u": 1, "w": 1}
"""How many characters the parts of a date have."""


@dataclass(frozen=True, slots=True)
class Field:
    """One replacement field of a template."""

    argument: str
    what: str
    """What errors call it."""
    path: tuple[Callable[[Any], Any], ...] = ()
    """The ways to an attribute or an item of the argument."""
    conversion: str = ""
    spec: str = ""
    separator: str = ""
    """The character by which a reader finds where the field ends; empty for the last field, and for one with a width."""
    width: int | None = None
    """How many characters the field has, if the next one follows without a separator."""

    def text(self, values: Mapping[str, Any]) -> str:
        """Return the text of the field."""
        value = values[self.argument]
        for step in self.path:
            value = step(value)
        kind = type(value)
        text: str = value
        if kind is int and not self.spec and not self.conversion:
            text = str(value)
        elif kind is not str or self.spec or self.conversion:
            text = written(value, self.what)  # refuses what has no stable text
            if not issubclass(kind, (tuple, frozenset)):  # the order of a set is another in each process
                converted = Formatter().convert_field(value, self.conversion or None)
                text = format(converted, self.spec)
        plain = text.isprintable() and " " not in text and not SPECIAL.search(text)
        shown = text if plain and (not self.separator or self.separator not in text) else self._quoted(text)
        return shown if self.width is None or self.width == len(text) else f"%({shown}%)"

    def _quoted(self, text: str) -> str:
        return "".join(
            char
            if char.isprintable() and char not in " %{}" and char != self.separator
            else "".join(f"%{byte:02X}" for byte in char.encode(errors="surrogatepass"))
            for char in text
        )


class Template:
    """A text with fields, each of them an argument of a function."""

    def __init__(self, source: str, parameters: Parameters, what: str) -> None:
        if not isinstance(source, str):
            raise TypeError(f"{what} has to be a template such as 'user:{{user_id}}', not {type(source).__name__}")
        self.what = f"{what} {source!r}"
        self.parameters = parameters
        self.parts: list[str | Field] = []
        try:
            pieces = list(Formatter().parse(source))
        except ValueError as error:
            raise ValueError(f"{self.what} is no template: {error}") from None
        for place, (literal, name, spec, conversion) in enumerate(pieces):
            if literal:
                self.parts.append(literal)
            if name is not None:
                separator, width = self._end(name, spec or "", pieces[place + 1 :])
                self.parts.append(self._field(name, spec or "", conversion or "", separator, width))

    def _end(
        self, name: str, spec: str, rest: list[tuple[str, str | None, str | None, str | None]]
    ) -> tuple[str, int | None]:
        """Return by what a reader finds the end of a field: the character that follows, or the width."""
        if all(following[1] is None for following in rest):
            return "", None
        separator, width = rest[0][0][:1], None
        if not separator:
            width = _width(spec)
            if width is None:
                raise ValueError(f"{self.what}: {{{name}}} has to be separated from the next field, by ':' for example")
        elif separator == "%":
            raise ValueError(f"{self.what}: {{{name}}} has to be separated by another character than '%'")
        return separator, width

    def _field(self, name: str, spec: str, conversion: str, separator: str, width: int | None) -> Field:
        match = FIELD.match(name)
        if match is None:
            raise ValueError(f"{self.what}: {{{name}}} is not an argument's name, with or without attributes")
        argument, parameters = match["name"], self.parameters
        if argument not in parameters.names:
            known = ", ".join(parameters.names) or "none"
            raise ValueError(f"{self.what}: {parameters.called}() has no argument {argument!r}; it has {known}")
        path: list[Callable[[Any], Any]] = []
        for attribute, index in STEP.findall(match["path"]):
            if attribute.startswith("_"):
                raise ValueError(f"{self.what}: the attribute {attribute!r} is private")
            path.append(attrgetter(attribute) if attribute else itemgetter(int(index) if index.isdecimal() else index))
        if "{" in spec:
            raise ValueError(f"{self.what}: the format of {{{name}}} cannot hold another field")
        if conversion not in {"", "r", "s", "a"}:
            raise ValueError(f"{self.what}: there is no conversion {conversion!r}")
        shown = f"{parameters.called}(): {{{name}}}" if path else parameters.argument(argument)
        return Field(argument, shown, tuple(path), conversion, spec, separator, width)

    def text(self, values: Mapping[str, Any]) -> str:
        """Return the text for the arguments *values*."""
        return "".join([part if isinstance(part, str) else part.text(values) for part in self.parts])


def _width(spec: str) -> int | None:
    """Return how many characters a value has that is formatted by *spec*, unless it is longer; None if that is not known."""
    if match := WIDE.match(spec):
        return int(match[1])
    parts = [WIDTHS.get(part) for part in DIRECTIVE.findall(spec)]
    if not parts or None in parts:
        return None
    return sum(filter(None, parts)) + len(DIRECTIVE.sub("", spec))
