"""The encoder that remembers words gives the ids of the library that it asks for each of them once."""

import json
import random

import pytest
from tokenizers import Tokenizer, pre_tokenizers, processors

from data.encoders import ENCODERS
from data.words import WordIds, has_gpt2_words
from data_tools import TEXTS

SPECIAL = "<|endoftext|>"
# One or more of each class of GPT-2's pattern, in ASCII and beyond, and what Python and Unicode do not
# both call white space.
ALPHABET = "ab Z09'stlremvd.,!-_\n\t\r \x0b\x1c\x1f\x85\xa0\u2028\u3000éß漢🙂\u0301²٣\u200b\x7f\x00"


@pytest.fixture
def source(tokenizer_folder):
    return Tokenizer.from_file(f"{tokenizer_folder}/tokenizer.json")


def state_of(tokenizer):
    return {
        "json": tokenizer.to_str(),
        "add_special_tokens": True,
        "encode_special_tokens": tokenizer.encode_special_tokens,
    }


def assert_same_ids(tokenizer, texts):
    found, expected = (
        ENCODERS[kind](state_of(tokenizer))(texts) for kind in ("words", "tokenizers")
    )
    for text, ours, theirs in zip(texts, found, expected, strict=True):
        assert list(ours) == theirs, repr(text)


def test_every_character_between_others_gives_the_same_ids(source):
    # all white space, ASCII, Latin, punctuation; then a sample of the rest of Unicode
    codes = [*range(0x300), *range(0x1680, 0x1690), *range(0x2000, 0x2070), 0x180E, 0x3000, 0xFEFF]
    codes += random.Random(0).sample([*range(0x300, 0xD800), *range(0xE000, 0x110000)], 1000)
    frame = "a{0}b 1{0}{0} !{0}'s {0}{0}x \n{0}\t {0} ?{0}\n{0}{0} '{0}'ll"
    assert_same_ids(source, [frame.format(chr(code)) for code in codes])


def test_random_texts_give_the_same_ids(source):
    dice = random.Random(0)
    texts = ["".join(dice.choices(ALPHABET, k=dice.randrange(1, 40))) for _ in range(5000)]
    assert_same_ids(source, [text for text in TEXTS if text] + texts)


@pytest.mark.parametrize("encode_special_tokens", [False, True])
def test_added_tokens_are_found_anywhere(source, encode_special_tokens):
    source.add_tokens(["at sa"])
    source.encode_special_tokens = encode_special_tokens
    assert_same_ids(
        source, [f"cat{SPECIAL}the", f" {SPECIAL} ", "the cat sat", "<|endoftext", "cat"]
    )


def test_a_word_is_encoded_once_unless_it_is_long_or_was_forgotten(monkeypatch):
    monkeypatch.setattr("data.words.MAX_WORDS", 2)
    asked = []

    def encode_word(word):
        asked.append(word)
        return [len(word)]

    words = WordIds(encode_word)
    long = "x" * 65
    assert words.encode(f"a b a b{long} b{long}").tolist() == [1, 2, 2, 67, 67]
    assert asked == ["a", " b", " a", f" b{long}", f" b{long}"]
    assert len(words) <= 2


def without(**changes):
    return lambda spec: spec.update(changes)


@pytest.mark.parametrize(
    "change",
    [
        without(normalizer={"type": "NFC"}),  # what is cut is not the text
        without(pre_tokenizer=None),
        lambda spec: spec["pre_tokenizer"].update(use_regex=False),
        lambda spec: spec["pre_tokenizer"].update(add_prefix_space=True),
        lambda spec: spec["model"].update(dropout=0.1),  # ids change from call to call
        lambda spec: spec["model"].update(type="Unigram"),
    ],
)
def test_other_tokenizers_are_left_to_the_library(source, change):
    spec = json.loads(source.to_str())
    assert has_gpt2_words(json.dumps(spec), True)
    change(spec)
    assert not has_gpt2_words(json.dumps(spec), True)


def test_tokens_that_are_put_around_a_text_are_left_to_the_library(source):
    source.post_processor = processors.TemplateProcessing(
        single=f"{SPECIAL} $A", special_tokens=[(SPECIAL, 0)]
    )
    assert not has_gpt2_words(source.to_str(), True)
    assert has_gpt2_words(source.to_str(), False)
    source.pre_tokenizer = pre_tokenizers.Whitespace()
    assert not has_gpt2_words(source.to_str(), False)
