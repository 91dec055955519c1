"""What messages advise: commands that work when they are pasted, and rights that a user of the server lacks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from shlex import quote

from fleetcache.masking import masked_url


@dataclass(frozen=True)
class Commands:
    """How commands are written that are about the same cache as the message that names them."""

    program: str = "fleetcache"
    """How the command line is called here, such as ``python manage.py fleetcache``."""
    url: str = ""
    """The URL of ``--url``, with its secrets."""
    settings: str = ""
    alias: str = ""
    reads_variable: bool = True
    """Whether a URL may be given in FLEETCACHE_URL."""

    def of(self, alias: str) -> Commands:
        """Return how commands about the cache *alias* of the same settings are written."""
        return replace(self, alias=alias)

    def __call__(self, verb: str, *words: str, options: Sequence[str] = ()) -> str:
        """Return the command *verb* about *words*, such as keys, with *options*; secrets in a URL are shown as ``***``."""
        place = {"--url": self.url and masked_url(self.url), "--settings": self.settings, "--alias": self.alias}
        options = [*options, *(part for name, value in place.items() if value for part in (name, value))]
        if any(word.startswith("-") for word in words):
            words, options = (), [*options, "--", *words]
        return " ".join([self.program, *map(quote, [verb, *words, *options])])

    @property
    def note(self) -> str:
        """What has to be done before such a command is pasted; "" if nothing."""
        if not self.url or masked_url(self.url) == self.url:
            return ""
        variable = ", or set FLEETCACHE_URL to the whole URL and leave out --url" if self.reads_variable else ""
        return f"In the commands above, replace each *** by what your URL has there{variable}."


# --- rights ---------------------------------------------------------------------------------------

REFUSED = re.compile(r"NOPERM|no permissions", re.IGNORECASE)
COMMAND = re.compile(r"permissions to run the '([\w.|-]+)'")
USER = re.compile(r"NOPERM User (\S+) has ")


def right_lacking(refusal: str, prefix: str, user: str = "") -> str:
    """Return which right the server's *refusal* asks for, and where all are listed; "" if it is none.

    *prefix* is the KEY_PREFIX of the cache; *user* the user of its settings, whom not every server names.
    """
    if not REFUSED.search(refusal):
        return ""
    named, command = USER.search(refusal), COMMAND.search(refusal)
    who = named[1] if named else user or "default"
    names = f"{prefix}:*" if prefix else "*"
    rule = f"+{command[1]}" if command else f"~{names} ~fleetcache:*" if prefix else f"~{names}"
    what = "the command" if command else "the names"
    listed = "`fleetcache docs managed#rights` lists the rights that a site and these commands need"
    return f"The user {who!r} lacks a right. To allow {what}: ACL SETUSER {who} {rule}; {listed}."
