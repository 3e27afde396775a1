"""What a layer needs of TransformerEngine or Apex, on torch alone."""

from megatron.remoe.torch_native.attention import TorchAttention
from megatron.remoe.torch_native.experts import TorchGroupedMLP
from megatron.remoe.torch_native.norm import torch_norm

__all__ = ["TorchAttention", "TorchGroupedMLP", "torch_norm"]
