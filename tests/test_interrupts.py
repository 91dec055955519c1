"""A time limit that hits a decoder reaches its caller; what a decoder raises itself is a miss."""

from __future__ import annotations

import ctypes
import pickle
import signal
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from fleetcache import Cache
from fleetcache.codec.compressors import BaseCompressor, ZlibCompressor
from fleetcache.codec.payloads import Codec
from fleetcache.codec.serializers import BaseSerializer, JSONSerializer
from fleetcache.errors import CompressorError, UnreadableValue

TEXT = "a text that is long enough to be compressed, " * 4


class SoftTimeLimit(Exception):
    """As Celery's and RQ's: an Exception like any other."""


class Deaf(Exception):
    """What a decoder may raise itself."""


def by_signal() -> None:
    signal.raise_signal(signal.SIGUSR1)


class Supervisor:
    """Its method is a signal's handler, which raises in a function of its own."""

    def __init__(self, limit: type[Exception]) -> None:
        self.limit = limit

    def handle(self, signum: int, frame: Any) -> None:
        self.stop()

    def stop(self) -> None:
        raise self.limit("time is over")

    def forget(self, signum: int, frame: Any) -> None:
        """Handle the signal as linters want it that have nothing unused."""
        del signum, frame
        self.stop()

    __call__ = forget


def by_thread(limit: type[BaseException] = SoftTimeLimit) -> None:
    """Do as a watching thread would."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threading.get_ident()), ctypes.py_object(limit))


def by_thread_with_a_timeout() -> None:
    by_thread(TimeoutError)


HANDLERS: dict[str, Callable[[Supervisor], Any]] = {
    "that forgets its frame": lambda supervisor: supervisor.forget,
    "that is an object": lambda supervisor: supervisor,
    "that is a partial": lambda supervisor: partial(Supervisor.forget, supervisor),
}

WAYS: dict[str, tuple[type[Exception], Callable[[], None]]] = {
    "a handler": (SoftTimeLimit, by_signal),
    **{f"a handler {name}": (SoftTimeLimit, by_signal) for name in HANDLERS},
    "a handler of TimeoutError": (TimeoutError, by_signal),
    "a handler of ValueError": (ValueError, by_signal),
    "another thread": (SoftTimeLimit, by_thread),
    "another thread, TimeoutError": (TimeoutError, by_thread_with_a_timeout),
}


@pytest.fixture(params=WAYS)
def limit(request: pytest.FixtureRequest) -> Iterator[tuple[type[Exception], Callable[[], None]]]:
    """A time limit's class, and what lets it strike."""
    kind, strike = WAYS[request.param]
    handler = HANDLERS.get(request.param.removeprefix("a handler "), lambda supervisor: supervisor.handle)
    before = signal.signal(signal.SIGUSR1, handler(Supervisor(kind)))
    Struck.strike = strike
    yield kind, strike
    signal.signal(signal.SIGUSR1, before)


class Struck(JSONSerializer):
    """A serializer, and a compressor, whose decoding a limit strikes."""

    strike: Callable[[], None]
    distinct = False

    def dumps(self, value: Any, /) -> bytes:
        return super().dumps(value)

    def loads(self, payload: bytes, /) -> Any:
        type(self).strike()
        return super().loads(payload)


class StruckZlib(ZlibCompressor):
    """zlib, under a limit that strikes."""

    def unpacker(self) -> Any:
        Struck.strike()
        return super().unpacker()


class Converting(BaseCompressor):
    """As django-redis' compressors are written: whatever is raised, the bytes are not its own."""

    def compress(self, value: bytes, /) -> bytes:
        return zlib.compress(value)

    def decompress(self, value: bytes, /) -> bytes:
        try:
            Struck.strike()
            return zlib.decompress(value)
        except Exception as error:
            raise CompressorError from error


class Quiet(Converting):
    """The same without a cause."""

    def decompress(self, value: bytes, /) -> bytes:
        try:
            return super().decompress(value)
        except Exception:
            raise CompressorError  # noqa: B904


CODECS = {
    "own serializer": Codec(Struck),
    "zlib": Codec(JSONSerializer, StruckZlib),
    "zlib, own serializer": Codec(Struck, ZlibCompressor),
    "own compressor": Codec(JSONSerializer, Converting),
    "own compressor, without a cause": Codec(JSONSerializer, Quiet),
}


@pytest.mark.parametrize("name", CODECS)
def test_limits_pass_decoders(name: str, limit: Any) -> None:
    """What a handler or another thread raises while a value is read is neither a miss nor a verdict on its bytes."""
    codec = CODECS[name]
    payload = codec.encode(TEXT)
    assert isinstance(payload, bytes)

    for read in (codec.decode, codec.decode_member, lambda payload: codec.decode_all([payload])):
        with pytest.raises(limit[0]) as caught:
            read(payload)
        assert not isinstance(caught.value, (UnreadableValue, CompressorError))


class Fuse:
    """Unpickled, it lets the limit strike: the handler then runs when the C code returns."""

    def __reduce__(self) -> Any:
        return Struck.strike, ()


