import bz2
import gzip
import json
import lzma

import numpy as np
import pytest

from data_tools import TEXTS, write_jsonl

FILLED = [text for text in TEXTS if text]


def decode(tool, documents):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{tool.tokenizer_folder}/tokenizer.json")
    return [tokenizer.decode(ids.tolist(), skip_special_tokens=False) for ids in documents]


def test_megatron_reads_back_the_same_texts_in_order(tool, corpus):
    assert tool(corpus, flags=["--append-eod"]) == 0
    documents = tool.read()
    assert decode(tool, documents) == [text + "<|endoftext|>" for text in FILLED]
    assert all(ids.dtype == np.uint16 for ids in documents)


def test_without_append_eod_texts_stand_alone_and_a_note_says_so(tool, corpus):
    assert tool(corpus) == 0
    assert decode(tool, tool.read()) == FILLED
    assert "--append-eod" in tool.err


def test_summary_counts_documents_tokens_and_empty_ones(tool, corpus):
    assert tool(corpus, flags=["--append-eod"]) == 0
    num_tokens = sum(len(ids) for ids in tool.read())
    num_bytes = sum(len(text.encode()) for text in TEXTS)
    pair, summary = tool.out.splitlines()
    assert f"out_text_document.bin, .idx: 4 documents (1 empty skipped), {num_tokens} tok" in pair
    assert f"5 documents, {num_tokens} tokens, " in summary
    assert f"{num_tokens / num_bytes:.3f} tokens per byte" in summary
    assert "MB/s" in summary


def write_parquet(path, columns):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table(columns), path, row_group_size=2)


def zst(data):
    compress = pytest.importorskip("zstandard").ZstdCompressor().compress
    return compress(data[:40]) + compress(data[40:])  # two frames, as parallel writers make them


COMPRESSORS = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress, ".zst": zst}


