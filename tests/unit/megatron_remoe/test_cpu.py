"""What `cpu.enable` replaces, in processes of their own so that nothing leaks into other tests."""

import json
import subprocess
import sys
import textwrap

import pytest

# Runs once; each name is one test below. `check` records whether a statement about Megatron on the
# CPU holds, or the exception that it raised.
AFTER_ENABLE = """
    import os, json, torch
    before = torch.cuda.synchronize
    from megatron.remoe import cpu
    results = {"reports that the CPU is used": cpu.enable() is True}
    after = torch.cuda.synchronize
    results["replaces torch.cuda"] = after is not before
    results["is idempotent"] = cpu.enable() is True and torch.cuda.synchronize is after

    def check(name, statement):
        try:
            results[name] = bool(statement())
        except Exception as error:
            results[name] = repr(error)

    on_cpu = lambda tensor: tensor.device.type == "cpu"
    device = torch.device("cuda", 0)
    check("zeros on 'cuda'", lambda: on_cpu(torch.zeros(1, device="cuda")))
    check("ones on 'cuda:0'", lambda: on_cpu(torch.ones(1, device="cuda:0")))
    check("tensor on a device", lambda: on_cpu(torch.tensor([1], device=device)))
    check("empty_like", lambda: on_cpu(torch.empty_like(torch.ones(1), device="cuda")))
    check("to a name", lambda: on_cpu(torch.ones(1).to("cuda")))
    check("to a device", lambda: on_cpu(torch.ones(1).to(device)))
    check("to by keyword", lambda: on_cpu(torch.ones(1).to(device="cuda", dtype=torch.half)))
    check("to current_device", lambda: on_cpu(torch.ones(1).to(torch.cuda.current_device())))
    check("to a dtype alone", lambda: torch.ones(1).to(torch.half).dtype == torch.half)
    check("Tensor.cuda", lambda: on_cpu(torch.ones(1).cuda()))
    check("Tensor.cuda of a device", lambda: on_cpu(torch.ones(1).cuda(device, non_blocking=True)))
    check("Module.cuda", lambda: on_cpu(torch.nn.Linear(1, 1).cuda().weight))
    check("Module.to", lambda: on_cpu(torch.nn.Linear(1, 1).to("cpu").weight))
    check("the meta device stays", lambda: torch.zeros(1, device="meta").is_meta)
    check("no device stays the CPU", lambda: on_cpu(torch.zeros(1)))

    check("type name fp32", lambda: torch.ones(1).type() == "torch.cuda.FloatTensor")
    check("type name bf16", lambda: torch.ones(1).bfloat16().type() == "torch.cuda.BFloat16Tensor")
    check("type name of a parameter",
          lambda: torch.nn.Parameter(torch.ones(1)).type() == "torch.cuda.FloatTensor")
    check("type as a cast", lambda: torch.ones(1).type(torch.half).dtype == torch.half)
    check("CUDA tensor types", lambda: torch.cuda.LongTensor([1]).dtype == torch.int64)

    def in_backward():
        seen = []
        class Recompute(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x * 2
            @staticmethod
            def backward(ctx, gradient):
                seen.append(torch.ones(1, device="cuda").type())
                inner = torch.ones(1, requires_grad=True)
                with torch.enable_grad():
                    torch.autograd.backward(inner * 2)
                seen.append(torch.ones(1, device="cuda").type())
                return gradient
        x = torch.ones(1, requires_grad=True)
        Recompute.apply(x).backward()
        Recompute.apply(x).sum().backward(retain_graph=True)
        torch.autograd.grad(Recompute.apply(x), x)
        return seen == ["torch.cuda.FloatTensor"] * 6
    check("inside a backward pass", in_backward)

    stream, event = torch.cuda.Stream(), torch.cuda.Event(enable_timing=True)
    check("streams wait", lambda: stream.wait_stream(torch.cuda.current_stream()) is None)
    check("streams wait for events", lambda: stream.wait_event(stream.record_event()) is None)
    check("events", lambda: event.record() is None and event.query() and event.synchronize() is None)
    check("elapsed time", lambda: event.elapsed_time(torch.cuda.Event()) == 0.0)
    def in_stream():
        with torch.cuda.stream(stream):
            return torch.ones(1).item() == 1.0
    check("stream as a context", in_stream)
    check("synchronize", lambda: torch.cuda.synchronize() is None)
    check("set_device", lambda: torch.cuda.set_device(0) is None)
    check("capability is older than any kernel asks for",
          lambda: torch.cuda.get_device_capability() == (0, 0))

    os.environ["LOCAL_WORLD_SIZE"] = "4"
    check("a device for each local rank", lambda: torch.cuda.device_count() == 4)
    check("is_available keeps telling the truth", lambda: not torch.cuda.is_available())

    def rng_round_trip():
        torch.cuda.manual_seed(5)
        state = torch.cuda.get_rng_state()
        first = torch.rand(3)
        torch.cuda.set_rng_state(state)
        return torch.equal(first, torch.rand(3))
    check("RNG state", rng_round_trip)
    def tracker_round_trip():
        from megatron.core.tensor_parallel.random import CudaRNGStatesTracker
        tracker = CudaRNGStatesTracker()
        tracker.add("a", 1)
        outer = torch.get_rng_state()
        with tracker.fork("a"):
            first = torch.rand(3)
        restored = torch.equal(outer, torch.get_rng_state())
        with tracker.fork("a"):
            second = torch.rand(3)
        torch.manual_seed(1)
        return restored and torch.equal(first, torch.rand(3)) and not torch.equal(first, second)
    check("Megatron's RNG tracker forks and restores", tracker_round_trip)

    def sizes_for_all_to_all():
        from megatron.core.transformer.moe import token_dispatcher
        tensor = torch.tensor([1, 2])
        as_numpy = token_dispatcher.maybe_move_tensor_to_cpu(tensor, as_numpy=True)
        return (as_numpy == [1, 2]).all() and not torch.is_tensor(as_numpy) and (
            token_dispatcher.maybe_move_tensor_to_cpu(tensor) is tensor
            and token_dispatcher.maybe_move_tensor_to_cpu(None, as_numpy=True) is None)
    check("sizes of an all-to-all come as numpy", sizes_for_all_to_all)
    def process_group():
        torch.distributed.init_process_group("gloo", rank=0, world_size=1, device_id=device,
                                             store=torch.distributed.HashStore())
        return torch.distributed.get_world_size() == 1
    check("init_process_group drops device_id", process_group)
    def pretrain_without_cuda():
        import megatron.training.training as training
        return training.initialize_megatron.keywords == {"allow_no_cuda": True}
    check("pretrain may start without CUDA", pretrain_without_cuda)
    check("torch.compile is off", lambda: os.environ["TORCHDYNAMO_DISABLE"] == "1")
    print("RESULTS" + json.dumps(results))
"""

