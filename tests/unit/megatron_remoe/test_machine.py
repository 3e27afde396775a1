"""Defaults that assume a GPU are set for this machine; what the user asked for is refused by name."""

import copy

import pytest

from command_line import MODEL, REMOE, parse
from megatron.remoe import machine

GROUPED = "--moe-grouped-gemm --disable-bias-linear"
ON_CPU_ONLY = {
    "distributed_backend": "gloo",
    "use_cpu_initialization": True,
    "bias_swiglu_fusion": False,
    "bias_gelu_fusion": False,
    "bias_dropout_fusion": False,
}
WITHOUT_TE = {
    "transformer_impl": "local",
    "gradient_accumulation_fusion": False,
    "no_persist_layer_norm": True,
    "masked_softmax_fusion": False,
    "apply_rope_fusion": False,
    "create_attention_mask_in_dataloader": False,
    "torch_native_layers": True,
}


@pytest.fixture
def on(monkeypatch):
    """Pretend to be a machine with or without CUDA and TransformerEngine."""

    def pretend(cuda, te):
        monkeypatch.setattr(machine.cpu, "is_needed", lambda: not cuda)
        monkeypatch.setattr(machine, "has_transformer_engine", lambda: te)

    return pretend


def fit(words, model=REMOE):
    args, given = parse([*model, *words.split()])
    before = copy.deepcopy(vars(args))
    machine.fit_to_machine(args, given)
    before["torch_native_layers"] = False  # Megatron's parser does not know it
    return {name: value for name, value in vars(args).items() if value != before[name]}


def refusal(words):
    with pytest.raises(ValueError, match="this machine cannot do that") as error:
        fit(words)
    return str(error.value)


@pytest.mark.parametrize("model", [MODEL, REMOE], ids=["dense", "ReMoE"])
def test_a_plain_command_runs_on_a_cpu(on, model, capsys):
    on(cuda=False, te=False)
    changed = fit(GROUPED, model)
    assert changed == {**ON_CPU_ONLY, **WITHOUT_TE}
    said = capsys.readouterr().out
    assert "on the CPU, no CUDA device found; torch-native layers" in said
    assert "left out" not in said


def test_a_gpu_without_transformer_engine_keeps_what_is_torchs(on, capsys):
    on(cuda=True, te=False)
    changed = fit("")
    assert changed == WITHOUT_TE
    assert "on the GPU without TransformerEngine" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        "",
        "--fp8-format hybrid",
        "--context-parallel-size 2",
        "--cuda-graph-impl local",
        "--transformer-impl transformer_engine --distributed-backend nccl --moe-grouped-gemm",
        "--transformer-impl local",
    ],
)
def test_nothing_changes_where_cuda_and_transformer_engine_are(on, words, capsys):
    on(cuda=True, te=True)
    assert fit(words) == {}
    assert capsys.readouterr().out == ""


NEEDS_CUDA = [
    ("--distributed-backend nccl", "--distributed-backend"),
    ("--fp8-format hybrid", "--fp8-format"),
    ("--fp4-format e2m1", "--fp4-format"),
    ("--cuda-graph-impl local", "--cuda-graph-impl"),
    ("--cuda-graph-impl transformer_engine", "--cuda-graph-impl"),
    ("--enable-cuda-graph", "--enable-cuda-graph"),
    ("--external-cuda-graph", "--external-cuda-graph"),
    (
        "--moe-token-dispatcher-type flex --moe-router-dtype fp32",
        "--moe-token-dispatcher-type flex",
    ),
    ("--use-megatron-fsdp", "--use-megatron-fsdp"),
    ("--use-torch-fsdp2", "--use-torch-fsdp2"),
    ("--optimizer-cpu-offload", "--optimizer-cpu-offload"),
    ("--profile", "--profile"),
    ("--record-memory-history", "--record-memory-history"),
]
NEEDS_TE = [
    ("--transformer-impl transformer_engine", "--transformer-impl"),
    ("--fp8-format hybrid", "--fp8-format"),
    ("--fp4-format e2m1", "--fp4-format"),
    ("--use-precision-aware-optimizer", "--use-precision-aware-optimizer"),
    ("--experimental-attention-variant dsa", "--experimental-attention-variant"),
    ("--moe-latent-size 32", "--moe-latent-size"),
    ("--overlap-moe-expert-parallel-comm", "--overlap-moe-expert-parallel-comm"),
    ("--tp-comm-overlap", "--tp-comm-overlap"),
]


@pytest.mark.parametrize(("words", "flag"), NEEDS_CUDA, ids=[words for words, _ in NEEDS_CUDA])
def test_what_needs_cuda_is_refused_without_it(on, words, flag):
    on(cuda=False, te=False)
    assert f"\n  {flag}: needs a CUDA device, which is not here" in refusal(words)


