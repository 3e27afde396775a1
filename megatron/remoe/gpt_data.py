"""Datasets and batches of GPT pretraining, from Megatron's own parts."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
from megatron.core import mpu
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig, MockGPTDataset
from megatron.core.utils import get_batch_on_this_cp_rank, get_batch_on_this_tp_rank
from megatron.training import get_args, get_tokenizer
from megatron.training.utils import get_blend_and_blend_per_split
from torch import Tensor

from megatron.remoe.data_paths import DataError
from megatron.remoe.micro_batch import MicroBatch, routers_need_tokens

BATCH_KEYS = ("tokens", "labels", "loss_mask", "attention_mask", "position_ids")


class NonEmptyGPTDataset(GPTDataset):
    """`GPTDataset` that refuses empty data, on which Megatron counts epochs for ever, and damaged."""

    @staticmethod
    def build_low_level_dataset(dataset_path, config):
        """Open indexed data; see `GPTDataset`.

        Raises:
            DataError: If the index cannot be read, or tells of more tokens than there are.
        """
        mend = "write it again with tools/preprocess_data.py"
        try:
            dataset = GPTDataset.build_low_level_dataset(dataset_path, config)
        except (AssertionError, ValueError) as error:
            raise DataError(f"{dataset_path}.idx, .bin: damaged ({error}); {mend}") from error
        index = dataset.index
        if "://" not in dataset_path and len(dataset):
            itemsize = np.dtype(index.dtype).itemsize
            size = int(index.sequence_pointers[-1]) + int(index.sequence_lengths[-1]) * itemsize
            if Path(f"{dataset_path}.bin").stat().st_size < size:
                raise DataError(f"{dataset_path}.bin: cut off, {size} bytes expected; {mend}")
        return dataset

    def __init__(
        self, indexed_dataset, dataset_path, indexed_indices, num_samples, index_split, config
    ):
        if indexed_indices is not None and len(indexed_indices) == 0:
            split = (
                f"--split {config.split} gives it none of" if config.split else "there are none in"
            )
            raise DataError(
                f"no document for {index_split.name} data: {split} the {len(indexed_dataset)} documents "
                f"of {dataset_path}: give another --split, such as 95,5,0, or more data"
            )
        super().__init__(
            indexed_dataset, dataset_path, indexed_indices, num_samples, index_split, config
        )


def train_valid_test_datasets(num_samples: list[int], vp_stage: int | None = None) -> tuple:
    """The datasets provider of `pretrain`.

    Args:
        num_samples: Samples of train, validation and test.
        vp_stage: Virtual pipeline stage; a rank reads data for its first and last ones alike.

    Returns:
        Three datasets, None for one that no sample is wanted of; validation is a list of them with
        `--multiple-validation-sets`.
    """
    args = get_args()
    dataset = MockGPTDataset if args.mock_data else NonEmptyGPTDataset
    builder = BlendedMegatronDatasetBuilder(
        dataset, num_samples, _is_data_rank, dataset_config(args)
    )
    # With --eval-iters 0 Megatron wants no sample, and its loader fails on the empty dataset of a blend.
    return tuple(
        None if wanted == 0 else found
        for wanted, found in zip(num_samples, builder.build(), strict=True)
    )


train_valid_test_datasets.is_distributed = True  # Megatron: call me on every rank


def _is_data_rank() -> bool:
    """Whether this rank reads data: tensor-parallel rank 0 of the first or last pipeline stage.

    Of every stage where routers need the tokens.
    """
    ends = mpu.is_pipeline_first_stage(ignore_virtual=True) or mpu.is_pipeline_last_stage(
        ignore_virtual=True
    )
    reads = ends or routers_need_tokens(get_args())
    return reads and mpu.get_tensor_model_parallel_rank() == 0


def dataset_config(args) -> GPTDatasetConfig:
    """`GPTDatasetConfig` from Megatron's arguments."""
    blend, blend_per_split = get_blend_and_blend_per_split(args)
    return GPTDatasetConfig(
        random_seed=args.seed,
        sequence_length=args.seq_length,
        blend=blend,
        blend_per_split=blend_per_split,
        multiple_validation_sets=args.multiple_validation_sets,
        full_validation=args.full_validation,
        split=args.split,
        num_dataset_builder_threads=args.num_dataset_builder_threads,
        path_to_cache=args.data_cache_path,
        mmap_bin_files=args.mmap_bin_files,
        tokenizer=get_tokenizer(),
        reset_position_ids=args.reset_position_ids,
        reset_attention_mask=args.reset_attention_mask,
        eod_mask_loss=args.eod_mask_loss,
        create_attention_mask=args.create_attention_mask_in_dataloader,
        context_parallel_size=args.context_parallel_size,
        object_storage_cache_path=args.object_storage_cache_path,
        mid_level_dataset_surplus=args.mid_level_dataset_surplus,
        allow_ambiguous_pad_tokens=args.allow_ambiguous_pad_tokens,
    )


