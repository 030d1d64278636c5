"""A run folder with believable figures, made by a seeded generator: what the report's tests read."""

import json
import math
from pathlib import Path

import numpy as np

from fairway.audit.accounting import SHEET as BYTES
from fairway.audit.caps import CLOCK, SIZE
from fairway.audit.ledger import AGAIN, LEDGER
from fairway.audit.run import CATALOGUE, audit_document
from fairway.audit.runner import Outcome
from fairway.base.values import to_dict
from fairway.recipes import recipe
from fairway.record.claim import SHEET as CLAIM

HOSTILE = (
    "</pre><script>alert(1)</script><img src=x onerror=alert(2)> & \"quoted\" 'single' "
    "\x00\x07\x1b[31m \x7f\x85 \u202e \ud800 \ufffe {{ 7 * 7 }} $x_1$"
)
FILES = (
    *("environment.json", "metrics.jsonl", "score.json", "ledger.npz", "tensors.json", "samples.json", "proof.json"),
    "audit.json",
)
PASSES = ("float", "plain", "sliding", "adapted")


def make_run(
    folder: Path,
    *,
    name: str = "tiny",
    seed: int = 0,
    files: tuple[str, ...] = FILES,
    passes: tuple[str, ...] = PASSES,
    targets: int = 65536,
    documents: int = 140,
    steps: int = 860,
    byte_cap: int | None = None,
) -> Path:
    """Write ``recipe.json`` and the named files into ``folder``; equal arguments give equal files."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    chosen = recipe(name)
    write(folder / "recipe.json", to_dict(chosen))
    context, stride = chosen.score.context, chosen.score.stride
    ledger = make_ledger(random, passes, targets, documents, context, stride)
    tensors = make_tensors(random, chosen)
    if "environment.json" in files:
        write(folder / "environment.json", make_environment())
    if "metrics.jsonl" in files:
        events = make_events(random, chosen, steps)
        (folder / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events), "utf-8")
    if "ledger.npz" in files:
        np.savez(folder / "ledger.npz", **ledger)
    if "tensors.json" in files:
        write(folder / "tensors.json", tensors)
    if "score.json" in files:
        cap = byte_cap or chosen.artifact.byte_cap
        write(folder / "score.json", make_score(ledger, tensors, chosen, passes, cap))
    if "samples.json" in files:
        write(folder / "samples.json", make_samples())
    if "proof.json" in files:
        write(folder / "proof.json", make_proof())
    if "audit.json" in files:
        write(folder / "audit.json", make_audit(pass_name=passes[-1]))
    return folder


def write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1), "utf-8")


def make_environment() -> dict:
    return {
        "versions": {"fairway": "0.1.0", "python": "3.11.9", "torch": "2.13.0+cpu", "numpy": "2.4.6"},
        "device": "cpu (2 cores)",
        "attention": "scaled_dot_product",
        "started": "2026-11-21T01:30:00+00:00",
        "host_cpus": 2,
        "source_sha256": "5f1c" * 16,
    }


def train_seconds(chosen) -> float:
    return chosen.train.budget - chosen.train.reserve_seconds


def make_events(random: np.random.Generator, chosen, steps: int) -> list[dict]:
    batch, limit, begins = chosen.train.batch_tokens, train_seconds(chosen), chosen.model.recurrence.begins_at
    log_every, check_every = chosen.train.log_every, chosen.train.validate_every or 100
    durations = np.where(np.arange(steps) < begins * steps * 1.25, 1.0, 1.55) * random.normal(1.0, 0.02, steps)
    seconds = np.cumsum(durations) / durations.sum() * limit * 1.0007
    events: list[dict] = [{"event": "phase", "name": "compile", "seconds": 0.0, "counted": False}]
    events.append({"event": "phase", "name": "warmup", "seconds": 1.9, "counted": False})
    events.append({"event": "start", "seconds": 0.0, "parameters": 871_440, "recipe": chosen.name, "seed": chosen.seed})
    floor = 2.55
    for step in range(1, steps + 1):
        progress = min(1.0, float(seconds[step - 1]) / limit)
        rate = min(1.0, (1.0 - progress) / chosen.optim.warmdown)
        clean = floor + (math.log(chosen.model.vocab_size) - floor) * (1 + step / 6) ** -0.55 + 0.25 * rate
        common = {"step": step, "tokens": step * batch, "seconds": float(seconds[step - 1])}
        if step <= 5 or step % log_every == 0:
            ramp = min(1.0, step / max(1, chosen.optim.matrices.momentum_ramp_steps))
            start, end = chosen.optim.matrices.momentum_start, chosen.optim.matrices.momentum
            events.append(
                {"event": "train", **common, "progress": progress, "loss": clean + random.normal(0, 0.035)}
                | {"learning_rate": rate, "momentum": start + (end - start) * ramp, "recurrent": progress >= begins}
                | {"gradient_norm": 0.25 + random.exponential(0.06)}
                | {"tokens_per_second": batch / durations[step - 1] / limit * durations.sum()}
            )
        if step % check_every == 0 or step == steps:
            nats = clean + 0.03
            events.append({"event": "validation", **common, "nats_per_token": nats, "bits_per_byte": nats / math.log(2) / 2.38})
    stop = {"reason": "budget of 60 seconds reached", "step": steps, "seconds": float(seconds[-1])}
    events.append({"event": "stop", **stop, "peak_memory_bytes": 3 * 2**30})
    events.append({"event": "phase", "name": "train", "seconds": float(seconds[-1]), "counted": True})
    return events


def make_ledger(
    random: np.random.Generator, passes: tuple[str, ...], targets: int, documents: int, context: int, stride: int
) -> dict[str, np.ndarray]:
    starts = np.unique(np.concatenate([[0], random.integers(1, targets, documents - 1)])).astype(np.int64)
    place = np.arange(targets)
    document = np.searchsorted(starts, place, side="right") - 1
    inside = place - starts[document]
    byte_costs = np.minimum(1 + random.poisson(1.4, targets), 16).astype(np.uint16)
    byte_costs[starts[1:] - 1] = 0
    base = 2.6 * random.lognormal(0.0, 0.13, len(starts))[document] * (0.35 + random.exponential(0.65, targets))
    base = base + 0.8 / np.sqrt(1 + inside)
    chunk = place % context
    seen = np.where(place < context, chunk, context - stride + chunk % stride)
    short, long = 1.1 * (1 + chunk) ** -0.6, 1.1 * (1 + seen) ** -0.6
    noise = random.normal(0, 0.02, targets)
    learnt = 0.075 * (1 - np.exp(-place / (0.25 * targets)))
    found = {
        "float": base + short,
        "plain": base + short + 0.02 + noise,
        "sliding": base + long + 0.02 + noise,
        "adapted": base + long + 0.02 + noise - learnt * (0.6 + 0.8 * random.random(targets)),
    }
    arrays = {f"{name}_nll": np.maximum(found[name], 1e-4).astype(np.float32) for name in passes}
    return {**arrays, "bytes": byte_costs, "documents": starts, "context": np.array(context)}


def make_tensors(random: np.random.Generator, chosen) -> list[dict]:
    model = chosen.model
    keys = model.kv_heads * model.head_width
    matrices = {
        "attention.query": (model.width, model.width),
        "attention.key": (keys, model.width),
        "attention.value": (keys, model.width),
        "attention.output": (model.width, model.width),
        "mlp.up": (model.mlp_hidden, model.width),
        "mlp.down": (model.width, model.mlp_hidden),
    }
    records = [
        tensor("embedding.weight", "embedding", (model.vocab_size, model.width), chosen.quant.embedding.bits, 5.9, 0.004)
    ]
    for layer in range(model.layers):
        for index, (name, shape) in enumerate(matrices.items()):
            entropy = 3.3 + 0.09 * index + float(random.normal(0, 0.06))
            error = 0.012 * (1 + 0.25 * index) * float(random.lognormal(0, 0.12))
            records.append(tensor(f"blocks.{layer}.{name}.weight", "matrix", shape, chosen.quant.mlp.bits, entropy, error))
        for name in ("attention_scale", "mlp_scale"):
            records.append(tensor(f"blocks.{layer}.{name}", "control", (model.width,), 16, None, 1e-5))
    records.append(tensor("skips.weight", "control", (model.layers // 2, model.width), 16, None, 1e-5))
    return records


def tensor(name: str, role: str, shape: tuple[int, ...], bits: int, entropy: float | None, error: float) -> dict:
    coded = float(bits) if entropy is None else entropy + 0.03
    scheme = "float16" if entropy is None else f"gptq int{bits}"
    return {
        "name": name,
        "role": role,
        "shape": list(shape),
        "bits": bits,
        "scheme": scheme,
        "entropy_bits": coded if entropy is None else entropy,
        "coded_bits": coded,
        "bytes": math.ceil(math.prod(shape) * coded / 8) + (0 if entropy is None else 2 * shape[0]),
        "rms_error": error,
        "hessian_error": 0.0 if entropy is None else error * 0.6,
    }


def make_score(ledger: dict[str, np.ndarray], tensors: list[dict], chosen, passes: tuple[str, ...], byte_cap: int) -> dict:
    text, tokens = int(ledger["bytes"].sum(dtype=np.int64)), len(ledger["bytes"])
    seconds = {"float": 3.1, "plain": 3.0, "sliding": 11.6, "adapted": 38.4}
    results = {}
    for name in passes:
        nats = float(ledger[f"{name}_nll"].sum(dtype=np.float64))
        results[name] = {
            "bits_per_byte": nats / math.log(2) / text,
            "nats_per_token": nats / tokens,
            "tokens": tokens,
            "bytes": text,
            "nats": nats,
            "seconds": seconds[name],
        }
    clock = {
        "compile": (0.0, False),
        "warmup": (1.9, False),
        "train": (train_seconds(chosen) * 1.0007, True),
        "validate": (6.2, False),
        "hessian": (0.05, True),
        "quantize": (3.4, False),
        "pack": (0.8, False),
        "load": (0.3, False),
        **{name: (seconds[name], name == passes[-1]) for name in passes},
    }
    artifact, code = sum(record["bytes"] for record in tensors) + 1_912, 61_204
    return {
        **{key: value for key, value in results[passes[-1]].items() if key != "seconds"},
        "mode": "strict",
        "predictor": passes[-1],
        "pass": passes[-1],
        "settings": to_dict(chosen.score),
        "artifact_bytes": artifact,
        "code_bytes": code,
        "total_bytes": artifact + code,
        "byte_cap": byte_cap,
        "passes": results,
        "clock": {name: {"seconds": value, "counted": counted} for name, (value, counted) in clock.items()},
        "seed": chosen.seed,
        "recipe": chosen.name,
        "data_fingerprint": "sha256:" + "9ab3" * 16,
        "partial": True,
    }


def make_proof() -> dict:
    return {
        "pass_name": "adapted",
        "targets": 4096,
        "text_bytes": 9770,
        "blocks": 4,
        "coded_bytes": 2853,
        "decoded_exactly": 2,
        "coded_bits_per_byte": 2.26325,
        "scored_bits_per_byte": 2.26154,
    }


def make_audit(pass_name: str = "adapted", failing: tuple[str, ...] = (), undecided: tuple[str, ...] = ("W",)) -> dict:
    """What ``fairway audit`` writes when the named tests fail or are left undecided and all others pass."""
    sheets = [CLAIM, BYTES, SIZE, CLOCK, LEDGER, AGAIN, *(test.sheet for test in CATALOGUE)]
    findings = []
    for sheet in sheets:
        verdict = "fail" if sheet.test in failing else "undecided" if sheet.test in undecided else "pass"
        findings.append(sheet.finding(Outcome(verdict, 0.25, 0.0, f"what {sheet.name} came to")))
    return audit_document(f"runs/tiny/model.fwz {pass_name}", findings, seed=0, budget_seconds=150.0)


def make_samples() -> list[dict]:
    story = (
        'def read(self, size=-1):\n        """Read up to size bytes from the object and return them.\n\n'
        "        If the argument is omitted, None, or negative, data is read and\n        returned until EOF is reached.\n"
        '        """\n        return self'
    )
    return [
        {"prompt": "class Reader:\n    ", "text": story},
        {
            "prompt": "The archive ",
            "text": "is opened in the mode of the file, and the name of the member is given as a string.",
        },
        {"prompt": "", "text": HOSTILE},
    ]


if __name__ == "__main__":
    import sys

    make_run(Path(sys.argv[1]))
