"""Perplexity per token and bits per byte by domain."""

import math

import pytest

from data_tools import write_jsonl
from evaluation.domains import domain_scores, find_domains, ratio_with_error, read_texts
from evaluation.errors import EvaluationError


def test_bits_per_byte_and_perplexity_by_hand():
    # 6 bits over 4 bytes, 2 bits over 4 bytes; two tokens each
    scores = domain_scores([-6 * math.log(2), -2 * math.log(2)], [4, 4], [2, 2])
    assert scores["bits_per_byte"]["value"] == pytest.approx(1.0)
    assert scores["perplexity"]["value"] == pytest.approx(4.0)  # two bits a token
    # residuals 6 - 4 and 2 - 4: sqrt(2 / 1 * 8) / 8 bits
    assert scores["bits_per_byte"]["stderr"] == pytest.approx(0.5)
    # the same in nats a token, times the slope of exp: 4 / 4 * ln 2 * 4
    assert scores["perplexity"]["stderr"] == pytest.approx(4 * math.log(2))


def test_long_documents_weigh_more_than_short_ones():
    ratio, _ = ratio_with_error([10.0, 0.0], [1, 9])
    assert ratio == 1.0


def test_documents_of_one_ratio_have_no_error():
    assert ratio_with_error([1.0, 2.0, 3.0], [2, 4, 6]) == (0.5, 0.0)


def test_a_single_document_has_no_known_error():
    assert ratio_with_error([3.0], [2]) == (1.5, None)


def test_validation_files_are_the_domains(tmp_path):
    for name in ("code.valid.jsonl", "code.train.jsonl", "math.valid.jsonl"):
        write_jsonl(tmp_path / name, ["a"])
    assert list(find_domains(tmp_path)) == ["code", "math"]


def test_other_files_are_domains_by_name(tmp_path):
    for name in ("b.jsonl", "a.jsonl"):
        write_jsonl(tmp_path / name, ["a"])
    assert list(find_domains(tmp_path)) == ["a", "b"]
    assert find_domains(tmp_path / "b.jsonl") == {"b": tmp_path / "b.jsonl"}


def test_a_folder_without_text_is_refused(tmp_path):
    with pytest.raises(EvaluationError, match=r"--domains .*no \.jsonl file there"):
        find_domains(tmp_path)


def test_empty_documents_do_not_count(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", ["one", "", "two\u2028lines", "three"])
    assert read_texts(path) == ["one", "two\u2028lines", "three"]
    assert read_texts(path, limit=2) == ["one", "two\u2028lines"]


@pytest.mark.parametrize(
    "line", ["{", '{"content": "x"}', '["text"]', '{"text": 3}', '{"text": "\\ud800"}', "\xff"]
)
def test_a_line_that_is_no_document_is_named(tmp_path, line):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "x"}\n' + line.encode("latin-1") + b"\n")
    with pytest.raises(EvaluationError, match=r'a\.jsonl, line 2: not an object with a "text"'):
        read_texts(tmp_path / "a.jsonl")


def test_a_file_without_text_is_refused(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [""])
    with pytest.raises(EvaluationError, match="holds no text"):
        read_texts(path)
