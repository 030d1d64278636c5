"""The stages of a run: train, pack, score, sample. Each reads and writes files of the run folder.

A stage is skipped when ``resume`` is on and its output is there, so an interrupted run continues where it stopped.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from tqdm import tqdm

import fairway
from fairway.artifact.adapter import records_from_state
from fairway.artifact.budget import measure
from fairway.artifact.bundle import write_bundle
from fairway.artifact.container import encode, write_artifact
from fairway.artifact.inspect import inspect
from fairway.artifact.records import RawTensor, TensorRecord
from fairway.base.errors import DataError
from fairway.base.files import sha256_file, write_json
from fairway.base.log import logger
from fairway.base.values import to_dict
from fairway.config import PassName, ScoreConfig
from fairway.data.tokenizer import BOS
from fairway.model.gpt import GPT
from fairway.model.summary import summarize
from fairway.quant.allocate import fit_bytes
from fairway.quant.hessian import Hessians, collect_hessians
from fairway.quant.plan import Plan, make_plan
from fairway.quant.quantize import Quantizer
from fairway.quant.sensitivity import collect_sensitivities
from fairway.quant.types import QuantizedState
from fairway.score.compress import checked_pass
from fairway.score.generate import Sampling, sample
from fairway.score.ledger import Ledger
from fairway.score.load import TOKENIZER_RECORD, PackedModel, load_packed, place
from fairway.score.passes import run_pass, select_text
from fairway.score.prove import prove
from fairway.score.result import PassResult, score_document, summarise, write_result
from fairway.train.batches import calibration_batches
from fairway.train.loop import Training, train
from fairway.train.metrics import Metrics
from fairway.train.state import load_state, save_tensors
from fairway.walk import Walk

SAMPLE_PROMPTS = ("", "The ", "def ")

VALIDATION_TOKENS = 65536
"""Targets of a validation during training, where the recipe scores the whole split at the end."""


def train_stage(walk: Walk, *, resume: bool) -> None:
    """Train and write the averaged weights."""
    folder = walk.folder
    if resume and folder.weights.exists():
        logger.info(f"{folder.weights} is there; training is not repeated")
        return
    saved = resume and folder.state.exists()
    keep = load_state(folder.state).numbers["metrics_bytes"] if saved else 0
    text = select_text(
        walk.dataset.validation(), replace(walk.recipe.score, max_tokens=walk.recipe.score.max_tokens or VALIDATION_TOKENS)
    )

    def validate(model: GPT) -> tuple[float, float]:
        result = summarise(run_pass("plain", model, text, walk.recipe.score, ranks=walk.ranks), 0.0)
        return result.nats_per_token, result.bits_per_byte

    with (
        Metrics(folder.metrics, leads=walk.ranks.leads, keep=keep) as metrics,
        tqdm(total=1.0, desc="train", bar_format="{l_bar}{bar}| {elapsed}<{remaining}", disable=None) as bar,
    ):
        if not saved:
            parameters = summarize(walk.recipe).parameters
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
        save_tensors(folder.weights, learner.average.averaged_state(), {"steps": str(learner.step)})
        write_json(folder.clock, walk.clock.to_dict())
        folder.state.unlink(missing_ok=True)
    walk.ranks.barrier()


def pack_stage(walk: Walk, *, resume: bool = False) -> None:
    """Calibrate on training data, quantize, and write the artifact, the packed source and the table of tensors."""
    recipe, folder, clock = walk.recipe, walk.folder, walk.clock
    if resume and folder.artifact.exists() and folder.code.exists():
        logger.info(f"{folder.artifact} is there; packing is not repeated")
        return
    clock.forget("hessian", "quantize", "pack")
    weights = load_weights(folder.weights)
    model = GPT(recipe.model)
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    place(model, walk.machine, embedding_bfloat16=recipe.optim.embedding_bfloat16)
    plan = make_plan(weights, recipe.quant)
    with clock.phase("hessian", counted=True):
        hessians = _calibrate(walk, model)
    if walk.ranks.leads:
        with clock.phase("quantize", counted=False):
            quantized = _quantize(walk, Quantizer({name: tensor.float() for name, tensor in weights.items()}, plan, hessians))
        with clock.phase("pack", counted=False):
            _drop_evidence(walk, "packed anew", artifact=True)
            write_artifact(folder.artifact, _records(walk, quantized), _header(walk))
            write_bundle(folder.code)
        write_json(folder.tensors, _tensor_table(folder.artifact, plan, quantized))
        write_json(folder.clock, clock.to_dict())
    walk.ranks.barrier()


def _calibrate(walk: Walk, model: GPT) -> Hessians:
    """Second moments of all inputs, and where the recipe asks for them the gradients by all outputs."""

    def batches(count: int) -> Iterator[torch.Tensor]:
        return calibration_batches(walk.dataset, walk.recipe.train, count, walk.ranks, walk.machine.device)

    quant = walk.recipe.quant
    hessians = collect_hessians(model, batches(quant.calibration_batches), recurrent=True, reduce=walk.ranks.sum_)
    if quant.sensitivity_batches:
        hessians.sensitivities = collect_sensitivities(
            model, batches(quant.sensitivity_batches), recurrent=True, reduce=walk.ranks.sum_
        )
    return hessians


def _quantize(walk: Walk, quantizer: Quantizer) -> QuantizedState:
    """With the steps of the recipe, or with those that fill its target."""
    target = walk.recipe.quant.target_bytes
    if not target:
        return quantizer.quantize()
    return fit_bytes(quantizer.quantize, lambda state: len(encode(_records(walk, state), _header(walk))), target)


def _records(walk: Walk, quantized: QuantizedState) -> dict[str, TensorRecord]:
    records = records_from_state(quantized)
    if walk.recipe.artifact.embed_tokenizer:
        records[TOKENIZER_RECORD] = RawTensor(np.frombuffer(walk.dataset.tokenizer.model, dtype=np.uint8))
    return records


def load_stage(walk: Walk) -> PackedModel:
    """Read the artifact, which is all that the stages after it know of the model."""
    with walk.clock.phase("load", counted=True):
        return load_packed(walk.folder.artifact)


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
                ledgers[name] = run_pass(
                    name,
                    model,
                    text,
                    config,
                    tokenizer=walk.dataset.tokenizer,
                    ranks=walk.ranks,
                    progress=partial(_show, bar),
                )
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
        settings=config,
    )
    _drop_evidence(walk, "scored anew", artifact=False)
    write_result(walk.folder.root, document, ledgers, text, config.context)
    return document


def _drop_evidence(walk: Walk, why: str, *, artifact: bool) -> None:
    """Proof and audit of an earlier artifact or result must not stand beside a new one."""
    stale = walk.folder.drop_evidence(artifact=artifact)
    if stale:
        logger.info(f"{walk.folder.root} is {why}; removed what spoke of the files before: {', '.join(stale)}")


def prove_stage(packed: PackedModel, walk: Walk) -> None:
    """Code the beginning of the text and let fresh processes decode it, as far as the recipe asks for it."""
    targets = walk.recipe.score.proof_targets
    if not targets:
        return
    with (
        walk.clock.phase("prove", counted=False),
        tqdm(total=targets, desc="encode", unit="token", unit_scale=True, disable=None) as bar,
    ):
        proof = prove(
            packed,
            walk.dataset,
            pass_name=checked_pass(None, packed),
            targets=targets,
            machine=walk.machine,
            keep=walk.folder.coded,
            progress=partial(_show, bar),
        )
    write_json(walk.folder.proof, proof.to_dict())


def sample_stage(packed: PackedModel, walk: Walk) -> None:
    """Let the packed model write a little text."""
    model = packed.build(walk.machine)
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


def _show(bar: "tqdm[Any]", done: int) -> None:
    bar.update(done - bar.n)


def _float_model(walk: Walk) -> GPT:
    model = GPT(walk.recipe.model)
    model.load_state_dict({name: tensor.float() for name, tensor in load_weights(walk.folder.weights).items()})
    return place(model, walk.machine, embedding_bfloat16=walk.recipe.optim.embedding_bfloat16)


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
            "bytes": round(lines[report.name].bytes),
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
