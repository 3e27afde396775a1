"""Lets Megatron run on a machine without CUDA: every substitution for that, and nothing else.

Megatron 0.19.2 names CUDA in hundreds of places (`device="cuda"`, streams, events, RNG states, tensor
type names) and asserts that it is there. `enable` points each of them at the CPU. It does nothing
where CUDA is there, is idempotent, and must run before `megatron.training` is used.
"""

import contextlib
import ctypes
import functools
import logging
import os
from types import SimpleNamespace

import torch
from torch.overrides import TorchFunctionMode

# Of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX, INT_MAX = -1, -4, 2**31 - 1

_enabled = False


def is_needed() -> bool:
    """Whether this machine has no CUDA device."""
    return not torch.cuda.is_available()


def enable() -> bool:
    """Make Megatron use the CPU if there is no CUDA device.

    Returns:
        Whether Megatron now runs on the CPU.
    """
    global _enabled
    if _enabled or not is_needed():
        return _enabled
    # torch.compile asks the accelerator for streams; on CPU Megatron's jit fusions stay eager.
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    # Megatron asserts it for tensor and context parallelism: an order of CUDA's launches.
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    _keep_freed_memory()
    _replace_torch_cuda()
    _replace_process_group()
    _replace_uneven_collectives()
    mode = CudaToCpuMode()
    mode.__enter__()  # for the life of the process
    _keep_in_backward(mode)
    _replace_in_megatron()
    _enabled = True
    return True


