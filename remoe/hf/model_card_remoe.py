"""The model card that lies beside the weights, filled from the configuration."""

from typing import Any

TEMPLATE = """\
---
library_name: transformers
pipeline_tag: text-generation
tags:
- moe
- remoe
license: {license}
---

# ReMoE model, {num_experts} experts, {num_experts_per_tok} active on average

A decoder-only language model whose layers route by ReLU ("ReMoE: Fully Differentiable
Mixture-of-Experts with ReLU Routing", arXiv 2412.14711).

| | |
|---|---|
| layers (with experts) | {num_hidden_layers} ({num_moe_layers}) |
| hidden size | {hidden_size} |
| heads (key and value heads) | {num_attention_heads} ({num_key_value_heads}) |
| vocabulary | {vocab_size} |
| longest text in training | {max_position_embeddings} tokens |
| experts E, width of one | {num_experts}, {moe_intermediate_size} |
| target of active experts a token, k | {num_experts_per_tok} |
| target sparsity, 1 - k/E | {target_sparsity:.4g} |

## Routing

The gate of an expert is `relu(x W)`: no softmax, no top-k, no renormalisation. A token visits every
expert with a positive gate: none, some or all of them. Training held the *mean* at
{num_experts_per_tok}; there is no limit for one token. A runtime that assumes a fixed number of experts
a token computes something else.

## Load and generate

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # where this file is
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)  # else it asks
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
inputs = tokenizer("Once upon a time", return_tensors="pt", return_token_type_ids=False)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=50)[0]))
```

The code beside the weights needs torch and transformers 5 alone; read it before you trust it. Choices
at loading: `dtype=torch.bfloat16`, `attn_implementation="sdpa"` or `"eager"`,
`experts_implementation="grouped_mm"` or `"loop"`, `device_map="auto"`.
`model(..., output_router_logits=True)` returns the logits of every router.

## Train on

Lambda, the coefficient of the L1 loss that keeps routing sparse, is saved with the weights in fp32. In
training mode the loss holds that term; the callback moves lambda once a step.

```python
from transformers import Trainer

Trainer(model=model, callbacks=[model.trainer_callback()], ...).train()
```

## Fewer or more experts without training

`config.router_thresholds` holds one number a layer (0.0 for layers without experts). Above 0, gates
below it are cut off; below 0, it is added to the gates before the ReLU. Calibrate it on text.

## Licence and citation

Licence: {license}. Training data and evaluation: not stated here; add them.

```bibtex
@inproceedings{{wang2025remoe,
  title = {{ReMoE: Fully Differentiable Mixture-of-Experts with ReLU Routing}},
  author = {{Wang, Ziteng and Zhu, Jun and Chen, Jianfei}},
  booktitle = {{International Conference on Learning Representations}},
  year = {{2025}}
}}
```
"""


def model_card(config: dict[str, Any]) -> str:
    """The card of a model.

    Args:
        config: What config.json holds; `license` too, where someone put it there.
    """
    layers = config["num_hidden_layers"]
    moe_layers = config.get("moe_layers")
    derived = {
        "license": config.get("license", "other"),
        "num_moe_layers": layers if moe_layers is None else sum(moe_layers),
        "target_sparsity": 1 - config["num_experts_per_tok"] / config["num_experts"],
    }
    return TEMPLATE.format_map(config | derived)
