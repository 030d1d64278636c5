"""What the machine offers and what a run will use of it, with the reason for each automatic choice."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from fairway.base.errors import MachineError
from fairway.config import MachineConfig
from fairway.kernels import attention, fused


@dataclass(frozen=True)
class Machine:
    """Resolved choices of a run."""

    device: torch.device
    activations: torch.dtype
    """Type of activations; master weights are float32."""
    compile: bool
    reasons: dict[str, str]
    """Why each choice was made, for logs and ``fairway doctor``."""
    attention: str = "auto"
    """The attention back end that was asked for; what runs depends on the rows too (``fairway.kernels.attention``)."""
    attention_passed_over: dict[str, str] = field(default_factory=dict)
    """Why each attention back end that would have come first does not run on dense rows here."""
    fused_kernels: bool = False
    """Whether training takes the fused kernels of loss and MLP."""

    def settle(self) -> None:
        """Wait until the device has done all queued work, so that a clock read afterwards is true."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def peak_memory_bytes(self) -> int:
        """Largest GPU memory that tensors held so far; 0 on a CPU."""
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else 0


def choose(config: MachineConfig, *, head_width: int = 64) -> Machine:
    """Resolve ``auto`` settings and prepare torch: device, types, threads, attention, matrix-product precision.

    Args:
        config: What was asked for.
        head_width: Channels of an attention head, on which the attention back end depends.

    Raises:
        MachineError: a GPU is asked for and none is there, or kernels that do not run here.
    """
    has_cuda = torch.cuda.is_available()
    if config.device == "cuda" and not has_cuda:
        built = torch.version.cuda
        why = f"torch is built for CUDA {built} but finds no GPU" if built else "this build of torch is for CPUs only"
        raise MachineError(
            f"machine.device=cuda but {why}; install a CUDA build of torch and a driver, or use --machine.device cpu"
        )
    cuda = has_cuda if config.device == "auto" else config.device == "cuda"
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    asked = config.device != "auto"
    reasons = {"device": f"{device}: " + ("asked for" if asked else "a CUDA GPU is here" if cuda else "no CUDA GPU is here")}
    half = cuda if config.precision == "auto" else config.precision == "bfloat16"
    activations = torch.bfloat16 if half else torch.float32
    asked = config.precision != "auto"
    fits = "GPUs multiply bfloat16 fastest" if cuda else "CPUs run float32 at full speed"
    reasons["precision"] = f"{str(activations).removeprefix('torch.')}: " + ("asked for" if asked else fits)
    compiled = cuda if config.compile == "auto" else config.compile == "on"
    asked = config.compile != "auto"
    pays = "pays back within a minute on a GPU" if cuda else "short CPU runs would not pay back the compile time"
    reasons["compile"] = f"{'on' if compiled else 'off'}: " + ("asked for" if asked else pays)
    if config.threads:
        torch.set_num_threads(config.threads)
    reasons["threads"] = f"{torch.get_num_threads()}: " + ("asked for" if config.threads else "torch's choice")
    chosen = attention.choose(device, activations, config.attention, channels=head_width)
    reasons["attention"] = f"{chosen.name}: {chosen.reason}"
    fuse, reasons["kernels"] = _fused(config.fused_kernels, device, activations)
    if cuda:
        torch.set_float32_matmul_precision("high")
    return Machine(device, activations, compiled, reasons, config.attention, chosen.passed_over, fuse)


def _fused(wanted: str, device: torch.device, activations: torch.dtype) -> tuple[bool, str]:
    """Whether the fused kernels are taken, and why.

    Raises:
        MachineError: they are asked for and do not run here.
    """
    missing = fused.missing(attention.look(device), activations)
    if wanted == "on" and missing:
        raise MachineError(
            f"machine.fused_kernels=on does not run: {missing}; "
            "use --machine.fused_kernels auto, which takes plain operations here"
        )
    if wanted != "auto":
        return wanted == "on", f"{'fused' if wanted == 'on' else 'plain'}: asked for"
    if missing:
        return False, f"plain: the fused path {missing}"
    # On a CPU Triton interprets its kernels, for tests, far slower than the plain operations.
    cuda = device.type == "cuda"
    return cuda, "fused: Triton and a GPU are here (not measured)" if cuda else "plain: Triton only interprets on a CPU"


@contextmanager
def limited_threads(count: int) -> Iterator[None]:
    """Compute with ``count`` CPU threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
