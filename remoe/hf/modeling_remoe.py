"""The decoder, and the language model on top of it, for transformers 5."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation import GenerationMixin
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import MoeCausalLMOutputWithPast, MoeModelOutputWithPast
from transformers.modeling_utils import PreTrainedModel
from transformers.utils.generic import can_return_tuple

from .attention_remoe import ReMoEAttention, ReMoERMSNorm, rotary_embeddings
from .configuration_remoe import ReMoEConfig
from .experts_remoe import ReMoEExperts
from .export import export_code
from .router_remoe import ReMoEMLP, ReMoERouter, ReMoESparseBlock
from .training_remoe import record_counts

EXPERTS_IMPLEMENTATIONS = ("grouped_mm", "loop")


@dataclass
class ReMoEModelOutput(MoeModelOutputWithPast):
    """`MoeModelOutputWithPast` with the L1 loss.

    Attributes:
        aux_loss: ``sum_l lambda * L_reg``, scalar fp32; None but in training.
    """

    aux_loss: Tensor | None = None


class ReMoEDecoderLayer(GradientCheckpointingLayer):
    """Attention, then experts or one gated unit, each behind a norm and beside the residual."""

    def __init__(self, config: ReMoEConfig, layer_idx: int) -> None:
        super().__init__()
        self.self_attn = ReMoEAttention(config, layer_idx)
        self.has_experts = config.has_experts(layer_idx)
        if self.has_experts:
            self.mlp = ReMoESparseBlock(config, layer_idx)
        else:
            self.mlp = ReMoEMLP(config, config.intermediate_size)
        self.input_layernorm = ReMoERMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = ReMoERMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self,
        hidden_states: Tensor,
        is_counted: bool = False,
        padding_mask: Tensor | None = None,
        **kwargs,
    ) -> tuple[Tensor, Tensor | None, tuple]:
        """Run it.

        Args:
            hidden_states: ``[b, s, h]``.
            is_counted: See `ReMoESparseBlock.forward`.
            padding_mask: See there.
            kwargs: For the attention.

        Returns:
            ``[b, s, h]``; the attention's weights; logits, L1 loss and counts of the routing, which the
            model records: here they would be recorded again when a checkpoint is recomputed.
        """
        attended, weights = self.self_attn(self.input_layernorm(hidden_states), **kwargs)
        hidden_states = hidden_states + attended
        normed = self.post_attention_layernorm(hidden_states)
        if self.has_experts:
            output, *routing = self.mlp(normed, is_counted, padding_mask)
        else:
            output, routing = self.mlp(normed), (None, None, None)
        return hidden_states + output, weights, tuple(routing)


class ReMoEPreTrainedModel(PreTrainedModel):
    """What transformers wants to know of a ReMoE model."""

    config: ReMoEConfig
    config_class = ReMoEConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ("ReMoEDecoderLayer",)
    _skip_keys_device_placement = ("past_key_values",)
    _keep_in_fp32_modules_strict = ("reg_coeff",)
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
        if requested_experts not in (None, *EXPERTS_IMPLEMENTATIONS):
            raise ValueError(
                f"experts_implementation must be one of {EXPERTS_IMPLEMENTATIONS}, "
                f"got {requested_experts!r}"
            )
        return requested_experts or EXPERTS_IMPLEMENTATIONS[0]

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        return True

    def save_pretrained(self, save_directory, is_main_process: bool = True, **kwargs) -> None:
        """As transformers, with the code that loads it and a model card beside the weights."""
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        if is_main_process:
            export_code(save_directory)


class ReMoEModel(ReMoEPreTrainedModel):
    """Embedding, layers and the last norm."""

    def __init__(self, config: ReMoEConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
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
        **kwargs,
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
        config = self.config
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give input_ids or inputs_embeds: one of them")
        if output_attentions is None:
            output_attentions = config.output_attentions
        if output_attentions and config._attn_implementation != "eager":
            raise ValueError(
                f"output_attentions: {config._attn_implementation} attention does not give its "
                'weights, load the model with attn_implementation="eager"'
            )
        if output_hidden_states is None:
            output_hidden_states = config.output_hidden_states
        if output_router_logits is None:
            output_router_logits = config.output_router_logits
        if use_cache is None:
            use_cache = config.use_cache and not self.training
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=config)
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        num_tokens, device = inputs_embeds.shape[1], inputs_embeds.device
        if position_ids is None:
            seen = 0 if past_key_values is None else past_key_values.get_seq_length()
            position_ids = torch.arange(num_tokens, device=device).unsqueeze(0) + seen
        hidden_states = inputs_embeds
        shared = {
            "attention_mask": create_causal_mask(
                config=config,
                inputs_embeds=inputs_embeds,
                attention_mask=attention_mask,
                past_key_values=past_key_values,
                position_ids=position_ids,
            ),
            "position_embeddings": rotary_embeddings(config, position_ids, hidden_states.dtype),
            "position_ids": position_ids,
            "past_key_values": past_key_values,
            "is_counted": self.training and torch.is_grad_enabled(),
            "padding_mask": _padding(attention_mask, num_tokens),
            **kwargs,
        }
        states, attentions, router_logits, losses = [], [], [], []
        for layer in self.layers:
            states.append(hidden_states)
            hidden_states, weights, (logits, loss, counts) = layer(hidden_states, **shared)
            attentions.append(weights)
            if logits is not None:
                router_logits.append(logits)
            if loss is not None:
                losses.append(loss.to(device))
                record_counts(layer.mlp.router, counts)
        hidden_states = self.norm(hidden_states)
        return ReMoEModelOutput(
            last_hidden_state=hidden_states,
            past_key_values=past_key_values if use_cache else None,
            hidden_states=(*states, hidden_states) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
            router_logits=tuple(router_logits) if output_router_logits else None,
            aux_loss=sum(losses) if losses else None,
        )


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
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: Tensor | int | None = None,
        shift_labels: Tensor | None = None,
        **kwargs,
    ) -> MoeCausalLMOutputWithPast:
        """Run the model.

        Args:
            input_ids: ``[b, s]``.
            labels: ``[b, s]``, shifted here; -100 = not a target.
            logits_to_keep: Only the logits of the last so many tokens, or of these positions; 0 = all.
            num_items_in_batch: Targets of all micro-batches and ranks of a step, as `Trainer` gives it:
                the loss is a sum over targets divided by it, and the L1 loss is weighed in the same way,
                so that both are means over the step.
            shift_labels: Targets that are shifted already.
            kwargs: As for `ReMoEModel.forward`.

        Returns:
            `loss` (with labels) holds `aux_loss`, the L1 loss times lambda, in training mode alone.
        """
        outputs = self.model(input_ids=input_ids, **kwargs)
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, keep])
        loss, aux_loss = None, outputs.aux_loss
        if labels is not None or shift_labels is not None:
            loss = self.loss_function(
                logits,
                labels,
                self.vocab_size,
                num_items_in_batch=num_items_in_batch,
                shift_labels=shift_labels,
            )
            if aux_loss is not None:
                if num_items_in_batch is not None:
                    targets = labels[..., 1:] if shift_labels is None else shift_labels
                    share = (targets != -100).sum().to(loss.device) / num_items_in_batch
                    aux_loss = aux_loss.to(loss.device) * share
                loss = loss + aux_loss.to(loss.device)
        return MoeCausalLMOutputWithPast(
            loss=loss,
            aux_loss=aux_loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            router_logits=outputs.router_logits,
        )


def _padding(attention_mask, num_tokens: int) -> Tensor | None:
    """Which of the last `num_tokens` tokens are padding, ``[b, s]``; None where the mask tells not."""
    if not isinstance(attention_mask, Tensor) or attention_mask.dim() != 2:
        return None
    return attention_mask[:, -num_tokens:] == 0
