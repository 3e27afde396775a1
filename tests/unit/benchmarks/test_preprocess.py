"""The parts of benchmarks/preprocess.py, and all of it where Hugging Face's datasets is installed."""

import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.process_tree import measure, tree_memory
from benchmarks.tokenized import read_arrow, read_megatron, write_text
from data_tools import REPOSITORY, TEXTS, write_jsonl

MEGABYTE = 1 << 20
DOCUMENTS = [[1, 2, 3], [4], [5, 6]]


def test_text_is_taken_in_turn_and_repeated_up_to_the_size(tmp_path):
    first, second = write_jsonl(tmp_path / "a", ["a", "b"]), write_jsonl(tmp_path / "b", ["c"])
    path = tmp_path / "out"
    once = first.stat().st_size + second.stat().st_size
    assert write_text([first, second], once + 1, path) > 1
    assert [json.loads(line)["text"] for line in path.read_text().splitlines()] == [*"acba"]
    (tmp_path / "c").touch()
    with pytest.raises(ValueError, match="no text in"):
        write_text([tmp_path / "c"], 1, path)


def test_a_file_without_a_last_newline_keeps_its_lines_apart(tmp_path):
    (tmp_path / "a").write_text("1")
    write_text([tmp_path / "a"], 4, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "1\n1\n"


def write_pair(prefix, documents):
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    builder = IndexedDatasetBuilder(f"{prefix}.bin", np.uint16)
    for ids in documents:
        builder.add_document(np.array(ids, dtype=np.uint16), [len(ids)])
    builder.finalize(f"{prefix}.idx")


def write_arrow(path, documents):
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"input_ids": pa.array(documents, pa.list_(pa.int32()))})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


def test_both_formats_sum_up_to_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.tokenized.DOCUMENTS_AT_ONCE", 2)
    write_pair(tmp_path / "pair", DOCUMENTS)
    for name, part in (("a", DOCUMENTS[:2]), ("b", DOCUMENTS[2:])):
        write_arrow(tmp_path / name, part)
    ours = read_megatron(tmp_path / "pair")
    assert ours == read_arrow([str(tmp_path / "a"), str(tmp_path / "b")])
    assert (ours.num_documents, ours.num_tokens) == (3, 6)
    write_arrow(tmp_path / "c", [[1, 2], [3, 4], [5, 6]])  # the same ids in other documents
    assert read_arrow([str(tmp_path / "c")]) != ours


def test_usage_counts_what_a_child_of_the_command_takes():
    child = f"import time; held = b'x' * {80 * MEGABYTE}; time.sleep(1); print('held')"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    usage = measure([sys.executable, "-c", parent])
    assert usage.stdout == "held\n"
    assert usage.seconds >= 1
    assert usage.cpu_seconds > 0
    assert 80 * MEGABYTE / 1e6 <= usage.peak_anonymous_mb <= usage.peak_mb < 300


def test_a_command_that_fails_ends_the_benchmark_with_its_words():
    with pytest.raises(SystemExit, match=r"code 3:\nno such thing"):
        measure(
            [sys.executable, "-c", "import sys; sys.stderr.write('no such thing'); sys.exit(3)"]
        )


def test_a_process_that_has_ended_holds_nothing():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert tree_memory(process.pid) == (0, 0)


def run_benchmark(*arguments):
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "preprocess.py"), *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def test_without_datasets_one_line_says_what_to_install(tmp_path):
    hide = "import sys; sys.modules['datasets'] = None; sys.path.insert(0, 'benchmarks');"
    code = f"{hide} import preprocess; preprocess.main()"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "datasets is missing: pip install '.[data,bench]'" in result.stderr


@pytest.mark.slow
def test_the_whole_benchmark_compares_a_tiny_file(tmp_path):
    pytest.importorskip("datasets")
    import train_tokenizer

    text = write_jsonl(tmp_path / "a.jsonl", [text for text in TEXTS if text])
    argv = ["--input", str(text), "--vocab-size", "300", "--output", str(tmp_path / "bpe")]
    assert train_tokenizer.main(argv) == 0
    result = run_benchmark(
        *("--mb", "0.01", "--runs", "1", "--folder", tmp_path),
        *("--text", text, "--tokenizer", tmp_path / "bpe"),
    )
    assert result.returncode == 0, result.stderr
    assert "the same ids" in result.stdout
    assert "| `datasets.map` |" in result.stdout
