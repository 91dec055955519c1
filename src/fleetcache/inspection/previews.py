"""The bytes of a value: which codec wrote them, and what they show.

What is here takes bytes that anybody may have written, perhaps only their beginning, and shows them without trusting
them.  Formats that are plain data are decoded.  A pickle is not, because it runs code: only its opcodes are read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from fleetcache.codec.compressors import KNOWN, LibraryCompressor
from fleetcache.codec.metadata import Metadata, opened
from fleetcache.codec.payloads import Codec
from fleetcache.codec.serializers import JSONSerializer, MSGPackSerializer, MsgspecJSONSerializer, MsgspecSerializer
from fleetcache.errors import SettingsError, UnreadableValue
from fleetcache.inspection.pickles import MOST_OPCODES, told
from fleetcache.inspection.writing import as_json, as_python
from fleetcache.settings import Options

LONGEST_TEXT = 20_000
"""How many characters of a value are shown."""

SHOWN_BYTES = 512
"""How many bytes are shown of what is no text."""

LONGEST_UNPACKED = 1 << 20
"""How many bytes are decompressed."""

PLAIN = (JSONSerializer, MSGPackSerializer, MsgspecSerializer)
"""Serializers that run no code of the payload's choice."""


@dataclass(frozen=True)
class Preview:
    """What the bytes of a value show."""

    form: str
    """What was decoded: ``integer``, ``json``, ``msgpack``, ``pickle``, ``text`` or ``bytes``."""
    text: str
    """The value, or what can be said of it; without control characters, except the ends of lines."""
    whole: bool = True
    """Whether the value is shown to its end."""
    problem: str = ""
    """Why it is not decoded further."""


@dataclass(frozen=True)
class Payload:
    """The parts of a payload."""

    codec: tuple[str, ...]
    """What is around the value, from the outside, such as ``zlib``, ``metadata``, ``pickle 4``."""
    metadata: Metadata | None
    preview: Preview
    unreadable: str = ""
    """If the codec cannot read it: what it is instead, such as ``JSON``.  "" also if that cannot be told without running code."""


def printable(text: str) -> str:
    """Return *text* with control characters written as escapes, except the ends of lines, and not too long."""
    cut = text[:LONGEST_TEXT]
    shown = cut if cut.isprintable() else "".join(letter if _is_plain(letter) else _escaped(letter) for letter in cut)
    return shown if len(cut) == len(text) else f"{shown}…"


def _is_plain(letter: str) -> bool:
    return letter in "\n\t" or letter.isprintable()


def _escaped(letter: str) -> str:
    return (
        letter.encode("unicode_escape", errors="replace").decode() if not "\ud800" <= letter <= "\udfff" else "\\ufffd"
    )


def taken_apart(
    payload: bytes, codec: Codec, *, whole: bool = True, unpickle: bool = False, most: int = LONGEST_UNPACKED
) -> Payload:
    """Return the parts of *payload*; if not *whole*, it is the beginning of a longer one.

    It is decompressed up to *most* bytes, and of a pickle as many opcodes are read as that allows.

    With *unpickle* a pickle that is whole is unpickled: this runs whatever code its writer chose.
    """
    if whole and _is_integer(payload):
        return Payload(("integer",), None, Preview("integer", payload.decode()))
    names: list[str] = []
    unpacked, whole, problem = _unpacked(payload, codec, names, whole, most)
    if unpacked is None or problem:
        preview = Preview("bytes", _as_bytes(payload), whole=False, problem=problem)
        return Payload(tuple(names), None, preview, problem if unpacked is None else "")
    metadata, body = None, unpacked
    if codec.may_have_metadata(unpacked):
        try:
            found = opened(unpacked)
        except UnreadableValue as error:
            problem = str(error)
        else:
            if found is not None:
                metadata, body = found[0], unpacked[found[1] :]
                names.append("metadata")
    form, preview, unreadable = _previewed(
        body, codec, whole=whole, unpickle=unpickle, opcodes=most * MOST_OPCODES // LONGEST_UNPACKED
    )
    if problem and not preview.problem:
        preview = Preview(preview.form, preview.text, preview.whole, problem)
    return Payload((*names, form), metadata, preview, (problem if whole else "") or unreadable)


def _is_integer(payload: bytes) -> bool:
    return 0 < len(payload) < 5000 and payload.removeprefix(b"-").isdigit() and payload.count(b"-") <= 1


# --- compression ----------------------------------------------------------------------------------


def _unpacked(payload: bytes, codec: Codec, names: list[str], whole: bool, most: int) -> tuple[bytes | None, bool, str]:
    """Return *payload* decompressed as far as it will be shown, whether that is all, and what went wrong; add to *names*.

    It is None if the codec cannot decompress it either.
    """
    compressor = codec.compressor
    magic: Any = getattr(compressor, "magic", None)
    kind: Any = compressor if magic and payload.startswith(magic) else None
    if kind is None:
        kind = next((known for known in KNOWN if payload.startswith(known.magic)), None)
    if kind is None and magic is not None:
        return payload, whole, ""
    name = _name_of(compressor if kind is None else kind)
    try:
        if isinstance(kind, type):
            kind = kind(Options())
        if isinstance(kind, LibraryCompressor):
            unpacker = kind.unpacker()
            found = unpacker.decompress(payload, most)
            names.append(name)
            return found, whole and unpacker.eof and not unpacker.unused_data, ""
        if not whole:
            return payload, False, f"{name} cannot be read in part" if kind is not None else ""
        found = compressor.decompress(payload)  # of the site's own
    except SettingsError as error:
        return None, False, f"{name}: {error}"
    except Exception as error:  # noqa: BLE001 - of any library, about bytes that anybody may have written
        if kind is None:
            return payload, whole, ""  # the way in which such a compressor says that it did not write them
        return None, False, f"{name} cannot read it: {type(error).__name__}"
    if kind is not None or found != payload:
        names.append(name)
    return found, whole, ""


