"""Writes a corpus so that it is either whole or not there, with the licence of every source."""

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from corpus.build import BuiltDomain
from corpus.catalogue import Domain
from corpus.errors import CorpusError
from corpus.sample import Piece

MANIFEST = "manifest.json"
TABLE = "SOURCES.md"
_FORMAT = 1


def read_manifest(folder: Path) -> dict | None:
    """Return the manifest of the corpus in `folder`, or None if there is no readable one."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("format") == _FORMAT else None


def is_intact(folder: Path, manifest: dict) -> bool:
    """Tell whether every file that the manifest lists is there with its checksum."""
    files = [side for domain in manifest["domains"].values() for side in domain["files"]]
    return all(_sha256_file(folder / file["name"]) == file["sha256"] for file in files)


def _sha256_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


@contextmanager
def replacing(output: Path, overwrite: bool) -> Iterator[Path]:
    """Give a scratch folder that takes the place of `output` if the block ends well.

    Raises:
        CorpusError: `output` cannot be written, or holds files that are not a corpus.
    """
    _check_replaceable(output, overwrite)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix=".corpus-partial-", dir=output.parent)
    except OSError as error:
        raise CorpusError(
            f"--output {output}: cannot be written ({error.strerror}); name a folder you own"
        ) from error
    with scratch as name:
        fresh = Path(name, "new")
        fresh.mkdir()
        yield fresh
        if output.exists():
            output.rename(Path(name, "old"))  # removed with the scratch folder
        fresh.rename(output)


def _check_replaceable(output: Path, overwrite: bool) -> None:
    if output.exists() and not output.is_dir():
        raise CorpusError(f"--output {output}: is a file; name a folder")
    if not output.exists() or not any(output.iterdir()):
        return
    if read_manifest(output) is None:
        raise CorpusError(
            f"--output {output}: holds files but no corpus manifest, so it is not replaced;"
            " name another folder or empty this one"
        )
    if not overwrite:
        raise CorpusError(
            f"--output {output}: holds a corpus built otherwise, or a damaged one; add --overwrite"
            " to rebuild it, or name another folder"
        )


def write_domain(folder: Path, domain: Domain, built: BuiltDomain) -> dict:
    """Write DOMAIN.train.jsonl and DOMAIN.valid.jsonl; return the domain's part of the manifest."""
    files = []
    for side, pieces in (("train", built.train), ("valid", built.valid)):
        name = f"{domain.name}.{side}.jsonl"
        lines = [_json_line(piece, domain.name) for piece in pieces]
        (folder / name).write_text("".join(lines), encoding="utf-8", newline="\n")
        files.append(
            {
                "name": name,
                "documents": len(pieces),
                "text_bytes": sum(piece.num_bytes for piece in pieces),
                "sha256": _sha256_file(folder / name),
            }
        )
    sources = [
        {
            "source": source.name,
            "kind": source.kind,
            "package": source.package,
            "version": built.versions[source.name],
            "licence": source.licence,
            **_summary([p for p in built.train + built.valid if p.source == source.name]),
        }
        for source in domain.sources
        if source.name in built.versions
    ]
    return {"files": files, "sources": sources}


def _json_line(piece: Piece, domain: str) -> str:
    record = {"text": piece.text, "domain": domain, "source": piece.source}
    return json.dumps(record, ensure_ascii=False) + "\n"


def _summary(pieces: list[Piece]) -> dict:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece.text.encode("utf-8"))
    return {
        "documents": len(pieces),
        "text_bytes": sum(piece.num_bytes for piece in pieces),
        "sha256": digest.hexdigest(),
    }


def write_manifest(folder: Path, request: dict, domains: dict, skipped: list[dict]) -> None:
    """Write the table of sources for people and, last of all, the manifest for programs."""
    head = "| domain | source | package | version | licence | documents | bytes | sha256 |"
    rows = [head, "|---|---|---|---|---|---|---|---|"]
    for name, domain in domains.items():
        keys = ("source", "package", "version", "licence", "documents", "text_bytes", "sha256")
        rows += [f"| {name} | {' | '.join(str(s[k]) for k in keys)} |" for s in domain["sources"]]
    text = "\n".join(
        [
            "# Sources of this corpus",
            "",
            "Each row is the text kept from one package (train and validation together), under",
            "the licence named. The checksum is of that text.",
            "",
            *rows,
        ]
    )
    (folder / TABLE).write_text(text + "\n", encoding="utf-8")
    manifest = {"format": _FORMAT, "request": request, "domains": domains, "skipped": skipped}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
