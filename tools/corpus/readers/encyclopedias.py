"""Reads encyclopedias, one document an article or a country."""

import bz2
import html
import json
import re
from collections.abc import Iterator
from pathlib import Path

_LANGUAGE_LINKS = re.compile(r"\[\[(?:File|Image|Category|[a-z\-]{2,12}):[^\[\]]*\]\]")
_FOOT_SECTIONS = re.compile(
    r"(?s)\n=+ *(?:References|External links|See also|Further reading|Notes|Bibliography|"
    r"Sources|Footnotes|Notes and references) *=+ *\n.*?(?=\n==[^=]|\Z)"
)


def read_mediawiki(root: Path, dump: str) -> Iterator[str]:
    """Yield the articles of a MediaWiki XML dump (.bz2) as plain text."""
    xml = bz2.decompress((root / dump).read_bytes()).decode("utf-8")
    for page in xml.split("<page>")[1:]:
        title = re.search(r"<title>(.*?)</title>", page)
        body = re.search(r"<text[^>]*>(.*?)</text>", page, re.DOTALL)
        if title and body and not body.group(1).lstrip().upper().startswith("#REDIRECT"):
            text = wikitext_to_text(html.unescape(body.group(1)))
            yield f"{html.unescape(title.group(1))}\n\n{text}"


def wikitext_to_text(text: str) -> str:
    """Return the running text of a wiki article: no templates, tables, references and links."""
    text = html.unescape(text)  # the markup escapes its own entities once more
    text = re.sub(r"<!--.*?-->|<ref[^>]*/>|<ref.*?</ref>", "", text, flags=re.DOTALL)
    embedded = r"<(math|gallery|timeline|source|table|imagemap)\b.*?</\1>"
    text = re.sub(embedded, "", text, flags=re.DOTALL)
    count = 1
    while count:  # templates and tables nest: the innermost go first
        text, count = re.subn(r"\{\{[^{}]*\}\}", "", text)
    count = 1
    while count:
        text, count = re.subn(r"\{\|(?:(?!\{\|).)*?\|\}", "", text, flags=re.DOTALL)
    text = _FOOT_SECTIONS.sub("\n", text)
    for _ in range(3):  # so do links inside picture captions
        text = _LANGUAGE_LINKS.sub("", text)
        text = re.sub(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]", r"\1", text)
    text = re.sub(r"\[https?://\S+ ?([^\]]*)\]", r"\1", text)
    text = re.sub(r"'{2,}|<[^>]+>|__[A-Z]+__", "", text)
    text = re.sub(r"(?m)^=+ *(.*?) *=+ *$", r"\n\1\n", text)
    text = re.sub(r"(?m)^[*#:;]+ *", "* ", text)
    text = re.sub(r"\([\s;,]+", "(", text)  # where a pronunciation stood
    text = re.sub(r"\s+\)|\(\)", lambda match: ")" if match.group() != "()" else "", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def read_factbook(root: Path, include: str) -> Iterator[str]:
    """Yield the World Factbook's countries, one JSON file of nested {"text"} fields each."""
    for path in sorted(root.glob(include)):
        country = json.loads(path.read_text(encoding="utf-8"))
        name = country.get("Government", {}).get("Country name", {})
        name = name.get("conventional short form", {}).get("text", "")
        yield f"{name}\n\n" + "\n".join(_fields(country, "", 0))


def _fields(node: dict, label: str, depth: int) -> Iterator[str]:
    for key, value in node.items():
        if isinstance(value, dict):
            if depth == 0:
                yield f"\n{key}\n"
            own = key if depth < 2 or key.startswith(label) else f"{label}, {key}"
            yield from _fields(value, own, depth + 1)
        elif value:
            words = re.sub(r"<br ?/?>|</p>", " ", str(value))
            words = html.unescape(re.sub(r"<[^>]+>", "", words))
            words = re.sub(r"\s+", " ", words).strip()
            yield f"{label if key == 'text' else f'{label} {key}'}: {words}"
