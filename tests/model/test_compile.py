"""torch.compile takes every topology's network as one graph, and recurrence costs one more graph, once."""

import subprocess
import sys

import pytest

from fairway.model.residual import TOPOLOGIES

# A process of its own: the checking of annotations that pytest switches on wraps every function of the package.
PROGRAM = """
import sys, torch
from torch._dynamo.testing import CompileCounterWithBackend
from fairway.config import ModelConfig, RecurrenceConfig, ResidualConfig
from fairway.model.gpt import GPT
from fairway.model.initial import initialize

torch.set_num_threads(1)
backend, topology = sys.argv[1:]
config = ModelConfig(vocab_size=64, layers=3, width=32, query_heads=4, kv_heads=2, mlp_hidden=64, rotary_channels=4,
                     exclusive_attention_layers=1, recurrence=RecurrenceConfig(first=1, last=1, extra_passes=1),
                     residual=ResidualConfig(topology=topology, parallel_from=2))
model = GPT(config)
initialize(model, 0)
for parameter in model.parameters():
    parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
counter = CompileCounterWithBackend(backend)
compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=False)
for step, (recurrent, graphs) in enumerate([(False, 1), (False, 1), (True, 2), (False, 2), (True, 2), (True, 2)]):
    ids = torch.randint(64, (2, 16), generator=torch.Generator().manual_seed(step))
    losses, grads = [], []
    for function in (compiled, model):
        loss = function(ids, ids.roll(-1, 1), recurrent=recurrent)
        model.zero_grad()
        loss.backward()
        losses.append(loss)
        grads.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(*losses, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(*grads, atol=1e-5, rtol=1e-3)
    assert counter.frame_count == graphs, (step, counter.frame_count)
print("compiled")
"""


def check(backend: str, topology: str) -> None:
    command = [sys.executable, "-c", PROGRAM, backend, topology]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "compiled"


@pytest.mark.slow
# The simplest topology and the one with most parts; `make long` takes the others.
@pytest.mark.parametrize(
    "topology",
    [name if name in ("sequential", "routed_lanes") else pytest.param(name, marks=pytest.mark.long) for name in TOPOLOGIES],
)
def test_one_graph_per_schedule(topology):
    check("aot_eager", topology)


@pytest.mark.long
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_inductor_compiles_the_whole_graph(topology):
    check("inductor", topology)
