"""What passes from the readers to the workers: raw documents, and how texts are got out of them."""

import json
from dataclasses import dataclass, field
from typing import NamedTuple

from data.errors import BadDocumentError

UTF8_BOM = "\ufeff"


class Record(NamedTuple):
    """One raw document and its place; it is decoded by the worker, which has the time for it.

    Attributes:
        path: the file it came from.
        number: line of a JSON file or row of a parquet file, from 1.
        form: ``json`` (raw is a line), ``parquet`` (raw has a value for each key), ``text`` (raw
            is a whole file) or ``bad`` (raw is the reason, found while reading).
        raw: the undecoded content.
    """

    path: str
    number: int
    form: str
    raw: bytes | tuple | str

    @property
    def place(self) -> str:
        """Where the document stands, in the words of an error message."""
        if self.form == "json":
            return f"{self.path}:{self.number}"
        return f"{self.path}: row {self.number}" if self.form == "parquet" else self.path


@dataclass
class Chunk:
    """The unit of work: some records, and how many bytes on disk were read to get them."""

    records: list[Record] = field(default_factory=list)
    num_disk_bytes: int = 0


def parse(record: Record, keys: list[str]) -> list[str]:
    """Gets the texts out of a raw document.

    Args:
        record: the raw document.
        keys: the keys whose texts are wanted.

    Returns:
        One text for each key.

    Raises:
        BadDocumentError: the document is not what its file format promises.
    """
    if record.form == "json":
        return _parse_json(record, keys)
    if record.form == "parquet":
        return [_decode_cell(raw, key) for raw, key in zip(record.raw, keys, strict=True)]
    if record.form == "text":
        return [_decode(record.raw, "the file").removeprefix(UTF8_BOM)]
    raise BadDocumentError(record.raw)


def _parse_json(record: Record, keys: list[str]) -> list[str]:
    """Gets the texts out of one line of JSON."""
    line = _decode(record.raw, "the line").rstrip("\r\n")
    if record.number == 1:
        line = line.removeprefix(UTF8_BOM)
    try:
        document = json.loads(line)
    except json.JSONDecodeError as error:
        reason = error.msg.removesuffix(" at")
        raise BadDocumentError(f"broken JSON ({reason}, column {error.colno})") from None
    except (RecursionError, ValueError) as error:  # nested too deeply, a number of 5000 digits
        raise BadDocumentError(f"broken JSON ({error})") from None
    if not isinstance(document, dict):
        raise BadDocumentError(f"expected one JSON object a line, found {_kind(document)}")
    return [_get_text(document, key) for key in keys]


def _get_text(document: dict, key: str) -> str:
    """Looks a key up and makes sure that it holds text."""
    if key not in document:
        present = ", ".join(list(document)[:8]) or "none"
        raise BadDocumentError(f'no key "{key}" (keys here: {present}); see --json-keys')
    text = document[key]
    if not isinstance(text, str):
        raise BadDocumentError(f'key "{key}" holds {_kind(text)}, not a string')
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            code = ord(text[error.start])
            raise BadDocumentError(
                f'key "{key}" holds half of a surrogate pair (\\u{code:04x}), which is no text'
            ) from None
    return text


def _decode_cell(raw: bytes | None, key: str) -> str:
    """Decodes one cell of a parquet column."""
    if raw is None:
        raise BadDocumentError(f'column "{key}" holds null, not a string')
    return _decode(raw, f'column "{key}"')


def _decode(raw: bytes, where: str) -> str:
    """Decodes UTF-8; names the first byte that is not."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        value = raw[error.start]
        raise BadDocumentError(
            f"invalid UTF-8 in {where} (byte 0x{value:02x} at offset {error.start})"
        ) from None


def _kind(value: object) -> str:
    """Names a JSON value's type as JSON calls it."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return "null" if value is None else names.get(type(value), "a number")
