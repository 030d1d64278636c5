"""Banks: matrices of one shape in one tensor, dealt to ranks; what they mean is what one matrix at a time means."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optimizer_cases import accumulate, network, on_ranks, optim_config, train, whole_state
from torch import nn

from fairway.optim.banked_muon import BankedMuon
from fairway.optim.banks import Bank, make_banks, shard_bounds
from fairway.optim.muon import Muon, muon_update
from fairway.optim.optimizer import build

FULL_SIZE = [(512, 512), (256, 512), (256, 512), (512, 512), (2048, 512), (512, 2048)] * 11
SHAPES = [(8, 8), (4, 8), (16, 4), (4, 16), (1, 5)]


@pytest.mark.parametrize(("slots", "real"), [(22, [3, 3, 3, 3, 3, 3, 3, 1]), (11, [2, 2, 2, 2, 2, 1, 0, 0])])
def test_the_published_shard_tables(slots, real):
    bounds = [shard_bounds(slots, 8, rank) for rank in range(8)]
    assert [last - first for first, last in bounds] == real
    banks = [Bank([nn.Parameter(torch.zeros(2, 3)) for _ in range(slots)], world_size=8, rank=rank) for rank in range(8)]
    assert [bank.live for bank in banks] == real
    assert {len(bank.gradients) for bank in banks} == {8 * max(real)}


@given(slots=st.integers(1, 60), world_size=st.integers(1, 16))
def test_shards_cover_the_slots_in_order(slots, world_size):
    bounds = [shard_bounds(slots, world_size, rank) for rank in range(world_size)]
    assert [slot for first, last in bounds for slot in range(first, last)] == list(range(slots))


def test_the_full_network_has_four_banks_the_largest_first():
    banks = make_banks([nn.Parameter(torch.empty(shape, device="meta")) for shape in FULL_SIZE])
    assert [tuple(bank.weights.shape) for bank in banks] == [(11, 2048, 512), (11, 512, 2048), (22, 512, 512), (22, 256, 512)]


@settings(deadline=None, max_examples=20)
@given(
    shapes=st.lists(st.sampled_from(SHAPES), min_size=1, max_size=7), row_normalize=st.booleans(), seed=st.integers(0, 2**31)
)
def test_banks_mean_one_matrix_at_a_time(shapes, row_normalize, seed):
    generator = torch.Generator().manual_seed(seed)
    plain = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    momenta = [torch.zeros_like(weight) for weight in plain]
    weights = [nn.Parameter(weight.clone()) for weight in plain]
    settings_ = {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.3, "row_normalize": row_normalize}
    muon = BankedMuon(weights, dtype=torch.float64, **settings_)
    for _ in range(3):
        for index, weight in enumerate(weights):
            gradient = torch.randn(shapes[index], generator=generator, dtype=torch.float64)
            accumulate(weight, gradient)
            plain[index], momenta[index] = muon_update(
                plain[index], gradient, momenta[index], rate=0.1, coefficient=0.9, decay=0.3, row_normalize=row_normalize
            )
        muon.step()
        muon.zero_grad()
        for weight, expected, momentum in zip(weights, plain, momenta, strict=True):
            torch.testing.assert_close(weight.detach(), expected, rtol=0, atol=1e-12)
            torch.testing.assert_close(muon.state[weight]["momentum"], momentum, rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=20)
@given(scales=st.lists(st.floats(0.01, 100), min_size=5, max_size=5), row_normalize=st.booleans(), seed=st.integers(0, 2**31))
def test_neither_the_scale_of_rows_nor_that_of_a_matrix_has_a_say(scales, row_normalize, seed):
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(2, 5, 7, generator=generator, dtype=torch.float64)
    factors = torch.tensor(scales, dtype=torch.float64)[:, None]
    factors = factors if row_normalize else factors[:1]
    runs = []
    for factor in (torch.ones_like(factors), factors):
        weights = [nn.Parameter(matrix.clone()) for matrix in start]
        muon = BankedMuon(
            weights, learning_rate=0.1, momentum=0.9, weight_decay=0.0, row_normalize=row_normalize, dtype=torch.float64
        )
        gradients = torch.Generator().manual_seed(seed + 1)
        for _ in range(2):
            muon.zero_grad()
            # The second matrix keeps its gradient: what happens to its neighbour in the bank must not move it.
            accumulate(weights[0], factor * torch.randn(5, 7, generator=gradients, dtype=torch.float64))
            accumulate(weights[1], torch.randn(5, 7, generator=gradients, dtype=torch.float64))
            muon.step()
        runs.append([weight.detach() for weight in weights])
    torch.testing.assert_close(runs[0][0], runs[1][0], rtol=0, atol=1e-4)
    assert torch.equal(runs[0][1], runs[1][1])


def test_twenty_steps_in_both_layouts_agree_and_their_momenta_are_equal():
    runs = []
    for layout in ("per_matrix", "banked"):
        model = network()
        optimizers = build(model, optim_config(layout))
        norms = train(model, optimizers, 0, 20)
        runs.append((norms, whole_state(model, optimizers)))
    assert runs[0][0] == pytest.approx(runs[1][0], rel=1e-6)
    for name, tensor in runs[0][1].items():
        torch.testing.assert_close(runs[1][1][name], tensor, rtol=1e-6, atol=1e-6)


def test_the_inputs_of_the_orthogonalisation_are_equal_bit_by_bit():
    generator = torch.Generator().manual_seed(0)
    momenta = []
    for kind in (Muon, BankedMuon):
        weights = [nn.Parameter(torch.ones(6, 4)) for _ in range(3)]
        muon = kind(weights, learning_rate=0.1, momentum=0.9, weight_decay=0.1)
        generator.manual_seed(1)
        for _ in range(3):
            muon.zero_grad()
            for weight in weights:
                accumulate(weight, torch.randn(6, 4, generator=generator))
            muon.step()
        momenta.append(torch.stack([muon.state[weight]["momentum"] for weight in weights]))
    assert torch.equal(*momenta)


def test_a_matrix_stays_an_ordinary_parameter():
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizers = build(model, optim_config("banked"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    muon = optimizers.muon
    assert isinstance(muon, BankedMuon)
    other = network(seed=3)
    model.load_state_dict(other.state_dict())
    first = muon.banks[0]
    assert first.holds_its_parameters()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for bank in muon.banks:
        for parameter, weight in zip(bank.parameters, bank.weights, strict=True):
            assert torch.equal(weight, other.state_dict()[names[id(parameter)]])
    twin = copy.deepcopy(model)
    next(twin.get_submodule("blocks.0.mlp.up").parameters()).data.zero_()
    assert model.get_parameter("blocks.0.mlp.up.weight").any()


@pytest.mark.parametrize("leave", ["gradient", "weight"])
def test_a_matrix_that_has_left_its_bank_is_our_own_mistake(leave):
    model = network()
    optimizers = build(model, optim_config("banked"))
    if leave == "gradient":
        model.zero_grad(set_to_none=True)
    else:
        model.double().float()
    with pytest.raises(AssertionError, match="left its bank"):
        optimizers.muon.step()


def pad_and_train(rank: int, world_size: int) -> dict[str, object]:
    model = network()
    optimizers = build(model, optim_config("banked"), world_size=world_size, rank=rank)
    muon = optimizers.muon
    assert isinstance(muon, BankedMuon)
    start = whole_state(model, optimizers)
    train(model, optimizers, 0, 3, share=1 / world_size)
    stale = {name: tensor.clone() for name, tensor in optimizers.state_dict().items()}
    state = whole_state(model, optimizers)
    padding = [tensor[bank.slots :] for bank in muon.banks for tensor in (bank.gradients, bank.momentum)]
    padding += [bank.shard[bank.live :] for bank in muon.banks]
    optimizers.load_state_dict({name: tensor for name, tensor in start.items() if name in stale})
    restored = whole_state(model, optimizers)
    return {"padding": padding, "stale": stale, "state": state, "start": start, "restored": restored}


def test_padding_stays_zero_and_momenta_of_all_ranks_are_saved_and_restored(tmp_path):
    alone_model = network()
    alone = build(alone_model, optim_config("per_matrix"))
    train(alone_model, alone, 0, 3)
    wanted = {name: tensor for name, tensor in alone.state_dict().items() if name.endswith("/momentum")}
    ranks = on_ranks(4, str(tmp_path), pad_and_train)
    # Three layers and four ranks: 6 slots are padded to 8, 3 to 4, and the last rank has nothing but padding.
    assert [len(part) for part in ranks[3]["padding"]] == [2, 2, 1, 1, 1, 1, 2, 2, 2, 1, 1, 2]
    for rank in ranks:
        assert not any(part.any() for part in rank["padding"])
        # Without the gathering some momenta would be those of the start: the leak of the published systems.
        assert any(not rank["stale"][name].any() for name in wanted)
        for name, momentum in wanted.items():
            torch.testing.assert_close(rank["state"][name], momentum, rtol=1e-5, atol=1e-6)
            assert torch.equal(rank["restored"][name], rank["start"][name])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_both_layouts_agree_on_a_gpu():
    runs = []
    for layout in ("per_matrix", "banked"):
        model = network().cuda()
        optimizers = build(model, optim_config(layout))
        train(model, optimizers, 0, 5)
        runs.append({name: tensor.cpu() for name, tensor in whole_state(model, optimizers).items()})
    for name, tensor in runs[0].items():
        torch.testing.assert_close(runs[1][name], tensor, rtol=1e-4, atol=1e-4)
