"""The walk: text to shards to weights to codes to artifact to score to report. Each stage reads and writes files.

A stage is skipped when ``resume`` is on and its output is there, so an interrupted run continues where it stopped.
"""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

import fairway
from fairway.artifact.adapter import records_from_state
from fairway.artifact.budget import ByteBudget, measure
from fairway.artifact.bundle import write_bundle
from fairway.artifact.container import write_artifact
from fairway.artifact.inspect import inspect
from fairway.artifact.records import RawTensor
from fairway.base.errors import DataError, RecipeError
from fairway.base.files import atomic_path, read_json, sha256_file, write_json
from fairway.base.log import logger
from fairway.base.runs import RunFolder
from fairway.base.values import difference, from_dict, to_dict
from fairway.config import ArtifactConfig, PassName, Recipe, ScoreConfig
from fairway.data.build import build_dataset
from fairway.data.dataset import Dataset
from fairway.data.tokenizer import BOS
from fairway.kernels.attention import choose_backend
from fairway.model.gpt import GPT
from fairway.quant.hessian import collect_hessians
from fairway.quant.plan import Plan, make_plan
from fairway.quant.quantize import quantize_state
from fairway.quant.types import QuantizedState
from fairway.report.page import write_report
from fairway.score.generate import Sampling, sample
from fairway.score.ledger import Ledger
from fairway.score.load import TOKENIZER_RECORD, PackedModel, load_packed, place
from fairway.score.passes import run_pass, select_text
from fairway.score.result import PassResult, score_document, summarise, write_result
from fairway.train.batches import calibration_batches
from fairway.train.clock import Clock
from fairway.train.distributed import Ranks, start_ranks
from fairway.train.interrupt import StopRequest, stop_on_signals
from fairway.train.loop import Training, train
from fairway.train.machine import Machine, choose
from fairway.train.metrics import Metrics
from fairway.train.state import load_state

EMBEDDED_VAL_DOCUMENTS = 40
"""Files of the standard library that are held out: about 5 % of them, enough text for a steady figure."""

SAMPLE_PROMPTS = ("", "The ", "def ")


@dataclass(frozen=True)
class Walk:
    """What every stage of one run shares."""

    recipe: Recipe
    folder: RunFolder
    dataset: Dataset
    machine: Machine
    ranks: Ranks
    clock: Clock
    stop: StopRequest


def run(recipe: Recipe, *, data: Path | None, out: Path, resume: bool, overwrite: bool) -> dict[str, Any]:
    """The whole walk; returns the content of ``score.json`` (on rank 0; empty elsewhere).

    Args:
        recipe: What to do.
        data: Folder made by ``fairway data build`` or ``fetch``; None builds one from the standard library's source.
        out: Run folder.
        resume: Continue an interrupted run in ``out``.
        overwrite: Discard an earlier run in ``out``.
    """
    with open_walk(recipe, data=data, out=out, resume=resume, overwrite=overwrite) as walk:
        train_stage(walk, resume=resume)
        pack_stage(walk, resume=resume)
        document = score_stage(walk)
        if walk.ranks.leads:
            sample_stage(walk)
            write_report(walk.folder.root)
        return document


@contextmanager
def open_walk(recipe: Recipe, *, data: Path | None, out: Path, resume: bool, overwrite: bool = False) -> Iterator[Walk]:
    """Prepare folder, data, machine, ranks and clock; check that they fit together before any work begins."""
    folder = RunFolder(out)
    machine = choose(recipe.machine)
    with start_ranks(machine.device.type) as ranks, stop_on_signals() as stop:
        if ranks.leads:
            _prepare_folder(folder, recipe, resume=resume, overwrite=overwrite)
            data = data or _embedded_data(recipe, out)
        ranks.barrier()
        dataset = Dataset.open(data or out / "data")
        dataset.check_vocabulary(recipe.model.vocab_size)
        clock = Clock(settle=machine.settle)
        if resume and folder.clock.exists():
            clock.restore(read_json(folder.clock))
        for subject, reason in machine.reasons.items():
            logger.info(f"{subject} {reason}")
        if ranks.leads:
            write_json(folder.recipe, to_dict(recipe))
            write_json(folder.environment, _environment(machine, dataset))
        yield Walk(recipe, folder, dataset, machine, ranks, clock, stop)


