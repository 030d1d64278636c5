"""Mean squared gradients by the outputs of every matrix, against their definition, and the loss that they predict."""

import pytest
import torch
from torch import nn

from fairway.base.errors import DataError
from fairway.config import RecurrenceConfig, SchemeConfig
from fairway.model.linear import Linear
from fairway.quant.gptq import factorize
from fairway.quant.hessian import collect_hessians
from fairway.quant.matrix import Calibrated, quantize_matrix
from fairway.quant.sensitivity import collect_sensitivities
from toy_network import toy_network

LOOP = RecurrenceConfig(first=1, last=1, extra_passes=1)


def batches(count: int = 2) -> torch.Tensor:
    return torch.randint(40, (count, 3, 17), generator=torch.Generator().manual_seed(1))


def network(**changes):
    model = toy_network(40, layers=3, recurrence=LOOP, **changes)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, Linear):
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * module.weight.shape[1] ** -0.5)
    return model


def test_gradients_are_those_of_an_offset_on_each_output():
    model, ids = network(), batches(1)
    found = collect_sensitivities(model, ids)
    assert found.outputs.keys() == {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, Linear)} | {
        "embedding.weight"
    }
    for name in ("blocks.1.mlp.down", "blocks.0.attention.query", "blocks.2.attention.output"):
        offsets = []

        def shifted(_module, _inputs, output, offsets=offsets):
            offsets.append(torch.zeros_like(output, requires_grad=True))
            return output + offsets[-1]

        handle = model.get_submodule(name).register_forward_hook(shifted)
        loss = model(ids[0, :, :-1], ids[0, :, 1:], recurrent=True) * 48
        handle.remove()
        loss.backward()
        gradients = torch.cat([offset.grad.flatten(0, -2) for offset in offsets])
        assert len(gradients) == 48 * (2 if name.startswith("blocks.1") else 1)
        torch.testing.assert_close(found.outputs[f"{name}.weight"], gradients.square().mean(dim=0), rtol=1e-4, atol=1e-12)


def test_the_head_counts_logits_and_the_table_counts_what_was_read():
    model, ids = network(), batches(1)
    found = collect_sensitivities(model, ids)
    inputs, targets = ids[0, :, :-1], ids[0, :, 1:]
    logits = model.logits(model.hidden(inputs, recurrent=True)).detach()
    raw = nn.functional.linear(model.hidden(inputs, recurrent=True), model.embedding.weight).detach()
    shares = logits.softmax(dim=-1) - nn.functional.one_hot(targets, 40)
    slope = 1 - (logits / model.config.softcap).square()
    torch.testing.assert_close(logits, model.config.softcap * torch.tanh(raw / model.config.softcap))
    expected = (shares * slope).square().flatten(0, 1).mean(dim=0)
    torch.testing.assert_close(found.outputs["embedding.weight"], expected, rtol=1e-3, atol=1e-9)
    never = torch.ones(40, dtype=torch.bool)
    never[inputs.flatten()] = False
    assert not found.lookups[never].any()
    assert bool((found.lookups[~never] > 0).all())
    moments = torch.eye(model.config.width) * 6.0
    both = found.of("embedding.weight", moments, 48.0)
    torch.testing.assert_close(both, expected + found.lookups * 48 / 6, rtol=1e-3, atol=1e-9)
    assert found.of("blocks.0.mlp.up.weight", moments, 48.0) is found.outputs["blocks.0.mlp.up.weight"]


def test_a_token_that_is_read_once_has_the_gradient_of_its_row():
    model = network()
    ids = torch.arange(9)[None, None]
    found = collect_sensitivities(model, ids)
    row = torch.zeros(model.config.width, requires_grad=True)
    table = model.embedding.weight.detach()
    # The head keeps its table: only what is read moves.
    model.embed_rows = None
    original = model.embed

    def embed(read):
        from fairway.model.norm import rms_norm

        moved = nn.functional.embedding(read, table) + row * (read == 4)[..., None]
        return rms_norm(moved)

    model.embed = embed
    (model(ids[0, :, :-1], ids[0, :, 1:], recurrent=True) * 8).backward()
    model.embed = original
    assert float(found.lookups[4]) == pytest.approx(float(row.grad.square().mean()) / 8, rel=1e-4)


def test_batches_average_ranks_add_up_and_the_model_is_left_as_it_was():
    model, ids = network(), batches()
    model.train()
    joint = collect_sensitivities(model, ids)
    assert model.training
    assert all(not module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    parts = []
    for share in (ids[:1], ids[1:]):
        kept = []
        collect_sensitivities(model, share, reduce=kept.append)
        parts.append([tensor.clone() for tensor in kept])
    sums = iter([first + second for first, second in zip(*parts, strict=True)])
    reduced = collect_sensitivities(model, ids[:1], reduce=lambda tensor: tensor.copy_(next(sums)))
    for name, squares in joint.outputs.items():
        torch.testing.assert_close(reduced.outputs[name], squares, rtol=1e-4, atol=1e-12)
    torch.testing.assert_close(reduced.lookups, joint.lookups, rtol=1e-4, atol=1e-12)
    with pytest.raises(DataError, match="no batch"):
        collect_sensitivities(model, [])


def test_the_expected_loss_ranks_what_errors_do():
    """Second order and independence are rough on a network this small; orders of magnitude are not."""
    model, ids = network(), torch.randint(40, (8, 8, 33), generator=torch.Generator().manual_seed(3))
    hessians = collect_hessians(model, ids)
    hessians.sensitivities = collect_sensitivities(model, ids)
    flat = ids.flatten(0, 1)

    @torch.no_grad()
    def loss() -> float:
        return float(model.double()(flat[:, :-1], flat[:, 1:], recurrent=True))

    expected, found = [], []
    before = loss()
    for name in ("blocks.0.mlp.up", "blocks.1.attention.value", "blocks.2.mlp.down", "blocks.2.attention.query"):
        matrix = model.get_submodule(name)
        weight, hessian = matrix.weight.detach().float().clone(), hessians[f"{name}.weight"]
        known = Calibrated(hessian, factorize(hessian, 0.01), hessians.sensitivity(f"{name}.weight"), hessians.tokens)
        tensor = quantize_matrix(weight, SchemeConfig(states=8, centroids=True, scale_grid=8), known)
        error = weight - tensor.dequantize()
        rises = []
        for sign in (1, -1):
            # Errors of both signs cancel the first order, which a network that was not trained has.
            with torch.no_grad():
                matrix.weight.copy_(weight - sign * error)
            rises.append(loss() - before)
        with torch.no_grad():
            matrix.weight.copy_(weight)
        expected.append(known.expected_loss(error))
        found.append(sum(rises) / 2)
    assert all(rise is not None and rise > 0 for rise in expected)
    assert known.expected_loss(torch.zeros_like(error)) == 0.0
    assert Calibrated(hessian).expected_loss(error) is None
    ratios = [abs(actual) / rise for actual, rise in zip(found, expected, strict=True)]
    assert 0.05 < sorted(ratios)[len(ratios) // 2] < 20
