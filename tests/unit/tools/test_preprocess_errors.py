import bz2
import errno
import gzip
import json
import lzma
import resource
import shutil
import sys

import pytest

from data_tools import TEXTS, write_jsonl


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "cut of', "broken JSON (Unterminated string starting, column 10)"),
        (b"[" * 100_000, "broken JSON (maximum recursion depth exceeded"),
        (b'{"text": "a"} {"text": "b"}', "broken JSON (Extra data, column 15)"),
        (b'{"title": "a", "id": 3}', 'no key "text" (keys here: title, id); see --json-keys'),
        (b"{}", 'no key "text" (keys here: none)'),
        (b'{"text": 3}', 'key "text" holds a number, not a string'),
        (b'{"text": null}', 'key "text" holds null, not a string'),
        (b'{"text": ["a"]}', 'key "text" holds a list, not a string'),
        (b'["text"]', "expected one JSON object a line, found a list"),
        (b'{"text": "caf\xe9"}', "invalid UTF-8 in the line (byte 0xe9 at offset 13)"),
        (b'{"text": "\\ud83d"}', 'key "text" holds half of a surrogate pair (\\ud83d)'),
    ],
)
def test_a_bad_line_is_named_with_its_number(tool, tmp_path, line, message):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "fine"}\n\n' + line + b'\n{"text": "never reached"}\n')
    error = tool.error(path)
    assert f"{path}:3: {message}" in error
    assert "--skip-bad" in error
    assert tool(path, flags=["--skip-bad"]) == 0
    assert len(tool.read()) == 2


def test_of_several_bad_lines_the_first_is_named(tool, tmp_path, monkeypatch):
    monkeypatch.setattr("data.readers.CHUNK_RECORDS", 1)
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n' + '{"text": 1}\n' * 20)
    assert f"{path}:2: " in tool.error(path)
    assert f"{path}:2: " in tool.error(path, flags=["--workers", 2])


def test_invalid_utf8_in_a_text_file_is_named(tool, tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"na\xefve")
    assert f"{path}: invalid UTF-8 in the file (byte 0xef at offset 2)" in tool.error(path)


def test_lines_end_at_newline_bytes_only(tool, tmp_path):
    traps = ["\u2028", "\u2029", "\x85"]  # str.splitlines() cuts at each, JSON allows each
    lines = [json.dumps({"text": f"a{trap}b"}, ensure_ascii=False) for trap in traps]
    path = tmp_path / "a.jsonl"
    path.write_bytes("\n".join([*lines, "broken"]).encode())
    assert f"{path}:{len(traps) + 1}: broken JSON" in tool.error(path)


def zst(data):
    return pytest.importorskip("zstandard").ZstdCompressor().compress(data)


DATA = b"".join(b'{"text": "document %d"}\n' % i for i in range(4_000))


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [(".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress), (".zst", zst)],
)
@pytest.mark.parametrize("harm", ["cut", "garbled", "other"])
def test_damaged_compressed_files_are_refused(tool, tmp_path, suffix, compress, harm):
    good = compress(DATA)
    middle = len(good) // 2
    bad = {
        "cut": good[:-20],
        "garbled": good[:middle] + bytes(64) + good[middle + 64 :],
        "other": DATA[:100],
    }[harm]
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(bad)
    error = tool.error(path, flags=["--skip-bad"])  # which never hides the loss of a file's end
    assert f"{path}: truncated or damaged {suffix[1:]} data after line " in error


def test_parquet_problems_are_named(tool, tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 is not enough")
    assert f"{path}: truncated or damaged parquet data" in tool.error(path)
    pq.write_table(pa.table({"id": [1], "body": ["a"]}), path)
    assert f'{path}: no column "text" (columns: id, body); see --json-keys' in tool.error(path)
    assert 'column "id" holds int64, not string' in tool.error(path, flags=["--json-keys", "id"])
    pq.write_table(pa.table({"text": ["a", None]}), path)
    assert f'{path}: row 2: column "text" holds null' in tool.error(path)
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    assert f"{path}: the file is empty" in tool.error(path)
    bad = pa.array([b"fine", b"\xff"]).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"text": bad}), path)
    assert f'{path}: row 2: invalid UTF-8 in column "text"' in tool.error(path)