def train_stage(walk: Walk, *, resume: bool) -> None:
    """Train and write the averaged weights."""
    folder = walk.folder
    if resume and folder.weights.exists():
        logger.info(f"{folder.weights} is there; training is not repeated")
        return
    saved = resume and folder.state.exists()
    keep = load_state(folder.state).numbers["metrics_bytes"] if saved else 0
    text = select_text(walk.dataset.validation(), replace(walk.recipe.score, max_tokens=walk.recipe.score.max_tokens or 65536))

    def validate(model: GPT) -> tuple[float, float]:
        result = summarise(run_pass("plain", model, text, walk.recipe.score, ranks=walk.ranks), 0.0)
        return result.nats_per_token, result.bits_per_byte

    with (
        Metrics(folder.metrics, leads=walk.ranks.leads, keep=keep) as metrics,
        tqdm(total=1.0, desc="train", bar_format="{l_bar}{bar}| {elapsed}<{remaining}", disable=None) as bar,
    ):
        if not saved:
            parameters = sum(parameter.numel() for parameter in GPT(walk.recipe.model).parameters())
            metrics.event("start", seconds=0.0, parameters=parameters, recipe=walk.recipe.name, seed=walk.recipe.seed)
        learner = train(
            Training(
                recipe=walk.recipe,
                dataset=walk.dataset,
                machine=walk.machine,
                ranks=walk.ranks,
                clock=walk.clock,
                metrics=metrics,
                state_path=folder.state,
                stop=walk.stop,
                validate=validate,
                bar=bar,
            ),
            resume=saved,
        )
        for name, phase in walk.clock.phases.items():
            metrics.event("phase", name=name, seconds=phase.seconds, counted=phase.counted)
    if walk.ranks.leads:
        state = {name: tensor.cpu().contiguous() for name, tensor in learner.average.averaged_state().items()}
        with atomic_path(folder.weights) as partial:
            save_file(state, partial, metadata={"steps": str(learner.step)})
        write_json(folder.clock, walk.clock.to_dict())
        folder.state.unlink(missing_ok=True)
    walk.ranks.barrier()


def pack_stage(walk: Walk, *, resume: bool = False) -> None:
    """Calibrate on training data, quantize, and write the artifact, the packed source and the table of tensors."""
    recipe, folder, clock = walk.recipe, walk.folder, walk.clock
    if resume and folder.artifact.exists() and folder.code.exists():
        logger.info(f"{folder.artifact} is there; packing is not repeated")
        return
    weights = load_weights(folder.weights)
    model = GPT(recipe.model)
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    place(model, walk.machine, embedding_bfloat16=recipe.optim.embedding_bfloat16)
    plan = make_plan(weights, recipe.quant)
    with clock.phase("hessian", counted=True):
        batches = calibration_batches(
            walk.dataset, recipe.train, recipe.quant.calibration_batches, walk.ranks, walk.machine.device
        )
        hessians = collect_hessians(model, batches, recurrent=True, reduce=walk.ranks.sum_)
    if walk.ranks.leads:
        with clock.phase("quantize", counted=False):
            quantized = quantize_state({name: tensor.float() for name, tensor in weights.items()}, plan, hessians)
        with clock.phase("pack", counted=False):
            records = records_from_state(quantized)
            if recipe.artifact.embed_tokenizer:
                records[TOKENIZER_RECORD] = RawTensor(np.frombuffer(walk.dataset.tokenizer.model, dtype=np.uint8))
            write_artifact(folder.artifact, records, _header(walk))
            write_bundle(folder.code)
        write_json(folder.tensors, _tensor_table(folder.artifact, plan, quantized))
        write_json(folder.clock, clock.to_dict())
    walk.ranks.barrier()


def score_stage(walk: Walk) -> dict[str, Any]:
    """Score the artifact with the recipe's passes; the float pass reads the weights before quantization."""
    with walk.clock.phase("load", counted=True):
        packed = load_packed(walk.folder.artifact)
    return score_packed(packed, walk, walk.recipe.score)