@pytest.mark.parametrize("face", ["blocking", "awaiting"])
async def test_limits_pass_every_read(face: str, limit: Any) -> None:
    """Every operation that decodes hands a limit on, in a pipeline too, which is over then."""
    cache = Cache("memory://interrupts")
    cache.set("fuse", Fuse())
    cache.rpush("list", Fuse())
    cache.hset("hash", "field", Fuse())
    cache.zadd("scores", {"plain": 1})
    cache.topology.servers[0].exchange(((b"ZADD", cache.name("scores"), 2, pickle.dumps(Fuse())),))
    reads = [
        ("get", "fuse"),
        ("get_many", ["fuse"]),
        ("get_or_set", "fuse", 1),
        ("get_with_ttl", "fuse"),
        ("lrange", "list", 0, -1),
        ("hget", "hash", "field"),
        ("hgetall", "hash"),
        ("zrange", "scores", 0, -1),
    ]

    for name, *arguments in reads:
        with pytest.raises(limit[0]):
            await getattr(cache, f"a{name}")(*arguments) if face == "awaiting" else getattr(cache, name)(*arguments)
        pipe = cache.pipeline()
        getattr(pipe, name)(*arguments).set("after", 1)
        with pytest.raises(limit[0]):
            if face == "awaiting":
                await pipe.aexecute(raise_on_error=False)
            else:
                pipe.execute(raise_on_error=False)
    assert cache.stats.unreadable == 0


class Stubborn:
    """It refuses to be unpickled, by an exception of its own."""

    def __setstate__(self, state: Any) -> None:
        raise Deaf

    def __getstate__(self) -> Any:
        return 1


class DeafSerializer(BaseSerializer):
    """It raises an exception of its own for everything."""

    def dumps(self, value: Any, /) -> bytes:
        return b"anything"

    def loads(self, payload: bytes, /) -> Any:
        raise Deaf


@pytest.mark.parametrize("codec", [Codec(), Codec(DeafSerializer), Codec(DeafSerializer, ZlibCompressor)])
def test_a_decoder_may_raise_anything(codec: Codec) -> None:
    """An exception that a decoder, or a value's own code, raises itself makes the payload unreadable."""
    payload = codec.encode(Stubborn())
    assert isinstance(payload, bytes)

    with pytest.raises(UnreadableValue):
        codec.decode(payload)


def test_a_limit_that_is_over() -> None:
    """Within the handling of a limit an unreadable payload is a miss as ever."""
    signal_before = signal.signal(signal.SIGUSR1, Supervisor(SoftTimeLimit).handle)
    try:
        by_signal()
        pytest.fail("no limit")
    except SoftTimeLimit:
        with pytest.raises(UnreadableValue):
            Codec(JSONSerializer).decode(b"{")
        with pytest.raises(UnreadableValue):
            Codec(DeafSerializer).decode(b"x")
    finally:
        signal.signal(signal.SIGUSR1, signal_before)


# --- memory ---------------------------------------------------------------------------------------

GREEDY = (
    b"\x80\x05\x96" + struct.pack("<Q", 2**46) + b"abc.",
    b"\x80\x05\x8e" + struct.pack("<Q", 2**60) + b"abc.",
    b"\x80\x05\x8d" + struct.pack("<Q", 2**61) + b"abc.",
)


@pytest.mark.parametrize("payload", GREEDY)
@pytest.mark.parametrize("compressor", [ZlibCompressor, Converting])
def test_a_payload_that_asks_for_too_much(payload: bytes, compressor: Any, limit: Any) -> None:
    """A few bytes that announce terabytes are unreadable, and their neighbours are read."""
    Struck.strike = lambda: None
    cache = Cache("memory://greedy", {"KEY_PREFIX": compressor.__name__})
    ask = cache.topology.servers[0].exchange
    ask(((b"SET", cache.name("plain"), payload), (b"SET", cache.name("packed"), zlib.compress(payload))))
    cache.set("good", "good")

    with pytest.raises(UnreadableValue):
        Codec(compressor=compressor).decode(payload)
    assert cache.get("plain", "missing") == cache.get("packed", "missing") == "missing"
    assert cache.get_many(["plain", "good", "packed"]) == {"good": "good"}


def test_a_process_that_lacks_memory() -> None:
    """A MemoryError of a process that has no more is told, not taken for a miss."""
    code = (
        "import pickle, resource, zlib\n"
        "from fleetcache.codec.payloads import Codec\n"
        "payload = pickle.dumps([[] for _ in range(1_000_000)])\n"
        "packed = zlib.compress(payload)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (int(open('/proc/self/statm').read().split()[0]) * 4096 + (20 << 20), -1))\n"
        "for each in (payload, packed):\n"
        "    try: Codec().decode(each)\n"
        "    except MemoryError: continue\n"
        "    raise SystemExit('no MemoryError')\n"
    )
    if sys.platform != "linux":
        pytest.skip("Linux counts the memory of a process")

    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
