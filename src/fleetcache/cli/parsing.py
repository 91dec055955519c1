"""The parser of the command line: the table of commands, and the options that commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, NoReturn, TypeAlias

from fleetcache.caches import DEFAULT_ALIAS, VARIABLE
from fleetcache.cli.calls import Call, WrongUse
from fleetcache.errors import FleetcacheError

Place: TypeAlias = Literal["url", "option", "settings", "none"]

JSON = "print one JSON document, also for an error, whose kind is a class that `fleetcache docs errors` explains"


class Parser(argparse.ArgumentParser):
    """A parser whose errors are exceptions, so that they may be said in JSON."""

    def __init__(self, *, version: bool = False, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)
        if version:
            self.add_argument("--version", action="version", version=f"fleetcache {own_version()}")

    def error(self, message: str) -> NoReturn:
        """Raise `WrongUse`."""
        refuse(self, message)


def refuse(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    """Raise `WrongUse` with the *message* of *parser*."""
    raise WrongUse(f"{message}. See {parser.prog} --help")


def own_version() -> str:
    """Return the version of fleetcache that is installed."""
    try:
        return version("fleetcache")
    except PackageNotFoundError:  # the sources without an installation
        return "unknown"


class Table:
    """The commands of *parser*."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._parsers = parser.add_subparsers(required=True, metavar="COMMAND", dest="command", parser_class=Parser)

    def command(
        self, name: str, run: Callable[[Call], int], *, place: Place = "url", help: str, description: str
    ) -> Parser:
        """Add the command *name*, and return its parser.

        *place* says how the cache may be named: "url": by a URL as argument or ``--url``; "option": by the option only;
        "settings": the same, but all caches of the settings are meant; "none": not at all.
        """
        command: Parser = self._parsers.add_parser(name, help=help, description=description)
        if place == "url":
            command.add_argument("place", metavar="URL", nargs="?", help="the same as --url")
        if place != "none":
            add_place(command, alias=place != "settings")
        command.add_argument("--json", action="store_true", help=JSON)
        command.set_defaults(run=run)
        return command

    def group(self, name: str, *, help: str, description: str) -> Table:
        """Add the command *name* that has commands of its own, and return their table."""
        return Table(self._parsers.add_parser(name, help=help, description=description))


def add_place(command: argparse.ArgumentParser, *, alias: bool = True) -> None:
    """Add the options that say which cache is meant."""
    group = command.add_argument_group("which cache")
    group.add_argument(
        "--url",
        help=f"its URL, with any setting in the query: redis://127.0.0.1:6379/0?key_prefix=shop; else ${VARIABLE}",
    )
    if alias:
        group.add_argument("--alias", help=f"its name in CACHES, by default {DEFAULT_ALIAS!r}")
    group.add_argument(
        "--settings",
        metavar="MODULE",
        help="a module with CACHES, such as the settings of a Django project; else $DJANGO_SETTINGS_MODULE",
    )


def add_naming(command: argparse.ArgumentParser) -> None:
    """Add the options that say what a key means."""
    command.add_argument(
        "--version", type=version_number, metavar="N", help="the version of the keys, by default the cache's"
    )
    command.add_argument(
        "--name",
        action="store_true",
        help="keys are whole names on the server, as `keys --full-names --show-keys` writes them",
    )


def version_number(text: str) -> int | str:
    """Return the version in *text*, a number if it is one, for ``type=`` of an argument."""
    return int(text) if text.isdecimal() else text


def lifetime(text: str) -> float | str:
    """Return the seconds in *text*, or "forever", for ``type=`` of an argument."""
    return text if text == "forever" else positive(text)


def positive(text: str) -> float:
    """Return *text* as a number above 0, for ``type=`` of an argument."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError(f"a number above 0 is expected, not {text!r}")
    return found


def span(text: str) -> float:
    """Return the seconds in *text*, a tenth to a day, for ``type=`` of an argument."""
    found = positive(text)
    if not 0.1 <= found <= 86400:
        raise argparse.ArgumentTypeError(f"seconds from 0.1 to 86400 are expected, not {text!r}")
    return found


def whole(text: str) -> int:
    """Return *text* as a whole number above 0, for ``type=`` of an argument."""
    if not (text.isdecimal() and text.isascii() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"a whole number above 0 is expected, not {text!r}")
    return int(text)


@contextmanager
def refusing() -> Iterator[None]:
    """Turn a ValueError, about an argument that cannot be used, into `WrongUse`."""
    try:
        yield
    except FleetcacheError:
        raise
    except ValueError as error:
        raise WrongUse(str(error)) from error
