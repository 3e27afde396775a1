"""A page of the report, taken apart for tests."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """Titles, tables by section, addresses, tooltips and pictures of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.titles, self.tables, self.addresses, self.tips, self.images = [], {}, [], [], []
        self.scripts, self._open = 0, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        words = dict(attributes)
        self.addresses += [words[name] for name in ("src", "href", "action") if name in words]
        self.tips += [words["data-tip"]] if "data-tip" in words else []
        self.images += [words] if tag == "img" else []
        self.scripts += tag == "script"
        if tag == "tr":
            self.tables.setdefault(self.titles[-1], []).append([])
        if tag == "h2":
            self.titles.append("")
        if tag in ("th", "td"):
            self.tables[self.titles[-1]][-1].append("")
        if tag in ("h2", "th", "td"):
            self._open = tag

    def handle_endtag(self, tag):
        self._open = None if tag == self._open else self._open

    def handle_data(self, data):
        if self._open == "h2":
            self.titles[-1] += data
        elif self._open:
            self.tables[self.titles[-1]][-1][-1] += data

    def rows(self, title: str) -> dict[str, list[str]]:
        """Cells of a section's table rows by their first cell."""
        return {row[0]: row[1:] for row in self.tables[title]}
