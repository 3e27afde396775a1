"""Markdown of the tables of a sweep."""


def markdown_row(cells: list) -> str:
    """A row of a table."""
    return "| " + " | ".join(str(cell) for cell in cells) + " |"
