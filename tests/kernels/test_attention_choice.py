"""Which back end runs where, and what is said about the others: on machines that are described, not needed."""

import pytest
import torch

from fairway.base.errors import MachineError
from fairway.kernels.attention import BACKENDS, Facts, Task, choose, look, survey

CPU = Facts("cpu", None, triton=False, faults={"FA3": "no FA3", "FA4": "no FA4"})
BARE = CPU.faults
BOTH = {"FA3": "", "FA4": ""}


def nvidia(major, minor, faults=BARE, *, triton=True):
    return Facts("cuda", (major, minor), triton, faults)


VOLTA, AMPERE, ADA, HOPPER, BLACKWELL = nvidia(7, 0), nvidia(8, 0), nvidia(8, 9), nvidia(9, 0), nvidia(10, 0)
AMD = Facts("cuda", None, triton=True, faults=BARE)
HALF, FULL = torch.bfloat16, torch.float32


def chosen(facts, dtype=HALF, wanted="auto", **task):
    return choose(torch.device(facts.device), dtype, wanted, facts=facts, **task)


@pytest.mark.parametrize(
    ("facts", "dtype", "dense", "packed"),
    [
        (CPU, FULL, "sdpa-cpu", "sdpa-cpu"),
        (CPU, HALF, "sdpa-cpu", "sdpa-cpu"),
        (CPU, torch.float64, "sdpa-cpu", "sdpa-cpu"),
        (Facts("mps", None, triton=False, faults=BARE), FULL, "sdpa-cpu", "sdpa-cpu"),
        (VOLTA, HALF, "sdpa-efficient", "flex"),
        (nvidia(7, 0, triton=False), HALF, "sdpa-efficient", "sdpa-efficient"),
        (AMPERE, HALF, "sdpa-flash", "varlen"),
        (AMPERE, torch.float16, "sdpa-flash", "varlen"),
        (AMPERE, FULL, "sdpa-efficient", "flex"),
        (AMPERE, torch.float64, "sdpa-efficient", "sdpa-efficient"),
        (nvidia(8, 0, BOTH), HALF, "sdpa-flash", "varlen"),
        (ADA, HALF, "sdpa-flash", "varlen"),
        (HOPPER, HALF, "sdpa-flash", "varlen"),
        (nvidia(9, 0, BOTH), HALF, "flash3", "flash3"),
        (nvidia(9, 0, BOTH), FULL, "sdpa-efficient", "flex"),
        (nvidia(9, 0, {"FA3": "broken", "FA4": ""}), HALF, "flash4", "flash4"),
        (BLACKWELL, HALF, "sdpa-flash", "varlen"),
        (nvidia(10, 0, BOTH), HALF, "flash4", "flash4"),
        (nvidia(12, 0, BOTH), HALF, "sdpa-flash", "varlen"),
        (AMD, HALF, "sdpa-efficient", "flex"),
    ],
)
def test_what_runs_where(facts, dtype, dense, packed):
    assert chosen(facts, dtype).name == dense
    assert chosen(facts, dtype, segments=True).name == packed


@pytest.mark.parametrize(
    ("channels", "dense", "packed"),
    [(64, "flash3", "flash3"), (12, "sdpa-efficient", "sdpa-efficient"), (20, "sdpa-efficient", "flex"),
     (264, "sdpa-efficient", "flex")],
)  # fmt: skip
def test_heads_that_flash_kernels_do_not_take_go_elsewhere(channels, dense, packed):
    facts = nvidia(9, 0, BOTH)
    assert chosen(facts, channels=channels).name == dense
    assert chosen(facts, channels=channels, segments=True).name == packed
    if channels != 64:
        assert str(channels) in chosen(facts, channels=channels).passed_over["flash3"]


def test_blackwell_takes_wide_heads_elsewhere():
    assert chosen(nvidia(10, 0, BOTH), channels=256).name == "sdpa-flash"
    assert "at most 128" in chosen(nvidia(10, 0, BOTH), channels=256).passed_over["flash4"]


def test_the_choice_says_what_it_passed_over_and_why():
    choice = chosen(nvidia(8, 0, {"FA3": "", "FA4": ""}), segments=True)
    assert choice.function is BACKENDS["varlen"].function
    assert choice.passed_over == {
        "flash3": "needs compute capability 9.x; this GPU has 8.0",
        "flash4": "needs compute capability 9.x or 10.x; this GPU has 8.0",
    }
    assert chosen(HOPPER).passed_over == {"flash3": "no FA3", "flash4": "no FA4"}
    assert "needs 16-bit activations; these are float32" in chosen(HOPPER, FULL).passed_over["flash3"]
    assert "needs an NVIDIA GPU; the device is cpu" in chosen(CPU).passed_over["flash3"]


@pytest.mark.parametrize("wanted", ["auto", "flash4", "flash3", "varlen", "flex", "sdpa", "plain"])
def test_an_explicit_wish_is_taken_or_refused(wanted):
    for facts in (CPU, VOLTA, AMPERE, nvidia(9, 0, BOTH), nvidia(10, 0, BOTH), AMD):
        for dtype in (HALF, FULL):
            for segments in (False, True):
                missing = survey(facts, Task(dtype, segments, 64))
                mine = [name for name, backend in BACKENDS.items() if wanted in ("auto", backend.setting)]
                if any(not missing[name] for name in mine):
                    choice = chosen(facts, dtype, wanted, segments=segments)
                    assert not missing[choice.name]
                    assert choice.name in mine
                    assert choice.reason.startswith("asked for; ") == (wanted != "auto")
                    assert all(choice.passed_over[name] == missing[name] != "" for name in choice.passed_over)
                else:
                    with pytest.raises(MachineError) as refusal:
                        chosen(facts, dtype, wanted, segments=segments)
                    message = str(refusal.value)
                    assert message.startswith(f"machine.attention={wanted} does not run: ")
                    assert all(f"{name} {missing[name]}" in message for name in mine)
                    assert f"auto, which takes {chosen(facts, dtype, segments=segments).name} here" in message


def test_a_wish_is_refused_with_what_is_missing():
    with pytest.raises(MachineError, match=r"flash3 needs compute capability 9\.x; this GPU has 8\.0.*takes sdpa-flash here"):
        chosen(AMPERE, wanted="flash3")
    with pytest.raises(MachineError, match=r"flex has no backward pass on a CPU.*takes sdpa-cpu here"):
        chosen(CPU, wanted="flex")


def test_every_setting_has_a_back_end_and_sdpa_and_plain_run_everywhere():
    for facts in (CPU, VOLTA, HOPPER, AMD):
        for dtype in (HALF, FULL, torch.float64):
            for segments in (False, True):
                assert chosen(facts, dtype, "plain", segments=segments).name == "plain"
                assert chosen(facts, dtype, "sdpa", segments=segments).name.startswith("sdpa-")


def test_this_machine_is_looked_at():
    facts = look(torch.device("cpu"))
    assert (facts.device, facts.capability) == ("cpu", None)
    assert facts.faults.keys() == {"FA3", "FA4"}
    choice = choose(torch.device("cpu"), torch.float32)
    assert choice.name == "sdpa-cpu"
    assert len(choice.reason) > 20


@pytest.mark.gpu
def test_this_gpu_is_looked_at():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    device = torch.device("cuda")
    facts = look(device)
    assert facts.capability == torch.cuda.get_device_capability(device)
    assert not survey(facts, Task(torch.bfloat16, segments=False, channels=64))[choose(device, torch.bfloat16).name]
