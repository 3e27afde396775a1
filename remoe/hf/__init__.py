"""ReMoE models for Hugging Face's transformers.

``import remoe.hf`` registers `ReMoEConfig`, `ReMoEModel` and `ReMoEForCausalLM` with transformers' Auto
classes; a saved folder holds the same code, so that it loads without this package, too. These files
import torch and transformers alone.

Tested with transformers 5.0.0 and 5.23.0, the oldest and the newest release of version 5; releases
before 5 will not do.
"""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from .configuration_remoe import ReMoEConfig
from .export import export_code
from .modeling_remoe import ReMoEForCausalLM, ReMoEModel, ReMoEPreTrainedModel
from .training_remoe import ReMoECallback, reset_counts, step_controller

AutoConfig.register(ReMoEConfig.model_type, ReMoEConfig, exist_ok=True)
AutoModel.register(ReMoEConfig, ReMoEModel, exist_ok=True)
AutoModelForCausalLM.register(ReMoEConfig, ReMoEForCausalLM, exist_ok=True)

__all__ = [
    "ReMoECallback",
    "ReMoEConfig",
    "ReMoEForCausalLM",
    "ReMoEModel",
    "ReMoEPreTrainedModel",
    "export_code",
    "reset_counts",
    "step_controller",
]
