"""Streams raw documents out of files, in order and without holding more than one chunk."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from data.compression import DAMAGE_ERRORS, INSTALL_HINT, open_stream
from data.errors import DataError
from data.records import Chunk, Record
from data.sources import Source

# A chunk costs a worker well under a second, and its encodings some tens of megabytes.
CHUNK_BYTES = 1 << 19
CHUNK_RECORDS = 1024
# Encoding takes about 115 bytes of memory for each byte of a document (29 MB took 3.4 GB), so this
# bounds a worker at 8 GB; and a longer "line" is as a rule a file without JSON lines in it.
MAX_DOCUMENT_BYTES = 1 << 26
PARQUET_BATCH_ROWS = 256

Located = tuple[Record, int]  # a record, and the place on disk that was reached to read it


def read_records(source: Source, keys: list[str]) -> Iterator[Located]:
    """Reads one file.

    Args:
        source: the file.
        keys: the keys (JSON) or columns (parquet) that are wanted.

    Yields:
        Each raw document with the number of bytes on disk read so far.

    Raises:
        DataError: the file cannot be opened, is cut off or damaged.
    """
    readers: dict[str, Callable[[Source, list[str]], Iterator[Located]]] = {
        "json": _read_json_lines,
        "parquet": _read_parquet_rows,
        "text": _read_text_file,
    }
    is_empty = True
    if source.num_bytes:
        for located in readers[source.format](source, keys):
            is_empty = False
            yield located
    if is_empty and source.format != "text":
        yield Record(source.path, 0, "bad", "the file is empty"), source.num_bytes


def read_chunks(
    sources: Iterable[Source], keys: list[str], max_documents: int | None = None
) -> Iterator[Chunk]:
    """Groups the documents of all files into chunks.

    Args:
        sources: the files, in the order of the output.
        keys: the keys that are wanted.
        max_documents: where to stop, or None for the end.

    Yields:
        Chunks of at most CHUNK_RECORDS documents and about CHUNK_BYTES bytes.
    """
    chunk, num_bytes = Chunk(), 0
    for record, num_disk_bytes in islice(_read_all(sources, keys), max_documents):
        chunk.records.append(record)
        chunk.num_disk_bytes += num_disk_bytes
        num_bytes += _size(record)
        if num_bytes >= CHUNK_BYTES or len(chunk.records) >= CHUNK_RECORDS:
            yield chunk
            chunk, num_bytes = Chunk(), 0
    if chunk.records:
        yield chunk


def _read_all(sources: Iterable[Source], keys: list[str]) -> Iterator[Located]:
    """Chains the files; turns places on disk into bytes read since the last record."""
    for source in sources:
        before = 0
        for record, place in read_records(source, keys):
            yield record, place - before
            before = place


def _size(record: Record) -> int:
    """Bytes that a record holds."""
    if isinstance(record.raw, tuple):
        return sum(len(cell or b"") for cell in record.raw)
    return len(record.raw)


def _read_json_lines(source: Source, keys: list[str]) -> Iterator[Located]:
    """Reads lines that end in a newline byte and in nothing else.

    Text iterators would also cut at U+0085 and U+2028, which JSON allows inside of a string.
    Blank lines are passed over.
    """
    number = 0
    try:
        with open_stream(source) as (stream, raw):
            while line := stream.readline(MAX_DOCUMENT_BYTES + 1):
                number += 1
                if len(line) > MAX_DOCUMENT_BYTES:
                    while line and not line.endswith(b"\n"):
                        line = stream.readline(MAX_DOCUMENT_BYTES)
                    yield _too_long(f"{source.path}:{number}"), raw.tell()
                elif not line.isspace():
                    yield Record(source.path, number, "json", line), raw.tell()
    except DAMAGE_ERRORS as error:
        raise DataError(_damage(source, error, f" after line {number}")) from error


def _too_long(place: str) -> Record:
    """Stands in for a document that would fill the memory."""
    limit = MAX_DOCUMENT_BYTES >> 20
    return Record(place, 0, "bad", f"the document is longer than {limit} MiB; split it")


def _read_text_file(source: Source, keys: list[str]) -> Iterator[Located]:
    """Reads a whole file as one document."""
    try:
        with open_stream(source) as (stream, _):
            raw = stream.read(MAX_DOCUMENT_BYTES + 1)
    except DAMAGE_ERRORS as error:
        raise DataError(_damage(source, error, "")) from error
    is_too_long = len(raw) > MAX_DOCUMENT_BYTES
    record = _too_long(source.path) if is_too_long else Record(source.path, 1, "text", raw)
    yield record, source.num_bytes


def _read_parquet_rows(source: Source, keys: list[str]) -> Iterator[Located]:
    """Reads the wanted columns, some rows at a time, as undecoded bytes."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DataError(f"{source.path}: reading parquet needs pyarrow: {INSTALL_HINT}") from error
    try:
        with pq.ParquetFile(source.path) as table:
            for key in keys:
                _check_column(table.schema_arrow, key, source)
            number, num_rows = 0, max(table.metadata.num_rows, 1)
            for batch in table.iter_batches(PARQUET_BATCH_ROWS, columns=keys, use_threads=False):
                # As bytes: to_pylist() of strings would fail on the whole batch at one bad byte.
                columns = [batch.column(key).cast(pa.large_binary()).to_pylist() for key in keys]
                for cells in zip(*columns, strict=True):
                    number += 1
                    place = source.num_bytes * number // num_rows
                    record = Record(source.path, number, "parquet", cells)
                    is_too_long = _size(record) > MAX_DOCUMENT_BYTES
                    yield (_too_long(record.place) if is_too_long else record), place
    except (pa.ArrowException, *DAMAGE_ERRORS) as error:
        raise DataError(_damage(source, error, "")) from error


def _check_column(schema, key: str, source: Source) -> None:
    """Makes sure that a parquet column is there and holds strings."""
    import pyarrow.types as types

    if key not in schema.names:
        present = ", ".join(schema.names[:8])
        raise DataError(f'{source.path}: no column "{key}" (columns: {present}); see --json-keys')
    kind = schema.field(key).type
    if types.is_dictionary(kind):
        kind = kind.value_type
    if not (types.is_string(kind) or types.is_large_string(kind)):
        raise DataError(f'{source.path}: column "{key}" holds {kind}, not string; see --json-keys')


def _damage(source: Source, error: Exception, after: str) -> str:
    """Says in one line how a file failed to be read."""
    if isinstance(error, OSError) and error.strerror:
        return f"{source.path}: cannot be read{after}: {error.strerror}"
    reason = " ".join(str(error).split())
    kind = source.compression.lstrip(".") or source.format
    return f"{source.path}: truncated or damaged {kind} data{after} ({reason}); fetch it again"
