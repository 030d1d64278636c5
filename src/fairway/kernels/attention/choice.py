"""What each attention back end needs, which one runs on a machine, and why the others do not."""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from fairway.base.errors import MachineError
from fairway.kernels.attention.facts import Facts, look
from fairway.kernels.attention.flash import flash3_attention, flash4_attention, varlen_attention
from fairway.kernels.attention.flex import flex_attention
from fairway.kernels.attention.plain import plain_causal_attention
from fairway.kernels.attention.sdpa import flash_sdpa, grouped_sdpa, repeated_sdpa
from fairway.kernels.attention.segments import AttentionFunction, Segments

HALF = (torch.bfloat16, torch.float16)


class Task(NamedTuple):
    """What is to be attended."""

    dtype: torch.dtype
    segments: bool
    """Whether rows are packed, with attention inside segments only."""
    channels: int
    """Width of a head."""


class Backend(NamedTuple):
    """One way to compute attention."""

    setting: str
    """Value of ``machine.attention`` that asks for it."""
    reason: str
    """Why it is taken where it is."""
    missing: Callable[[Facts, Task], str]
    """What keeps it from running; empty if nothing does."""
    function: AttentionFunction


class Choice(NamedTuple):
    """The back end that runs, and why."""

    name: str
    reason: str
    function: AttentionFunction
    passed_over: dict[str, str]
    """Why each back end before it in the order of preference does not run here."""


def _no_flash_kernel(facts: Facts, task: Task, majors: tuple[int, ...] = (), widest: int = 256) -> str:
    """What keeps a flash kernel from running; ``majors`` are its compute capabilities, empty for 8 and newer."""
    if facts.capability is None:
        return f"needs an NVIDIA GPU; the device is {facts.device}"
    if facts.capability[0] not in majors if majors else facts.capability[0] < 8:
        needed = " or ".join(f"{major}.x" for major in majors) if majors else "8.0 or newer"
        return f"needs compute capability {needed}; this GPU has {facts.capability[0]}.{facts.capability[1]}"
    if task.dtype not in HALF:
        return f"needs 16-bit activations; these are {_name(task.dtype)}"
    if task.channels % 8 or task.channels > widest:
        return f"needs heads with a multiple of 8 channels, at most {widest}; these have {task.channels}"
    return ""


def _no_flash3(facts: Facts, task: Task) -> str:
    return _no_flash_kernel(facts, task, majors=(9,)) or facts.faults["FA3"]


def _no_flash4(facts: Facts, task: Task) -> str:
    return _no_flash_kernel(facts, task, majors=(9, 10), widest=128) or facts.faults["FA4"]


def _no_flex(facts: Facts, task: Task) -> str:
    if facts.device == "cpu":
        return "has no backward pass on a CPU"
    if facts.device != "cuda" or not facts.triton:
        return f"needs a GPU and Triton; the device is {facts.device}, Triton is {'' if facts.triton else 'not '}installed"
    if task.dtype not in (*HALF, torch.float32):
        return f"needs activations of 16 or 32 bits; these are {_name(task.dtype)}"
    return "" if task.channels >= 16 else f"needs heads with 16 channels or more; these have {task.channels}"


def _no_flash_sdpa(facts: Facts, task: Task) -> str:
    return "flash kernels take no mask, which segments need" if task.segments else _no_flash_kernel(facts, task)


def _no_cpu_sdpa(facts: Facts, _task: Task) -> str:
    return "the GPU has kernels of its own" if facts.device == "cuda" else ""


BACKENDS: dict[str, Backend] = {
    "flash3": Backend("flash3", "FlashAttention 3, made for Hopper GPUs (not measured here)", _no_flash3, flash3_attention),
    "flash4": Backend(
        "flash4", "FlashAttention 4, made for Blackwell and Hopper GPUs (not measured here)", _no_flash4, flash4_attention
    ),
    "varlen": Backend(
        "varlen",
        "torch's variable-length flash kernel attends inside segments without a mask (not measured here)",
        _no_flash_kernel,
        varlen_attention,
    ),
    "sdpa-cpu": Backend(
        "sdpa",
        "torch's blocked CPU kernel; it reads grouped heads in place, measured 5 to 8 % faster than repeating them",
        _no_cpu_sdpa,
        grouped_sdpa,
    ),
    "sdpa-flash": Backend(
        "sdpa", "16-bit activations on an NVIDIA GPU with compute capability 8.0 or newer", _no_flash_sdpa, flash_sdpa
    ),
    "flex": Backend("flex", "FlexAttention skips the blocks that the mask hides (not measured here)", _no_flex, flex_attention),
    "sdpa-efficient": Backend(
        "sdpa",
        "runs with every GPU, dtype and mask; flash kernels need 16 bits, capability 8.0 and no mask; heads are repeated",
        lambda _facts, _task: "",
        repeated_sdpa,
    ),
    "plain": Backend("plain", "attention written out, for comparison", lambda _facts, _task: "", plain_causal_attention),
}
"""Every back end, in the order in which segments prefer them."""