def get_batch(
    data_iterator, tells_routers: bool = False
) -> tuple[dict[str, Tensor | None], MicroBatch | None]:
    """One micro-batch on this rank: broadcast over tensor-, split over context-parallel ranks.

    Args:
        data_iterator: None on ranks that read no data.
        tells_routers: Whether routers are to know its tokens; the same on every rank.

    Returns:
        `BATCH_KEYS`, each ``[b, s]`` (the mask ``[b, 1, s, s]``) or None where this pipeline stage
        does not need it; and what routers are told, or None.
    """
    args = get_args()
    first, last = mpu.is_pipeline_first_stage(), mpu.is_pipeline_last_stage()
    if not (first or last or routers_need_tokens(args)):
        return dict.fromkeys(BATCH_KEYS), None
    sample = next(data_iterator) if mpu.get_tensor_model_parallel_rank() == 0 else {}
    batch = dict.fromkeys(BATCH_KEYS)
    if first or last:
        batch = _for_model(sample, args)
    batch["token_ids"] = domains = None
    if tells_routers:
        batch["token_ids"], domains = _for_routers(sample, args)
    batch = get_batch_on_this_cp_rank(
        batch, is_hybrid_cp=False, cp_group=mpu.get_context_parallel_group()
    )
    token_ids = batch.pop("token_ids")
    return batch, None if token_ids is None else MicroBatch(token_ids, domains)


def _for_model(sample: dict, args: Namespace) -> dict[str, Tensor | None]:
    """`BATCH_KEYS` from the sample of tensor-parallel rank 0."""
    return get_batch_on_this_tp_rank(
        {key: _to_device(sample.get(key)) for key in BATCH_KEYS},
        has_cu_seqlens=False,
        is_hybrid_cp=False,
        create_attention_mask_in_dataloader=args.create_attention_mask_in_dataloader,
        broadcast_src_rank=mpu.get_tensor_model_parallel_src_rank(),
        broadcast_group=mpu.get_tensor_model_parallel_group(),
        cp_size=args.context_parallel_size,
        tp_rank=mpu.get_tensor_model_parallel_rank(),
        micro_batch_size=args.micro_batch_size,
        seq_length=args.seq_length,
        mtp_on_this_rank=False,
        pipeline_model_parallel_size=args.pipeline_model_parallel_size,
        is_pipeline_first_stage=mpu.is_pipeline_first_stage(),
        is_pipeline_last_stage=mpu.is_pipeline_last_stage(),
    )


def _for_routers(sample: dict, args: Namespace) -> tuple[Tensor, Tensor]:
    """Token ids ``[b, s]`` and domains ``[b]`` from the sample of tensor-parallel rank 0."""
    group = mpu.get_tensor_model_parallel_group()
    if group.rank() == 0:
        token_ids = _to_device(sample["tokens"])
        domains = sample.get("dataset_id", torch.zeros(len(token_ids)))  # none without a blend
        packed = torch.cat([token_ids, _to_device(domains).long()[:, None]], dim=1)
    else:
        shape = (args.micro_batch_size, args.seq_length + 1)
        packed = torch.empty(shape, dtype=torch.int64, device=torch.cuda.current_device())
    if group.size() > 1:
        torch.distributed.broadcast(packed, mpu.get_tensor_model_parallel_src_rank(), group=group)
    return packed[:, :-1], packed[:, -1]


def _to_device(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.to(torch.cuda.current_device(), non_blocking=True)
