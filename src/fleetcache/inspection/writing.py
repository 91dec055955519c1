"""Values written for a person, as far as they are shown: the price is that of the text, however large or deep the value.

``pprint`` writes each part again for every container around it, and ``json`` indents each line by its depth, so that a
small value of many brackets takes them minutes, or gigabytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

WIDTH = 100
"""How long a line becomes before a container is spread over several."""

BRACKETS: dict[type, tuple[str, str]] = {dict: ("{", "}"), list: ("[", "]"), tuple: ("(", ")")}


def as_json(value: Any, most: int) -> tuple[str, bool]:
    """Return *value* as JSON of about *most* characters, and whether that is all; raise TypeError if it is not JSON's."""
    return _taken(json.JSONEncoder(ensure_ascii=False, indent=2).iterencode(value), most)


def as_python(value: Any, most: int) -> tuple[str, bool]:
    """Return *value* as Python writes it, of about *most* characters, and whether that is all."""
    return _taken(_spread(value, 0), most)


def _taken(pieces: Iterator[str], most: int) -> tuple[str, bool]:
    """Return the beginning of a text, and whether it is all of it."""
    taken: list[str] = []
    length = 0
    try:
        for piece in pieces:
            taken.append(piece)
            length += len(piece)
            if length > most:
                return "".join(taken), False
    except RecursionError:  # too deep to go on
        return "".join(taken), False
    return "".join(taken), True


def _spread(value: Any, indent: int) -> Iterator[str]:
    """Yield the pieces of *value*, in lines if it does not fit into one."""
    flat = _flat(value, WIDTH - indent)
    if flat is not None or type(value) not in BRACKETS:
        yield repr(value) if flat is None else flat
        return
    begin, end = BRACKETS[type(value)]
    yield begin
    for at, item in enumerate(value):
        if at:
            yield ",\n" + " " * (indent + 1)
        if type(value) is dict:
            yield f"{item!r}: "
        yield from _spread(value[item] if type(value) is dict else item, indent + 1)
    yield f",{end}" if type(value) is tuple and len(value) == 1 else end


def _flat(value: Any, room: int) -> str | None:
    """Return *value* in one line, None if that is longer than *room*; what is longer is not written to its end."""
    if type(value) not in BRACKETS:
        if isinstance(value, (str, bytes, bytearray)) and len(value) > room:
            return None
        text = repr(value)
        return text if len(text) <= room else None
    if 2 * len(value) > room:
        return None
    begin, end = BRACKETS[type(value)]
    parts: list[str] = []
    room -= 2
    for item in value:
        pair = (item, value[item]) if type(value) is dict else (item,)
        texts: list[str] = []
        for part in pair:
            written = _flat(part, room) if room > 0 else None
            if written is None:
                return None
            texts.append(written)
            room -= len(written) + 2
        parts.append(": ".join(texts))
    return begin + ", ".join(parts) + ("," if type(value) is tuple and len(value) == 1 else "") + end
