"""The decoder, and the language model on top of it, for transformers 5."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import MoeCausalLMOutputWithPast, MoeModelOutputWithPast
from transformers.modeling_utils import PreTrainedModel
from transformers.utils.generic import can_return_tuple

from .attention_remoe import ReMoERMSNorm, rotary_embeddings
from .compat_remoe import causal_mask, token_positions
from .configuration_remoe import ReMoEConfig
from .decoder_remoe import LayerOutputs, ReMoEDecoderLayer
from .experts_remoe import ReMoEExperts
from .export import export_code

# From a local folder transformers 5.0 takes only those files that are imported here.
from .model_card_remoe import model_card  # noqa: F401
from .regularization_remoe import routing_loss  # noqa: F401
from .router_remoe import ReMoERouter
from .training_remoe import ReMoECallback

# What is asked for: what is used. `generate` asks for "batched_mm" by itself.
EXPERTS_IMPLEMENTATIONS = {
    None: "grouped_mm",
    "grouped_mm": "grouped_mm",
    "batched_mm": "grouped_mm",
    "loop": "loop",
    "eager": "loop",
}


@dataclass
class ReMoEModelOutput(MoeModelOutputWithPast):
    """`MoeModelOutputWithPast` with the L1 loss.

    Attributes:
        aux_loss: ``sum_l lambda * L_reg``, scalar fp32; None but in training.
    """

    aux_loss: Tensor | None = None


class ReMoEPreTrainedModel(PreTrainedModel):
    """What transformers wants to know of a ReMoE model."""

    config: ReMoEConfig
    config_class = ReMoEConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["ReMoEDecoderLayer"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _keep_in_fp32_modules_strict = ["reg_coeff"]  # noqa: RUF012
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = False  # how many rows an expert has depends on the data

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, ReMoEExperts):
            nn.init.normal_(module.gate_up_proj, std=std)
            nn.init.normal_(module.down_proj, std=std)
        elif isinstance(module, ReMoERouter):
            nn.init.normal_(module.weight, std=std)
            nn.init.constant_(module.reg_coeff, self.config.reg_coeff_init)

    def get_correct_experts_implementation(self, requested_experts: str | None) -> str:
        """Ours: transformers' own all want the same number of experts for each token."""
        if requested_experts not in EXPERTS_IMPLEMENTATIONS:
            raise ValueError(
                f'experts_implementation must be "grouped_mm" or "loop", got {requested_experts!r}'
            )
        return EXPERTS_IMPLEMENTATIONS[requested_experts]

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        return True

    def trainer_callback(self) -> ReMoECallback:
        """What `Trainer` needs to move lambda, also where this code was loaded with the weights."""
        return ReMoECallback()

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | Path, is_main_process: bool = True, **kwargs: Any
    ) -> None:
        """As transformers, with the code that loads it and a model card beside the weights."""
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        if is_main_process:
            export_code(save_directory)