def test_empty_inputs_are_refused(tool, tmp_path):
    empty = tmp_path / "empty.jsonl.xz"
    empty.touch()
    assert f"{empty}: the file is empty" in tool.error(empty)
    blank = tmp_path / "blank.jsonl"
    blank.write_text("\n\n")
    assert f"{blank}: the file is empty" in tool.error(blank)
    hollow = write_jsonl(tmp_path / "hollow.jsonl", ["", ""])
    message = tool.error(hollow)
    assert 'no documents with text under "text" (2 empty, 0 bad)' in message
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{\n")
    assert f"1 bad, the first at {bad}:1: broken" in tool.error(bad, flags=["--skip-bad"])


def test_documents_that_would_fill_the_memory_are_bad(tool, tmp_path, monkeypatch):
    monkeypatch.setattr("data.readers.MAX_DOCUMENT_BYTES", 30)
    path = write_jsonl(tmp_path / "a.jsonl", ["cat", "m" * 200, "mat"])
    assert f"{path}:2: the document is longer than" in tool.error(path)
    text = tmp_path / "a.txt"
    text.write_text("m" * 31)
    assert f"{text}: the document is longer than" in tool.error(text)
    assert tool(path, text, flags=["--skip-bad"]) == 0
    assert len(tool.read()) == 2


def test_inputs_that_cannot_be_read_are_refused(tool, tmp_path, corpus):
    missing = tmp_path / "missing.jsonl"
    assert f"--input {missing}: No such file or directory" in tool.error(corpus, missing)
    missing = tmp_path / "missing"
    assert f"--input {missing}: No such file or directory" in tool.error(missing)
    odd = tmp_path / "a.docx"
    odd.touch()
    assert f"--input {odd}: unknown extension; known are .jsonl" in tool.error(odd)
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(odd, folder)
    assert f"--input {folder}: the folder holds no file with a known ext" in tool.error(folder)
    (folder / "gone.jsonl").symlink_to(missing)
    assert f"--input {folder}/gone.jsonl: No such file or directory" in tool.error(folder)


def test_keys_that_cannot_work_are_refused(tool, tmp_path, corpus):
    assert "--json-keys a/b: a key names a file" in tool.error(corpus, flags=["--json-keys", "a/b"])
    assert "--json-keys a: " in tool.error(corpus, flags=["--json-keys", "a", "a"])
    text = tmp_path / "a.txt"
    text.write_text("a")
    assert f"{text} is plain text" in tool.error(text, flags=["--json-keys", "a", "b"])


def test_outputs_that_are_in_the_way_are_refused(tool, corpus):
    message = tool.error(corpus, prefix=tool.prefix / "deep" / "out")
    assert f"no folder {tool.prefix / 'deep'}; create it first" in message
    assert "must end in a name" in tool.error(corpus, prefix=f"{tool.prefix.parent}/")
    assert tool(corpus) == 0
    message = tool.error(corpus)
    assert "out_text_document.bin exists; pass --overwrite to replace it" in message


@pytest.mark.parametrize(
    ("package", "suffix"), [("zstandard", ".jsonl.zst"), ("pyarrow", ".parquet")]
)
def test_a_missing_package_is_named_with_its_extra(tool, tmp_path, monkeypatch, package, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, package, None)
    error = tool.error(path)
    assert f"{path}: reading" in error
    assert f"needs {package}: pip install 'remoe-megatron[data]'" in error


def test_tokenizers_that_cannot_work_are_refused(tool, corpus, tmp_path, monkeypatch):
    def error(kind, *rest, flags=()):
        return tool.error(
            corpus, tokenizer=["--tokenizer-type", kind, *map(str, rest)], flags=flags
        )

    assert "use --tokenizer-type HuggingFaceTokenizer with" in error("GPT2BPETokenizer")
    assert "--tokenizer-type Magic is not one of HuggingFaceTokenizer, Sent" in error("Magic")
    assert "HuggingFaceTokenizer needs --tokenizer-model" in error("HuggingFaceTokenizer")
    assert "NullTokenizer needs --vocab-size" in error("NullTokenizer")
    model = tmp_path / "tokenizer"
    hugging_face = ("HuggingFaceTokenizer", "--tokenizer-model", model)
    assert f"--tokenizer-model {model}: no such folder" in error(*hugging_face)
    shutil.copytree(tool.tokenizer_folder, model)
    (model / "tokenizer_config.json").write_text("{}")
    assert "has no end-of-sequence token; set eos_token" in error(
        *hugging_face, flags=["--append-eod"]
    )
    (model / "tokenizer.json").write_text('{"cut')
    assert f"{model}: cannot be loaded as HuggingFaceTokenizer: " in error(*hugging_face)
    sentencepiece = ("SentencePieceTokenizer", "--tokenizer-model", tmp_path / "sp.model")
    assert "sp.model: no such file; Sentence" in error(*sentencepiece)
    (tmp_path / "sp.model").write_bytes(b"no model")
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    assert "needs sentencepiece: pip install 'remoe-megatron[data]'" in error(*sentencepiece)


def test_a_document_on_which_the_tokenizer_fails_is_named(tool, tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", ["1 2", "one two"])
    null = ["--tokenizer-type", "NullTokenizer", "--vocab-size", "10"]
    assert f"{path}:2: the tokenizer fails on this document" in tool.error(path, tokenizer=null)
    path = write_jsonl(tmp_path / "a.jsonl", ["1 10"])
    assert "gave id 10, past its vocabulary of 10" in tool.error(path, tokenizer=null)


def test_a_full_disk_leaves_no_output(tool, tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", ["word " * 100_000] * 3)
    assert tool(path) == 0
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        error = tool.error(path, flags=["--overwrite"])  # the old pair stays
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "out_text_document.bin: cannot be written: File too large" in error
    assert len(tool.read()) == 3


@pytest.mark.parametrize("step", ["finalize", "replace"])
def test_a_disk_that_fills_up_at_the_end_leaves_no_output(tool, corpus, monkeypatch, step):
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    def fail(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    if step == "finalize":
        monkeypatch.setattr(IndexedDatasetBuilder, "finalize", fail)
    else:
        monkeypatch.setattr("os.replace", fail)
    error = tool.error(corpus)
    assert "cannot be written: No space left on device; the unfinished files were removed" in error


def test_a_second_run_at_the_same_prefix_is_refused(tool, corpus):
    from data.writer import DatasetWriter

    with DatasetWriter(str(tool.prefix), ["text"], "uint16"):
        assert "another run is writing it" in tool.error(corpus)
    assert tool.files() == []
    assert tool(corpus) == 0
    assert len(tool.read()) == len([text for text in TEXTS if text])
