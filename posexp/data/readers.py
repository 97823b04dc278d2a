"""The readers of one file of plain text, JSON, csv, parquet or arrow. Only the requested field of a row is checked.

`datasets` does not read these files: its csv reader turns a text such as 2020 into a number, and its parquet reader
refuses a file for the type of any column.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from posexp.errors import Misuse

BLANKS = re.compile(r"\s*")
DECODER = json.JSONDecoder(parse_int=float)  # Python refuses an int of 4,300 digits, even in an unused field
# A file that unpacks to more is a decompression bomb. Text becomes 3 to 20 times as large.
MOST_RATIO = 200
SMALL = 64 << 20  # bytes; repetitive files of this size may have any ratio

Row = dict[str, Any]


def open_zstd(path: Path) -> IO[bytes]:
    import pyarrow  # raises an error for a truncated last frame, as zstandard does not

    return io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd"))


PACKED: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": open_zstd,
    ".zstd": open_zstd,
}


class Unpacked(io.RawIOBase):
    """The unpacked bytes of a file. Raises Misuse after `most` bytes."""

    def __init__(self, file: IO[bytes], path: Path, most: int):
        self.file, self.path, self.most, self.left = file, path, most, most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count: int = self.file.readinto(buffer)  # type: ignore[attr-defined]
        self.left -= count
        if self.left < 0:
            raise Misuse(f"{self.path} unpacks to more than {self.most:,} bytes: unpack it yourself to use it")
        return count

    def close(self) -> None:
        self.file.close()
        super().close()


def opened(path: Path, packing: str) -> IO[bytes]:
    """Open the file for reading its unpacked bytes; `packing` must be a suffix of PACKED or empty."""
    if not packing:
        return open(path, "rb")
    most = max(SMALL, MOST_RATIO * path.stat().st_size)
    return io.BufferedReader(Unpacked(PACKED[packing](path), path, most), 1 << 17)


def texts(path: Path, kind: str, packing: str, field: str) -> Iterator[str]:
    """Yield the text of every row, or of the whole file if `kind` is text, without its byte order mark."""
    try:
        with opened(path, packing) as file:
            if kind == "text":
                with io.TextIOWrapper(file, encoding="utf-8-sig") as decoded:
                    whole = decoded.read()
                if not whole:
                    raise Misuse(f"{path} is an empty file")
                yield whole
                return
            number = 0
            for number, row in enumerate(ROWS[kind](file, field), 1):
                yield text_of(row, field, f"{path}: row {number}")
            if not number and kind not in BINARY:  # a shard with known columns may be empty
                raise Misuse(f"{path} holds no rows")
    except Misuse:
        raise
    except Exception as error:  # decompressors and parsers raise errors of their own
        raise Misuse(f"{path} {complaint(error, packing)}") from error


def text_of(row: Any, field: str, where: str) -> str:
    if not isinstance(row, dict):
        raise Misuse(f"{where} is {name_of(row)}, not an object with the field {field!r}")
    if field not in row:
        raise Misuse(f"{where} has no field {field!r}; its fields: {', '.join(row) or 'none'} (choose with data.field)")
    text = row[field]
    if not isinstance(text, str):
        raise Misuse(f"{where}: the field {field!r} is {name_of(text)}, not text")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise Misuse(f"{where}: the field {field!r} holds half a character, {text[error.start]!a}") from error
    return text


def name_of(value: Any) -> str:
    names = {type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "text"}
    return {**names, list: "a list", dict: "an object"}.get(type(value), f"a {type(value).__name__}")


def complaint(error: Exception, packing: str) -> str:
    """Return the end of a sentence that explains why reading a file raised `error`."""
    if isinstance(error, UnicodeDecodeError):
        return f"is not UTF-8: byte 0x{error.object[error.start]:02x} at {error.start}"
    unpacking = packing and isinstance(error, (OSError, EOFError, lzma.LZMAError, zlib.error))
    return f"cannot be {'unpacked' if unpacking else 'read'}: {cause_line(error)}"


def cause_line(error: BaseException) -> str:
    """Return the innermost cause of a wrapped error, as one line of at most 200 characters."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def json_rows(file: IO[bytes], field: str) -> Iterator[Any]:
    """Yield the values of JSON lines, or of a file with one value over several lines. Lists are flattened."""
    started = False
    for number, line in enumerate(file, 1):
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        try:
            found = list(json_values(text))
        except ValueError as error:
            if started:
                raise ValueError(f"line {number} is not JSON: {error}") from None
            found = list(json_values(text + file.read().decode()))
        for value in found:
            started = True
            items = value if isinstance(value, list) else [value]
            yield from ({field: item} if isinstance(item, str) else item for item in items)


def json_values(text: str) -> Iterator[Any]:
    at = BLANKS.match(text).end()  # type: ignore[union-attr]
    while at < len(text):
        value, at = DECODER.raw_decode(text, at)
        at = BLANKS.match(text, at).end()  # type: ignore[union-attr]
        yield value


def csv_rows(file: IO[bytes], delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)  # the default refuses texts of more than 131,072 characters
    with io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as decoded:
        lines = csv.reader(decoded, delimiter=delimiter, strict=True)
        header = next(lines, [])
        for values in filter(None, lines):
            if len(values) != len(header):
                raise ValueError(f"line {lines.line_num} has {len(values)} columns, the first line {len(header)}")
            yield dict(zip(header, values, strict=True))


def column_rows(names: list[str], batches: Iterable[Any], field: str) -> Iterator[Row]:
    if field not in names:
        yield dict.fromkeys(names)
    for batch in batches:
        yield from ({field: value} for value in batch.column(field).to_pylist())


def parquet_rows(file: IO[bytes], field: str) -> Iterator[Row]:
    import pyarrow.parquet

    table = pyarrow.parquet.ParquetFile(file)
    return column_rows(table.schema_arrow.names, table.iter_batches(batch_size=100, columns=[field]), field)


def arrow_rows(file: IO[bytes], field: str) -> Iterator[Row]:
    """Yield the rows of either arrow format: a file with an index of batches, or a stream, as `datasets` writes it."""
    import pyarrow

    indexed = file.read(6) == b"ARROW1"
    file.seek(0)
    table = pyarrow.ipc.open_file(file) if indexed else pyarrow.ipc.open_stream(file)
    batches = map(table.get_batch, range(table.num_record_batches)) if indexed else table
    return column_rows(table.schema.names, batches, field)


ROWS: dict[str, Callable[[IO[bytes], str], Iterator[Any]]] = {
    "json": json_rows,
    "csv": lambda file, field: csv_rows(file, ","),
    "tsv": lambda file, field: csv_rows(file, "\t"),
    "parquet": parquet_rows,
    "arrow": arrow_rows,
}
BINARY = {"parquet", "arrow"}  # compressed inside, with typed columns