# torch says that CUDA is there: `enable` must keep its hands off.
WITH_CUDA = """
    import json, os, torch
    torch.cuda.is_available = lambda: True
    names = [name for name in dir(torch.cuda) if not name.startswith("__")]
    before = {name: getattr(torch.cuda, name) for name in names}
    init, cuda = torch.distributed.init_process_group, torch.nn.Module.cuda
    from megatron.core.tensor_parallel import random
    from megatron.core.transformer.moe import token_dispatcher
    kept = random._get_cuda_rng_state, token_dispatcher.maybe_move_tensor_to_cpu
    from megatron.remoe import cpu
    answer = cpu.enable()
    changed = [name for name in names if getattr(torch.cuda, name) is not before[name]]
    results = {
        "reports that the CPU is not used": answer is False,
        "replaces nothing in torch.cuda": changed == [] or repr(changed),
        "leaves process groups and modules": (
            torch.distributed.init_process_group is init and torch.nn.Module.cuda is cuda),
        "leaves Megatron": (random._get_cuda_rng_state is kept[0]
                            and token_dispatcher.maybe_move_tensor_to_cpu is kept[1]),
        "leaves torch.compile": "TORCHDYNAMO_DISABLE" not in os.environ,
        "leaves type names": torch.ones(1).type() == "torch.FloatTensor",
        "does not call itself needed": cpu.is_needed() is False,
        "says the same again": cpu.enable() is False,
    }
    print("RESULTS" + json.dumps(results))
"""


def names_in(script):
    """The results that a script will give, to name one test after each."""
    lines = [line.strip() for line in script.splitlines()]
    named = [line.split('"')[1] for line in lines if line.startswith(('check("', 'results["'))]
    in_dictionary = [line.split('"')[1] for line in lines if line.startswith('"') and '": ' in line]
    inline = [line.split('{"')[1].split('"')[0] for line in lines if '{"' in line and '":' in line]
    return [name for name in inline if name != "allow_no_cuda"] + in_dictionary + named


@pytest.fixture(scope="module")
def results(request):
    import os

    cache = {}

    def run(script):
        if script not in cache:
            hidden = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
            env = {k: v for k, v in os.environ.items() if k != "TORCHDYNAMO_DISABLE"} | hidden
            command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)]
            process = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)
            assert process.returncode == 0, process.stderr
            cache[script] = json.loads(process.stdout.split("RESULTS")[1])
        return cache[script]

    return run


@pytest.mark.parametrize("name", names_in(AFTER_ENABLE))
def test_after_enable(results, name):
    assert results(AFTER_ENABLE)[name] is True


@pytest.mark.parametrize("name", names_in(WITH_CUDA))
def test_where_cuda_is_there(results, name):
    assert results(WITH_CUDA)[name] is True


def test_every_result_is_a_test(results):
    assert set(results(AFTER_ENABLE)) == set(names_in(AFTER_ENABLE))
    assert set(results(WITH_CUDA)) == set(names_in(WITH_CUDA))