DENSE = ("flash3", "flash4", "sdpa-flash", "sdpa-cpu", "sdpa-efficient")
"""Order of preference for dense rows: a variable-length kernel and FlexAttention gain nothing there."""
PACKED = ("flash3", "flash4", "varlen", "sdpa-cpu", "flex", "sdpa-efficient")
"""Order of preference for segments. Where FlashAttention 3 runs, on Hopper, it comes before FlashAttention 4."""


def choose(
    device: torch.device,
    dtype: torch.dtype,
    wanted: str = "auto",
    *,
    segments: bool = False,
    channels: int = 64,
    facts: Facts | None = None,
) -> Choice:
    """The attention back end for activations of ``dtype`` on ``device``.

    Args:
        device: Where the activations are.
        dtype: Type of the activations.
        wanted: Value of ``machine.attention``; ``auto`` takes the first of the order of preference that runs.
        segments: Whether rows are packed, with attention inside segments only.
        channels: Width of a head.
        facts: What the machine offers; None looks.

    Raises:
        MachineError: the wanted back end does not run here; says what is missing and what would run.
    """
    facts, task = facts or look(device), Task(dtype, segments, channels)
    order = PACKED if segments else DENSE
    names = order if wanted == "auto" else tuple(name for name, backend in BACKENDS.items() if backend.setting == wanted)
    assert names, f"machine.attention={wanted} is no back end"
    passed_over: dict[str, str] = {}
    for name in names:
        backend = BACKENDS[name]
        if missing := backend.missing(facts, task):
            passed_over[name] = missing
            continue
        asked = "" if wanted == "auto" else "asked for; "
        return Choice(name, asked + backend.reason, backend.function, passed_over)
    best = choose(device, dtype, segments=segments, channels=channels, facts=facts).name
    why = "; ".join(f"{name} {missing}" for name, missing in passed_over.items())
    raise MachineError(f"machine.attention={wanted} does not run: {why}; use --machine.attention auto, which takes {best} here")


def survey(facts: Facts, task: Task) -> dict[str, str]:
    """What keeps each back end from running a task; empty for those that run."""
    return {name: backend.missing(facts, task) for name, backend in BACKENDS.items()}


def causal_attention(
    query: Float[Tensor, "batch time query_heads channels"],
    key: Float[Tensor, "batch time kv_heads channels"],
    value: Float[Tensor, "batch time kv_heads channels"],
    segments: Segments | None = None,
    *,
    wanted: str = "auto",
) -> Float[Tensor, "batch time query_heads channels"]:
    """``softmax(q k / sqrt(channels)) v`` over each position and those before it, by the back end that ``choose`` names.

    Args:
        query: Queries; query head h uses key and value head ``h // (query_heads / kv_heads)``.
        key: Keys.
        value: Values.
        segments: Segments of one packed row (batch 1): a position sees those before it in its own segment only.
        wanted: Value of ``machine.attention``.

    Raises:
        MachineError: the wanted back end does not run here.
    """
    assert segments is None or query.shape[0] == 1, f"segments belong to one packed row; the batch has {query.shape[0]}"
    name = _chosen_name(wanted, query.device, query.dtype, segments is not None, query.shape[3])
    return BACKENDS[name].function(query, key, value, segments)


# A look at the machine cannot be traced; for a compiled graph its answer is a constant.
@torch.compiler.assume_constant_result
def _chosen_name(wanted: str, device: torch.device, dtype: torch.dtype, segments: bool, channels: int) -> str:
    return _remembered_name(wanted, device, dtype, segments, channels)


@lru_cache(maxsize=64)
def _remembered_name(wanted: str, device: torch.device, dtype: torch.dtype, segments: bool, channels: int) -> str:
    return choose(device, dtype, wanted, segments=segments, channels=channels).name


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
