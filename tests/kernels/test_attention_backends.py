"""Every attention back end that the machine has computes what the plain one writes out; the others say what they miss."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.kernels.attention import BACKENDS, Segments, Task, causal_attention, look, plain_causal_attention, survey

EVERY = [*BACKENDS, "the choice"]
SEGMENTED = [name for name in EVERY if name != "sdpa-flash"]
BOUNDS = {torch.float32: 2e-5, torch.bfloat16: 2e-2}
HALF_ONLY = ("flash3", "flash4", "varlen", "sdpa-flash")


def backend(name, dtype, *, segments, channels):
    """The function of a back end and a device where it runs; skips with the reasons of every device of this machine."""
    if name == "the choice":
        return causal_attention, torch.device("cuda" if torch.cuda.is_available() else "cpu")
    reasons = []
    for kind in ("cuda", "cpu") if torch.cuda.is_available() else ("cpu",):
        device = torch.device(kind)
        missing = survey(look(device), Task(dtype, segments, channels))[name]
        if not missing:
            return BACKENDS[name].function, device
        reasons.append(missing)
    return pytest.skip(f"{name} {'; '.join(reasons)}")


def inputs(shape, kv_heads, dtype, device, seed=0):
    generator = torch.Generator().manual_seed(seed)
    batch, time, heads, channels = shape
    shapes = [(batch, time, number, channels) for number in (heads, kv_heads, kv_heads)]
    return [(2 * torch.randn(each, generator=generator)).to(device, dtype).requires_grad_() for each in shapes]


def assert_equal_to_plain(function, tensors, segments, seed=0):
    """Outputs and gradients, for a random direction of the output."""
    weights = torch.randn(tensors[0].shape, generator=torch.Generator().manual_seed(seed)).to(tensors[0])
    bound = BOUNDS[tensors[0].dtype]
    found, expected = (each(*tensors, segments) for each in (function, plain_causal_attention))
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, atol=bound, rtol=bound)
    found, expected = (torch.autograd.grad(each, tensors, weights) for each in (found, expected))
    torch.testing.assert_close(found, expected, atol=5 * bound, rtol=5 * bound)


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("shape", [(2, 1, 4, 16), (3, 33, 4, 16), (2, 128, 8, 64), (1, 200, 6, 32)], ids=str)
@pytest.mark.parametrize("kv_heads", [1, 2])
@pytest.mark.parametrize("name", EVERY)
def test_dense_rows(name, kv_heads, shape, dtype):
    function, device = backend(name, dtype, segments=False, channels=shape[-1])
    assert_equal_to_plain(function, inputs(shape, kv_heads, dtype, device), None)


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("name", SEGMENTED)
@given(
    seed=st.integers(0, 2**31),
    time=st.integers(1, 48),
    begins=st.sets(st.integers(0, 47)),
    longest=st.integers(1, 48),
    padding=st.sampled_from([1, 64]),
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 3),
)
@settings(deadline=None, max_examples=25)
def test_segments(name, dtype, seed, time, begins, longest, padding, kv_heads, group):
    function, device = backend(name, dtype, segments=True, channels=16)
    documents = sorted(begin for begin in begins if begin < time)
    segments = Segments.cut(documents, time, longest, device=device, padding=padding)
    assert_equal_to_plain(function, inputs((1, time, kv_heads * group, 16), kv_heads, dtype, device, seed), segments, seed)


@pytest.mark.parametrize("name", EVERY)
@given(seed=st.integers(0, 2**31), time=st.integers(2, 40), data=st.data())
@settings(deadline=None, max_examples=15)
def test_later_tokens_and_other_segments_change_nothing(name, seed, time, data):
    dtype = torch.bfloat16 if name in HALF_ONLY else torch.float32
    changed = data.draw(st.integers(1, time - 1))
    for packed in (False, True):
        if packed and name not in SEGMENTED:
            continue
        function, device = backend(name, dtype, segments=packed, channels=16)
        begin = data.draw(st.integers(1, time - 1))
        segments = Segments.cut([begin], time, time, device=device) if packed else None
        query, key, value = (tensor.detach() for tensor in inputs((1, time, 4, 16), 2, dtype, device, seed))
        before = function(query, key, value, segments)
        for tensor in (query, key, value):
            tensor[:, changed] += 1
        after = function(query, key, value, segments)
        end = time if not packed or changed >= begin else begin
        untouched = [*range(changed), *range(end, time)]
        torch.testing.assert_close(after[:, untouched], before[:, untouched], atol=1e-6, rtol=0)
        assert not torch.equal(after[:, changed], before[:, changed])


@pytest.mark.parametrize("name", SEGMENTED)
def test_a_packed_row_is_its_documents_run_alone(name):
    dtype = torch.bfloat16 if name in HALF_ONLY else torch.float32
    function, device = backend(name, dtype, segments=True, channels=16)
    tensors = inputs((1, 90, 4, 16), 2, dtype, device)
    segments = Segments.cut([0, 20, 75], 90, 30, device=device)
    alone = [plain_causal_attention(*(tensor[:, a:b] for tensor in tensors)) for a, b in segments.ranges()]
    torch.testing.assert_close(function(*tensors, segments), torch.cat(alone, dim=1), atol=BOUNDS[dtype], rtol=BOUNDS[dtype])


def test_the_plain_twin_by_hand():
    query, key = torch.tensor([0.0, 2.0]).view(1, 2, 1, 1), torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)
    value = torch.tensor([5.0, 7.0]).view(1, 2, 1, 1)
    share = torch.sigmoid(torch.tensor(2.0 * (3.0 - 1.0)))
    expected = torch.stack([torch.tensor(5.0), 5 * (1 - share) + 7 * share])
    torch.testing.assert_close(plain_causal_attention(query, key, value).flatten(), expected)
    apart = plain_causal_attention(query, key, value, Segments.cut([0, 1], 2, 2))
    torch.testing.assert_close(apart.flatten(), torch.tensor([5.0, 7.0]))


@pytest.mark.parametrize("name", ["plain", "sdpa-cpu", "sdpa-efficient"])
def test_float64_stays_float64(name):
    tensors = [torch.randn(1, 8, heads, 8, dtype=torch.float64) for heads in (4, 2, 2)]
    expected = plain_causal_attention(*tensors)
    assert expected.dtype == torch.float64
    torch.testing.assert_close(BACKENDS[name].function(*tensors, None), expected, atol=1e-12, rtol=1e-12)


def test_several_rows_with_segments_are_refused():
    tensors = [torch.randn(2, 8, 2, 8) for _ in range(3)]
    with pytest.raises(AssertionError, match="one packed row"):
        causal_attention(*tensors, Segments.cut([0], 8, 8))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("segments", [None, Segments.cut([4, 11, 150], 200, 60)], ids=["dense", "segments"])
def test_flex_forward_on_a_cpu(segments, dtype):
    tensors = [tensor.detach() for tensor in inputs((1, 200, 4, 16), 2, dtype, "cpu")]
    found = BACKENDS["flex"].function(*tensors, segments)
    torch.testing.assert_close(found, plain_causal_attention(*tensors, segments), atol=BOUNDS[dtype], rtol=BOUNDS[dtype])


# A process of its own: the checking of annotations that pytest switches on wraps every function of the package.
COMPILED = """
import sys, torch
from torch._dynamo.testing import CompileCounterWithBackend
from fairway.kernels.attention import Segments, causal_attention, plain_causal_attention, BACKENDS

