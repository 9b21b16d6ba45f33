"""A file's text as UTF-8, chunk by chunk, whatever it is packed and encoded in.

Undecodable bytes are kept: in the stream, byte 0xNN of the file that its encoding cannot decode
is the three bytes of U+DC00 + 0xNN, which no valid UTF-8 holds. So they are found again row by
row, cannot join with their neighbours to something valid, and can be written back as they were.
(`surrogateescape` would let the two bytes of a UTF-8 `é` in an `ascii` file pass as an `é`, and
cannot keep the bytes below 0x80 that UTF-16 stumbles on.)
"""

from __future__ import annotations

import codecs
import gzip
import re
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, cast

from bulk_updater.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["STREAM_ERRORS", "TextFile", "explain", "open_text"]

STREAM_ERRORS = (EOFError, OSError, zlib.error, UnicodeError)
"""What reading a `TextFile` may raise; `explain` has a sentence for each."""

_HEAD_BYTES = 4096
_GZIP_MAGIC = b"\x1f\x8b"
# UTF-32's first: that of UTF-32 little-endian begins with UTF-16's.
_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (codecs.BOM_UTF8, "utf-8"),
)
_TELLING = ("utf-8", "utf-16")  # a mark of these is none by chance, whatever the user said
_TWO_ORDERS = ("utf-16", "utf-32")
_KEEP = "bulk_updater.keep"
_KEPT = re.compile("[\udc00-\udcff]+")
_KEPT_BASE = 0xDC00

# How other kinds of file begin, and what to do about each.
_LOOKS_LIKE = (
    (b"PAR1\x15", "looks like Parquet; name it `.parquet`"),
    (b"PK\x03\x04", "looks like a zip archive or an Excel workbook; export it as CSV"),
    (b"\xd0\xcf\x11\xe0", "looks like an old Excel workbook; export it as CSV"),
    (_GZIP_MAGIC, "looks like gzip; name it `.csv.gz`"),
    (b"\x28\xb5\x2f\xfd", "looks like zstd; unpack it first"),
    (b"\xfd7zXZ\x00", "looks like xz; unpack it first"),
    (b"%PDF-", "looks like a PDF; export the data as CSV"),
)


def _keep_undecodable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return (
        "".join(chr(_KEPT_BASE + byte) for byte in error.object[error.start : error.end]),
        error.end,
    )


codecs.register_error(_KEEP, _keep_undecodable)


@dataclass(frozen=True, slots=True)
class TextFile:
    """A file of text, and how to read it.

    Attributes:
        path: The file.
        packed: Whether it is gzip.
        encoding: The codec of its text, by Python's own name, without a byte order mark.
        n_bom_bytes: How long its byte order mark is; 0 where it has none.
    """

    path: Path
    packed: bool
    encoding: str
    n_bom_bytes: int = 0

    def read_chunks(self, chunk_bytes: int) -> Iterator[bytes]:
        """Read the text as UTF-8 without its byte order mark.

        Args:
            chunk_bytes: How much of the unpacked file to take at a time, from 1.

        Raises:
            EOFError, OSError, zlib.error, UnicodeError: See `explain`.
        """
        with _open(self.path, packed=self.packed) as file:
            file.read(self.n_bom_bytes)
            if self.encoding == "utf-8":
                while chunk := file.read(chunk_bytes):
                    yield chunk
                return
            decoder = codecs.getincrementaldecoder(self.encoding)(errors=_KEEP)
            while chunk := file.read(chunk_bytes):
                if text := decoder.decode(chunk):
                    yield text.encode("utf-8", "surrogatepass")
            if text := decoder.decode(b"", final=True):
                yield text.encode("utf-8", "surrogatepass")

    def encode(self, cell: bytes) -> bytes:
        """A piece of the stream in the file's own encoding, undecodable bytes as they were.

        Where an encoding has two ways to write a character, it is the codec's usual one.
        """
        if self.encoding == "utf-8":
            return cell
        text = cell.decode("utf-8", "surrogatepass")
        pieces = []
        end = 0
        for kept in _KEPT.finditer(text):
            pieces.append(text[end : kept.start()].encode(self.encoding, "replace"))
            pieces.append(bytes(ord(character) - _KEPT_BASE for character in kept[0]))
            end = kept.end()
        pieces.append(text[end:].encode(self.encoding, "replace"))
        return b"".join(pieces)


def open_text(path: Path, *, encoding: str, packed: bool, name: str) -> TextFile:
    """Look at the beginning of a file and find out how to read it.

    Args:
        path: The file.
        encoding: The codec that the user named. A UTF-8 byte order mark outranks it, a UTF-16
            one decides the byte order.
        packed: Whether the file is gzip.
        name: The source, for messages.

    Raises:
        SourceError: The file is of another kind, is not gzip, or the codec is unknown.
    """
    try:
        "a".encode(encoding)
        codec = codecs.lookup(encoding).name
    except (LookupError, ValueError) as error:
        raise SourceError(
            f"`source.encoding` is {encoding!r}, which is no text encoding known to Python; try "
            "utf-8, utf-16 or cp1252.",
            source=name,
        ) from error
    try:
        with _open(path, packed=packed) as file:
            head = file.read(_HEAD_BYTES)
    except STREAM_ERRORS as error:
        raise SourceError(f"{explain(error)}.", source=name) from error
    for magic, looks_like in _LOOKS_LIKE:
        if head.startswith(magic):
            raise SourceError(f"is not CSV, whatever its name says: it {looks_like}.", source=name)
    found, n_bom_bytes = _heed_bom(head, codec)
    if found.startswith("utf-16") and not codec.startswith("utf-16"):
        raise SourceError(
            f"is UTF-16, not {codec}: set `source.encoding: utf-16` in the mapping.", source=name
        )
    if found.startswith(_TWO_ORDERS) and head and b"\0" not in head:
        # Even a header in Chinese has a delimiter or a line end.
        raise SourceError(
            f"is not {found}; set `source.encoding` in the mapping to what it is, such as utf-8.",
            source=name,
        )
    return TextFile(path, packed, found, n_bom_bytes)


def explain(error: Exception) -> str:
    """What an error of the stream means; holds nothing of the file's content."""
    if isinstance(error, EOFError):
        return "its gzip data is cut short; copy the file again"
    if isinstance(error, gzip.BadGzipFile | zlib.error):
        return "its gzip data is damaged, or is no gzip at all; copy the file again"
    if isinstance(error, UnicodeError):
        return "its text is not in `source.encoding`"
    why = error.strerror if isinstance(error, OSError) else None
    return f"cannot be read: {why or type(error).__name__}"


def _open(path: Path, *, packed: bool) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path, "rb")) if packed else path.open("rb")


def _heed_bom(head: bytes, codec: str) -> tuple[str, int]:
    """The codec that a file is really in, without byte order mark, and the mark's length."""
    for bom, marked in _BOMS:
        family = marked.removesuffix("-le").removesuffix("-be")
        if head.startswith(bom) and (codec.startswith(family) or family in _TELLING):
            return marked, len(bom)
    if codec in _TWO_ORDERS:
        # The mark is optional; a header begins with ASCII nearly always, and Windows writes -le.
        return codec + ("-be" if head.startswith(b"\0") else "-le"), 0
    return codec.removesuffix("-sig"), 0
