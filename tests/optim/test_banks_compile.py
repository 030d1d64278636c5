"""torch.compile takes a network whose matrices are views of banks; steps of the optimizer cost no further graph."""

import subprocess
import sys

import pytest

# A process of its own: the checking of annotations that pytest switches on wraps every function of the package.
PROGRAM = """
import sys, torch
from torch._dynamo.testing import CompileCounterWithBackend
from fairway.config import ModelConfig, MuonConfig, OptimConfig, RecurrenceConfig
from fairway.model.gpt import GPT
from fairway.model.initial import initialize
from fairway.optim.optimizer import build
from fairway.optim.schedules import ScheduleValues

torch.set_num_threads(1)
config = ModelConfig(vocab_size=64, layers=2, width=32, query_heads=4, kv_heads=2, mlp_hidden=64, rotary_channels=4,
                     exclusive_attention_layers=1, recurrence=RecurrenceConfig(first=1, last=1, extra_passes=1))
counter = CompileCounterWithBackend(sys.argv[1])
models = [GPT(config) for _ in range(2)]
for model in models:
    initialize(model, 0)
optimizers = [build(m, OptimConfig(matrices=MuonConfig(layout=l))) for m, l in zip(models, ("banked", "per_matrix"))]
forward = [torch.compile(models[0], backend=counter, fullgraph=True, dynamic=False), models[1]]
for step, (recurrent, graphs) in enumerate([(False, 1), (False, 1), (True, 2), (False, 2), (True, 2), (True, 2)]):
    ids = torch.randint(64, (2, 16), generator=torch.Generator().manual_seed(step))
    losses = []
    for function, optimizer in zip(forward, optimizers):
        loss = function(ids, ids.roll(-1, 1), recurrent=recurrent)
        loss.backward()
        optimizer.reduce_clip_and_step(ScheduleValues(learning_rate=0.5, momentum=0.9, recurrent=recurrent))
        optimizer.zero_grad()
        losses.append(loss.detach())
    torch.testing.assert_close(*losses, atol=1e-3, rtol=1e-3)
    assert counter.frame_count == graphs, (step, counter.frame_count)
assert all(bank.holds_its_parameters() for bank in optimizers[0].muon.banks)
print("compiled")
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.long)])
def test_banks_compile_once_per_schedule(backend: str) -> None:
    command = [sys.executable, "-c", PROGRAM, backend]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "compiled"
