"""Several worker processes, and what happens when processes are killed."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from data_tools import REPOSITORY, TEXTS, write_jsonl


@pytest.fixture
def long_corpus(tmp_path):
    # long and short documents in turn, so that workers finish out of order
    texts = [f"{i} " + "word " * (20_000 if i % 10 == 0 else 10) for i in range(60)]
    return write_jsonl(tmp_path / "long.jsonl", texts + TEXTS)


def test_output_does_not_depend_on_the_number_of_workers(tool, long_corpus, monkeypatch):
    monkeypatch.setattr("data.readers.CHUNK_RECORDS", 3)
    flags = ["--append-eod"]
    assert tool(long_corpus, flags=flags) == 0
    other = tool.prefix.with_name("other")
    assert tool(long_corpus, flags=[*flags, "--workers", 2], prefix=other) == 0
    for suffix in ("bin", "idx"):
        expected = tool.prefix.with_name(f"out_text_document.{suffix}").read_bytes()
        assert tool.prefix.with_name(f"other_text_document.{suffix}").read_bytes() == expected
    assert multiprocessing.active_children() == []


def test_reading_stays_a_few_chunks_ahead_of_the_workers(tool, monkeypatch):
    from data.pool import CHUNKS_PER_WORKER, encode_chunks
    from data.records import Chunk, Record
    from data.tokenization import TokenizerSpec

    num_read = 0

    def chunks():
        nonlocal num_read
        for _ in range(100):
            num_read += 1
            yield Chunk([Record("a.txt", 1, "text", b"1 2")])

    spec = TokenizerSpec("tokenizers", tokenizer_state(tool), 300, 0, "uint16")
    num_encoded = 0
    for _ in encode_chunks(chunks(), 2, spec, ["text"], False, False):
        num_encoded += 1
        assert num_read - num_encoded < CHUNKS_PER_WORKER * 2
    assert num_encoded == 100


def tokenizer_state(tool):
    with open(f"{tool.tokenizer_folder}/tokenizer.json", encoding="utf-8") as file:
        return {"json": file.read(), "add_special_tokens": True, "encode_special_tokens": False}


def test_a_killed_worker_ends_the_run_with_one_line(tool, long_corpus, monkeypatch):
    import preprocess_data

    from data.readers import read_chunks

    monkeypatch.setattr("data.readers.CHUNK_RECORDS", 1)

    def read_and_kill(*args):
        for index, chunk in enumerate(read_chunks(*args)):
            if index == 12:
                os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
            yield chunk

    monkeypatch.setattr(preprocess_data, "read_chunks", read_and_kill)
    error = tool.error(long_corpus, flags=["--workers", 2])
    assert "a worker process died" in error
    assert "try fewer than --workers 2" in error
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_reader_leaves_no_output(tool, corpus, monkeypatch, number):
    import preprocess_data

    def interrupted(*args):
        signal.raise_signal(number)
        yield

    monkeypatch.setattr(preprocess_data, "read_chunks", interrupted)
    before = signal.signal(signal.SIGTERM, preprocess_data.end_on_sigterm)
    try:
        assert tool(corpus) == 130
        assert "interrupted, nothing was written" in tool.err
    except SystemExit as end:
        assert (number, end.code) == (signal.SIGTERM, 143)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert tool.files() == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_signal_ends_parent_and_workers(tool, tmp_path, number, status):
    process = started(tool, tmp_path, 2)
    partial = tool.prefix.with_name("out_text_document.bin.partial")
    wait_for(lambda: partial.exists() and partial.stat().st_size)
    workers = psutil.Process(process.pid).children(recursive=True)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does, to the workers as well
    else:
        process.kill()
    _, err = process.communicate(timeout=120)
    assert process.returncode == status, err
    assert "Traceback" not in err
    wait_for(lambda: not any(worker.is_running() for worker in workers))
    assert tool.files() == ([partial.name] if number == signal.SIGKILL else [])

    assert tool(write_jsonl(tmp_path / "a.jsonl", TEXTS)) == 0  # what was left is in no one's way
    assert tool.files() == ["out_text_document.bin", "out_text_document.idx"]


def test_an_interrupt_while_workers_start_is_one_line(tool, tmp_path):
    process = started(tool, tmp_path, 4)
    wait_for(lambda: len(workers_of(process)) == 4)  # the last has not imported anything yet
    assert all(holds_sigint(worker) for worker in workers_of(process))
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert tool.files() == []


def started(tool, folder, num_workers):
    """The command on more text than it has time for, in a session of its own."""
    corpus = write_jsonl(folder / "big.jsonl", [("word " * 20_000) for _ in range(300)])
    argv = tool.arguments(corpus, flags=["--workers", num_workers])
    return subprocess.Popen(
        [sys.executable, str(REPOSITORY / "tools" / "preprocess_data.py"), *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def workers_of(process):
    children = psutil.Process(process.pid).children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def holds_sigint(process):
    status = Path(f"/proc/{process.pid}/status").read_text()
    blocked = next(line for line in status.splitlines() if line.startswith("SigBlk:"))
    return int(blocked.split()[1], 16) >> (signal.SIGINT - 1) & 1


def wait_for(condition, seconds=180):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
