"""A folder in Hugging Face's form behind transformers' own server."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from commands import ROOT, run
from remoe.hf import ReMoEConfig, ReMoEForCausalLM


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random model whose tokens are the words 0 to 31."""
    where = tmp_path_factory.mktemp("served")
    torch.manual_seed(0)
    config = ReMoEConfig(
        vocab_size=32,
        hidden_size=16,
        moe_intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_experts=4,
        num_experts_per_tok=1,
        max_position_embeddings=32,
    )
    ReMoEForCausalLM(config).save_pretrained(where)
    words = Tokenizer(models.WordLevel({str(i): i for i in range(32)}, unk_token="0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="0").save_pretrained(where)
    return where


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def ask(port, folder):
    asked = {"model": str(folder), "prompt": "3 1 4", "max_tokens": 5, "temperature": 0}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/completions",
        json.dumps(asked).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_the_server_writes_what_generate_writes(folder):
    model = ReMoEForCausalLM.from_pretrained(folder)
    prompt = torch.tensor([[3, 1, 4]])
    made = model.generate(prompt, max_new_tokens=5, do_sample=False, pad_token_id=0)[0, 3:]
    port = free_port()
    command = [sys.executable, "tools/serve.py", str(folder), "--host", "127.0.0.1"]
    server = subprocess.Popen(
        [*command, "--port", str(port), "--device", "cpu"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        end = time.monotonic() + 120
        while True:
            try:
                answer = ask(port, folder)
                break
            except urllib.error.URLError:
                assert server.poll() is None, server.stderr.read()[-2000:]
                assert time.monotonic() < end, "the server did not start"
                time.sleep(0.2)
    finally:
        server.terminate()
        server.communicate()
    assert answer["choices"][0]["text"].split() == [str(i) for i in made.tolist()]


def test_foreign_code_is_refused_in_one_line(tmp_path):
    (tmp_path / "config.json").write_text('{"auto_map": {"AutoConfig": "evil.Evil"}}')
    done = run([sys.executable, "tools/serve.py", str(tmp_path)])
    assert done.returncode == 1
    assert done.stderr == (
        f"serve.py: {tmp_path}/config.json: asks to run foreign code (auto_map AutoConfig: evil.Evil): "
        "not run; read it, then say --trust-remote-code\n"
    )


def test_a_folder_without_a_model_is_refused_in_one_line(tmp_path):
    done = run([sys.executable, "tools/serve.py", str(tmp_path)])
    assert done.returncode == 1
    assert done.stderr == (
        f"serve.py: {tmp_path}: no config.json there: give a folder in Hugging Face's form\n"
    )
