"""Fused kernels equal their twins, in Triton's interpreter and on a GPU; the choice of them says why."""

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pytest
import torch
from fused_cases import CASES
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.base.errors import MachineError
from fairway.config import MachineConfig, ModelConfig, RecurrenceConfig
from fairway.kernels import fused_loss, fused_mlp
from fairway.kernels.attention import Facts, look
from fairway.kernels.fused import missing
from fairway.model.mlp import MLP
from fairway.train.machine import choose

PROGRAM = Path(__file__).with_name("fused_cases.py")


def outcomes(*names: str, **variables: str) -> dict:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "cpu", *names],
        env=os.environ | variables, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def interpreted() -> dict:
    try:
        found = tuple(int(part) for part in version("triton").split(".")[:2])
    except PackageNotFoundError:
        pytest.skip("Triton is not installed; its interpreter runs the kernels without a GPU: pip install triton")
    if found < (3, 7) and np.lib.NumpyVersion(np.__version__) >= "2.4.0":
        pytest.skip(f"the interpreter of Triton {found[0]}.{found[1]} does not run with numpy 2.4: pip install 'triton>=3.7'")
    return outcomes(TRITON_INTERPRET="1")


@pytest.mark.parametrize("case", CASES)
def test_the_interpreted_kernel_equals_its_twin(interpreted, case):
    assert interpreted["outcomes"][case] == ""


def test_it_was_the_kernels_that_ran(interpreted):
    assert min(interpreted["launches"].values()) > 30


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("case", [case for case in CASES if case != "one-graph"])
def test_the_kernel_equals_its_twin_on_a_gpu(case):
    if lacking := missing(look(torch.device("cuda")), torch.float32):
        pytest.skip(lacking)
    CASES[case]("cuda")


@pytest.mark.slow
def test_torch_compile_takes_both_operators_in_one_graph_without_triton():
    found = outcomes("one-graph", TRITON_INTERPRET="0")
    assert found == {"outcomes": {"one-graph": ""}, "launches": {}}


@settings(deadline=None, max_examples=25)
@given(
    rows=st.integers(0, 9),
    vocab=st.integers(1, 40),
    cap=st.floats(2, 60),
    scale=st.floats(0.01, 10),
    seed=st.integers(0, 2**31),
)
def test_the_plain_loss_is_the_loss_of_torch_and_its_gradient(rows, vocab, cap, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = (20 * torch.randn(rows, vocab, generator=generator, dtype=torch.float64)).requires_grad_()
    targets = torch.randint(vocab, (rows,), generator=generator)
    expected = torch.nn.functional.cross_entropy(cap * torch.tanh(logits / cap), targets, reduction="none")
    (gradient,) = torch.autograd.grad(expected.sum() * scale, logits)
    for function in (fused_loss.plain_loss_and_gradient, fused_loss.fused_loss_and_gradient):
        losses, found = function(logits.detach().clone(), targets, cap, scale)
        torch.testing.assert_close(losses, expected.detach(), atol=1e-11, rtol=1e-9)
        torch.testing.assert_close(found, gradient, atol=1e-11, rtol=1e-9)


@pytest.mark.parametrize("slope", [0.3, 0.5, 0.0])
def test_the_gradients_of_the_mlp_are_those_of_its_formula(slope):
    generator = torch.Generator().manual_seed(0)
    tensors = [
        torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in [(2, 3, 4), (5, 4), (4, 5)]
    ]
    assert torch.autograd.gradcheck(lambda *parts: fused_mlp.fused_mlp(*parts, slope), tensors)
    torch.testing.assert_close(fused_mlp.fused_mlp(*tensors, slope), fused_mlp.plain_mlp(*tensors, slope))


@pytest.mark.parametrize("learned", [0, 1, 2])
def test_what_needs_no_gradient_gets_none(learned):
    generator = torch.Generator().manual_seed(1)
    tensors = [torch.randn(*shape, generator=generator) for shape in [(3, 4), (5, 4), (4, 5)]]
    tensors[learned].requires_grad_()
    grads = [
        torch.autograd.grad(mlp(*tensors, 0.3).square().sum(), tensors[learned])
        for mlp in (fused_mlp.fused_mlp, fused_mlp.plain_mlp)
    ]
    torch.testing.assert_close(*grads)


def test_the_operators_keep_their_promises_to_torch():
    x, up, down = torch.randn(6, 4), torch.randn(5, 4), torch.randn(4, 5)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.fairway.product_then_activation.default, (x, up, 0.3), test_utils=checks)
    torch.library.opcheck(
        torch.ops.fairway.product_times_derivative.default, (x, down, torch.randn(6, 5), 0.3), test_utils=checks
    )
    arguments = (torch.randn(6, 9), torch.arange(6), 30.0, 0.5)
    torch.library.opcheck(torch.ops.fairway.loss_and_gradient.default, arguments, test_utils=checks)


