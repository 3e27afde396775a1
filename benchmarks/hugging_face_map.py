"""The other side of preprocess.py: tokenizes a file of JSON lines with Hugging Face `datasets`.

As its documentation does it: load_dataset("json"), then map() with batched=True over several processes
with a fast tokenizer, the text column removed. Leaves out the attention mask, which pretraining does not
need and which would double what is written. Prints the Arrow files that hold the ids.
"""

import argparse
import json


def main() -> None:
    """Load, map, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--input", "--tokenizer", "--cache"):
        parser.add_argument(name, required=True)
    parser.add_argument("--workers", type=int, required=True)
    args = parser.parse_args()

    from datasets import load_dataset
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    eod = tokenizer.eos_token_id

    def tokenize(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        ids = tokenizer(batch["text"], return_attention_mask=False)["input_ids"]
        return {"input_ids": [[*document, eod] for document in ids]}

    texts = load_dataset("json", data_files=args.input, split="train", cache_dir=args.cache)
    encoded = texts.map(
        tokenize, batched=True, num_proc=args.workers, remove_columns=texts.column_names
    )
    print(json.dumps([part["filename"] for part in encoded.cache_files]))


if __name__ == "__main__":
    main()
