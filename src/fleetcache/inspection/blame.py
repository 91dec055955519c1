"""Whose function raised an error: one of the site, such as KEY_FUNCTION or a serializer, or one of the library."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from inspect import unwrap
from pathlib import Path
from traceback import walk_tb
from types import CodeType, FrameType
from typing import Any

from fleetcache.errors import SettingsError
from fleetcache.interrupts import let_pass

OWN = frozenset(("fleetcache", "redis"))
OTHERS = frozenset(("asgiref", "django", "hiredis", "lz4", "msgpack", "msgspec", "opentelemetry", "zstandard"))
"""Packages that the library calls by itself; whatever else it calls, and Python has not, is the site's."""


class SiteFailed(SettingsError):
    """A function of the site raised an error; the message is that of `told`."""

    def __init__(self, text: str, brief: str) -> None:
        super().__init__(text)
        self.brief = brief
        """The message without the error's own text, which may hold a key."""


@contextmanager
def blamed(cache: Any = None) -> Iterator[None]:
    """Raise `SiteFailed` in place of what a function of the site, called by *cache*, raises meanwhile."""
    try:
        yield
    except SiteFailed:
        raise
    except Exception as error:
        let_pass(error)
        if text := told(error, cache):
            raise SiteFailed(text, told(error, cache, brief=True)) from error
        raise


def told(error: BaseException, cache: Any = None, *, brief: bool = False) -> str:
    """Return which function of the site raised *error*, and where; "" if none did.

    With the *cache* that called the function, the setting is told that names the function.  With *brief* the text of
    *error* is left out, which may hold a key.
    """
    frames = [(frame, line) for frame, line in walk_tb(error.__traceback__)]
    called = next((at for at, (frame, _) in enumerate(frames) if _is_of_site(frame)), None)
    if called is None or any(_package(frame) in OWN for frame, _ in frames[called:]):
        return ""  # the site's function has called the library, which raised the error
    code = frames[called][0].f_code
    name = f"{frames[called][0].f_globals.get('__name__', '')}.{code.co_qualname}"
    file, line = next((frame.f_code.co_filename, line) for frame, line in reversed(frames) if _is_of_site(frame))
    setting = next((f"{each} " for each in _settings_with(cache, code)), "")
    what = type(error).__name__ if brief else f"{type(error).__name__}: {error}".removesuffix(": ")
    return f"{setting}{name}(), a function of the site, raised {what} ({_short(file)}, line {line})"


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _is_of_site(frame: FrameType) -> bool:
    package = _package(frame)
    return package not in OWN | OTHERS and package not in sys.stdlib_module_names


def _settings_with(cache: Any, code: CodeType) -> Iterator[str]:
    """Yield the settings of *cache* whose value is the function of *code*, or has it as a method."""
    settings = getattr(cache, "settings", None)
    for owner in (settings, getattr(settings, "options", None)):
        for each in fields(owner) if owner is not None else ():
            if _has(getattr(owner, each.name), code):
                yield each.name.upper()


def _has(value: Any, code: CodeType) -> bool:
    with suppress(Exception):  # a value of the site may answer any question with an error
        if getattr(unwrap(value), "__code__", None) is code:
            return True
        kind = value if isinstance(value, type) else type(value)
        return any(
            getattr(unwrap(part), "__code__", None) is code for each in kind.__mro__ for part in vars(each).values()
        )
    return False


def _short(file: str) -> str:
    """Return the path of *file*, from the current directory if it lies there."""
    with suppress(ValueError, OSError):
        return str(Path(file).relative_to(Path.cwd()))
    return file