def score_packed(packed: PackedModel, walk: Walk, config: ScoreConfig) -> dict[str, Any]:
    """Run the passes of ``config``, each on a fresh network, and write ``score.json`` and ``ledger.npz``."""
    packed.require_tokenizer(walk.dataset.tokenizer.sha256, str(walk.dataset.folder))
    stream = walk.dataset.validation()
    text = select_text(stream, config)
    ledgers: dict[PassName, Ledger] = {}
    results: dict[PassName, PassResult] = {}
    for name in config.passes:
        if name == "float" and not walk.folder.weights.exists():
            logger.info("no weights before quantization are there; the float pass is left out")
            continue
        # Only the pass that gives the result counts; the others are there to be compared with it.
        with walk.clock.phase(name, counted=name == config.passes[-1]):
            before = walk.clock.seconds(name)
            model = _float_model(walk) if name == "float" else packed.build(walk.machine)
            with tqdm(total=text.targets, desc=name, unit="token", unit_scale=True, disable=None) as bar:
                ledgers[name] = run_pass(name, model, text, config, ranks=walk.ranks, progress=partial(_show, bar))
            walk.machine.settle()
            results[name] = summarise(ledgers[name], walk.clock.seconds(name) - before)
        logger.info(f"{name}: bits/byte={results[name].bits_per_byte:.5f} seconds={results[name].seconds:.1f}")
    if not walk.ranks.leads:
        return {}
    budget = measure(packed.path, walk.folder.code, walk.recipe.artifact.byte_cap, walk.recipe.quant)
    document = score_document(
        results,
        text,
        artifact_bytes=budget.artifact_bytes,
        code_bytes=budget.code_bytes,
        byte_cap=budget.cap,
        clock=walk.clock.to_dict(),
        seed=packed.header["seed"],
        recipe=packed.header["recipe"],
        data_fingerprint=walk.dataset.fingerprint,
        byte_rule=stream.byte_rule,
    )
    write_result(walk.folder.root, document, ledgers, text, config.context)
    return document


def score_file(packed: PackedModel, recipe: Recipe, *, data: Path, run: RunFolder, out: Path) -> dict[str, Any]:
    """Score an artifact that may have no run folder: text, artifact and source are all it needs.

    Args:
        packed: The artifact.
        recipe: Scoring and machine settings; the rest describes the artifact.
        data: Folder with the validation text.
        run: The artifact's run folder, for its weights before quantization and its clock.
        out: Folder for the result.
    """
    machine = choose(recipe.machine)
    with start_ranks(machine.device.type) as ranks, stop_on_signals() as stop:
        clock = Clock(settle=machine.settle)
        if run.clock.exists():
            clock.restore(read_json(run.clock))
        target = RunFolder(out)
        if ranks.leads and not target.code.exists():
            write_bundle(target.code)
        if ranks.leads and not target.recipe.exists():
            write_json(target.recipe, to_dict(recipe))
        ranks.barrier()
        walk = Walk(recipe, target, Dataset.open(data), machine, ranks, clock, stop)
        return score_packed(packed, walk, recipe.score)


def recipe_of(packed: PackedModel, folder: RunFolder) -> Recipe:
    """The recipe of the artifact's run, or what the artifact itself says about it."""
    if folder.recipe.exists():
        return open_recipe(folder)
    header = packed.header
    return Recipe(
        name=header["recipe"],
        summary="described by its artifact alone",
        seed=header["seed"],
        model=packed.model,
        score=packed.score,
        artifact=ArtifactConfig(byte_cap=header["byte_cap"]),
    )


def sample_stage(walk: Walk) -> None:
    """Let the packed model write a little text."""
    model = load_packed(walk.folder.artifact).build(walk.machine)
    tokenizer = walk.dataset.tokenizer
    samples = []
    for prompt in SAMPLE_PROMPTS:
        ids = [BOS, *tokenizer.encode(prompt).tolist()]
        written = sample(model, ids, Sampling(tokens=120), context=walk.recipe.score.context, stop=BOS)
        samples.append({"prompt": prompt, "text": tokenizer.decode(written)})
    write_json(walk.folder.samples, samples)


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Averaged weights of a run.

    Raises:
        DataError: the file is missing.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist; train the run first with fairway train")
    return load_file(path)


