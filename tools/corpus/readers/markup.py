"""Strips light markup (POD, Markdown links) from text that is read as a file."""

import re


def pod_to_text(source: str) -> str:
    """Return the text of Perl's plain old documentation."""
    text = re.sub(r"(?m)^=(?:begin|end|for|encoding|pod|cut|over|back).*$", "", source)
    text = re.sub(r"(?m)^=item +\*\s+", "* ", text)
    text = re.sub(r"(?m)^=(?:head\d|item) *", "", text)
    text = text.replace("E<lt>", "\0").replace("E<gt>", "\1")  # no brackets of a code
    for _ in range(4):  # codes nest: B<see L<perlfunc>>
        text = re.sub(r"[IBCFSLX]<<+ (.*?) >>+", r"\1", text, flags=re.DOTALL)
        text = re.sub(r"L<([^<>|]*)\|[^<>]*>", r"\1", text)
        text = re.sub(r"[IBCFSLX]<([^<>]*)>", r"\1", text)
    return text.replace("Z<>", "").replace("\0", "<").replace("\1", ">")


def markdown_to_text(source: str) -> str:
    """Return Markdown with its links reduced to their words, without emphasis and escapes."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", source)
    text = re.sub(r"(?<!\w)(_|\*\*)(?=\S)(.+?)(?<=\S)\1(?!\w)", r"\2", text, flags=re.DOTALL)
    return text.replace("\\", "")