torch.set_num_threads(1)
name, backend = sys.argv[1:]
tensors = [torch.randn(1, 64, heads, 16, requires_grad=name != "flex") for heads in (4, 2, 2)]

def attend(query, key, value, segments):
    for _ in range(2):  # two layers
        if name == "flex":  # choose refuses it on a CPU, where it has no backward pass
            query = BACKENDS[name].function(query, key, value, segments)
        else:
            query = causal_attention(query, key, value, segments, wanted=name)
    return query

def twice_plain(query, key, value, segments):
    return plain_causal_attention(plain_causal_attention(query, key, value, segments), key, value, segments)

counter = CompileCounterWithBackend(backend)
compiled = torch.compile(attend, backend=counter, fullgraph=True, dynamic=False)
rows = [None, Segments.cut([4, 11], 64, 30), Segments.cut([9, 20, 60], 64, 30)]
for graphs, segments in zip((1, 2, 2), rows):
    outputs = [function(*tensors, segments) for function in (compiled, twice_plain)]
    torch.testing.assert_close(*outputs, atol=2e-5, rtol=1e-4)
    if name != "flex":
        torch.testing.assert_close(*(torch.autograd.grad(out.square().sum(), tensors) for out in outputs), atol=1e-3, rtol=1e-3)
    assert counter.frame_count == graphs, (segments, counter.frame_count)
print("compiled")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "compiler"),
    [
        ("auto", "aot_eager"),
        ("plain", "aot_eager"),
        pytest.param("sdpa", "inductor", marks=pytest.mark.long),
        pytest.param("flex", "inductor", marks=pytest.mark.long),
    ],
)
def test_the_choice_is_a_constant_of_a_compiled_graph(name, compiler):
    command = [sys.executable, "-c", COMPILED, name, compiler]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "compiled"
