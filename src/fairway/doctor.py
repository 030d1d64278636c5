"""``fairway doctor``: what is installed, what a run would use and why, and what to type for whatever is missing."""

import importlib.metadata
import os
import platform
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from fairway.base.libraries import RUNTIME
from fairway.config import MachineConfig

State = Literal["ok", "note", "missing"]

LIBRARIES: dict[str, tuple[str, str]] = {
    "torch": ("everything", "pip install torch"),
    "numpy": ("everything", "pip install numpy"),
    "sentencepiece": ("tokenizers", "pip install sentencepiece"),
    "constriction": ("entropy coding", "pip install 'constriction>=0.5,<0.6'"),
    "brotli": ("compression of side data", "pip install brotli"),
    "safetensors": ("weights on disk", "pip install safetensors"),
    "huggingface-hub": ("fairway data fetch", "pip install huggingface-hub"),
    "tyro": ("the command line", "pip install tyro"),
    "tqdm": ("progress bars", "pip install tqdm"),
    "jaxtyping": ("array types", "pip install jaxtyping"),
    "matplotlib": ("fairway report", "pip install 'fairway[report]'"),
    "jinja2": ("fairway report", "pip install 'fairway[report]'"),
    "scipy": ("checks of the statistics", "pip install 'fairway[audit]'"),
    "pyarrow": ("parquet input", "pip install 'fairway[data]'"),
    "zstandard": (".zst input", "pip install 'fairway[data]'"),
}


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    subject: str
    state: State
    found: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Look at the machine and the installation; changes nothing and needs no network."""
    return [_python(), *_libraries(), *_hardware(), _compiler(), _disk(Path.cwd())]


def findings_to_dict(findings: list[Finding]) -> dict[str, Any]:
    """As one JSON document."""
    return {"ready": all(item.state != "missing" for item in findings), "findings": [asdict(item) for item in findings]}


def _python() -> Finding:
    return Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _libraries() -> list[Finding]:
    findings = []
    for name, (purpose, remedy) in LIBRARIES.items():
        try:
            findings.append(Finding(name, "ok", f"{importlib.metadata.version(name)} ({purpose})"))
        except importlib.metadata.PackageNotFoundError:
            state: State = "missing" if name in RUNTIME else "note"
            findings.append(Finding(name, state, f"not installed; needed for {purpose}", remedy))
    return findings


def _hardware() -> list[Finding]:
    try:
        import torch

        from fairway.kernels.attention import Task, look, survey
        from fairway.kernels.attention import choose as choose_attention
        from fairway.train.machine import choose
    except ImportError as error:
        return [Finding("torch", "missing", str(error), LIBRARIES["torch"][1])]
    machine = choose(MachineConfig())
    findings = [Finding(name, "ok", reason) for name, reason in machine.reasons.items()]
    packed = choose_attention(machine.device, machine.activations, segments=True)
    findings.append(Finding("attention in segments", "ok", f"{packed.name}: {packed.reason}"))
    missing = survey(look(machine.device), Task(machine.activations, segments=False, channels=64))
    findings += [Finding(f"attention {name}", "note" if why else "ok", why or "runs here") for name, why in missing.items()]
    if machine.device.type == "cuda":
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            findings.append(Finding(f"gpu {index}", "ok", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"))
    else:
        built = f"torch {torch.__version__} is built " + (
            f"for CUDA {torch.version.cuda}" if torch.version.cuda else "for CPUs"
        )
        remedy = "the full-size recipes need a CUDA GPU; tiny, small and every proxy run on this CPU"
        findings.append(Finding("gpu", "note", f"none; {built}", remedy))
    world = os.environ.get("WORLD_SIZE", "1")
    findings.append(Finding("ranks", "ok", f"{world}; more with: torchrun --nproc-per-node N -m fairway run ..."))
    return findings


def _compiler() -> Finding:
    for name in ("cc", "gcc", "clang"):
        if path := shutil.which(name):
            return Finding("c compiler", "ok", f"{path} (native n-gram scan, torch.compile on CPU)")
    return Finding(
        "c compiler",
        "note",
        "none found; the n-gram scan runs in Python, 100 times slower, and --machine.compile on fails",
        "apt-get install gcc",
    )


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free / 1e9
    enough = free > 2
    return Finding(
        "disk", "ok" if enough else "note", f"{free:.1f} GB free under {folder}", "" if enough else "a run needs up to 2 GB"
    )
