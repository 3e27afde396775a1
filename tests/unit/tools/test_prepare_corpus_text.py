"""Cleans, deduplicates, splits and samples documents made here."""

import pytest

from corpus.clean import clean_text, cut_text, is_english
from corpus.dedup import NearDuplicateFilter, text_key
from corpus.sample import (
    Document,
    cut_documents,
    fair_shares,
    sample_pieces,
    split_documents,
)

FRENCH = "Le chat dort dans la maison avec ses amis et il ne veut pas sortir car il pleut. " * 5
ENGLISH = "The cat sleeps in the house with its friends and it is not for going out today. " * 5


def document(text, source="a"):
    return Document(text, source, text_key(text))


def numbered(count, words=80):
    """Different texts of equal size."""
    return [f"item{n} " + " ".join(f"w{n}x{k}" for k in range(words)) for n in range(count)]


# ---------------------------------------------------------------- cleaning
def test_cleaned_text_has_newlines_as_its_only_line_breaks():
    raw = "a\r\nb\rc\x85d\u2028e\u2029f\x0cg\x1ch"
    assert clean_text(raw).splitlines() == clean_text(raw).split("\n") == list("abcdefgh")


@pytest.mark.parametrize("char", ["\x00", "\x08", "\x1b", "\x7f", "\x9b", "\ufeff", "\ud800"])
def test_cleaned_text_has_no_control_characters(char):
    assert clean_text(f"a{char}b\tc") == "ab\tc"
    clean_text(f"a{char}b").encode("utf-8")


def test_english_is_told_from_other_languages_and_from_tables():
    assert is_english(ENGLISH)
    assert not is_english(FRENCH)
    assert not is_english("\n".join(f"alpha beta {n} gamma" for n in range(60)))
    assert is_english("zu kurz")  # too short to judge


@pytest.mark.parametrize(
    "text",
    [
        "short",
        "para\n\n" * 40,
        "line\n" * 60,
        "word " * 60,
        "x" * 250,  # nowhere to cut
    ],
)
def test_pieces_are_short_enough_and_hold_all_the_words(text):
    pieces = cut_text(text, 100)
    assert max(map(len, pieces)) <= 100
    assert "".join("".join(pieces).split()) == "".join(text.split())


# ---------------------------------------------------------------- duplicates
def test_a_licence_with_another_holder_is_a_near_duplicate():
    words = " ".join(numbered(1, words=300))
    near = NearDuplicateFilter()
    assert near.is_new(f"Copyright Alice. {words}")
    assert not near.is_new(f"Copyright Bob and others. {words}")
    assert near.is_new(" ".join(numbered(2, words=300)[1:]))


def test_the_key_of_a_text_ignores_case_and_spacing():
    assert text_key("The  Cat,\nsat.") == text_key("the cat sat")
    assert text_key("the cat sat") != text_key("the cat sits")


# ---------------------------------------------------------------- split and sample
def test_no_document_is_on_both_sides_and_sides_do_not_depend_on_the_rest():
    documents = [document(text) for text in numbered(400)]
    train, valid = split_documents(documents, 0.05)
    assert len(train) + len(valid) == 400
    assert 5 <= len(valid) <= 45
    fewer_train, fewer_valid = split_documents(documents[:200], 0.05)
    assert set(fewer_train) <= set(train)
    assert set(fewer_valid) <= set(valid)


def test_even_two_documents_give_a_validation_document():
    train, valid = split_documents([document(t) for t in numbered(2)], 0.01)
    assert len(train) == len(valid) == 1


def test_a_page_repeated_in_two_documents_is_kept_once():
    seen = set()
    page = numbered(1)[0]
    assert len(cut_documents([document(page)], seen)) == 1
    assert cut_documents([document(page.upper())], seen) == []


def test_small_sources_leave_their_share_to_the_large_ones():
    assert fair_shares({"a": 10, "b": 1000, "c": 1000}, 210) == {"a": 10, "b": 100, "c": 100}
    assert fair_shares({"a": 10}, 100) == {"a": 10}


def test_sample_meets_the_budget_and_ignores_the_order_of_reading():
    documents = [document(text, "ab"[n % 2]) for n, text in enumerate(numbered(300))]
    chosen = sample_pieces(cut_documents(documents, set()), 50_000)
    again = sample_pieces(cut_documents(documents[::-1], set()), 50_000)
    assert chosen == again
    assert sum(piece.num_bytes for piece in chosen) == pytest.approx(50_000, rel=0.05)
