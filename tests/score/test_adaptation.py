"""What adapts, by which steps, and that neither banks nor ranks have a say in it."""

from dataclasses import replace

import pytest
import torch
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from toy_scorers import CONTEXT, TARGETS, VOCAB, ledger, small_model, stream

from fairway.config import AdaptationConfig, ModelConfig, RecurrenceConfig, ResidualConfig, ScoreConfig
from fairway.model.gpt import GPT
from fairway.model.residual import TOPOLOGIES
from fairway.score.adaptation import AdaptedPredictor, adapting_parameters, cosine_rate, make_optimizer
from fairway.score.driver import score
from fairway.score.passes import build_pass
from fairway.score.predictor import Revealed
from fairway.train.distributed import ONE_RANK, Ranks
from toy_network import toy_network

CHUNK = 24
"""Three rows; two chunks of them are trained on, and the last 12 targets are not."""
SGD = AdaptationConfig(chunk_tokens=CHUNK, epochs=2, learning_rate=0.05, gradient_clip=0.5, sequences_per_step=2)
ADAMW = replace(SGD, optimizer="adamw", learning_rate=0.01, weight_decay=0.3)
LAYERS = 4


def network(topology: str) -> GPT:
    return toy_network(
        VOCAB,
        layers=LAYERS,
        exclusive_attention_layers=LAYERS,
        recurrence=RecurrenceConfig(first=1, last=1, extra_passes=1),
        residual=ResidualConfig(topology=topology, parallel_from=2),
    )


def adapt(model: GPT, adaptation: AdaptationConfig, ranks: Ranks = ONE_RANK) -> AdaptedPredictor:
    """Run the adapted pass over the toy stream."""
    config = ScoreConfig(context=CONTEXT, stride=4, adaptation=adaptation)
    predictor, plan = build_pass("adapted", model, TARGETS, config, ranks=ranks)
    assert isinstance(predictor, AdaptedPredictor)
    score(predictor, stream(), ledger(), plan, ranks=ranks)
    return predictor


