"""Encodes each word once: the ids of GPT-2's byte-level BPE, several times as fast as its library.

GPT-2's pattern cuts a text into words, and BPE never looks past a word's end. The library does all its
work for each occurrence of a word, and most occurrences are of words that it has just seen.
"""

import json
import re
from array import array
from collections.abc import Callable, Sequence

import numpy as np

# White space as Unicode and the library's regex engine have it; Python's \s also has \x1c to \x1f.
SPACE = r"[^\S\x1c-\x1f]"
NO_SPACE = r"[\S\x1c-\x1f]"
OTHER = r"[\x00-\x08\x0e-\x1f!-/:-@\[-`{-\x7f]"  # of ASCII: no letter, digit or white space
BEFORE_ASCII = r"(?![^\x00-\x7f])"
# GPT-2's pattern for ASCII. What holds another character, whose class depends on the version of Unicode,
# is left whole up to the next white space: there GPT-2 always cuts, so the library cuts it further.
WORD = re.compile(
    rf"'(?:[stmd]|re|ve|ll)| ?[A-Za-z]++{BEFORE_ASCII}| ?[0-9]++{BEFORE_ASCII}"
    rf"| ?{OTHER}++{BEFORE_ASCII}| ?{NO_SPACE}+|{SPACE}+(?!{NO_SPACE})|{SPACE}+"
)
MAX_WORDS = 1 << 17  # 20 MB
MAX_WORD_LENGTH = 64  # what is longer hardly comes again: numbers, base64, scripts without spaces


class WordIds(dict[str, bytes]):
    """Ids of words, int32 on end; a word that is asked for the first time is encoded.

    Args:
        encode_word: the library, one word at a time.
    """

    def __init__(self, encode_word: Callable[[str], Sequence[int]]):
        super().__init__()
        self._encode_word = encode_word

    def __missing__(self, word: str) -> bytes:
        ids = array("i", self._encode_word(word)).tobytes()
        if len(word) <= MAX_WORD_LENGTH:
            if len(self) >= MAX_WORDS:
                self.clear()  # what is common comes back at once, what was only in old documents not
            self[word] = ids
        return ids

    def encode(self, text: str) -> np.ndarray:
        """Gets the ids of a text, ``[num_tokens]``, int32."""
        return np.frombuffer(b"".join(map(self.__getitem__, WORD.findall(text))), dtype=np.intc)


def added_tokens(state: str) -> list[str]:
    """Lists the tokens that the library looks for before it cuts a text into words.

    Args:
        state: a tokenizer.json.
    """
    return [token["content"] for token in json.loads(state)["added_tokens"]]


def has_gpt2_words(state: str, add_special_tokens: bool) -> bool:
    """Says whether a tokenizer cuts by GPT-2's pattern and encodes each word by itself.

    Args:
        state: a tokenizer.json.
        add_special_tokens: whether a post-processor adds its tokens.
    """
    spec = json.loads(state)
    cutter, model, post = spec["pre_tokenizer"] or {}, spec["model"], spec["post_processor"] or {}
    return (
        spec["normalizer"] is None
        and (cutter.get("type"), cutter.get("use_regex")) == ("ByteLevel", True)
        and not cutter.get("add_prefix_space")
        and model["type"] == "BPE"
        and not model.get("dropout")
        and (not add_special_tokens or post.get("type", "ByteLevel") == "ByteLevel")
    )
