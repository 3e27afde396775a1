"""Reads databases of formal mathematics, one document a section."""

import re
from collections.abc import Iterator
from pathlib import Path

# A Metamath database opens its parts and sections with a comment between such lines.
_SECTION = re.compile(r"(?m)^(?=\$\(\s*(?:#\*#\*|=-=-|-\.-\.|#{8}))")


def read_metamath(root: Path, include: str) -> Iterator[str]:
    """Yield the sections of Metamath databases: statements and comments, without the proofs."""
    for path in sorted(root.glob(include)):
        text = path.read_text(encoding="utf-8", errors="replace")
        text = re.sub(r"\$=.*?\$\.", "$.", text, flags=re.DOTALL)
        text = re.sub(r"\n *(?=\n)", "", text)
        yield from _SECTION.split(text)