class ReMoEModel(ReMoEPreTrainedModel):
    """Embedding, layers and the last norm."""

    def __init__(self, config: ReMoEConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            ReMoEDecoderLayer(config, layer) for layer in range(config.num_hidden_layers)
        )
        self.norm = ReMoERMSNorm(config.hidden_size, config.rms_norm_eps)
        self.gradient_checkpointing = False
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_router_logits: bool | None = None,
        **kwargs: Any,
    ) -> ReMoEModelOutput:
        """Run the decoder.

        In training mode, with gradients, the routers count their tokens and give the L1 loss.

        Args:
            input_ids: ``[b, s]``; this or `inputs_embeds`.
            attention_mask: ``[b, all tokens so far]``, 0 = padding; padding is routed, not counted.
            position_ids: ``[b, s]``; default: from the number of cached tokens on.
            past_key_values: Keys and values of earlier tokens.
            inputs_embeds: ``[b, s, h]``.
            use_cache: Whether to keep keys and values; default: the configuration's, but in training.
            output_attentions: Return the weights of every attention (only "eager" has them).
            output_hidden_states: Return the input of every layer and the last norm's output.
            output_router_logits: Return the logits ``[b * s, num_experts]`` of every layer with experts.
            kwargs: For the attention.
        """
        kwargs.pop("cache_position", None)  # older releases say what is known here
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give input_ids or inputs_embeds: one of them")
        output_attentions = self._wants("output_attentions", output_attentions)
        if output_attentions and self.config._attn_implementation != "eager":
            raise ValueError(
                f"output_attentions: {self.config._attn_implementation} attention does not give its "
                'weights, load the model with attn_implementation="eager"'
            )
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        shared = self._of_all_layers(inputs_embeds, attention_mask, position_ids, past_key_values)
        hidden_states, of_layers = inputs_embeds, LayerOutputs()
        for layer in self.layers:
            hidden_states = of_layers.run(layer, hidden_states, **shared, **kwargs)
        hidden_states = self.norm(hidden_states)
        wants_states = self._wants("output_hidden_states", output_hidden_states)
        wants_logits = self._wants("output_router_logits", output_router_logits)
        return ReMoEModelOutput(
            last_hidden_state=hidden_states,
            past_key_values=past_key_values if use_cache else None,
            hidden_states=(*of_layers.inputs, hidden_states) if wants_states else None,
            attentions=tuple(of_layers.attentions) if output_attentions else None,
            router_logits=tuple(of_layers.router_logits) if wants_logits else None,  # type: ignore[arg-type]
            aux_loss=of_layers.aux_loss(),
        )

    def _wants(self, name: str, asked: bool | None) -> bool:
        """What is asked for, or else what the configuration says."""
        return bool(getattr(self.config, name) if asked is None else asked)

    def _of_all_layers(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        past_key_values: Cache | None,
    ) -> dict[str, Any]:
        """The arguments that every layer is given."""
        config = self.config
        if position_ids is None:
            position_ids = token_positions(inputs_embeds, past_key_values).unsqueeze(0)
        padding_mask = None
        if isinstance(attention_mask, Tensor) and attention_mask.dim() == 2:
            padding_mask = attention_mask[:, -inputs_embeds.shape[1] :] == 0
        return {
            "attention_mask": causal_mask(
                config, inputs_embeds, attention_mask, past_key_values, position_ids
            ),
            "position_embeddings": rotary_embeddings(config, position_ids, inputs_embeds.dtype),
            "position_ids": position_ids,
            "past_key_values": past_key_values,
            "is_counted": self.training and torch.is_grad_enabled(),
            "padding_mask": padding_mask,
        }


class ReMoEForCausalLM(ReMoEPreTrainedModel, GenerationMixin):
    """The decoder with a head that gives the next token's logits."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: ReMoEConfig) -> None:
        super().__init__(config)
        self.model = ReMoEModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        labels: Any = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> MoeCausalLMOutputWithPast:
        """Run the model.

        Args:
            input_ids: ``[b, s]``.
            labels: ``[b, s]``, shifted here; -100 = not a target.
            logits_to_keep: Only the logits of the last so many tokens, or of these positions; 0 = all.
            num_items_in_batch: Targets of all micro-batches and ranks of a step, as `Trainer` gives it:
                the loss is a sum over targets divided by it, and the L1 loss is weighed in the same way,
                so that both are means over the step.
            kwargs: As for `ReMoEModel.forward`; also `shift_labels` ``[b, s]``, targets that are shifted
                already.

        Returns:
            In training mode `loss` holds `aux_loss`, the L1 loss times lambda, added over the layers.
        """
        # Not a name of its own: `Trainer` takes such names for what every batch holds.
        shift_labels = kwargs.pop("shift_labels", None)
        outputs = self.model(input_ids=input_ids, **kwargs)
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, keep])
        loss = None
        if labels is not None or shift_labels is not None:
            targets = labels[..., 1:] if shift_labels is None else shift_labels
            loss = self.loss_function(
                logits,
                labels,
                self.vocab_size,
                num_items_in_batch=num_items_in_batch,
                shift_labels=shift_labels,
            )
            loss = _with_aux_loss(loss, outputs.aux_loss, targets, num_items_in_batch)
        return MoeCausalLMOutputWithPast(
            loss=loss,
            aux_loss=outputs.aux_loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            router_logits=outputs.router_logits,
        )


def _with_aux_loss(
    loss: Tensor,
    aux_loss: Tensor | None,
    targets: Tensor,
    num_items_in_batch: Tensor | int | None,
) -> Tensor:
    """Add the L1 loss; where `loss` is a share of a step's, in the same share."""
    if aux_loss is None:
        return loss
    if num_items_in_batch is not None:
        share = (targets != -100).sum().to(aux_loss.device) / num_items_in_batch
        aux_loss = aux_loss * share
    return loss + aux_loss.to(loss.device)
