"""Writes what each producer stores for a list of values, one file per producer and release.

Run it with every producer that is to be recorded installed: ``python tests/golden/generate.py``.
Files of releases that are not installed stay as they are; they must decode for ever.

An entry names the serializer and compressor by class, the options, the value as it was given, the
value as the producer itself reads it back (both as Python expressions over ``NAMES``), the
payload in base 85 of zlib, and, where it has some, its ``METADATA``.
"""

from __future__ import annotations

import base64
import collections
import datetime as dt
import decimal
import fractions
import itertools
import json
import tomllib
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

NAMES = {
    "datetime": dt,
    "Decimal": decimal.Decimal,
    "Fraction": fractions.Fraction,
    "OrderedDict": collections.OrderedDict,
    "UUID": uuid.UUID,
    "inf": float("inf"),
}

VALUES = [
    "None",
    "True",
    "False",
    "0",
    "5",
    "-3",
    "2**63",
    "2**70",
    "-2**70",
    "0.0",
    "1.5",
    "-1e300",
    "inf",
    "''",
    "'2'",
    "'-7'",
    "'a longer text of plain ASCII'",
    "'žluťoučký kůň \U0001f40e'",
    "b''",
    "b'12'",
    "bytes(range(256))",
    "[]",
    "[1, 'two', 3.0, None, True, -4]",
    "(1, (2, 3))",
    "{}",
    "{'id': 1, 'name': 'Ann', 'tags': ['a', 'b']}",
    "{'a': {'b': {'c': [[], {}, [{'d': 1.25}]]}}}",
    "{1: 'one', 2: 'two'}",
    "datetime.datetime(2026, 11, 5, 12, 30, 15, 123456)",
    "datetime.datetime(2026, 11, 5, 12, 30, tzinfo=datetime.timezone.utc)",
    "datetime.date(2026, 11, 5)",
    "datetime.time(12, 30, 15, 5)",
    "datetime.timedelta(days=-2, hours=3, microseconds=7)",
    "Decimal('1.50')",
    "UUID('12345678-1234-5678-1234-567812345678')",
    "Fraction(1, 3)",
    "OrderedDict([('z', 1), ('y', 2)])",
    "'twelve bytes' * 171",
    "[{'n': n, 'square': n * n} for n in range(100)]",
]

# What a value may hold that looks like the marker of a herd value.
HERDED = [
    "1",
    "None",
    "'text'",
    "{'a': [1, 2.5]}",
    "'django_redis.client.herd'",
    "('django_redis.client.herd', 'Marker')",
    "{'fleetcache.codec.herding': 'django_redis.client.herd'}",
    "'x' * 70000",
    "list(range(30000))",
]
SOFT_EXPIRY = 1793880000

SERIALIZERS = ["PickleSerializer", "JSONSerializer", "MSGPackSerializer"]
COMPRESSORS = [
    "IdentityCompressor",
    "ZlibCompressor",
    "GzipCompressor",
    "LzmaCompressor",
    "Lz4Compressor",
    "ZStdCompressor",
]

Entry = dict[str, Any]


def entry(
    serializer: str,
    compressor: str,
    options: dict[str, Any],
    value: str,
    encode: Callable[[Any], Any],
    decode: Callable[[bytes], Any],
) -> Entry | None:
    """Record how *value* is stored and read back; None if the producer cannot."""
    try:
        stored = encode(eval(value, dict(NAMES)))
        payload = stored if isinstance(stored, bytes) else str(stored).encode()
        found = decode(payload)
    except Exception:
        return None
    given = eval(value, dict(NAMES))
    same = found == given and type(found) is type(given)
    return {
        "serializer": serializer,
        "compressor": compressor,
        "options": options,
        "value": value,
        "reads": value if same else repr(found),
        "payload": base64.b85encode(zlib.compress(payload)).decode(),
    }


