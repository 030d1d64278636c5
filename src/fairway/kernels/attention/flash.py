"""Flash kernels: torch's variable-length attention, and FlashAttention 3 and 4 put in the place of torch's own kernels.

The two packages are called through torch's registry (``activate_flash_attention_impl``), not directly: torch then knows their
shapes and gradients, so that a compiled graph holds them like its own. The price: which implementation is in place is a state
of the process, and an already compiled graph runs whichever is. Not measured: no machine with these packages was at hand.
"""

import inspect
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from fairway.kernels.attention.segments import Segments

PACKAGES = {"FA3": "flash_attn_interface", "FA4": "flash_attn.cute.interface"}
"""Module that torch's registry loads for each implementation."""


def varlen_attention(query: Tensor, key: Tensor, value: Tensor, segments: Segments | None = None) -> Tensor:
    """Torch's variable-length attention on its own flash kernel; dense rows are segments of equal length."""
    use_implementation(None)
    return _packed(query, key, value, segments)


def flash3_attention(query: Tensor, key: Tensor, value: Tensor, segments: Segments | None = None) -> Tensor:
    """FlashAttention 3. Source: arXiv 2407.08608."""
    use_implementation("FA3")
    return _dense(query, key, value) if segments is None else _packed(query, key, value, segments)


def flash4_attention(query: Tensor, key: Tensor, value: Tensor, segments: Segments | None = None) -> Tensor:
    """FlashAttention 4, the CuTe kernels of the ``flash_attn`` package."""
    use_implementation("FA4")
    return _dense(query, key, value) if segments is None else _packed(query, key, value, segments)


def implementation_fault(name: str, device: torch.device) -> str:
    """Why torch cannot put an implementation in the place of its flash kernels; empty if it can.

    On a GPU it is put there for a moment, because a package that is installed may still not load.

    Args:
        name: ``FA3`` or ``FA4``.
        device: Device of the run.
    """
    if not hasattr(nn.attention, "restore_flash_attention_impl"):
        return f"needs torch 2.11 or newer, which can exchange its flash kernels; this is torch {torch.__version__}"
    if name not in nn.attention.list_flash_attention_impls():
        return f"torch {torch.__version__} knows no implementation {name}"
    if not _is_installed(PACKAGES[name]):
        return f"needs the package {PACKAGES[name].split('.', maxsplit=1)[0]} ({PACKAGES[name]}), which is not installed"
    if device.type != "cuda":
        return ""
    before = nn.attention.current_flash_attention_impl()
    try:
        use_implementation(name)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        return f"{PACKAGES[name]} is installed but does not load: {error}"
    use_implementation(before)
    return ""


# Done when a graph is traced and at every call outside graphs, where it costs a comparison.
@torch.compiler.assume_constant_result
def use_implementation(name: str | None) -> bool:
    """Put ``FA3``, ``FA4`` or (None) torch's own flash kernels in place; True if that changed anything."""
    if not hasattr(nn.attention, "restore_flash_attention_impl") or nn.attention.current_flash_attention_impl() == name:
        return False
    if name is None:
        nn.attention.restore_flash_attention_impl()
    else:
        nn.attention.activate_flash_attention_impl(name)
    return True


def _is_installed(module: str) -> bool:
    """Whether a module can be found; finding a submodule imports the packages above it."""
    try:
        return find_spec(module) is not None
    except ImportError:
        return False


def _dense(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    # Torch must not prefer another of its kernels to the one that was put in place.
    with nn.attention.sdpa_kernel(nn.attention.SDPBackend.FLASH_ATTENTION):
        attended = nn.functional.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), is_causal=True, enable_gqa=True
        )
    return attended.transpose(1, 2)


def _packed(query: Tensor, key: Tensor, value: Tensor, segments: Segments | None) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    batch, time = query.shape[:2]
    if segments is None:
        segments = Segments(torch.arange(0, batch * time + 1, time, dtype=torch.int32, device=query.device), time)
    # torch 2.10 names the causal mask, later versions take it as a window; torch 2.12 learned groups of heads.
    extra: dict[str, Any] = {"window_size": (-1, 0)} if _varlen_takes("window_size") else {"is_causal": True}
    if _varlen_takes("enable_gqa"):
        extra["enable_gqa"] = True
    else:
        group = query.shape[2] // key.shape[2]
        key, value = key.repeat_interleave(group, dim=2), value.repeat_interleave(group, dim=2)
    starts, longest = segments
    rows = (query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1))
    attended = varlen_attn(*rows, starts, starts, longest, longest, **extra)
    assert isinstance(attended, Tensor), "varlen_attn returns more than the output only if asked"
    return attended.view(query.shape)


@torch.compiler.assume_constant_result
def _varlen_takes(parameter: str) -> bool:
    from torch.nn.attention.varlen import varlen_attn

    return parameter in inspect.signature(varlen_attn).parameters