def make_input(kind, folder):
    """Writes TEXTS in some format; returns the path for --input."""
    plain = write_jsonl(folder / "plain.jsonl", TEXTS)
    path = folder / f"corpus{kind}"
    if kind.removeprefix(".jsonl") in COMPRESSORS:
        path.write_bytes(COMPRESSORS[kind.removeprefix(".jsonl")](plain.read_bytes()))
    elif kind == ".parquet":
        write_parquet(path, {"id": list(range(len(TEXTS))), "text": TEXTS})
    elif kind == "/jsonl":
        path = folder / "shards"
        (path / "deep").mkdir(parents=True)
        write_jsonl(path / "b.jsonl", TEXTS[3:])
        write_jsonl(path / "a.jsonl", TEXTS[:3])
        (path / "README.md").write_text("not a document")
    elif kind == "/text":
        path = folder / "texts"
        (path / "b").mkdir(parents=True)
        names = ["a.txt", "b/a.md", "b/b.txt.gz", "b/c.rst", "c.py"]
        for name, text in zip(names, TEXTS, strict=True):
            data = text.encode()
            (path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        (path / ".hidden.txt").write_text("not a document")
        (path / "picture.png").write_bytes(b"\x89PNG")
    else:  # no newline at the end, a byte-order mark at the start, blank lines between
        lines = plain.read_bytes().rstrip(b"\n").replace(b"\n", b"\n \r\n\n")
        path.write_bytes(b"\xef\xbb\xbf" + lines)
    return path


@pytest.mark.parametrize(
    "kind",
    [".json", ".jsonl.gz", ".jsonl.xz", ".jsonl.bz2", ".jsonl.zst", ".parquet", "/jsonl", "/text"],
)
def test_every_format_gives_the_same_bytes(tool, corpus, tmp_path, kind):
    assert tool(corpus, flags=["--append-eod"]) == 0
    other = tool.prefix.with_name("other")
    assert tool(make_input(kind, tmp_path), flags=["--append-eod"], prefix=other) == 0, tool.err
    for suffix in ("bin", "idx"):
        expected = tool.prefix.with_name(f"out_text_document.{suffix}").read_bytes()
        assert tool.prefix.with_name(f"other_text_document.{suffix}").read_bytes() == expected


def test_notes_say_what_a_folder_holds_beyond_documents(tool, tmp_path):
    assert tool(make_input("/jsonl", tmp_path)) == 0
    assert "left out 1 text files beside JSON or parquet files" in tool.err
    assert tool(make_input("/text", tmp_path), flags=["--overwrite"]) == 0
    assert "left out 1 files with unknown extensions" in tool.err


def test_parquet_reads_dictionary_and_large_string_columns(tool, tmp_path):
    pa = pytest.importorskip("pyarrow")
    columns = {
        "words": pa.array(FILLED).dictionary_encode(),
        "text": pa.array(FILLED, pa.large_string()),
    }
    write_parquet(tmp_path / "a.parquet", columns)
    assert tool(tmp_path / "a.parquet", flags=["--json-keys", "text", "words"]) == 0, tool.err
    assert decode(tool, tool.read("text")) == decode(tool, tool.read("words")) == FILLED


def test_inputs_follow_each_other_as_they_were_given(tool, tmp_path):
    first, second = (write_jsonl(tmp_path / f"{n}.jsonl", [n]) for n in ("z", "a"))
    assert tool(first, second) == 0
    assert decode(tool, tool.read()) == ["z", "a"]


def test_each_key_gets_a_dataset_of_its_own(tool, tmp_path):
    lines = [{"title": "cat", "body": "the cat"}, {"title": "", "body": "mat"}]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert tool(path, flags=["--json-keys", "title", "body"]) == 0
    assert decode(tool, tool.read("title")) == ["cat"]
    assert decode(tool, tool.read("body")) == ["the cat", "mat"]


def test_max_documents_stops_early(tool, corpus):
    assert tool(corpus, flags=["--max-documents", 2]) == 0
    assert decode(tool, tool.read()) == TEXTS[:2]


def test_overwrite_replaces_both_files(tool, corpus, tmp_path):
    assert tool(corpus) == 0
    other = write_jsonl(tmp_path / "other.jsonl", ["mat"])
    assert tool(other, flags=["--overwrite"]) == 0
    assert decode(tool, tool.read()) == ["mat"]
    assert tool.files() == ["out_text_document.bin", "out_text_document.idx"]


def test_skip_bad_counts_bad_documents_and_shows_the_first(tool, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "cat"}\n' + "{\n" * 7 + '{"text": "mat"}\n')
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    assert tool(path, empty, flags=["--skip-bad"]) == 0
    assert decode(tool, tool.read()) == ["cat", "mat"]
    assert "skipped 8 bad documents:" in tool.err
    assert "a.jsonl:2: broken JSON" in tool.err
    assert "and 3 more" in tool.err


def test_vocabulary_beyond_16_bits_is_written_as_int32(tool, tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", ["1 2 70000"])
    null = ["--tokenizer-type", "NullTokenizer", "--vocab-size", "70001"]
    assert tool(path, tokenizer=null, flags=["--append-eod"]) == 0, tool.err
    (ids,) = tool.read()
    assert ids.tolist() == [1, 2, 70000, 70000]
    assert ids.dtype == np.int32


def megatron_tokenizer(kind, model, *flags):
    from megatron.core.tokenizers.utils.build_tokenizer import build_tokenizer
    from preprocess_data import parse_arguments

    from data.tokenization import megatron_arguments

    argv = ["--tokenizer-type", kind, "--tokenizer-model", str(model), *flags]
    options = parse_arguments(["--input", "x", "--output-prefix", "x", *argv])
    return build_tokenizer(megatron_arguments(options))


@pytest.mark.parametrize("flags", [[], ["--tokenizer-hf-no-include-special-tokens"]])
def test_hugging_face_ids_are_those_of_megatron(tool, corpus, tmp_path, flags):
    from tokenizers import processors
    from transformers import AutoTokenizer

    folder = tmp_path / "tokenizer"
    source = AutoTokenizer.from_pretrained(tool.tokenizer_folder)
    source.add_special_tokens({"bos_token": "<s>"})
    source.add_tokens(["cat sat"])
    source.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", source.bos_token_id)]
    )
    source.save_pretrained(folder)

    kind = ["--tokenizer-type", "HuggingFaceTokenizer", "--tokenizer-model", str(folder)]
    assert tool(corpus, tokenizer=kind, flags=["--append-eod", *flags]) == 0
    expected = megatron_tokenizer("HuggingFaceTokenizer", folder, *flags)
    found = [ids.tolist() for ids in tool.read()]
    assert found == [[*expected.tokenize(text), expected.eod] for text in FILLED]
    assert (found[0][0] == expected.bos) is (not flags)


def test_sentencepiece_ids_are_those_of_megatron(tool, corpus, tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(FILLED * 3),
        model_prefix=str(tmp_path / "sp"),
        vocab_size=300,
        model_type="bpe",
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    model = str(tmp_path / "sp.model")
    flags = ["--tokenizer-type", "SentencePieceTokenizer", "--tokenizer-model", model]
    assert tool(corpus, tokenizer=flags, flags=["--append-eod"]) == 0, tool.err
    expected = megatron_tokenizer("SentencePieceTokenizer", model)
    found = [ids.tolist() for ids in tool.read()]
    assert found == [[*expected.tokenize(text), expected.eod] for text in FILLED]


def test_an_encoder_that_disagrees_with_megatron_is_not_used(tool, corpus, monkeypatch):
    import data.tokenization

    assert tool(corpus) == 0
    expected = [ids.tolist() for ids in tool.read()]
    wrong = lambda state: lambda texts: [[1] for _ in texts]  # noqa: E731
    for kind in ("words", "tokenizers"):
        monkeypatch.setitem(data.tokenization.ENCODERS, kind, wrong)
    assert tool(corpus, flags=["--overwrite"]) == 0
    assert [ids.tolist() for ids in tool.read()] == expected
