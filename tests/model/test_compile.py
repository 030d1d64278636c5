"""torch.compile takes the whole network as one graph, and recurrence costs one more graph, once."""

import subprocess
import sys

import pytest

# A process of its own: the checking of annotations that pytest switches on wraps every function of the package.
PROGRAM = """
import sys, torch
from torch._dynamo.testing import CompileCounterWithBackend
from fairway.config import ModelConfig, RecurrenceConfig
from fairway.model.gpt import GPT
from fairway.model.initial import initialize

torch.set_num_threads(1)
config = ModelConfig(vocab_size=64, layers=2, width=32, query_heads=4, kv_heads=2, mlp_hidden=64, rotary_channels=4,
                     exclusive_attention_layers=1, recurrence=RecurrenceConfig(first=1, last=1, extra_passes=1))
model = GPT(config)
initialize(model, 0)
for parameter in model.parameters():
    parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
counter = CompileCounterWithBackend(sys.argv[1])
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


def check(backend: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, backend], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "compiled"


@pytest.mark.slow
def test_one_graph_per_schedule():
    check("aot_eager")


@pytest.mark.slow
def test_inductor_compiles_the_whole_graph():
    check("inductor")
