"""One prompt to its continuation, by transformers' `generate`."""

import sys
from dataclasses import dataclass

import torch
from torch import Tensor

from evaluation.errors import EvaluationError
from evaluation.models import LoadedModel


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    Attributes:
        max_new_tokens: At most; fewer where the text or the context ends.
        temperature: 0 takes the likeliest token.
        top_k: Of the k likeliest only; 0 is off.
        top_p: Of the likeliest whose probabilities sum to p; 1 is off.
        seed: The same for each prompt, so that a text does not depend on those before it.
    """

    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    seed: int


def encode(loaded: LoadedModel, prompt: str) -> list[int]:
    """The prompt's tokens; an empty one starts a document.

    Raises:
        EvaluationError: They leave no room for another.
    """
    tokens = loaded.tokenizer.encode(prompt)
    if not tokens:
        tokenizer = loaded.tokenizer
        first = (
            tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        )
        if first is None:
            raise EvaluationError("--prompt '': the tokenizer has no token that starts a document")
        tokens = [first]
    if len(tokens) >= loaded.max_length:
        raise EvaluationError(
            f"--prompt: {len(tokens)} tokens, and the model's context holds {loaded.max_length};"
            " shorten it"
        )
    return tokens


def continue_text(
    loaded: LoadedModel, tokens: list[int], sampling: Sampling, streamer=None
) -> Tensor:
    """Prompt and continuation, ``[num_tokens]`` int64.

    Args:
        loaded: The model.
        tokens: Of the prompt.
        sampling: How to choose.
        streamer: Of transformers; is given each token as it comes.
    """
    room = loaded.max_length - len(tokens)
    if room < sampling.max_new_tokens:
        print(f"generate.py: the context ends after {room} new tokens", file=sys.stderr)
    choice = {"do_sample": False}
    if sampling.temperature > 0:
        choice = {
            "do_sample": True,
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
        }
    tokenizer = loaded.tokenizer
    torch.manual_seed(sampling.seed)
    inputs = torch.tensor([tokens], device=loaded.model.device)
    output = loaded.model.generate(
        inputs,
        attention_mask=torch.ones_like(inputs),
        max_new_tokens=min(sampling.max_new_tokens, room),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id
        if tokenizer.pad_token_id is None
        else tokenizer.pad_token_id,
        streamer=streamer,
        **choice,
    )
    return output[0]
