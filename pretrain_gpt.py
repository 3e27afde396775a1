"""Pretrain a GPT: dense, TopK mixture-of-experts, or ReMoE (`--moe-relu-routing`).

Megatron's own trainer from the `megatron-core` wheel with Megatron's arguments, on GPU or CPU:

    torchrun --nproc-per-node 8 pretrain_gpt.py --moe-relu-routing --num-experts 8 ...

Without torchrun it is one process.
"""

import os
import signal
import sys
import time
from typing import NoReturn

from megatron.remoe.processes import die_with_parent

# Before torch is imported, which takes long. Processes that write checkpoints import this file, too.
die_with_parent(spawned=__name__ == "__mp_main__")

from megatron.remoe import cpu

cpu.enable()  # before anything of megatron.training is imported

from megatron.core.enums import ModelType
from megatron.training import pretrain
from megatron.training.argument_utils import pretrain_cfg_container_from_args

from megatron.remoe.arguments import parse_and_validate_args
from megatron.remoe.checkpoint.files import CheckpointError
from megatron.remoe.data_paths import DataError
from megatron.remoe.forward_step import forward_step
from megatron.remoe.gpt_data import train_valid_test_datasets
from megatron.remoe.memory.exhausted import is_out_of_memory, out_of_memory_message
from megatron.remoe.model_config import gpt_config_from_args
from megatron.remoe.patches import use_prebuilt_helpers


def main() -> None:
    """Arguments -> configuration -> Megatron's `pretrain`."""
    try:
        args = parse_and_validate_args(args_defaults={"tokenizer_type": "HuggingFaceTokenizer"})
        model = gpt_config_from_args(args)
    except ValueError as error:
        refuse(error)
    if "RANK" not in os.environ:  # not under torchrun: a world of one, on any free port
        os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    use_prebuilt_helpers()
    try:
        pretrain(
            pretrain_cfg_container_from_args(args, model),
            train_valid_test_datasets,
            ModelType.encoder_or_decoder,
            forward_step,
        )
    except (DataError, CheckpointError) as error:
        refuse(error)
    except (RuntimeError, MemoryError) as error:  # torch's own is a RuntimeError
        if not is_out_of_memory(error):
            raise
        message = out_of_memory_message(error, args, model.transformer)
        refuse(message, wait=5)  # the first rank may have room enough


def refuse(error: ValueError | str, wait: float = 60) -> NoReturn:
    """Say once a node what is wrong, without a traceback.

    Args:
        error: What to say.
        wait: Seconds that other ranks than the node's first leave it to say the same.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0" and "TORCHELASTIC_RUN_ID" in os.environ:
        # torchrun ends all ranks when one ends, and the first may still be looking for what to say.
        # It may also be fine, and wait for this one.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(wait)
    print(f"pretrain_gpt.py: {error}", file=sys.stderr, flush=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
