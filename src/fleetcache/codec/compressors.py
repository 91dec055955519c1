"""Compressors: bytes to fewer bytes and back.  Every decompression is bounded.

A compressor is any class that takes the options and has ``compress`` and ``decompress``.  If its
``magic`` names the first bytes of all its output, payloads are recognised by these.  Otherwise
``decompress`` is tried on every payload, and raises ``CompressorError`` for bytes it did not write.

To add one, derive from `LibraryCompressor` and add the class to `KNOWN`.
"""

from __future__ import annotations

import lzma
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

from fleetcache.codec.extras import library
from fleetcache.errors import CompressorError, SettingsError
from fleetcache.interrupts import let_pass
from fleetcache.settings import Options

MAX_VALUE_BYTES = 256 << 20
"""The default of the option of this name: the size limit of a decompressed value."""

# One value is one member; only tools that append to compressed files write several.  The number
# is bounded because each member costs a copy of all that follow.
MAX_MEMBERS = 100

# At its highest preset xz needs 65 MiB; a forged header may demand 4 GiB.
LZMA_MEMORY = 128 << 20


class Compressor(Protocol):
    """The interface of a compressor; it need not derive from any class of ours."""

    def compress(self, value: bytes, /) -> bytes: ...
    def decompress(self, value: bytes, /) -> bytes: ...


class BaseCompressor:
    """A base class for compressors: constructed with the options; ``compress`` and ``decompress`` are abstract."""

    magic: ClassVar[tuple[bytes, ...] | None] = None
    """The possible first bytes of all output, or None if they are not known.  A subclass that writes differently
    from its parent must set it again."""

    writes: ClassVar[frozenset[str]] = frozenset(("compress",))
    """The attributes that decide on the output: a subclass that has one of them loses its parent's ``magic``."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if not cls.writes.isdisjoint(vars(cls)):
            cls.magic = vars(cls).get("magic")

    def __init__(self, options: Options | Mapping[str, Any]) -> None:
        self._options = options

    def compress(self, value: bytes, /) -> bytes:
        raise NotImplementedError

    def decompress(self, value: bytes, /) -> bytes:
        raise NotImplementedError


class IdentityCompressor(BaseCompressor):
    """Leaves bytes as they are."""

    magic = ()

    def compress(self, value: bytes, /) -> bytes:
        return value

    def decompress(self, value: bytes, /) -> bytes:
        return value


class LibraryCompressor(BaseCompressor):
    """A base class for compressors that call a library, in *module*.

    Values of at most ``min_length`` bytes are not compressed; ``preset`` is the level.  Subclasses set both as
    class attributes; the options ``COMPRESS_MIN_LENGTH`` and ``COMPRESS_LEVEL`` set them for a cache.
    """

    magic: ClassVar[tuple[bytes, ...]] = ()
    writes = frozenset(("compress", "pack", "form", "module"))
    module: ClassVar[str]
    decompressor: ClassVar[str]
    """The name of the module's class or function that decompresses one member."""
    form: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Arguments that select one of the module's formats."""
    min_length: int = 15
    preset: int

    def __init__(self, options: Options | Mapping[str, Any]) -> None:
        super().__init__(options)
        self.library = library(self.module, extra="compression")
        written = Options.of(options)
        if written.compress_min_length is not None:
            self.min_length = written.compress_min_length
        if written.compress_level is not None:
            self.preset = written.compress_level
        self.limit = written.max_value_bytes or MAX_VALUE_BYTES
        try:
            self.pack(b"")
        except Exception as error:
            let_pass(error)
            raise SettingsError(f"COMPRESS_LEVEL {self.preset}: {error}") from error

    def pack(self, value: bytes) -> bytes:
        """Compress *value*, whatever its length."""
        return bytes(self.library.compress(value, self.preset, **self.form))

    def unpacker(self) -> Any:
        """Return a new decompressor, for one member."""
        return getattr(self.library, self.decompressor)(**self.form)

    def room(self, value: bytes) -> int:
        """Return how many bytes to reserve for the decompressed *value*: one more than its expected size."""
        return self.limit + 1

    def compress(self, value: bytes, /) -> bytes:
        # Values above the limit are not compressed, since decompressing them would be refused.
        return self.pack(value) if self.min_length < len(value) <= self.limit else value

    def decompress(self, value: bytes, /) -> bytes:
        try:
            return self._decompress(value)
        except MemoryError:
            raise
        except Exception as error:  # the libraries raise half a dozen unrelated classes
            let_pass(error)
            raise CompressorError(f"{type(self).__name__}: {error}") from error

    def _decompress(self, value: bytes) -> bytes:
        pieces = []
        room = self.limit
        for _ in range(MAX_MEMBERS):
            unpacker = self.unpacker()
            pieces.append(unpacker.decompress(value, min(room + 1, self.room(value))))
            room -= len(pieces[-1])
            if room < 0:
                raise ValueError(f"more than MAX_VALUE_BYTES ({self.limit}) when decompressed")
            if not unpacker.eof:
                raise EOFError("the end is missing")
            value = unpacker.unused_data or b""
            if not value:
                return b"".join(pieces)
        raise ValueError(f"more than {MAX_MEMBERS} compressed members")


class ZlibCompressor(LibraryCompressor):
    """zlib, level 6."""

    magic: ClassVar[tuple[bytes, ...]] = (b"\x78\x9c", b"\x78\x01", b"\x78\x5e", b"\x78\xda")
    module = "zlib"
    decompressor = "decompressobj"
    preset = 6


class GzipCompressor(ZlibCompressor):
    """gzip, level 9, without the time of day: equal values are equal bytes."""

    magic = (b"\x1f\x8b",)
    form = MappingProxyType({"wbits": 31})
    preset = 9


class LzmaCompressor(LibraryCompressor):
    """xz, preset 4: the smallest and by far the slowest."""

    magic = (b"\xfd7zXZ\x00",)
    module = "lzma"
    min_length = 100
    preset = 4

    def pack(self, value: bytes) -> bytes:
        return lzma.compress(value, preset=self.preset)

    def unpacker(self) -> Any:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=LZMA_MEMORY)


class Lz4Compressor(LibraryCompressor):
    """LZ4 frames: the fastest."""

    magic = (b"\x04\x22\x4d\x18",)
    module = "lz4.frame"
    decompressor = "LZ4FrameDecompressor"
    preset = 0

    def room(self, value: bytes) -> int:
        # The library reserves all the bytes it may use; the header usually states the real size.
        size: int = self.library.get_frame_info(value)["content_size"]
        return size + 1 if size else super().room(value)


class ZStdCompressor(LibraryCompressor):
    """Zstandard, level 3: nearly as small as zlib at a fraction of the time."""

    magic = (b"\x28\xb5\x2f\xfd",)
    module = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    decompressor = "ZstdDecompressor"
    preset = 3


KNOWN: tuple[type[LibraryCompressor], ...] = (
    ZlibCompressor,
    ZStdCompressor,
    Lz4Compressor,
    GzipCompressor,
    LzmaCompressor,
)
"""The output of these is read, whatever compressor is configured."""
