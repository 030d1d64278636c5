"""``machine.attention`` reaches every layer, and what cannot run is refused before any work."""

import pytest
import torch

from fairway.base.errors import MachineError
from fairway.base.files import read_json
from fairway.base.values import with_fields
from fairway.config import MachineConfig, ModelConfig, RecurrenceConfig
from fairway.doctor import examine
from fairway.kernels.attention import BACKENDS, choice
from fairway.model.gpt import GPT
from fairway.model.initial import initialize
from fairway.score.load import place
from fairway.train.machine import choose
from fairway.walk import open_walk


def network() -> GPT:
    model = GPT(
        ModelConfig(
            vocab_size=64, layers=3, width=32, query_heads=4, kv_heads=2, mlp_hidden=64, rotary_channels=4,
            exclusive_attention_layers=1, recurrence=RecurrenceConfig(first=1, last=1, extra_passes=1),
        )
    )  # fmt: skip
    initialize(model, 0)
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return model


@pytest.mark.parametrize(("asked", "runs"), [("auto", "sdpa-cpu"), ("sdpa", "sdpa-cpu"), ("plain", "plain")])
def test_the_setting_decides_what_every_layer_runs(asked, runs, monkeypatch):
    machine = choose(MachineConfig(device="cpu", attention=asked, compile="off"))
    assert machine.reasons["attention"].startswith(f"{runs}: ")
    calls = []

    def counting(name):
        function = BACKENDS[name].function
        return BACKENDS[name]._replace(function=lambda *tensors: calls.append(name) or function(*tensors))

    monkeypatch.setattr(choice, "BACKENDS", {name: counting(name) for name in BACKENDS})
    ids = torch.randint(64, (2, 16), generator=torch.Generator().manual_seed(0))
    expected = network().hidden(ids, recurrent=False)
    calls.clear()
    model = place(network(), machine, embedding_bfloat16=False)
    torch.testing.assert_close(model.hidden(ids, recurrent=False), expected, atol=1e-4, rtol=1e-4)
    assert calls == [runs] * 3


@pytest.mark.parametrize("asked", ["flash4", "flash3", "varlen", "flex"])
def test_a_wish_that_a_cpu_cannot_grant_is_refused(asked):
    with pytest.raises(MachineError, match=f"machine.attention={asked} does not run: .*takes sdpa-cpu here"):
        choose(MachineConfig(device="cpu", attention=asked))


def test_a_machine_says_what_it_passed_over():
    machine = choose(MachineConfig(device="cpu"))
    assert machine.attention == "auto"
    assert machine.attention_passed_over.keys() == {"flash3", "flash4", "sdpa-flash"}


def test_a_run_records_the_choice_and_what_it_passed_over(quick, corpus, tmp_path):
    recipe = with_fields(quick, {"machine.attention": "plain", "machine.device": "cpu"})
    with open_walk(recipe, data=corpus, out=tmp_path / "run", resume=False) as walk:
        environment = read_json(walk.folder.environment)
    assert environment["attention"].startswith("plain: asked for; ")
    assert environment["attention_passed_over"] == {}
    with open_walk(quick, data=corpus, out=tmp_path / "other", resume=False) as walk:
        environment = read_json(walk.folder.environment)
        assert walk.machine.reasons["attention"] == environment["attention"]
    assert "flash3" in environment["attention_passed_over"]


def test_the_doctor_lists_every_back_end():
    findings = {item.subject: item for item in examine()}
    assert {"attention", "attention in segments"} <= findings.keys()
    for name in BACKENDS:
        assert findings[f"attention {name}"].state == ("ok" if findings[f"attention {name}"].found == "runs here" else "note")
    assert findings["attention plain"].found == "runs here"
