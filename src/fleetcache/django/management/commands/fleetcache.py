"""``manage.py fleetcache …``: the command line of fleetcache, about the project's ``CACHES``."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import Any

from django.core.management.base import BaseCommand

from fleetcache import cli
from fleetcache.fleet.publishing import PUBLISHING


class Command(BaseCommand):
    """The commands of ``fleetcache``; ``--alias`` names one of the project's caches."""

    help = "Tools for the caches in CACHES that are fleetcache's."
    requires_system_checks = ()

    def get_version(self) -> str:
        """Return the version of fleetcache."""
        return cli.own_version()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the commands."""
        parser.error = partial(cli.refuse, parser)  # type: ignore[method-assign]  # as of the parsers of the commands
        cli.parser(parser)

    def run_from_argv(self, argv: list[str]) -> None:
        """Run the command, as a process of its own, which publishes nothing; exit with its code."""
        PUBLISHING.withhold()
        try:
            super().run_from_argv(argv)
        except cli.WrongUse as error:
            sys.exit(cli.refused(error, argv))

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the command; raise ``SystemExit`` with its code, unless that is 0."""
        self.stdout.ending = self.stderr.ending = ""
        self.stderr.style_func = None
        code = cli.run(
            argparse.Namespace(**options, in_django=True, of_shell=self._called_from_command_line),
            self.stdout,
            self.stderr,
        )
        if code:
            sys.exit(code)
