"""Several independent servers, each key on one of them by consistent hashing.

The ring is django-redis' and places every key where django-redis places it: 128 points a server,
SHA-256 of ``"{server}:{n}"``, and a key belongs to the last point before its own hash.  Only the
text between braces is hashed where a key has some, so that related keys share a server.
(Karger et al., *Consistent Hashing and Random Trees*, STOC 1997.)
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Mapping, Sequence
from hashlib import sha256

from fleetcache.exchange.contract import Command, Server
from fleetcache.keys import in_utf8
from fleetcache.topology.contract import Share, Topology

POINTS = 128
hash_tag = re.compile(r".*\{(.*)\}.*")


def _hash(text: str) -> str:
    return sha256(in_utf8(text)).hexdigest()


class Shards(Topology):
    """Servers by the names under which they stand in LOCATION; the names decide the placement."""

    def __init__(self, servers: Mapping[str, Server]) -> None:
        self.named = dict(servers)
        self.servers = self.primaries = list(self.named.values())
        self.owners = {_hash(f"{name}:{point}"): name for name in self.named for point in range(POINTS)}
        self.points = sorted(self.owners)

    def place(self, name: str) -> str:
        """Return which of LOCATION's servers holds *name*."""
        tagged = hash_tag.match(name)
        return self.owners[self.points[bisect(self.points, _hash(tagged[1] if tagged else name)) - 1]]

    def home(self, name: str) -> Server:
        return self.named[self.place(name)]

    def route(self, command: Command) -> Server:
        at = command[0].key
        return self.home(command[at]) if at else self.primaries[0]

    def shares(self, names: Sequence[str], reads: bool) -> list[Share]:
        shares: dict[str, list[int]] = {}
        for index, name in enumerate(names):
            shares.setdefault(self.place(name), []).append(index)
        return [(self.named[server], indices) for server, indices in shares.items()]
