"""The text of tokens, as pieces of whole characters."""

_UNFINISHED = "\ufffd"  # how a part of a character decodes
_LONGEST_CHARACTER = 4  # bytes of UTF-8, so tokens of a byte-level vocabulary


def text_pieces(tokenizer: object, tokens: list[int]) -> list[tuple[str, slice]]:
    """Text of each token with its place; tokens that make one character are one piece.

    Args:
        tokenizer: Decodes.
        tokens: Of the text.

    Returns:
        Pieces in order, and which tokens each is of.
    """
    found, start = [], 0
    for end in range(1, len(tokens) + 1):
        text = tokenizer.decode(tokens[start:end])
        whole = not text.endswith(_UNFINISHED) or end - start == _LONGEST_CHARACTER
        if whole or end == len(tokens):
            found.append((text, slice(start, end)))
            start = end
    return found
