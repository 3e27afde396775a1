"""From a file of the wheel to rows in the schema that the harness's own task definition reads."""

import gzip
import json
from collections.abc import Iterator

_FIRST_UNCONDITIONAL = (
    1_000_000  # from this document id on: the same choices without their question
)
_QUESTION, _ANSWER = "Question: ", "\nAnswer:"


def arrow_rows(member: bytes) -> Iterator[dict]:
    """Rows of an Arrow stream, as they are."""
    import pyarrow

    yield from pyarrow.ipc.open_stream(member).read_all().to_pylist()


def choice_rows(member: bytes) -> Iterator[dict]:
    """Questions with choices, in the schema of ARC and OpenBookQA."""
    for doc in _documents(member):
        question = doc["query"].removeprefix(_QUESTION).removesuffix(_ANSWER)
        labels = [chr(ord("A") + i) for i in range(len(doc["choices"]))]
        yield {
            "question": question,
            "question_stem": question,
            "choices": {"text": doc["choices"], "label": labels},
            "answerKey": labels[doc["gold"]],
        }


def boolq_rows(member: bytes) -> Iterator[dict]:
    """Passages with a question to be answered yes or no, in SuperGLUE's schema."""
    for doc in _documents(member):
        passage, question = doc["query"].rsplit(f"\n{_QUESTION}", 1)
        yield {
            "passage": passage,
            "question": question.removesuffix(_ANSWER).removesuffix("?"),
            "label": int(doc["choices"][doc["gold"]] == "yes"),
        }


def lambada_rows(member: bytes) -> Iterator[dict]:
    """Passages whose last word is to be guessed."""
    for request in _requests(member):
        yield {"text": request["request"]["context"] + request["request"]["continuation"]}


def _documents(member: bytes) -> Iterator[dict]:
    """Each document once, in order; the file has a line for each of its choices."""
    seen = set()
    for request in _requests(member):
        number = request["doc_id"]
        if number < _FIRST_UNCONDITIONAL and number not in seen:
            seen.add(number)
            yield request["doc"]


def _requests(member: bytes) -> Iterator[dict]:
    # Not splitlines(): texts hold U+2028, which JSON does not escape.
    for line in gzip.decompress(member).decode("utf-8").split("\n"):
        if line:
            yield json.loads(line)