def test_hooks_on_the_maps_see_their_inputs_where_no_gradients_are_recorded():
    config = ModelConfig(
        vocab_size=64, layers=2, width=24, query_heads=2, kv_heads=1, mlp_hidden=40, rotary_channels=4, activation_slope=0.3,
        exclusive_attention_layers=2, recurrence=RecurrenceConfig(extra_passes=0),
    )  # fmt: skip
    mlp, seen = MLP(config), []
    for seed, parameter in enumerate(mlp.parameters()):
        parameter.data.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
    for linear in (mlp.up, mlp.down):
        linear.register_forward_hook(lambda *arguments: seen.append(arguments[1][0].shape[-1]))
    x = torch.randn(2, 3, 24)
    plain = mlp(x)
    mlp.fused = True
    torch.testing.assert_close(mlp(x), plain)
    assert seen == [24, 40]
    with torch.no_grad():
        torch.testing.assert_close(mlp(x), plain)
    assert seen == [24, 40, 24, 40]


def facts(**changes) -> Facts:
    return Facts(device="cuda", capability=(9, 0), triton=True, faults={})._replace(**changes)


@pytest.mark.parametrize(
    ("changes", "dtype", "says"),
    [
        ({}, torch.bfloat16, ""),
        ({"capability": (8, 0)}, torch.float32, ""),
        ({"triton": False}, torch.bfloat16, "needs the package triton"),
        ({"device": "cpu", "capability": None}, torch.float32, "needs an NVIDIA GPU; the device is cpu"),
        ({"capability": (7, 5)}, torch.float16, "needs compute capability 8.0 or newer; this GPU has 7.5"),
        ({}, torch.float64, "too little for float64"),
    ],
)
def test_what_is_missing_is_named(changes, dtype, says):
    lacking = missing(facts(**changes), dtype)
    assert says in lacking
    assert bool(lacking) == bool(says)


def test_a_machine_says_which_kernels_train_and_why():
    machine = choose(MachineConfig(device="cpu"))
    assert not machine.fused_kernels
    assert machine.reasons["kernels"].startswith("plain: the fused path needs ")
    assert choose(MachineConfig(device="cpu", fused_kernels="off")).reasons["kernels"] == "plain: asked for"
    with pytest.raises(
        MachineError, match=r"machine.fused_kernels=on does not run: needs .*; use --machine.fused_kernels auto"
    ):
        choose(MachineConfig(device="cpu", fused_kernels="on"))


@pytest.mark.parametrize(("wanted", "fused"), [("auto", True), ("on", True), ("off", False)])
def test_a_gpu_with_triton_trains_with_the_fused_kernels(wanted, fused, monkeypatch):
    import fairway.train.machine as module

    monkeypatch.setattr(module.attention, "look", lambda _device: facts())
    chosen, reason = module._fused(wanted, torch.device("cuda"), torch.bfloat16)
    assert chosen == fused
    assert reason.startswith("fused: " if fused else "plain: ")


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_the_kernels_compile_for_gpus_that_are_not_here(capability, dtype, tmp_path, monkeypatch):
    """Down to machine code; the tiles that fit every supported GPU. How fast they are, and that they run, needs the GPU."""
    triton = pytest.importorskip("triton", reason="Triton is not installed: pip install triton")
    from triton.backends.compiler import GPUTarget

    from fairway.kernels import triton_loss, triton_mlp

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    tensors = dict.fromkeys(["logits", "gradient", "left", "right", "before", "result"], f"*{dtype}")
    kinds = tensors | dict.fromkeys(["cap", "scale", "square"], "fp32") | {"targets": "*i64", "losses": "*fp32"}
    jobs = [(triton_loss, {}), (triton_mlp, {"BACKWARD": False}), (triton_mlp, {"BACKWARD": True})]
    for module, epilogue in jobs:
        config, kernel = module.CONFIGS[-1], module._kernel.fn
        constants = epilogue | config.kwargs
        signature = {name: "constexpr" if name in constants else kinds.get(name, "i32") for name in kernel.arg_names}
        source = triton.compiler.ASTSource(
            fn=kernel,
            signature=signature,
            constexprs={(kernel.arg_names.index(name),): value for name, value in constants.items()},
        )
        options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
        assert compiled.asm["cubin"]
        # An SM of compute capability 8.6 or 8.9 has the least: 99 KiB for a block.
        assert compiled.metadata.shared <= 99 * 1024
