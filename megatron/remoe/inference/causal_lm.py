"""A Megatron model with the interface of transformers: evaluation harnesses and `generate` take it."""

from pathlib import Path

import torch
from megatron.core.models.gpt import GPTModel
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from megatron.remoe.checkpoint.stored_run import StoredRun
from megatron.remoe.inference.stored_model import load_model
from megatron.remoe.micro_batch import MicroBatch, in_forward


class MegatronConfig(PreTrainedConfig):
    """What harnesses ask of a configuration.

    Args:
        vocab_size: True size of the vocabulary, without padding.
        max_position_embeddings: Longest sequence.
        hidden_size: ``h``.
        num_hidden_layers: Layers.
    """

    model_type = "megatron"

    def __init__(
        self,
        vocab_size: int = 0,
        max_position_embeddings: int = 0,
        hidden_size: int = 0,
        num_hidden_layers: int = 0,
        **kwargs,
    ) -> None:
        self.vocab_size = vocab_size
        self.max_position_embeddings = max_position_embeddings
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        super().__init__(**kwargs)


class MegatronForCausalLM(PreTrainedModel, GenerationMixin):
    """Megatron's own forward pass behind `forward(input_ids).logits` and `generate`.

    There is no key-value cache: `generate` runs the whole sequence for each token. Attention is causal
    and knows no padding, which is right for rows padded at their end; rows padded at their start are
    refused.

    Args:
        config: Sizes.
        model: Of one process, in evaluation mode.
        stored: The run that it comes from.
    """

    config_class = MegatronConfig
    main_input_name = "input_ids"
    _supports_cache_class = False
    _tied_weights_keys = None

    def __init__(self, config: MegatronConfig, model: GPTModel, stored: StoredRun) -> None:
        super().__init__(config)
        self.model = model
        self.stored = stored

    @classmethod
    def from_checkpoint(
        cls,
        folder: Path,
        vocab_size: int | None = None,
        dtype: torch.dtype | None = None,
        ckpt_step: int | None = None,
    ) -> "MegatronForCausalLM":
        """Load a checkpoint; see `load_model`.

        Args:
            folder: What `--load` names, or one iteration's folder.
            vocab_size: Of the tokenizer; default what the run had with padding.
            dtype: Of the weights; default the run's own.
            ckpt_step: Iteration; default what the tracker file names.

        Raises:
            ValueError: If the vocabulary is larger than the model's.
        """
        model, stored = load_model(folder, dtype, ckpt_step)
        embeddings = model.embedding.word_embeddings.weight
        padded = embeddings.shape[0]
        if vocab_size is not None and vocab_size > padded:
            raise ValueError(
                f"{stored.folder}: the tokenizer has {vocab_size} tokens, the model {padded} with "
                "padding: give the tokenizer that it was trained with"
            )
        config = MegatronConfig(
            vocab_size=vocab_size or padded,
            max_position_embeddings=stored.args.max_position_embeddings,
            hidden_size=stored.args.hidden_size,
            num_hidden_layers=stored.args.num_layers,
            dtype=embeddings.dtype,
        )
        return cls(config, model, stored)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.model.parameters()).dtype

    def get_input_embeddings(self) -> nn.Module:
        """Megatron's word embeddings, padded."""
        return self.model.embedding.word_embeddings

    @torch.no_grad()
    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs
    ) -> CausalLMOutput:
        """Logits of the true vocabulary.

        Args:
            input_ids: ``[b, s]`` int64.
            attention_mask: ``[b, s]``, 0 = padding, which may stand at the end of rows only.
            **kwargs: What `generate` and harnesses pass besides; without effect.

        Returns:
            `logits` ``[b, s, vocab_size]`` in the dtype that Megatron gives.

        Raises:
            ValueError: For rows padded at their start, or longer than the model's positions.
        """
        length = input_ids.shape[1]
        if length > (longest := self.config.max_position_embeddings):
            raise ValueError(f"{length} tokens: the model was trained on {longest} at most")
        if attention_mask is not None and (attention_mask.diff(dim=1) > 0).any():
            raise ValueError(
                "rows padded at their start: Megatron's attention has no mask for them: give prompts "
                "of one length, or one at a time"
            )
        positions = torch.arange(length, device=input_ids.device).expand_as(input_ids)
        # A hash router looks at the token ids; domains matter to records of training alone.
        batch = MicroBatch(input_ids, torch.zeros_like(input_ids[:, 0]))
        with in_forward(batch):
            logits = self.model(input_ids, positions, None)
        return CausalLMOutput(logits=logits[..., : self.config.vocab_size])

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, attention_mask=None, **kwargs
    ) -> dict:
        """The whole sequence each time: there is no cache."""
        return {"input_ids": input_ids, "attention_mask": attention_mask}