def django_redis() -> Iterator[Entry | None]:
    """What django-redis' own clients write."""
    import_module("django.conf").settings.configure()
    clients: Any = import_module("django_redis.client")

    def client(kind: type[Any], **options: Any) -> Any:
        return kind("redis://never-connected", {"OPTIONS": options}, None)

    for serializer, compressor in itertools.product(SERIALIZERS, COMPRESSORS):
        module = serializer.removesuffix("Serializer").lower()
        options = {
            "SERIALIZER": f"django_redis.serializers.{module}.{serializer}",
            "COMPRESSOR": "django_redis.compressors.{}.{}".format(
                compressor.removesuffix("Compressor").lower(), compressor
            ),
        }
        # DEFAULT_PROTOCOL depends on the Python that runs this.
        recorded = {"PICKLE_VERSION": 4} if module == "pickle" else {}
        made = client(clients.DefaultClient, **options, **recorded)
        for value in VALUES:
            yield entry(serializer, compressor, recorded, value, made.encode, made.decode)
    for protocol in range(6):
        made = client(clients.DefaultClient, PICKLE_VERSION=protocol)
        recorded = {"PICKLE_VERSION": protocol}
        for value in VALUES:
            if protocol != 4:
                yield entry(SERIALIZERS[0], COMPRESSORS[0], recorded, value, made.encode, made.decode)
        made = client(clients.HerdClient, PICKLE_VERSION=protocol)

        def encode(value: Any, made: Any = made) -> Any:
            return made.encode((made._marker, value, SOFT_EXPIRY))

        def decode(payload: bytes, made: Any = made) -> Any:
            return made.decode(payload)[1]

        for value in HERDED:
            yield entry("HerdSerializer", COMPRESSORS[0], recorded, value, encode, decode)


def django() -> Iterator[Entry | None]:
    """What Django's own Redis backend writes."""
    made = import_module("django.core.cache.backends.redis").RedisSerializer()
    options = {"PICKLE_VERSION": made.protocol}
    for value in VALUES:
        yield entry("PickleSerializer", "IdentityCompressor", options, value, made.dumps, made.loads)


def fleetcache() -> Iterator[Entry | None]:
    """What this checkout writes."""
    codecs = import_module("fleetcache.codec.payloads")
    serializers = import_module("fleetcache.codec.serializers")
    compressors = import_module("fleetcache.codec.compressors")
    ours = [*SERIALIZERS, "MsgspecSerializer", "MsgspecJSONSerializer"]
    for serializer, compressor in itertools.product(ours, COMPRESSORS):
        options = {"PICKLE_VERSION": 4} if serializer == "PickleSerializer" else {}
        codec = codecs.Codec(getattr(serializers, serializer), getattr(compressors, compressor), options)
        for value in VALUES:
            yield entry(serializer, compressor, options, value, codec.encode, codec.decode)


STAMP = bytes(range(8))
METADATA = {
    "C": (
        1793880000000,
        60000,
        250,
        (("tag", b"version1"), ("žluťoučký kůň", b"version2")),
        STAMP,
        1.25,
        "2",
        1793879940000,
    ),
    "B": (0, 0, 2**32 - 1, tuple((f"a long tag, number {n}", b"version%d" % (n % 10)) for n in range(16)), STAMP),
}
"""The fields of metadata that is short, and of metadata that is longer than 255 bytes."""


def described() -> Iterator[Entry | None]:
    """What this checkout writes with metadata."""
    codecs = import_module("fleetcache.codec.payloads")
    serializers = import_module("fleetcache.codec.serializers")
    compressors = import_module("fleetcache.codec.compressors")
    kind = import_module("fleetcache.codec.metadata").Metadata
    ours = [("PickleSerializer", {"PICKLE_VERSION": protocol}) for protocol in range(6)]
    others = [(name, {}) for name in ("JSONSerializer", "MSGPackSerializer", "MsgspecSerializer")]
    for (serializer, options), compressor in itertools.product([*ours, *others], COMPRESSORS):
        if options.get("PICKLE_VERSION", 4) != 4 and compressor != COMPRESSORS[0]:
            continue
        codec = codecs.Codec(getattr(serializers, serializer), getattr(compressors, compressor), options)
        values = VALUES if compressor == COMPRESSORS[0] and options.get("PICKLE_VERSION", 4) == 4 else VALUES[::7]
        for value, (head, fields) in itertools.product(values, METADATA.items()):

            def encode(value: Any, codec: Any = codec, fields: Any = fields) -> Any:
                return codec.describe(value, kind(*fields))

            def decode(payload: bytes, codec: Any = codec) -> Any:
                return codec.decode(payload).value

            found = entry(serializer, compressor, options, value, encode, decode)
            yield found and {**found, "metadata": head}


def write(name: str, producer: Callable[[], Iterator[Entry | None]]) -> None:
    """Write the file of producer *name*."""
    entries = [found for found in producer() if found]
    lines = ",\n".join(json.dumps(found) for found in entries)
    Path(__file__).with_name(f"{name}.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    for package, producer in {"django-redis": django_redis, "django": django}.items():
        with suppress(PackageNotFoundError):
            write(f"{package}-{version(package)}", producer)
    project = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text())
    write(f"fleetcache-{project['project']['version']}", fleetcache)
    write("fleetcache-metadata-1", described)
