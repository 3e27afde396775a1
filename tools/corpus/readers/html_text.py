"""Turns HTML into plain text, without navigation, scripts and style."""

import re
from html.parser import HTMLParser

_VOID = frozenset(
    {"meta", "link", "img", "input", "br", "hr", "col", "base", "area", "wbr", "source"}
)
_SKIPPED = frozenset(
    {"script", "style", "head", "nav", "svg", "noscript", "footer", "button", "form"}
)
_SKIPPED_CLASSES = frozenset(
    {
        "navheader",
        "navfooter",
        "sphinxsidebar",
        "related",
        "headerlink",
        "toc",
        "footer",
        "top_nav",
        "path-header",
        "preamble",
        "lang",
        "quickview",
        "comments_section",
        "menupop",
        "fancy_toc",
        "nosearch",
    }
)
_PARAGRAPHS = frozenset(
    {
        "p",
        "pre",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "table",
        "blockquote",
        "ul",
        "ol",
        "dl",
        "div",
        "section",
    }
)
_LINES = frozenset({"tr", "li", "dt", "dd", "article", "title", "caption", "hr", "br"})


class _TextCollector(HTMLParser):
    """Collects the text of the elements that a person would read."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._skipped_tag = ""  # the element inside which everything is dropped
        self._skipped_depth = 0
        self._pre_depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open an element: skip it, or write the break that it stands for."""
        if self._skipped_tag:
            self._skipped_depth += tag == self._skipped_tag
            return
        if tag in _VOID:
            self._write_break(tag)
            return
        names = " ".join(value or "" for key, value in attrs if key in ("class", "id"))
        if tag in _SKIPPED or (
            tag not in ("body", "html") and not _SKIPPED_CLASSES.isdisjoint(names.lower().split())
        ):
            self._skipped_tag, self._skipped_depth = tag, 1
            return
        self._pre_depth += tag == "pre"
        self._write_break(tag)
        if tag == "li":
            self.parts.append("* ")
        elif tag in ("td", "th"):
            self.parts.append("  ")

    def handle_endtag(self, tag: str) -> None:
        """Close an element."""
        if self._skipped_tag:
            self._skipped_depth -= tag == self._skipped_tag
            if self._skipped_depth == 0:
                self._skipped_tag = ""
            return
        if tag == "pre":
            self._pre_depth = max(0, self._pre_depth - 1)
        self._write_break(tag)

    def handle_data(self, data: str) -> None:
        """Keep the text; blanks count only inside <pre>."""
        if self._skipped_tag:
            return
        text = data if self._pre_depth else re.sub(r"\s+", " ", data)
        if text.strip() or not (self.parts and self.parts[-1] == "* "):
            self.parts.append(text)

    def _write_break(self, tag: str) -> None:
        if self.parts and self.parts[-1] == "* ":  # <li><p>: the text stays by its bullet
            return
        if tag in _PARAGRAPHS:
            self.parts.append("\n\n")
        elif tag in _LINES:
            self.parts.append("\n")


def html_to_text(source: str) -> str:
    """Return the readable text of an HTML page."""
    collector = _TextCollector()
    collector.feed(source)
    collector.close()
    text = "".join(collector.parts)
    text = re.sub(r"\n[ \t]+(?=\n)", "\n", text)
    text = re.sub(r"\n{3,}", "\n\n", text)
    return re.sub(r"(?m)^ (?=\S)", "", text)
