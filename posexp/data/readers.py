"""The readers of one file of plain text, JSON, csv, parquet or arrow. Only the requested field of a row is checked."""

import bz2
import csv
import gzip
import io
import json
import lzma
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from posexp.data.quiet import datasets_reason, root
from posexp.errors import Misuse

BLANKS = re.compile(r"\s*")
DECODER = json.JSONDecoder(parse_int=float)  # Python refuses an int of 4,300 digits, even in an unused field
BATCH_BYTES = 1 << 22  # of texts per batch

Row = dict[str, Any]


class Zstd(io.RawIOBase):
    """A reader of all zstd frames in `file`.

    zstandard's own reader raises no error if the last frame is truncated.
    """

    def __init__(self, file: IO[bytes]):
        import zstandard

        self.file, self.packed = file, b""
        self.new = zstandard.ZstdDecompressor().decompressobj
        self.frame: Any = None
        self.ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.ready:
            self.packed = self.packed or self.file.read(1 << 17)
            if not self.packed:
                if self.frame is not None:
                    raise EOFError("the file ends before its last zstd frame does")
                return 0
            self.frame = self.frame or self.new()
            self.ready, self.packed = memoryview(self.frame.decompress(self.packed)), b""
            if self.frame.eof:
                self.packed, self.frame = self.frame.unused_data, None
        count = min(len(buffer), len(self.ready))
        buffer[:count], self.ready = self.ready[:count], self.ready[count:]
        return count

    def close(self) -> None:
        self.file.close()
        super().close()


def open_zstd(path: Path) -> IO[bytes]:
    return io.BufferedReader(Zstd(open(path, "rb")), 1 << 17)


PACKED: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": open_zstd,
    ".zstd": open_zstd,
}


def opened(path: Path, packing: str) -> IO[bytes]:
    """Open the file for reading its unpacked bytes; `packing` must be a suffix of PACKED or empty."""
    return PACKED[packing](path) if packing else open(path, "rb")


def texts(path: Path, kind: str, packing: str, field: str) -> Iterator[str]:
    """Yield the text of every row, or of the whole file if `kind` is text.

    A text file is read with \\n as line end and without its byte order mark. Raises Misuse that names the file, the row
    and the problem.
    """
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
        raise Misuse(f"{path} {complaint(error)}") from error


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


def complaint(error: BaseException) -> str:
    """Return the end of a sentence that explains why reading a file raised `error`."""
    inner = root(error)
    module, text = type(inner).__module__.split(".")[0], datasets_reason(inner)
    if isinstance(inner, UnicodeDecodeError):
        return f"is not UTF-8: byte 0x{inner.object[inner.start]:02x} at {inner.start}"
    if isinstance(inner, EOFError) or module in {"gzip", "bz2", "_lzma", "lzma", "zlib", "zstandard"}:
        return f"cannot be unpacked: {text}"
    return f"cannot be read: {text}"


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


def parquet_rows(file: IO[bytes], field: str) -> Iterator[Row]:
    import pyarrow.parquet

    table = pyarrow.parquet.ParquetFile(file)
    if field not in table.schema_arrow.names:
        yield dict.fromkeys(table.schema_arrow.names)
    for batch in table.iter_batches(batch_size=100, columns=[field]):
        yield from ({field: value} for value in batch.column(0).to_pylist())


def arrow_rows(file: IO[bytes], field: str) -> Iterator[Row]:
    """Yield the rows of either arrow format: a file with an index of batches, or a stream, as `datasets` writes it."""
    import pyarrow

    indexed = file.read(6) == b"ARROW1"
    file.seek(0)
    table = pyarrow.ipc.open_file(file) if indexed else pyarrow.ipc.open_stream(file)
    if field not in table.schema.names:
        yield dict.fromkeys(table.schema.names)
    for batch in map(table.get_batch, range(table.num_record_batches)) if indexed else table:
        yield from ({field: value} for value in batch.column(field).to_pylist())


ROWS: dict[str, Callable[[IO[bytes], str], Iterator[Any]]] = {
    "json": json_rows,
    "csv": lambda file, field: csv_rows(file, ","),
    "tsv": lambda file, field: csv_rows(file, "\t"),
    "parquet": parquet_rows,
    "arrow": arrow_rows,
}
BINARY = {"parquet", "arrow"}  # compressed inside, with typed columns


def write(texts: Iterable[str], path: Path) -> Any:
    """Write the texts to a new arrow file; return the dataset, whose column is `text`."""
    import datasets
    import pyarrow

    schema = pyarrow.schema([("text", pyarrow.string())])
    with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_stream(sink, schema) as writer:
        for batch in batches(texts):
            writer.write_batch(pyarrow.record_batch([pyarrow.array(batch, pyarrow.string())], schema=schema))
    return datasets.Dataset.from_file(str(path))


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yield lists of texts, of about 4 MB and at most 1000 texts."""
    held: list[str] = []
    size = 0
    for text in texts:
        held.append(text)
        size += len(text)
        if size >= BATCH_BYTES or len(held) >= 1000:
            yield held
            held, size = [], 0
    if held:
        yield held


def text_lengths(rows: Any) -> Iterator[int | None]:
    """Yield the UTF-8 bytes of each text; None for a row without text."""
    import pyarrow.compute

    for batch in rows.with_format("arrow").iter(batch_size=batch_rows(rows)):
        yield from pyarrow.compute.binary_length(batch["text"]).to_pylist()


def batch_rows(rows: Any) -> int:
    """Return the number of rows that make about 4 MB, at most 1000."""
    mean = rows.data.nbytes / max(1, len(rows.data)) + 1
    return min(1000, max(1, int(BATCH_BYTES / mean)))
