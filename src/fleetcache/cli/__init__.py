"""The command line: ``fleetcache``, ``python -m fleetcache`` and ``manage.py fleetcache``.

Each command is a module of this package with a function ``add(table)``, which adds its parser, and a function that gets a
`Call` and returns the exit code::

    def add(table: Table) -> None:
        command = table.command("greet", run, place="url", help="say hello", description="Say hello to a server.")
        command.add_argument("--loudly", action="store_true", help="with capital letters")


    def run(call: Call) -> int:
        reply = call.cache.get("hello")
        call.answer({"reply": reply}, f"The server says {reply}.")
        return FINE

Its modules:

    parsing     the parser: options that all commands share
    calls       one call of a command: its arguments, its cache, what it writes
    places      which cache is meant: a URL, an alias of settings, the environment
    showing     tables and figures for people
    listing     output that is written as it is found
    progress    a bar on a terminal, for what lasts
    terminal    a screen that is drawn again and again, and the keys pressed meanwhile
    stats       the command ``stats``: adds up what the fleet has counted
    top         ``top``: shows what the fleet does at the moment
    keys        the command ``keys``: lists entries, or counts them
    get         ``get``: shows an entry
    missing     what ``get`` and ``ttl`` say of a key that is not there
    ttl         ``ttl``: shows how long an entry lives, or changes it
    delete      ``delete``: deletes entries, after a dry run
    tags        ``tags``: lists tags, shows one, invalidates some
    probe       the command ``probe``: checks a server for the near cache
    doctor      the command ``doctor``: checks settings, servers, entries and processes
    migrate     ``migrate check``: says what a move to fleetcache takes
    bench       ``bench``: measures a server from this machine
    docs        ``docs``: the pages of the documentation
    warm        ``warm``: calls a site's function, so that its results are in the cache
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from typing import TextIO

from redis.exceptions import RedisError

from fleetcache.cli.calls import FINDING, FINE, INTERRUPTED, UNREACHABLE, Call, Enough, Unwritable, WrongUse, forget
from fleetcache.cli.parsing import Parser, Table, own_version, refuse
from fleetcache.errors import FleetcacheError
from fleetcache.fleet.publishing import PUBLISHING
from fleetcache.inspection.blame import told
from fleetcache.interrupts import let_pass

COMMANDS = (
    "stats",
    "top",
    "keys",
    "get",
    "ttl",
    "delete",
    "tags",
    "warm",
    "doctor",
    "migrate",
    "probe",
    "bench",
    "docs",
)
"""The modules with commands, in the order in which the help lists them."""


def parser(into: argparse.ArgumentParser | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line; *into* is the parser to add all commands to, such as that of a Django command."""
    found = into or Parser(prog="fleetcache", description="A cache on Redis and Valkey: tools.", version=True)
    table = Table(found)
    for name in COMMANDS:
        import_module(f"{__name__}.{name}").add(table)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command in *arguments*, by default those of the process; return its exit code."""
    if arguments is None:
        PUBLISHING.withhold()  # a site that the command sets up may use caches of its own, in AppConfig.ready
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        found = parser().parse_args(given)
    except WrongUse as error:
        return refused(error, given)
    except KeyboardInterrupt:
        return INTERRUPTED
    found.of_shell = True
    return run(found)


def refused(error: WrongUse, arguments: Sequence[str]) -> int:
    """Say why the parser refuses *arguments*, in JSON if they ask for it; return the exit code for that."""

    def refuse_it(_: Call) -> int:
        raise error

    return run(argparse.Namespace(json="--json" in arguments, run=refuse_it))


def run(arguments: argparse.Namespace, out: TextIO | None = None, err: TextIO | None = None) -> int:
    """Run the command in *arguments*, as the parser returned them; return its exit code.

    It writes to *out* and *err*, by default the standard streams.
    """
    call = Call(arguments, out, err)
    code = FINE
    try:
        try:
            with quiet(getattr(arguments, "command", "")):
                code = arguments.run(call)
        except (WrongUse, FleetcacheError, RedisError, OSError, UnicodeError) as error:  # a name may be no text
            code = UNREACHABLE
            call.complain(error)
        except (Enough, Unwritable):
            raise
        except Exception as error:
            let_pass(error)
            if not told(error):
                raise  # an error of fleetcache, whose traceback is needed
            code = UNREACHABLE
            call.complain(error)
        call.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except Enough:  # the reader of a pipe has gone, as `head` does
        forget(call.out)
        return UNREACHABLE if code == UNREACHABLE else FINE
    except Unwritable as error:
        forget(call.out)
        call.note(f"fleetcache: the output cannot be written: {error}")
        return UNREACHABLE
    return code


@contextmanager
def quiet(command: str) -> Iterator[None]:
    """Let this thread not log meanwhile that a server is lost, or refuses the user: the *command* says so itself.

    ``warm`` runs code of the site, which may ignore outages, so that the log alone tells of them.
    """
    mine: ContextVar[bool] = ContextVar("mine", default=False)
    mine.set(True)

    def is_news(record: logging.LogRecord) -> bool:
        return getattr(record, "event", "") not in {"outage", "refused"} or not mine.get()

    if command == "warm":
        yield
        return
    log = logging.getLogger("fleetcache.server")
    log.addFilter(is_news)
    try:
        yield
    finally:
        log.removeFilter(is_news)


__all__ = [
    "COMMANDS",
    "FINDING",
    "FINE",
    "UNREACHABLE",
    "Call",
    "Table",
    "WrongUse",
    "main",
    "own_version",
    "parser",
    "refuse",
    "refused",
    "run",
]
