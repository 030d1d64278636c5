"""After warm-up a compiled network meets no shape that it does not know: all contexts, depths and counts of documents."""

import subprocess
import sys

import pytest

# A process of its own: the checking of annotations that pytest switches on wraps every function of the package.
PROGRAM = """
import sys, torch
import numpy as np
from dataclasses import replace
from torch._dynamo.testing import CompileCounterWithBackend
from fairway.base.values import with_fields
from fairway.optim.schedules import ScheduleValues, context_at
from fairway.recipes import recipe
from fairway.train.distributed import ONE_RANK
from fairway.train.loop import GRAPHS, accumulate, new_learner, warm_up
from fairway.train.machine import choose

torch.set_num_threads(1)
tiny = with_fields(recipe("tiny"), {
    "model.vocab_size": 64, "model.width": 32, "model.mlp_hidden": 64, "model.rotary_channels": 4, "model.layers": 3,
    "model.exclusive_attention_layers": 1, "model.gates.smear": True, "model.gates.attention": True,
    "model.recurrence.first": 0, "model.recurrence.last": 0, "model.recurrence.begins_at": 0.5, "train.streams": 1,
    "train.batch_tokens": 96, "train.context": 96, "train.context_lengths": (2, 48, 96), "train.context_until": (0.3, 0.6),
    "train.loader": sys.argv[1], "train.warmup_steps": 1, "machine.compile": "on",
})
machine = choose(tiny.machine)
learner = new_learner(tiny, machine, ONE_RANK)
counter = CompileCounterWithBackend("aot_eager")
torch._dynamo.config.recompile_limit = GRAPHS
forward = torch.compile(learner.model, backend=counter, fullgraph=True, dynamic=False)
warm_up(learner, forward, tiny, machine, ONE_RANK)
warmed = counter.frame_count
generator = np.random.default_rng(0)
for step in range(12):
    # From no marker at all to one on most tokens.
    rows = generator.integers(2, 64, (1, 97))
    rows[:, generator.choice(96, size=36 * (step % 3), replace=False)] = 1
    values = ScheduleValues(learning_rate=1.0, momentum=0.9, recurrent=step >= 6)
    context = context_at(tiny.train, step / 12)
    loss = accumulate(forward, rows[:, :-1], rows[:, 1:], values, tiny, machine, context=context)
    found = torch.cat([p.grad.flatten() for p in learner.model.parameters() if p.grad is not None])
    learner.optimizers.zero_grad()
    plain = accumulate(learner.model, rows[:, :-1], rows[:, 1:], values, tiny, machine, context=context)
    torch.testing.assert_close(loss, plain, atol=1e-5, rtol=1e-5)
    wanted = torch.cat([p.grad.flatten() for p in learner.model.parameters() if p.grad is not None])
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-3)
    learner.optimizers.zero_grad()
print(warmed, counter.frame_count - warmed)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loader", "graphs"),
    # Packed rows of 96 tokens have 64 or 128 starts; the mask that a CPU makes of them does not ask how long a segment may be.
    # Dense rows have three shapes, of which context 48 meets both depths.
    [("packed_documents", 2 * 2), pytest.param("random_windows", 4, marks=pytest.mark.long)],
)
def test_nothing_is_compiled_after_warm_up(loader: str, graphs: int) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, loader], capture_output=True, text=True, check=False, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == [str(graphs), "0"]
