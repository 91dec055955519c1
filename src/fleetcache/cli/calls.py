"""One call of a command: its arguments, the cache that it is about, and what it writes."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, TextIO

from fleetcache.cache import Cache
from fleetcache.cli.listing import Listing
from fleetcache.cli.progress import Progress
from fleetcache.cli.showing import as_json, visible
from fleetcache.errors import UnreadableValue, advice_of, fault_of, is_outage
from fleetcache.inspection.advice import Commands, right_lacking
from fleetcache.inspection.blame import told
from fleetcache.inspection.names import meant, shown

FINE, FINDING, UNREACHABLE = 0, 1, 2
"""Exit codes: all is well; something was found wrong, or nothing was found; nobody could be asked, or not like this."""
INTERRUPTED = 130
"""The exit code after Ctrl-C, as of shells."""


class WrongUse(Exception):
    """The command cannot be run like this; the message says what to write instead."""


class Enough(Exception):
    """Nobody reads the output any more."""


class Unwritable(Exception):
    """What the command found cannot be written, as to a full disk."""


@contextmanager
def _writing() -> Iterator[None]:
    """Raise `Enough` if nobody reads what is written meanwhile, and `Unwritable` if it cannot be written."""
    try:
        yield
    except BrokenPipeError:
        raise Enough from None
    except OSError as error:
        raise Unwritable(str(error)) from error


def forget(stream: TextIO) -> None:
    """Let the interpreter flush *stream*, one of the standard ones, at its end without an error."""
    if stream is sys.stdout or stream is sys.stderr:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Nowhere(io.StringIO):
    """A stream that forgets what is written to it."""

    def write(self, text: str) -> int:
        """Forget *text*."""
        return len(text)


class Call:
    """One call of a command."""

    def __init__(self, arguments: argparse.Namespace, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.arguments = arguments
        # A standard stream is None if it was closed before the process began, as `>&-` does.
        self.out: TextIO = out or sys.stdout or Nowhere()
        self.err: TextIO = err or sys.stderr or Nowhere()
        self.listing: Listing | None = None
        """A list whose JSON document has begun, and has to be ended."""

    @cached_property
    def cache(self) -> Cache:
        """The cache that is meant, for tools: every error is raised, no copies are kept near, nothing is published.

        It is the blocking face.  Names, values and servers are those of the site's own cache.
        """
        from fleetcache.cli.places import opened

        cache = opened(self.arguments, for_tools=True)
        place = cache.settings.location[0]
        if place.kind == "memory" and getattr(self.arguments, "of_shell", False):
            raise WrongUse(
                f"{place.masked}: there is no server to ask: it is a dict of one process, and no other process sees it"
            )
        return cache

    @cached_property
    def configured(self) -> Cache:
        """The cache that is meant, exactly as a worker of the site has it."""
        from fleetcache.cli.places import opened

        return opened(self.arguments, for_tools=False)

    @cached_property
    def commands(self) -> Commands:
        """How a command is written that is about the same cache."""
        from fleetcache.cli.places import commands_about

        return commands_about(self.arguments)

    def key(self, text: str) -> str | bytes:
        """Return the key that *text* means: a key of the cache, or with ``--name`` a whole name on the server, as bytes."""
        if self.arguments.name:
            return meant(text)
        try:
            text.encode()
        except UnicodeEncodeError:
            wanted = "a key is text in UTF-8; give the whole name of an entry of another client with --name"
            raise WrongUse(f"{shown(text)}: {wanted}") from None
        return text

    @property
    def json(self) -> bool:
        """Whether one JSON document is wanted."""
        return bool(getattr(self.arguments, "json", False))

    @property
    def on_terminal(self) -> bool:
        """Whether a person reads the output as it comes."""
        return self.out.isatty() and not self.json

    # --- what it writes ---------------------------------------------------------------------------

    def answer(self, document: Any, text: str) -> None:
        """Write *document* as JSON if that is wanted, else *text*."""
        self.say(as_json(document, indent=2) if self.json else text)

    def say(self, text: str) -> None:
        """Write *text* and a line end."""
        self.write(f"{text}\n")

    def write(self, text: str) -> None:
        """Write *text*; see `_writing` for what it raises."""
        encoding = self.out.encoding or "utf-8"
        with _writing():
            self.out.write(text.encode(encoding, "backslashreplace").decode(encoding))

    def write_bytes(self, data: bytes) -> None:
        """Write *data* as they are; see `_writing` for what it raises."""
        self.flush()
        stream = getattr(self.out, "buffer", None)
        if stream is None:  # a stream of text only
            self.write(data.decode(errors="backslashreplace"))
            return
        with _writing():
            stream.write(data)
            stream.flush()

    def flush(self) -> None:
        """Send what was written; see `_writing` for what it raises."""
        with _writing():
            self.out.flush()

    def note(self, text: str) -> None:
        """Write a line for people, beside the output; if it cannot be written, nobody can be told."""
        try:
            self.err.write(f"{text}\n")
        except OSError:
            forget(self.err)

    def away(self, servers: Collection[str]) -> None:
        """Say that *servers* do not answer, if there are any."""
        if servers and not self.json:
            self.note(f"fleetcache: not complete: no answer from {', '.join(map(visible, servers))}")

    def complain(self, error: Exception, text: str = "", **facts: Any) -> int:
        """Say why the command could not be run: *text*, or that of *error*; return the exit code for that.

        *facts* are added to the JSON document.
        """
        given = getattr(self.arguments, "url", None) or getattr(self.arguments, "place", None)
        fault = text or told(error, vars(self).get("cache")) or fault_of(error)
        text = (
            " ".join(f"{fault} {advice_of(error, 'the URL' if given else 'LOCATION')}".split()) or type(error).__name__
        )
        whole = text
        if advice := self.right_lacking(text):
            facts["advice"] = advice
            whole = f"{text.rstrip('.')}. {advice}"
        if self.json:
            document = {**facts, "error": text, "kind": type(error).__name__, "away": is_outage(error)}
            if self.listing is not None and self.listing.number:
                self.listing.end(document)
            else:
                self.say(as_json(document))
        else:
            self.note(f"fleetcache: {visible(whole)}")
        return UNREACHABLE

    def unread(self, missing: Iterable[str], error: Exception | None) -> int:
        """Say that nothing could be read: *missing* has the reasons, of which the first is a server's *error*, if one is."""
        return self.complain(error or UnreadableValue("nothing could be read"), "; ".join(dict.fromkeys(missing)))

    def right_lacking(self, refusals: str) -> str:
        """Return which right the servers' *refusals* ask for, "" if they ask for none."""
        cache = vars(self).get("cache") or vars(self).get("configured")
        if cache is None:
            return right_lacking(refusals, "")
        user = cache.settings.options.username or cache.settings.location[0].login.rpartition("@")[0].partition(":")[0]
        return right_lacking(refusals, cache.settings.key_prefix, user)

    def note_rights(self, refusals: Iterable[str]) -> None:
        """Say which rights the servers' *refusals* ask for, each once."""
        for advice in dict.fromkeys(filter(None, map(self.right_lacking, refusals))):
            if not self.json:
                self.note(f"fleetcache: {visible(advice)}")

    def progress(self, what: str, total: int | None = None) -> Progress:
        """Return a bar on the terminal, for ``with``, that appears after a second; *total* is None if nobody knows it."""
        return Progress(self.err, what, total, shown=self.err.isatty())

    # --- colours ----------------------------------------------------------------------------------

    @cached_property
    def coloured(self) -> bool:
        """Whether colours are written: to a terminal that has some, unless NO_COLOR is set or Django's ``--no-color``."""
        refused = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        return self.on_terminal and not refused and not getattr(self.arguments, "no_color", False)

    def painted(self, text: str, *, good: bool | None = None, strong: bool = False, faint: bool = False) -> str:
        """Return *text* in a colour, if there are colours: green if *good*, red if that is False."""
        codes = [code for code, wanted in ((1, strong), (2, faint), (32, good), (31, good is False)) if wanted]
        return f"\x1b[{';'.join(map(str, codes))}m{text}\x1b[0m" if codes and self.coloured else text
