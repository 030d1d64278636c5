"""Every attention back end that this machine has, against the plain one and against a direct call of torch's SDPA.

Calls alternate within one run, in a new order each round, and medians are compared. ``the dispatch`` is ``causal_attention``,
whose cost over the back end that it chooses is the cost of choosing. Segments of a packed row have no direct call that knows
them; the reference there is SDPA with the mask of the whole row.
Run: ``python benchmarks/bench_attention.py [--recipe tiny] [--rows 8] [--segment 0] [--device auto] [--dtype auto]``.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from fairway.kernels.attention import BACKENDS, Segments, Task, causal_attention, choose, look, plain_causal_attention, survey
from fairway.recipes import recipe

Call = Callable[[Tensor, Tensor, Tensor], Tensor]


def direct(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    sdpa = nn.functional.scaled_dot_product_attention
    return sdpa(query, key, value, attn_mask=mask, is_causal=mask is None, enable_gqa=True).transpose(1, 2)


def step(function: Call, tensors: list[Tensor], weights: Tensor, *, backward: bool) -> float:
    """Seconds of one call."""
    settle = torch.cuda.synchronize if weights.is_cuda else lambda: None
    settle()
    start = time.perf_counter()
    if backward:
        torch.autograd.grad(function(*tensors), tensors, weights)
    else:
        with torch.no_grad():
            function(*tensors)
    settle()
    return time.perf_counter() - start


def medians(calls: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in calls}
    order, names = random.Random(0), list(calls)
    for round_ in range(repeats + 2):
        order.shuffle(names)
        for name in names:
            seconds = calls[name]()
            if round_ >= 2:
                times[name].append(seconds)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="tiny", help="where the heads and the length of a row come from")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--segment", type=int, default=0, help="longest segment of one packed row of rows * context; 0: dense")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cuda = torch.cuda.is_available() if options.device == "auto" else options.device == "cuda"
    device = torch.device("cuda" if cuda else "cpu")
    dtype = getattr(torch, options.dtype) if options.dtype != "auto" else torch.bfloat16 if cuda else torch.float32

    chosen = recipe(options.recipe)
    config, context = chosen.model, chosen.train.context
    packed = options.segment > 0
    batch, length = (1, options.rows * context) if packed else (options.rows, context)
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, length, heads, config.head_width) for heads in (config.query_heads, config.kv_heads, config.kv_heads)]
    tensors = [torch.randn(shape, generator=generator).to(device, dtype).requires_grad_() for shape in shapes]
    weights = torch.randn(shapes[0], generator=generator).to(device, dtype)
    documents = torch.randint(length, (max(1, length // 300),), generator=generator).sort().values.tolist()
    segments = Segments.cut(documents, length, options.segment, device=device) if packed else None

    missing = survey(look(device), Task(dtype, packed, config.head_width))
    functions: dict[str, Call] = {
        "direct SDPA": partial(direct, mask=None if segments is None else segments.mask(length)),
        "the dispatch": partial(causal_attention, segments=segments),
    }
    for name, backend in BACKENDS.items():
        if not missing[name]:
            functions[name] = partial(backend.function, segments=segments)
    expected = plain_causal_attention(*tensors, segments)
    bound = 1e-4 if dtype == torch.float32 else 3e-2
    for name, function in functions.items():
        say = partial("{}: {}".format, name)
        torch.testing.assert_close(function(*tensors), expected, atol=bound, rtol=bound, msg=say)

    choice = choose(device, dtype, segments=packed, channels=config.head_width)
    name = str(dtype).removeprefix("torch.")
    heads = f"heads {config.query_heads}/{config.kv_heads} of {config.head_width}"
    cut = "" if segments is None else f", {len(segments.ranges())} segments of at most {options.segment}"
    print(f"{device}, {name}, {options.threads} thread(s), rows {batch} x {length}, {heads}{cut}")
    print(f"the dispatch takes {choice.name}: {choice.reason}")
    for backward in (False, True):
        calls = {key: partial(step, value, tensors, weights, backward=backward) for key, value in functions.items()}
        middle = medians(calls, options.repeats)
        print("forward and backward" if backward else "forward")
        for key, seconds in sorted(middle.items(), key=lambda item: item[1]):
            ratios = f"direct / this {middle['direct SDPA'] / seconds:6.3f}   plain / this {middle['plain'] / seconds:6.3f}"
            print(f"  {key:15} {1e3 * seconds:9.3f} ms   {ratios}")
    for key, why in missing.items():
        if why:
            print(f"not run: {key} {why}")


if __name__ == "__main__":
    main()