def _keep_freed_memory() -> None:
    """Let malloc keep what is freed, as the allocator of torch does on a GPU.

    glibc gives every block of megabytes back at once, and the kernel then fills each page of the next
    one with zeros: the output layer's product took twice its time (LOG.md). glibc reads its
    environment variables for this at the start only. Other C libraries have no such setting.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, INT_MAX)):
            mallopt(parameter, value)


# Functions that name a device or a type without a keyword.
_WITH_DEVICE = {torch.Tensor.type, torch.Tensor.cuda, torch.Tensor.to}


class CudaToCpuMode(TorchFunctionMode):
    """Rewrites a CUDA device in any torch call to the CPU, and CPU type names to CUDA ones.

    Reason: `device="cuda"` is hard-coded in the optimizer, clipping, schedules, logging and
    checkpointing, and the optimizer recognises parameters by `param.type() ==
    "torch.cuda.FloatTensor"`.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Run `func` with CUDA devices replaced."""
        if not kwargs and func not in _WITH_DEVICE:  # nearly all of some 3,000 calls a step
            return func(*args)
        kwargs = kwargs or {}
        if func is torch.Tensor.type and len(args) == 1 and not kwargs:
            return func(*args).replace("torch.", "torch.cuda.", 1)
        if func is torch.Tensor.cuda:
            return args[0]
        if "device" in kwargs and _is_cuda(kwargs["device"]):
            kwargs = {**kwargs, "device": torch.device("cpu")}
        if kwargs.get("pin_memory"):
            kwargs = {**kwargs, "pin_memory": False}
        if func is torch.Tensor.to and len(args) > 1 and _is_cuda(args[1]):
            args = (args[0], torch.device("cpu"), *args[2:])
        return func(*args, **kwargs)


def _keep_in_backward(mode: CudaToCpuMode) -> None:
    """Keep `mode` on while autograd runs.

    A function mode is off inside the call that it intercepts, and `backward` is such a call: layers
    that are recomputed in it would ask for `device="cuda"` again.
    """
    original = torch.autograd._engine_run_backward

    @functools.wraps(original)
    def run_backward(*args, **kwargs):
        with mode:
            return original(*args, **kwargs)

    torch.autograd._engine_run_backward = run_backward


def _is_cuda(device: object) -> bool:
    if isinstance(device, str):
        return device.startswith("cuda")
    return isinstance(device, torch.device) and device.type == "cuda"


class _NoStream:
    """Stands for CUDA streams and events: the CPU runs in order, so there is nothing to wait for."""

    def __init__(self, *args, **kwargs):
        pass

    def record_event(self, event=None):
        return event or _NoStream()

    def elapsed_time(self, end_event):
        return 0.0

    def query(self):
        return True

    def _nothing(self, *args, **kwargs):
        return None

    wait_stream = wait_event = wait = record = synchronize = _nothing


def _replace_torch_cuda() -> None:
    """Answer `torch.cuda.*` for the CPU.

    Each name gets a function of its own: dynamo keeps a rule for each function object and refuses
    one object under two names.
    """
    cuda, stream = torch.cuda, _NoStream()
    # Zero devices would skip making the model-parallel groups and seeding: one device a local rank.
    cuda.device_count = lambda: int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    cuda.current_device = lambda: torch.device("cpu")
    # Read by choices between kernels; (0, 0) is older than any of them asks for.
    cuda.get_device_capability = lambda *args, **kwargs: (0, 0)
    cuda.get_device_properties = lambda *args, **kwargs: SimpleNamespace(major=0, minor=0)
    cuda.get_device_name = lambda *args, **kwargs: "cpu"
    # Reported beside torch's own figures in the memory line of the log.
    cuda.device_memory_used = lambda *args, **kwargs: 0
    for name in (
        "set_device",
        "synchronize",
        "empty_cache",
        "reset_peak_memory_stats",
        "set_stream",
    ):
        setattr(cuda, name, lambda *args, **kwargs: None)

    cuda.Stream = cuda.Event = _NoStream
    cuda.current_stream = lambda *args, **kwargs: stream
    cuda.default_stream = lambda *args, **kwargs: stream
    cuda.stream = lambda *args, **kwargs: contextlib.nullcontext()

    # One generator: dropout on the CPU draws from torch's default one.
    # (torch.manual_seed itself calls torch.cuda.manual_seed_all, which stays torch's own.)
    cuda.manual_seed = lambda seed: torch.default_generator.manual_seed(seed)
    cuda.get_rng_state = lambda *args, **kwargs: torch.get_rng_state()
    cuda.set_rng_state = lambda state, *args, **kwargs: torch.set_rng_state(state)

    for name in ("Float", "Double", "Half", "BFloat16", "Byte", "Int", "Long"):
        setattr(cuda, f"{name}Tensor", getattr(torch, f"{name}Tensor"))
    torch.nn.Module.cuda = lambda self, *args, **kwargs: self


def _replace_process_group() -> None:
    """Drop `device_id=cuda:N`, which Megatron passes whenever `device_count()` is not 0."""
    original = torch.distributed.init_process_group

    @functools.wraps(original)
    def init_process_group(*args, **kwargs):
        kwargs.pop("device_id", None)
        return original(*args, **kwargs)

    torch.distributed.init_process_group = init_process_group


def _replace_uneven_collectives() -> None:
    """Let `all_gather` and `reduce_scatter` take parts of other sizes on each rank.

    NCCL does, gloo does not; experts under tensor parallelism gather as many rows as are active.
    """
    dist = torch.distributed
    even_all_gather, even_reduce_scatter = dist.all_gather, dist.reduce_scatter

    @functools.wraps(even_all_gather)
    def all_gather(tensor_list, tensor, group=None, async_op=False):
        if len({part.shape for part in tensor_list}) == 1:
            return even_all_gather(tensor_list, tensor, group, async_op)
        assert not async_op, "parts of other sizes are gathered at once"
        lengths = [len(part) for part in tensor_list]
        gathered = tensor.new_empty(sum(lengths), *tensor.shape[1:])
        copies = torch.cat([tensor] * len(lengths))  # one for each rank
        sizes = [len(tensor)] * len(lengths)
        dist.all_to_all_single(gathered, copies, lengths, sizes, group)
        for part, values in zip(tensor_list, gathered.split(lengths), strict=True):
            part.copy_(values)

    @functools.wraps(even_reduce_scatter)
    def reduce_scatter(output, input_list, op=dist.ReduceOp.SUM, group=None, async_op=False):
        if len({part.shape for part in input_list}) == 1:
            return even_reduce_scatter(output, input_list, op, group, async_op)
        assert not async_op, "parts of other sizes are reduced at once"
        reduced = torch.cat(input_list)
        dist.all_reduce(reduced, op, group)
        lengths = [len(part) for part in input_list]
        output.copy_(reduced.split(lengths)[dist.get_rank(group)])

    dist.all_gather, dist.reduce_scatter = all_gather, reduce_scatter


def _replace_in_megatron() -> None:
    """Replace the few Megatron functions that assume CUDA beyond `torch.cuda`."""
    import megatron.training.training as training
    from megatron.core.dist_checkpointing.strategies import filesystem_async
    from megatron.core.tensor_parallel import random
    from megatron.core.transformer.moe import moe_utils, token_dispatcher

    # `pretrain` asserts CUDA unless this is passed, and does not pass it on.
    training.initialize_megatron = functools.partial(
        training.initialize_megatron, allow_no_cuda=True
    )
    # Seeds of data loaders come from the generator that dropout draws from here, and a resumed run
    # makes its loaders after it has loaded the state of that generator.
    training.build_train_valid_test_data_iterators = _without_random_numbers(
        training.build_train_valid_test_data_iterators
    )
    # It hands tensors that are on the CPU to the process that writes them as they are, in shared memory,
    # and training goes on in them: --async-save would save a mixture of steps.
    writer = filesystem_async.FileSystemWriterAsync
    writer.prepare_write_data = _with_copies(writer.prepare_write_data)
    # They ask the CUDA extension of torch directly.
    random._get_cuda_rng_state = lambda *args, **kwargs: torch.get_rng_state()
    random._set_cuda_rng_state = lambda state, *args, **kwargs: torch.set_rng_state(state)
    # The RNG tracker warns if the CPU's generator moves while the GPU's is forked: here they are one.
    logging.getLogger(random.__name__).addFilter(
        lambda record: "CPU RNG state changed" not in record.getMessage()
    )
    # It leaves CPU tensors as they are, and `all_to_all_single` wants lists for its splits.
    moe_utils.maybe_move_tensor_to_cpu = _tensor_to_host
    token_dispatcher.maybe_move_tensor_to_cpu = _tensor_to_host


def _without_random_numbers(original):
    """A function after which torch's generator goes on as if it had not been called."""

    @functools.wraps(original)
    def call(*args, **kwargs):
        with torch.random.fork_rng(devices=()):
            return original(*args, **kwargs)

    return call


def _with_copies(original):
    """`FileSystemWriterAsync.prepare_write_data`, after which what is to be written stays as it is."""

    @functools.wraps(original)
    def prepare_write_data(self, plan, planner):
        original(self, plan, planner)
        self.write_buckets = [
            (path, name, (objects, [(item, tensor.clone()) for item, tensor in tensors]))
            for path, name, (objects, tensors) in self.write_buckets
        ]

    return prepare_write_data


def _tensor_to_host(tensor, as_numpy=False, record_stream=False):
    """`maybe_move_tensor_to_cpu` for tensors that are there already."""
    return tensor.numpy() if as_numpy and torch.is_tensor(tensor) else tensor
