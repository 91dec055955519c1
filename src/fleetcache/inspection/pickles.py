"""What a pickle holds, told from its opcodes: nothing is imported, called or built.

Every opcode says how it changes the stack of the machine that runs a pickle (see ``pickletools`` in the standard
library).  So it is enough to keep a stack of the *names of types*: at the end it holds the type of the value.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import Any

MOST_OPCODES = 20_000
"""How many opcodes are looked at."""

MOST_NAMES, LONGEST_NAME = 50, 200
"""How many imported names are listed, and how many of their letters."""

TYPES = {
    "int": "int",
    "int_or_bool": "int or bool",
    "long": "int",
    "float": "float",
    "bool": "bool",
    "str": "str",
    "unicode": "str",
    "bytes": "bytes",
    "bytearray": "bytearray",
    "bytes_or_str": "bytes",
    "None": "None",
    "tuple": "tuple",
    "list": "list",
    "dict": "dict",
    "set": "set",
    "frozenset": "frozenset",
}
"""The types of pickletools, by their names in Python."""

MARK = "mark"
CALLS = frozenset(("REDUCE", "NEWOBJ", "NEWOBJ_EX"))
"""Opcodes that replace a class, or a function, and its arguments by what it returns."""


@dataclass(frozen=True)
class Pickled:
    """What the opcodes of a pickle tell."""

    protocol: int
    type: str
    """The type of the value, such as ``dict`` or ``decimal.Decimal``; "" if it is not known."""
    imports: tuple[str, ...]
    """The classes and functions that it names: to unpickle it would import them, and could call them."""
    whole: bool
    """Whether the end was reached."""
    opcodes: int
    """How many opcodes were looked at."""

    def __str__(self) -> str:
        """Return what to show instead of the value."""
        of = f", made by {self.type}" if "." in self.type else f", of type {self.type}" if self.type else ""
        far = "" if self.whole else " as far as it was looked at"
        names = f"names {', '.join(self.imports)}" if self.imports else "names no class and no function"
        return f"A pickle of protocol {self.protocol}{of}. It is not unpickled. It {names}{far}."


class Machine:
    """The stack of types, the memo, and the names that were imported."""

    def __init__(self) -> None:
        self.stack: list[str] = []
        self.texts: list[Any] = []
        """What stands beside each place of the stack: the text of a string, the name of a class; else None."""
        self.memo: dict[int, tuple[str, Any]] = {}
        self.imports: dict[str, None] = {}

    def run(self, opcode: Any, argument: Any) -> None:
        """Take one step."""
        name = opcode.name
        if name in {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}:
            place = len(self.memo) if argument is None else argument
            if self.stack:
                self.memo[place] = (self.stack[-1], self.texts[-1])
        elif name in {"GET", "BINGET", "LONG_BINGET"}:
            self.push(*self.memo.get(argument, ("any", None)))
        elif name == "DUP":
            if self.stack:
                self.push(self.stack[-1], self.texts[-1])
        elif name == "GLOBAL":
            self._imported(str(argument).replace(" ", "."))
        elif name == "STACK_GLOBAL":
            words = [str(text) for text in self.texts[-2:]]
            self.pop(2)
            self._imported(".".join(words))
        elif name in CALLS:
            self.pop(len(opcode.stack_before) - 1)
            made = self.texts[-1] if self.texts else None
            self.pop(1)
            self.push(_made(made))
        else:
            self._other(opcode, argument)

    def _imported(self, name: str) -> None:
        name = name[:LONGEST_NAME]
        if len(self.imports) < MOST_NAMES:
            self.imports[name] = None
        self.push("class", name)

    def _other(self, opcode: Any, argument: Any) -> None:
        before = [each.name for each in opcode.stack_before]
        kept: tuple[str, Any] | None = None
        if MARK in before:
            while self.stack and self.stack[-1] != MARK:
                self.pop(1)
            self.pop(1)
            before = before[: before.index(MARK)]
        if before and opcode.stack_after and before[0] == opcode.stack_after[0].name and len(self.stack) >= len(before):
            kept = (
                self.stack[-len(before)],
                self.texts[-len(before)],
            )  # APPEND, SETITEMS, BUILD and others fill an object
        self.pop(len(before))
        for each in opcode.stack_after:
            if kept is not None:
                self.push(*kept)
            else:
                self.push(TYPES.get(each.name, each.name), argument if isinstance(argument, str) else None)

    def push(self, kind: str, text: Any = None) -> None:
        self.stack.append(kind)
        self.texts.append(text)

    def pop(self, count: int) -> None:
        if count:
            del self.stack[-count:]
            del self.texts[-count:]


REBUILT = {"copyreg._reconstructor", "copy_reg._reconstructor", "copyreg.__newobj__"}
"""Functions that make an object of a class among their arguments, which the stack of types does not keep."""


def _made(name: Any) -> str:
    return "object" if name is None or name in REBUILT else str(name)


def told(payload: bytes, most: int = MOST_OPCODES) -> Pickled:
    """Return what the first *most* opcodes of the pickle in *payload* tell, or of its beginning if that is all there is."""
    protocol, count, whole, kind = 0, 0, False, ""
    machine = Machine()
    try:
        for opcode, argument, _ in pickletools.genops(payload):
            count += 1
            if opcode.name == "PROTO":
                protocol = int(argument or 0)
            elif opcode.name == "STOP":
                whole, kind = True, machine.stack[-1] if machine.stack else ""
                break
            elif opcode.name != "FRAME":
                machine.run(opcode, argument)
            if count >= most:
                break
    except (ValueError, IndexError, UnicodeDecodeError, OverflowError, KeyError):
        whole = False  # cut off, or none
    if not whole:
        kind = next((each for each in machine.stack if each not in {MARK, "any"}), "")
        kind = "" if kind in {"str", "class"} else kind  # more may have followed that makes something else of it
    return Pickled(
        protocol, "" if kind in {"any", "class"} and whole is False else kind, tuple(machine.imports), whole, count
    )
