"""Texts to tokenize, and preprocess_data.main called in this process."""

import json
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]

# Newline look-alikes, accents, scripts, an emoji, a space at either end, an empty document.
TEXTS = [
    "The cat sat on the mat.\nThe mat did not mind.",
    " naïve café 漢字 🙂 ",
    "line\u2028separator, next\x85line, form\x0cfeed, tab\t, return\r\n",
    "",
    "the the the the cat cat cat",
]


def write_jsonl(path, texts, key="text"):
    # ensure_ascii=False leaves U+2028 and U+0085 as they are, as most writers of corpora do
    lines = [json.dumps({key: text, "id": i}, ensure_ascii=False) for i, text in enumerate(texts)]
    path.write_bytes("".join(line + "\n" for line in lines).encode())
    return path


class Tool:
    """Calls preprocess_data.main and keeps what it said."""

    def __init__(self, tokenizer_folder, folder, capsys):
        self.tokenizer_folder = tokenizer_folder
        self.prefix = folder / "out"
        self.capsys = capsys
        self.out = self.err = ""

    def arguments(self, *inputs, flags=(), tokenizer=None, prefix=None):
        tokenizer = tokenizer or [
            *("--tokenizer-type", "HuggingFaceTokenizer"),
            *("--tokenizer-model", self.tokenizer_folder),
        ]
        named = ["--input", *map(str, inputs), "--output-prefix", str(prefix or self.prefix)]
        return [*named, *tokenizer, *map(str, flags)]

    def __call__(self, *inputs, **kwargs):
        import preprocess_data

        status = preprocess_data.main(self.arguments(*inputs, **kwargs))
        self.out, self.err = self.capsys.readouterr()
        return status

    def files(self):
        return sorted(path.name for path in self.prefix.parent.iterdir())

    def error(self, *inputs, **kwargs):
        """The error line of a run that must fail and leave nothing behind."""
        before = self.files()
        assert self(*inputs, **kwargs) == 1, self.out + self.err
        assert self.files() == before
        lines = [line for line in self.err.splitlines() if "error:" in line]
        assert len(lines) == 1
        assert "Traceback" not in self.err
        return lines[0]

    def read(self, key="text", prefix=None):
        from megatron.core.datasets.indexed_dataset import IndexedDataset

        dataset = IndexedDataset(f"{prefix or self.prefix}_{key}_document")
        assert len(dataset) == len(dataset.document_indices) - 1
        # copies: the arrays point into a memory map that goes away with the dataset
        return [dataset[i].copy() for i in range(len(dataset))]