def values(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def test_pr1776_adapts_as_many_parameters_as_it_says() -> None:
    loop = RecurrenceConfig(first=3, last=5, extra_passes=2)
    with torch.device("meta"):
        model = GPT(ModelConfig(recurrence=loop, residual=ResidualConfig(topology="single_stream")))
    assert sum(parameter.numel() for parameter in model.parameters()) == 35_944_536
    assert sum(parameter.numel() for parameter in adapting_parameters(model, 9)) == 9_973_776
    layers = {name.split(".")[1] for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert layers == {str(layer) for layer in range(9)}
    assert all(parameter.requires_grad for parameter in adapting_parameters(model, 0))


def test_layer_ten_is_not_frozen_with_layer_one() -> None:
    with torch.device("meta"):
        model = GPT(ModelConfig())
    adapting_parameters(model, 2)
    free = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[1] for name in free if name.startswith("blocks.")} == {str(layer) for layer in range(2, 11)}


@pytest.mark.parametrize("frozen", [0, 1, 3, LAYERS])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_frozen_blocks_stay_bit_for_bit_and_everything_else_adapts(topology: str, frozen: int) -> None:
    model = network(topology)
    before = values(model)
    predictor = adapt(model, replace(SGD, frozen_blocks=frozen))
    held = {name for name in before if name.startswith("blocks.") and int(name.split(".")[1]) < frozen}
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == (name in held), name
        assert (parameter.grad is None) == (name in held), name
        assert (parameter in predictor.optimizer.state) == (name not in held), name


@pytest.mark.parametrize("adaptation", [SGD, ADAMW])
def test_matrices_that_are_views_of_a_bank_adapt_and_freeze_alike(adaptation: AdaptationConfig) -> None:
    plain, banked = network("routed_lanes"), network("routed_lanes")
    banks = {}
    for shape in {matrix.shape for matrix in matrices(banked)}:
        members = [matrix for matrix in matrices(banked) if matrix.shape == shape]
        banks[shape] = torch.stack([member.data for member in members])
        for member, slot in zip(members, banks[shape], strict=True):
            member.data = slot
    before = {shape: bank.clone() for shape, bank in banks.items()}
    for model in (plain, banked):
        adapt(model, replace(adaptation, frozen_blocks=3))
    for name, value in values(plain).items():
        assert torch.equal(banked.get_parameter(name), value), name
    for shape, bank in banks.items():
        kept = [torch.equal(new, old) for new, old in zip(bank, before[shape], strict=True)]
        # Slots are in the order of layers, and three of four layers are frozen.
        assert kept == [slot < 3 * len(bank) // LAYERS for slot in range(len(bank))]


def matrices(model: GPT) -> list[nn.Parameter]:
    return [parameter for name, parameter in model.named_parameters() if name.startswith("blocks.") and parameter.ndim == 2]


def written_out(config: AdaptationConfig, model: GPT) -> dict[str, torch.Tensor]:
    """The twin of `AdaptedPredictor`: its equations, one tensor after the other."""
    tokens, names = stream(), [name for name, _ in model.named_parameters()]
    weights = [model.get_parameter(name) for name in names]
    first, second = ([torch.zeros_like(weight) for weight in weights] for _ in range(2))
    step, chunks = 0, -(-TARGETS // CHUNK)
    for chunk in range(chunks - 1):
        rate = cosine_rate(config.learning_rate, chunk, chunks)
        rows = [(begin, begin + CONTEXT) for begin in range(chunk * CHUNK, (chunk + 1) * CHUNK, CONTEXT)]
        for _ in range(config.epochs):
            for place in range(0, len(rows), config.sequences_per_step):
                part = rows[place : place + config.sequences_per_step]
                inputs = torch.stack([tokens[begin:end] for begin, end in part])
                targets = torch.stack([tokens[begin + 1 : end + 1] for begin, end in part])
                gradients = torch.autograd.grad(model(inputs, targets, recurrent=True), weights)
                norm = sum(float(gradient.square().sum()) for gradient in gradients) ** 0.5
                share, step = min(1.0, config.gradient_clip / (norm + 1e-6)), step + 1
                with torch.no_grad():
                    for weight, gradient, m, v in zip(weights, gradients, first, second, strict=True):
                        if config.optimizer == "sgd":
                            m.mul_(config.momentum).add_(gradient * share)
                            weight.sub_(rate * m)
                            continue
                        m.mul_(0.9).add_(0.1 * share * gradient)
                        v.mul_(0.999).add_(0.001 * (share * gradient) ** 2)
                        weight.mul_(1 - rate * config.weight_decay)
                        weight.sub_(rate * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8))
    return values(model)


@pytest.mark.parametrize("config", [SGD, ADAMW, replace(SGD, sequences_per_step=3, epochs=5)])
def test_the_weights_follow_the_equations(config: AdaptationConfig) -> None:
    model = small_model()
    predictor = adapt(model, config)
    assert predictor.steps == 2 * config.epochs * -(-3 // config.sequences_per_step)
    for name, value in written_out(config, small_model()).items():
        torch.testing.assert_close(model.get_parameter(name).detach(), value, atol=1e-5, rtol=1e-4)


def test_momentum_and_decay_by_hand() -> None:
    weight = nn.Parameter(torch.zeros(1))
    optimizer = make_optimizer([weight], replace(SGD, learning_rate=0.1))
    for expected in (-0.1, -0.29):
        weight.grad = torch.ones(1)
        optimizer.step()
        assert weight.item() == pytest.approx(expected)
    weight = nn.Parameter(torch.ones(1))
    optimizer = make_optimizer([weight], replace(ADAMW, learning_rate=0.1, weight_decay=0.5))
    for expected in (0.95, 0.9025):
        weight.grad = torch.zeros(1)
        optimizer.step()
        assert weight.item() == pytest.approx(expected)
    # The first step of Adam is the sign of the gradient.
    weight.grad = torch.full((1,), 1e-3)
    before, optimizer = weight.item(), make_optimizer([weight], ADAMW)
    optimizer.step()
    assert weight.item() == pytest.approx(before * (1 - 0.01 * 0.3) - 0.01, abs=1e-6)


@settings(max_examples=15, deadline=None)
@given(rows=st.integers(1, 9), sequences=st.integers(1, 10), world=st.integers(1, 12))
def test_steps_and_gradients_do_not_depend_on_the_number_of_ranks(rows: int, sequences: int, world: int) -> None:
    config = AdaptationConfig(chunk_tokens=CONTEXT * rows, epochs=1, sequences_per_step=sequences, gradient_clip=0.0)
    tokens = stream().repeat(2)[: CONTEXT * rows + 1]
    shared: list[list[torch.Tensor]] = []

    def observe(ranks: Ranks) -> AdaptedPredictor:
        predictor = AdaptedPredictor(small_model(), config, context=CONTEXT, chunks=2, rows_per_forward=2, ranks=ranks)
        # The weights stay put, so that the gradients of a step can be added up after the fact.
        predictor.optimizer.step = lambda: None  # pyright: ignore[reportAttributeAccessIssue]
        predictor.observe(Revealed(tokens, 0))
        return predictor

    class Listening(Ranks):
        def sum_gradients_(self, parameters) -> None:
            kept = [parameter.grad if parameter.grad is not None else torch.zeros_like(parameter) for parameter in parameters]
            shared.append([gradient.clone() for gradient in kept])

    alone = observe(Listening())
    steps, shared = shared, []
    assert alone.steps == len(steps) == -(-rows // sequences)
    totals: list[list[torch.Tensor]] = []
    for rank in range(world):
        shared = []
        assert observe(Listening(rank, world)).steps == len(shared) == len(steps)
        totals = [[a + b for a, b in zip(*pair, strict=True)] for pair in zip(totals, shared, strict=True)] if rank else shared
    for wanted, found in zip(steps, totals, strict=True):
        for a, b in zip(wanted, found, strict=True):
            torch.testing.assert_close(b, a, atol=1e-6, rtol=1e-4)


SHARED = {
    "uneven": replace(SGD, sequences_per_step=3),
    "fewer rows than ranks": replace(SGD, sequences_per_step=1),
    "the last step is short": replace(ADAMW, frozen_blocks=1),
}
"""Rows of a step over two ranks: 1 and 2; 0 and 1; 1 and 1, then 0 and 1."""


def adapt_as_rank(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(f"{folder}/store", world)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)
    try:
        found = {name: adapt(small_model(), config, Ranks(rank, world)) for name, config in SHARED.items()}
        kept = {name: (predictor.steps, values(predictor.inner.model)) for name, predictor in found.items()}
        torch.save(kept, f"{folder}/rank{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


def test_two_ranks_take_the_steps_of_one(tmp_path) -> None:
    mp.spawn(adapt_as_rank, (2, str(tmp_path)), nprocs=2)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)]
    for name, config in SHARED.items():
        alone = adapt(small_model(), config)
        (steps, weights), (others, same) = (rank[name] for rank in ranks)
        assert steps == others == alone.steps
        for key, value in values(alone.inner.model).items():
            torch.testing.assert_close(weights[key], value, atol=1e-5, rtol=0, msg=f"{name}: {key}")
            assert torch.equal(weights[key], same[key])
