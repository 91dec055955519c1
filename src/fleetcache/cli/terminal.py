"""A screen that is drawn again and again, and the keys that are pressed meanwhile.

A terminal that can do no more than write lines, as ``TERM=dumb`` says, gets one screen below the other; so does a file.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from fleetcache.cli.showing import clipped

if TYPE_CHECKING:
    from fleetcache.cli.calls import Call

ENTER, LEAVE = "\x1b[?1049h\x1b[?25l\x1b[?7l", "\x1b[?7h\x1b[?25h\x1b[?1049l"
"""Begin and end a screen of its own, without a cursor and with lines that do not wrap; afterwards the old one comes back."""
HOME, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"

ENDS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


def _end(number: int, frame: Any) -> None:
    """Leave by an exception, so that the terminal is put right."""
    sys.exit(128 + number)


class Screen:
    """The screen of *call*, for ``with``."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.smart = call.on_terminal and os.environ.get("TERM", "dumb") != "dumb"
        self._keyboard: Any = None
        self._before: dict[int, Any] = {}
        """The handlers of the signals that would end the process."""
        self._drawn = False

    def __enter__(self) -> Self:
        if self.smart:
            self._keyboard = _Keyboard.opened()
            with suppress(ValueError):  # only the main thread may
                self._before = {number: signal.signal(number, _end) for number in ENDS}
            self.call.write(ENTER)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._keyboard is not None:
            self._keyboard.close()
        if self.smart:
            self.call.write(LEAVE)
            self.call.flush()

    @property
    def size(self) -> os.terminal_size | None:
        """How many columns and lines fit; None if all do."""
        return shutil.get_terminal_size() if self.smart else None

    def draw(self, lines: Sequence[str]) -> None:
        """Show *lines*, each cut to the width of the terminal."""
        if self.smart:
            size = shutil.get_terminal_size()
            shown = [f"{clipped(line, size.columns)}{CLEAR_LINE}" for line in lines[: size.lines]]
            self.call.write(HOME + "\n".join(shown) + CLEAR_BELOW)
        else:
            self.call.write("\n".join([*([""] if self._drawn else []), *lines, ""]))
        self._drawn = True
        self.call.flush()

    def key(self, seconds: float) -> str:
        """Wait for a key for *seconds*, and return it; "" if none was pressed."""
        if self._keyboard is None:
            time.sleep(max(seconds, 0))
            return ""
        key: str = self._keyboard.key(seconds)
        return key


class _Keyboard:
    """Keys without the Enter after them."""

    def __init__(self, number: int, before: Any) -> None:
        self._number, self._before = number, before

    @classmethod
    def opened(cls) -> Self | None:
        """Return the keyboard of this terminal; None if there is none."""
        try:
            import termios
            import tty

            number = sys.stdin.fileno()
            before = termios.tcgetattr(number)
            tty.setcbreak(number)
        except Exception:
            return None
        return cls(number, before)

    def close(self) -> None:
        """Let the terminal read lines again."""
        import termios

        with suppress(termios.error):
            termios.tcsetattr(self._number, termios.TCSADRAIN, self._before)

    def key(self, seconds: float) -> str:
        """Return the key that is pressed within *seconds*; "" if none is, and "q" if the terminal has gone."""
        ready, _, _ = select.select([self._number], [], [], max(seconds, 0))
        if not ready:
            return ""
        try:
            return os.read(self._number, 64).decode(errors="replace")[-1:].lower() or "q"
        except OSError:
            return "q"