def _name_of(kind: Any) -> str:
    name = kind.__name__ if isinstance(kind, type) else type(kind).__name__
    return str(name).removesuffix("Compressor").lower() or "compressed"


# --- values ---------------------------------------------------------------------------------------


def _previewed(body: bytes, codec: Codec, *, whole: bool, unpickle: bool, opcodes: int) -> tuple[str, Preview, str]:
    """Return the form of the serializer's bytes in *body*, what they show, and if it cannot read them what they are."""
    if _is_pickle(body, codec):
        return _pickled(body, codec, whole=whole, unpickle=unpickle, opcodes=opcodes)
    serializer, readable = codec.serializer, True
    if isinstance(serializer, PLAIN):
        form = "json" if isinstance(serializer, (JSONSerializer, MsgspecJSONSerializer)) else "msgpack"
        if whole:
            try:
                return form, _value(form, serializer.loads(body)), ""
            except Exception:  # noqa: BLE001 - then the bytes are of another serializer, perhaps an earlier one
                readable = False
    elif getattr(serializer, "pickles", False):
        # Pickles of protocols 0 and 1 begin with many letters, but few other bytes are opcodes up to the end.
        read = told(body, opcodes)
        readable = (
            read.whole and bool(read.type) if whole and read.opcodes < opcodes else read.opcodes > 2 or len(body) < 64
        )
    form, preview = _guessed(body, whole=whole)
    return form, preview, "" if readable else SAYS.get(form, form)


SAYS = {"json": "JSON", "text": "text", "bytes": "bytes of an unknown format"}
"""How messages name forms."""


def _is_pickle(body: bytes, codec: Codec) -> bool:
    if len(body) > 1 and body[0] == 0x80 and 2 <= body[1] <= 5:
        # No text begins so, and no MessagePack of more than a byte.
        return True
    return bool(getattr(codec.serializer, "pickles", False)) and body[:1].isalpha() and told(body[:4096]).opcodes > 2


def _pickled(body: bytes, codec: Codec, *, whole: bool, unpickle: bool, opcodes: int) -> tuple[str, Preview, str]:
    found = told(body, opcodes)
    form, unreadable = f"pickle {found.protocol}", ""
    cut_off = whole and not found.whole and found.opcodes < opcodes
    if cut_off and body[0] != 0x80:  # some text whose first letters are opcodes
        form, preview = _guessed(body, whole=whole)
        return form, preview, SAYS.get(form, form)
    if isinstance(codec.serializer, PLAIN):
        unreadable = f"a pickle of protocol {found.protocol}"
    elif cut_off:
        unreadable = "a pickle that is cut off"
    if not unpickle:
        return form, Preview("pickle", printable(str(found)), whole=False), unreadable
    problem = "it is too long to be unpickled here"
    if whole:
        try:
            return form, _value("pickle", codec.serializer.loads(body)), ""
        except Exception as error:  # noqa: BLE001 - unpickling runs anything
            problem = f"it cannot be unpickled here: {type(error).__name__}"
    return form, Preview("pickle", printable(str(found)), whole=False, problem=problem), unreadable


def _guessed(body: bytes, *, whole: bool) -> tuple[str, Preview]:
    if whole and body[:1] in b'{["-0123456789tfn' and body:
        try:
            return "json", _value("json", json.loads(body))
        except (ValueError, RecursionError):
            pass
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        if whole or error.start < len(body) - 3:
            return "bytes", Preview("bytes", _as_bytes(body), whole and len(body) <= SHOWN_BYTES)
        text = body[: error.start].decode()  # the beginning ends within a character
    if sum(not _is_plain(letter) for letter in text[:1000]) * 10 > len(text[:1000]):
        return "bytes", Preview("bytes", _as_bytes(body), whole and len(body) <= SHOWN_BYTES)
    return "text", _text("text", text, whole=whole)


def _value(form: str, value: Any) -> Preview:
    """Return the preview of *value*, written for a person."""
    try:
        text, whole = as_json(value, LONGEST_TEXT) if form == "json" else ("", False)
    except (TypeError, ValueError):
        text = ""
    if not text:
        text, whole = as_python(value, LONGEST_TEXT)
    return _text(form, text, whole=whole)


def _text(form: str, text: str, *, whole: bool = True) -> Preview:
    return Preview(form, printable(text), whole and len(text) <= LONGEST_TEXT)


def _as_bytes(body: bytes) -> str:
    """Return the beginning of *body* in hexadecimal digits, sixteen bytes a line, with what is text beside them."""
    lines = []
    for at in range(0, min(len(body), SHOWN_BYTES), 16):
        row = body[at : at + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{at:04x}  {row.hex(' '):47}  {text}")
    return "\n".join(lines) + ("\n…" if len(body) > SHOWN_BYTES else "")
