"""One forward and backward of our network against a straightforward composition of stock torch modules of the same size.

Both hold the same weights and compute the same loss; calls alternate within one run and medians are compared.
Run: ``python benchmarks/bench_model_step.py [--recipe tiny] [--rows 4] [--threads 1]``.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fairway.config import ModelConfig
from fairway.model.gpt import GPT
from fairway.model.initial import initialize
from fairway.recipes import recipe


class StockAttention(nn.Module):
    """Attention out of ``nn.Linear``, ``nn.RMSNorm`` and ``F.scaled_dot_product_attention``."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.config, width = config, config.width
        self.exclusive = layer >= config.layers - config.exclusive_attention_layers
        kv_width = config.kv_heads * config.head_width
        self.query, self.output = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.key, self.value = nn.Linear(width, kv_width, bias=False), nn.Linear(width, kv_width, bias=False)
        self.query_gain = nn.Parameter(torch.zeros(config.query_heads))
        self.norm = nn.RMSNorm(config.head_width, eps=2**-23, elementwise_affine=False)

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Turn the leading channels of every head."""
        half = cos.shape[-1]
        first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
        return torch.cat((first * cos + second * sin, -first * sin + second * cos, rest), dim=-1)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Attend causally."""
        batch, time_, _ = x.shape
        heads, kv_heads, channels = self.config.query_heads, self.config.kv_heads, self.config.head_width
        query = self.norm(self.query(x).view(batch, time_, heads, channels).transpose(1, 2))
        key = self.norm(self.key(x).view(batch, time_, kv_heads, channels).transpose(1, 2))
        value = self.value(x).view(batch, time_, kv_heads, channels).transpose(1, 2)
        query = self.rotate(query, cos, sin) * self.query_gain[:, None, None]
        key = self.rotate(key, cos, sin)
        y = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        if self.exclusive:
            own = nn.functional.normalize(value, dim=-1).repeat_interleave(heads // kv_heads, dim=1)
            y = y - (y * own).sum(-1, keepdim=True) * own
        return self.output(y.transpose(1, 2).reshape(x.shape))


class StockMLP(nn.Module):
    """Two ``nn.Linear`` around the square of ``F.leaky_relu``."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.slope = config.activation_slope
        self.up = nn.Linear(config.width, config.mlp_hidden, bias=False)
        self.down = nn.Linear(config.mlp_hidden, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to every position."""
        return self.down(nn.functional.leaky_relu(self.up(x), self.slope).square())


class StockBlock(nn.Module):
    """The sequential block, one torch operation per term."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.depth_scale = (layer + 1) ** -0.5 if config.depth_scale else 1.0
        self.attention, self.mlp = StockAttention(config, layer), StockMLP(config)
        self.attention_scale, self.mlp_scale = nn.Parameter(torch.zeros(config.width)), nn.Parameter(torch.zeros(config.width))
        self.residual_mix = nn.Parameter(torch.zeros(2, config.width))
        self.norm = nn.RMSNorm(config.width, eps=2**-23, elementwise_affine=False)

    def forward(self, x: Tensor, first: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Mix, attend, feed."""
        x = self.residual_mix[0] * x + self.residual_mix[1] * first
        x = x + self.attention_scale * self.attention(self.norm(x) * self.depth_scale, cos, sin)
        return x + self.mlp_scale * self.mlp(self.norm(x) * self.depth_scale)


class StockSkips(nn.Module):
    """Weights and gates of the skips."""

    def __init__(self, slots: int, width: int) -> None:
        super().__init__()
        self.weight, self.gate = nn.Parameter(torch.zeros(slots, width)), nn.Parameter(torch.zeros(slots, width))


class StockGPT(nn.Module):
    """The PR #1413 network with the parameter names of ``fairway.model.gpt.GPT``."""

    def __init__(self, config: ModelConfig, ours: GPT) -> None:
        super().__init__()
        self.config, self.schedules, self.frequencies = config, ours.schedules, ours.rotary.frequencies
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.blocks = nn.ModuleList(StockBlock(config, layer) for layer in range(config.layers))
        self.skips = StockSkips(len(ours.skips.weight), config.width)
        self.norm = nn.RMSNorm(config.width, eps=2**-23, elementwise_affine=False)

    def forward(self, ids: Tensor, targets: Tensor, recurrent: bool) -> Tensor:
        """Mean loss in nats."""
        angles = torch.outer(torch.arange(ids.shape[1], dtype=torch.float32), self.frequencies)
        cos, sin = angles.cos(), angles.sin()
        x = first = self.norm(self.embedding(ids))
        kept: list[Tensor] = []
        for layer in self.schedules[recurrent].encoder:
            x = self.blocks[layer](x, first, cos, sin)
            kept.append(x)
        for slot, layer in enumerate(self.schedules[recurrent].decoder):
            if kept:
                x = torch.lerp(self.skips.weight[slot] * kept.pop(), x, torch.sigmoid(self.skips.gate[slot]))
            x = self.blocks[layer](x, first, cos, sin)
        logits = nn.functional.linear(self.norm(x), self.embedding.weight)
        logits = self.config.softcap * torch.tanh(logits / self.config.softcap)
        return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def networks(config: ModelConfig) -> tuple[GPT, StockGPT]:
    ours = GPT(config)
    initialize(ours, seed=0)
    generator = torch.Generator().manual_seed(1)
    for parameter in ours.parameters():
        parameter.data.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    stock = StockGPT(config, ours)
    stock.load_state_dict(ours.state_dict())
    return ours, stock


def check_equal(ours: GPT, stock: StockGPT, ids: Tensor, targets: Tensor) -> None:
    for recurrent in (False, True):
        losses = [ours(ids, targets, recurrent=recurrent), stock(ids, targets, recurrent)]
        torch.testing.assert_close(losses[0], losses[1], atol=1e-4, rtol=1e-5)
        for loss, model in zip(losses, (ours, stock), strict=True):
            model.zero_grad()
            loss.backward()
        expected = dict(stock.named_parameters())
        for name, parameter in ours.named_parameters():
            torch.testing.assert_close(parameter.grad, expected[name].grad, atol=1e-4, rtol=1e-3)


def interleaved(calls: dict[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(repeats + 2):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if round_ >= 2:
                times[name].append(time.perf_counter() - start)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    chosen = recipe(options.recipe)
    config, context = chosen.model, chosen.train.context
    ours, stock = networks(config)
    ids = torch.randint(config.vocab_size, (options.rows, context), generator=torch.Generator().manual_seed(2))
    targets = ids.roll(-1, 1)
    check_equal(ours, stock, ids, targets)
    print(f"recipe {options.recipe}, {options.rows} rows of {context} tokens, {options.threads} thread(s), float32")
    for recurrent in (False, True):

        def ours_step(recurrent: bool = recurrent) -> None:
            ours.zero_grad()
            ours(ids, targets, recurrent=recurrent).backward()

        def stock_step(recurrent: bool = recurrent) -> None:
            stock.zero_grad()
            stock(ids, targets, recurrent).backward()

        times = interleaved({"ours": ours_step, "stock": stock_step}, options.repeats)
        middle = {name: statistics.median(values) for name, values in times.items()}
        rates = ", ".join(f"{name} {1e3 * value:.1f} ms ({ids.numel() / value:.0f} tokens/s)" for name, value in middle.items())
        print(f"recurrence {'on ' if recurrent else 'off'}: {rates}, stock / ours = {middle['stock'] / middle['ours']:.3f}")


if __name__ == "__main__":
    main()
