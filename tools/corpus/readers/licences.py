"""Reads collections of licence texts, one document a licence."""

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path


def read_spdx_bundle(root: Path, bundle: str) -> Iterator[str]:
    """Yield the licences of a gzipped SPDX list: {"licenses": [{"name", "text"}]}."""
    data = json.loads(gzip.decompress((root / bundle).read_bytes()))
    for licence in sorted(data["licenses"], key=lambda entry: entry["licenseId"]):
        if licence.get("text"):
            yield f"{licence['name']}\n\n{licence['text']}"


def read_scancode(root: Path, include: str) -> Iterator[str]:
    """Yield the English licences of ScanCode: a YAML head between "---" lines, then the text."""
    for path in sorted(root.glob(include)):
        text = path.read_text(encoding="utf-8", errors="replace")
        parts = re.match(r"---\n(.*?)\n---\n(.*)", text, re.DOTALL)
        if parts is None:
            continue
        language = re.search(r"(?m)^language: *(\w+)", parts.group(1))
        if language is None or language.group(1) == "en":
            yield parts.group(2)