@pytest.mark.parametrize("cuda", [False, True], ids=["CPU", "GPU"])
@pytest.mark.parametrize(("words", "flag"), NEEDS_TE, ids=[words for words, _ in NEEDS_TE])
def test_what_needs_transformer_engine_is_refused_without_it(on, words, flag, cuda):
    on(cuda=cuda, te=False)
    lines = [line for line in refusal(words).splitlines() if line.startswith(f"  {flag}: ")]
    assert any("TransformerEngine, which is not here" in line for line in lines)


def test_a_cpu_machine_with_transformer_engine_installed_is_still_without(on):
    on(cuda=False, te=True)
    assert "--transformer-impl: needs TransformerEngine" in refusal(
        "--transformer-impl transformer_engine"
    )


@pytest.mark.parametrize("cuda", [False, True], ids=["CPU", "GPU"])
def test_megatrons_local_layers_have_no_grouped_experts(on, capsys, cuda):
    on(cuda=cuda, te=False)
    assert fit(f"{GROUPED} --transformer-impl local")["moe_grouped_gemm"] is False
    assert "--moe-grouped-gemm: left out, Megatron's local layers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        ("--moe-grouped-gemm", "a bias (add --disable-bias-linear)"),
        (f"{GROUPED} --moe-apply-probs-on-input", "--moe-apply-probs-on-input"),
        (f"{GROUPED} --activation-func-clamp-value 7", "--activation-func-clamp-value"),
        (f"{GROUPED} --recompute-modules moe_act", "--recompute-modules moe_act"),
    ],
)
def test_what_torchs_grouped_experts_do_not_do_is_refused(on, words, refused):
    on(cuda=True, te=False)
    assert f"--moe-grouped-gemm: without TransformerEngine it does not do {refused}" in refusal(
        words
    )
    on(cuda=True, te=True)
    assert fit(words) == {}


def test_all_refusals_come_in_one_message(on):
    on(cuda=False, te=False)
    message = refusal("--profile --fp8-format hybrid --distributed-backend nccl --tp-comm-overlap")
    assert message.count("\n") == 5


def test_what_the_user_gave_and_the_machine_can_do_is_kept(on, capsys):
    on(cuda=False, te=False)
    changed = fit("--transformer-impl local --distributed-backend gloo --use-cpu-initialization")
    kept = {"transformer_impl", "distributed_backend", "use_cpu_initialization"}
    assert not {*kept, "torch_native_layers"} & set(changed)
    assert "--transformer-impl local" in capsys.readouterr().out


@pytest.mark.parametrize("cuda", [False, True], ids=["CPU", "GPU"])
@pytest.mark.parametrize(
    "words",
    [
        "--context-parallel-size 2",
        "--tensor-model-parallel-size 2 --sequence-parallel",
        "--use-distributed-optimizer --save somewhere",
    ],
)
def test_every_parallelism_does_without_transformer_engine(on, words, cuda):
    on(cuda=cuda, te=False)
    assert fit(words)["torch_native_layers"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (
            "--transformer-impl local --context-parallel-size 2",
            "--context-parallel-size: Megatron's local layers cannot do it: leave out "
            "--transformer-impl",
        ),
        (
            "--transformer-impl local --sequence-parallel",
            "--sequence-parallel: Megatron's local layers cannot do it",
        ),
        (
            "--context-parallel-size 2 --window-size 8,0",
            "--context-parallel-size: with --window-size or --softmax-type needs TransformerEngine",
        ),
        (
            "--context-parallel-size 2 --softmax-type learnable",
            "--context-parallel-size: with --window-size or --softmax-type needs TransformerEngine",
        ),
        (
            "--tensor-model-parallel-size 2",
            "--tensor-model-parallel-size: with experts add --sequence-parallel",
        ),
    ],
)
def test_what_these_layers_cannot_do_is_refused(on, words, reason):
    on(cuda=False, te=False)
    assert f"\n  {reason}" in refusal(words)


def test_tensor_parallelism_of_a_dense_model_needs_nothing(on):
    on(cuda=False, te=False)
    assert "transformer_impl" in fit("--tensor-model-parallel-size 2", MODEL)


@pytest.mark.parametrize("te", [False, True])
def test_a_mask_by_document_is_built_where_it_is_asked_for(on, te):
    """Local attention knows the causal mask alone."""
    on(cuda=te, te=te)
    changed = fit("--reset-attention-mask", MODEL)
    assert "create_attention_mask_in_dataloader" not in changed


def test_only_rank_0_speaks(on, capsys):
    on(cuda=False, te=False)
    args, given = parse(REMOE)
    args.rank = 1
    machine.fit_to_machine(args, given)
    assert capsys.readouterr().out == ""
