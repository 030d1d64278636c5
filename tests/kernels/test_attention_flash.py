"""The calls into flash kernels, as far as a machine without them can go: arguments, shapes, tracing, exchange of kernels."""

import inspect
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch.nn.attention import varlen

from fairway.kernels.attention import Segments, flash, plain_causal_attention

REGISTRY = torch.nn.attention._registry
exchangeable = pytest.mark.skipif(
    not hasattr(torch.nn.attention, "restore_flash_attention_impl"), reason="this torch cannot exchange its flash kernels"
)


def attend(query, key, value, starts):
    """What a variable-length kernel computes, on packed tokens."""
    rows = [tensor.unsqueeze(0) for tensor in (query, key, value)]
    return plain_causal_attention(*rows, Segments(starts, 0)).squeeze(0)


def of_torch_2_10(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None):
    assert is_causal
    assert query.shape == key.shape, "knows no groups"
    return attend(query, key, value, cu_seq_q)


def of_torch_2_11(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1)):
    assert window_size == (-1, 0)
    assert query.shape == key.shape, "knows no groups"
    return attend(query, key, value, cu_seq_q)


def of_torch_2_12(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1), enable_gqa=False
):
    assert window_size == (-1, 0)
    assert enable_gqa
    return attend(query, key, value, cu_seq_q)


@pytest.mark.parametrize("kernel", [of_torch_2_10, of_torch_2_11, of_torch_2_12])
def test_every_version_of_the_variable_length_call_is_served(kernel, monkeypatch):
    calls = []

    def spy(query, key, value, starts, starts_of_keys, longest, longest_key, **extra):
        assert starts is starts_of_keys
        calls.append((starts.dtype, longest, longest_key, query.shape))
        return kernel(query, key, value, starts, starts_of_keys, longest, longest_key, **extra)

    spy.__signature__ = inspect.signature(kernel)
    monkeypatch.setattr(varlen, "varlen_attn", spy)
    dense = [torch.randn(3, 16, heads, 8) for heads in (4, 2, 2)]
    torch.testing.assert_close(flash.varlen_attention(*dense), plain_causal_attention(*dense))
    packed = [tensor[:1] for tensor in dense]
    segments = Segments.cut([4, 11], 16, 5)
    torch.testing.assert_close(flash.varlen_attention(*packed, segments), plain_causal_attention(*packed, segments))
    assert calls == [(torch.int32, 16, 16, (48, 4, 8)), (torch.int32, 5, 5, (16, 4, 8))]


def test_the_installed_variable_length_attention_takes_the_call():
    """On tensors without storage: shapes of output and gradients as torch declares them for its kernel."""
    tensors = [torch.empty(2, 64, heads, 64, device="meta", dtype=torch.bfloat16, requires_grad=True) for heads in (8, 4, 4)]
    out = flash.varlen_attention(*tensors)
    assert (out.shape, out.dtype) == (tensors[0].shape, torch.bfloat16)
    assert [grad.shape for grad in torch.autograd.grad(out.sum(), tensors)] == [tensor.shape for tensor in tensors]
    segments = Segments(torch.zeros(64, dtype=torch.int32, device="meta"), 32)
    assert flash.varlen_attention(*(tensor[:1] for tensor in tensors), segments).shape == (1, 64, 8, 64)


def test_the_dense_call_is_torchs_flash_kernel():
    tensors = [torch.randn(2, 32, heads, 16) for heads in (4, 2, 2)]
    torch.testing.assert_close(flash._dense(*tensors), plain_causal_attention(*tensors), atol=2e-5, rtol=1e-4)


# A process of its own: the checking of annotations that pytest switches on wraps every function of the package.
TRACED = """
import torch
from fairway.kernels.attention import Segments
from fairway.kernels.attention.flash import varlen_attention

names = []

def look(graph, _inputs):
    names.append([str(node.target) for node in graph.graph.nodes if node.op == "call_function"])
    return lambda *_: (torch.zeros(1, 64, 4, 16),)

tensors = [torch.randn(1, 64, heads, 16) for heads in (4, 2, 2)]
compiled = torch.compile(varlen_attention, backend=look, fullgraph=True, dynamic=False)
for segments in (None, Segments.cut([4, 11], 64, 30), Segments.cut([9, 20, 60], 64, 30)):
    assert compiled(*tensors, segments).shape == (1, 64, 4, 16)
assert len(names) == 2, names
assert all(any("varlen_attn" in name for name in graph) for graph in names), names
"""


@pytest.mark.slow
def test_variable_length_attention_is_one_graph_whatever_the_segments():
    done = subprocess.run([sys.executable, "-c", TRACED], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture
def registered(monkeypatch):
    """Stand-ins for both packages in torch's registry; the list of what was put in place and taken back."""
    log = []
    for name in ("FA3", "FA4"):

        def register(name=name):
            log.append(f"+{name}")
            return SimpleNamespace(remove=lambda: log.append(f"-{name}"))

        monkeypatch.setitem(REGISTRY._FLASH_ATTENTION_IMPLS, name, register)
    monkeypatch.setattr(flash, "PACKAGES", {"FA3": "json", "FA4": "no_such_package.interface"})
    yield log
    flash.use_implementation(None)


@exchangeable
def test_one_implementation_is_in_place_at_a_time(registered):
    assert not flash.use_implementation(None)
    assert flash.use_implementation("FA3")
    assert not flash.use_implementation("FA3")
    assert flash.use_implementation("FA4")
    assert torch.nn.attention.current_flash_attention_impl() == "FA4"
    assert flash.use_implementation(None)
    assert torch.nn.attention.current_flash_attention_impl() is None
    assert registered == ["+FA3", "-FA3", "+FA4", "-FA4"]


@exchangeable
def test_faults_of_packages_are_named(registered, monkeypatch):
    gpu = torch.device("cuda")
    assert flash.implementation_fault("FA3", gpu) == ""
    assert registered == ["+FA3", "-FA3"]
    assert flash.implementation_fault("FA4", gpu) == (
        "needs the package no_such_package (no_such_package.interface), which is not installed"
    )

    def broken():
        raise ImportError("undefined symbol: _ZN3c10")

    monkeypatch.setitem(REGISTRY._FLASH_ATTENTION_IMPLS, "FA3", broken)
    assert flash.implementation_fault("FA3", gpu) == "json is installed but does not load: undefined symbol: _ZN3c10"
    assert torch.nn.attention.current_flash_attention_impl() is None
    monkeypatch.delitem(REGISTRY._FLASH_ATTENTION_IMPLS, "FA3")
    assert "knows no implementation FA3" in flash.implementation_fault("FA3", gpu)


@exchangeable
def test_an_older_torch_is_named(monkeypatch):
    monkeypatch.delattr(torch.nn.attention, "restore_flash_attention_impl")
    assert "needs torch 2.11 or newer" in flash.implementation_fault("FA3", torch.device("cuda"))
    assert not flash.use_implementation(None)
