"""Domains have the names of their data."""

import pytest

from command_line import REMOE, parse
from megatron.remoe.recording.domains import domain_names

WITHOUT_DATA = [word for word in REMOE if word != "--mock-data"]


def names(words, phase="train"):
    args, _ = parse([*WITHOUT_DATA, *words.split()])
    return domain_names(args, phase)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--mock-data", ["mock"]),
        ("--data-path data/books_text_document", ["books"]),
        ("--data-path data/books_text_document data/code", ["books", "code"]),
        ("--data-path 0.3 data/books_text_document 0.7 data/code", ["books", "code"]),
        (
            "--data-path 1 books/train_text_document 1 code/train_text_document",
            ["books/train", "code/train"],
        ),
        (
            "--data-path 1 books/text_document 1 code/text_document",
            ["books/text_document", "code/text_document"],
        ),
    ],
)
def test_a_name_is_the_last_part_of_the_prefix(words, expected):
    for phase in ("train", "valid", "test"):
        assert names(words, phase) == expected


def test_each_phase_has_its_own_data():
    words = "--train-data-path 1 a 2 b --valid-data-path c"
    assert names(words, "train") == ["a", "b"]
    assert names(words, "valid") == ["c"]
    assert names(words, "test") == ["mock"], "there is no test data"


def test_validation_sets_may_be_named():
    words = "--train-data-path a --valid-data-path c d --multiple-validation-sets --full-validation"
    assert names(words, "valid") == ["c", "d"]
    assert names(f"{words} --validation-set-names wiki law", "valid") == ["wiki", "law"]
    assert names(f"{words} --validation-set-names wiki law", "train") == ["a"]