def byte_budget(folder: RunFolder, recipe: Recipe) -> ByteBudget:
    """Bytes of the artifact and the packed source on disk, against the recipe's cap."""
    return measure(folder.artifact, folder.code, recipe.artifact.byte_cap, recipe.quant)


def open_recipe(folder: RunFolder) -> Recipe:
    """The recipe that a run folder was made with."""
    return from_dict(Recipe, read_json(folder.recipe))


def _show(bar: "tqdm[Any]", done: int) -> None:
    bar.update(done - bar.n)


def _float_model(walk: Walk) -> GPT:
    model = GPT(walk.recipe.model)
    model.load_state_dict({name: tensor.float() for name, tensor in load_weights(walk.folder.weights).items()})
    return place(model, walk.machine, embedding_bfloat16=walk.recipe.optim.embedding_bfloat16)


def _prepare_folder(folder: RunFolder, recipe: Recipe, *, resume: bool, overwrite: bool) -> None:
    """Refuse to mix two runs in one folder."""
    if not folder.recipe.exists():
        if resume:
            raise DataError(f"{folder.root} holds no run to resume; start without --resume")
        return
    if resume:
        changed = [
            f"{now.path}={now.value!r} (was {then.value!r})"
            for then, now in difference(open_recipe(folder), recipe)
            if not now.path.startswith("machine.")
        ]
        if changed:
            raise RecipeError(f"--resume needs the settings of {folder.recipe}, but {', '.join(changed)}")
        return
    if not overwrite:
        raise DataError(f"{folder.root} already holds a run; use --resume to continue it or --overwrite to discard it")
    results = (
        folder.metrics, folder.clock, folder.state, folder.weights, folder.artifact, folder.code,
        folder.tensors, folder.score, folder.ledger, folder.samples, folder.report,
    )  # fmt: skip
    for path in results:
        path.unlink(missing_ok=True)


def _embedded_data(recipe: Recipe, out: Path) -> Path:
    """Data that every machine has: the source text of the running Python's standard library."""
    folder = out / "data"
    if not (folder / "manifest.json").exists():
        build_dataset(["python-stdlib"], folder, vocab_size=recipe.model.vocab_size, val_documents=EMBEDDED_VAL_DOCUMENTS)
    return folder


def _environment(machine: Machine, dataset: Dataset) -> dict[str, Any]:
    backend = choose_backend(machine.device, machine.activations)
    return {
        "versions": {"fairway": fairway.__version__, "python": platform.python_version(), "torch": torch.__version__},
        "device": str(machine.device),
        "choices": machine.reasons,
        "attention": f"{backend.name}: {backend.reason}",
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "host_cpus": os.cpu_count(),
        "data": str(dataset.folder.resolve()),
        "data_fingerprint": dataset.fingerprint,
    }


def _tensor_table(artifact: Path, plan: Plan, quantized: QuantizedState) -> list[dict[str, Any]]:
    """Bits, bytes and error of every tensor: what quantization did to it and what the file spends on it."""
    lines = {line.name: line for line in inspect(artifact).tensors}
    return [
        {
            "name": report.name,
            "role": plan.roles[report.name],
            "shape": list(report.shape),
            "bits": report.bits,
            "scheme": report.method,
            "entropy_bits": report.entropy_bits,
            "coded_bits": lines[report.name].coded,
            "bytes": round(lines[report.name].code_bytes + lines[report.name].scale_bytes),
            "rms_error": report.rms_error,
            "hessian_error": report.hessian_error,
        }
        for report in quantized.reports
    ]


def _header(walk: Walk) -> dict[str, Any]:
    recipe = walk.recipe
    return {
        "fairway": fairway.__version__,
        "recipe": recipe.name,
        "seed": recipe.seed,
        "model": to_dict(recipe.model),
        "quant": to_dict(recipe.quant),
        "score": to_dict(recipe.score),
        "embedding_bfloat16": recipe.optim.embedding_bfloat16,
        "byte_cap": recipe.artifact.byte_cap,
        "tokenizer_sha256": walk.dataset.tokenizer.sha256,
        "data_fingerprint": walk.dataset.fingerprint,
        "weights_sha256": sha256_file(walk.folder.weights),
    }
