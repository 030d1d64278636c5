"""The n-gram scan: native equals plain for every rule, cutting changes nothing, and the worked examples of the definition."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hints_cases import EXACT, HAS_COMPILER, PR1557_ALONE, flags_of, needs_compiler, stored
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.base.errors import DataError, RecipeError
from fairway.config import TiltConfig
from fairway.data.tokenizer import SPACE, Tokenizer
from fairway.kernels import native as native_module
from fairway.recipes.tilts import PR1557, PR2140
from fairway.score.hints import HintScanner, Native, build_hints
from fairway.score.hints_flags import TokenFlags, token_flags
from fairway.score.hints_native import NativeScan
from fairway.score.hints_tables import SLOT_MULTIPLIER, context_key, pair_key

IDS = 1 << 16


@st.composite
def rules(draw: st.DrawFn) -> dict[str, Any]:
    """Settings of any rule, with short contexts so that they recur."""
    counting = draw(st.sampled_from(["exact", "pr2140", "pr1557"]))
    most = 1 if counting == "pr2140" else 3
    lengths = tuple(sorted(draw(st.sets(st.integers(1, 6), min_size=1, max_size=most))))
    words = counting != "pr2140" and draw(st.booleans())
    return {
        "counting": counting,
        "contexts": lengths,
        "thresholds": tuple(draw(st.sampled_from([0.1, 0.5, 0.8, 1.0])) for _ in lengths),
        "minimum_counts": tuple(draw(st.integers(1, 3)) for _ in lengths),
        "strength": draw(st.sampled_from([0.0, 2.0])),
        "confidence_scaled": draw(st.booleans()),
        "agreement": 0.1 if words else 0.0,
        "within_word_strength": draw(st.sampled_from([0.0, 1.5])) if words else 0.0,
        "word_start_strength": draw(st.sampled_from([0.0, 2.5])) if words else 0.0,
    }


@st.composite
def streams(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """Tokens of a small vocabulary, with small or large ids, and a seed for their flags."""
    vocab = draw(st.integers(2, 8))
    tokens = np.array(draw(st.lists(st.integers(0, vocab - 1), min_size=1, max_size=300)), np.uint16)
    return tokens * np.uint16(draw(st.sampled_from([1, 8009]))), draw(st.integers(0, 99))


def random_flags(seed: int) -> TokenFlags:
    generator = np.random.default_rng(seed)
    return TokenFlags(generator.random(IDS) < 0.5, generator.random(IDS) < 0.15)


def scanner(
    config: TiltConfig, flags: TokenFlags | None = None, *, plain: bool = False, bits: int | None = None
) -> HintScanner:
    mode = "never" if plain else "always" if HAS_COMPILER else "auto"
    return HintScanner(config, targets=1, vocab_size=IDS, flags=flags, native=mode, table_bits=bits)


def equal(first: tuple[np.ndarray, ...], second: tuple[np.ndarray, ...]) -> None:
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


@needs_compiler
@given(rule=rules(), stream=streams(), bits=st.integers(1, 6))
@settings(max_examples=150, deadline=None)
def test_native_equals_plain(rule: dict[str, Any], stream: tuple[np.ndarray, int], bits: int) -> None:
    tokens, flags, config = stream[0], random_flags(stream[1]), TiltConfig(**rule)
    equal(scanner(config, flags, bits=bits).push(tokens), scanner(config, flags, plain=True, bits=bits).push(tokens))


@needs_compiler
@pytest.mark.parametrize("config", [EXACT, PR2140, replace(PR1557_ALONE, counting="exact")], ids=["exact", "2140", "lengths"])
def test_native_equals_plain_while_tables_grow(config: TiltConfig) -> None:
    generator = np.random.default_rng(0)
    tokens = generator.integers(0, 40, 12000).astype(np.uint16)
    for end in generator.integers(2000, 11000, 60):
        begin = generator.integers(0, end - 60)
        tokens[end : end + 50] = tokens[begin : begin + 50]
    fast, slow = scanner(config), scanner(config, plain=True)
    for part in np.split(tokens, range(100, len(tokens), 517)):
        equal(fast.push(part), slow.push(part))


@needs_compiler
@pytest.mark.parametrize("bits", [4, 5, 6, 7])
def test_native_equals_plain_in_crowded_tables(bits: int) -> None:
    tokens = np.random.default_rng(bits).integers(0, 9, 3000).astype(np.uint16)
    config = TiltConfig(counting="pr1557", contexts=(1, 2), thresholds=(0.1, 0.2), minimum_counts=(1, 1))
    hints = scanner(config, bits=bits).push(tokens)
    equal(hints, scanner(config, plain=True, bits=bits).push(tokens))
    roomy, _ = scanner(config, bits=16).push(tokens)
    assert (hints[0] != roomy).any(), "some counts were lost"


@needs_compiler
@pytest.mark.parametrize("counting", ["exact", "pr1557"])
def test_native_equals_plain_with_long_words(counting: str) -> None:
    generator = np.random.default_rng(1)
    config = TiltConfig(
        counting=counting, contexts=(2,), thresholds=(0.5,), within_word_strength=1.0, word_start_strength=2.0, agreement=0.5
    )
    flags = TokenFlags(np.arange(IDS) == 1, np.arange(IDS) == 2)
    tokens = generator.choice(np.array([0, 1, 2, 3], np.uint16), 4000, p=[0.983, 0.012, 0.003, 0.002])
    fast, slow = scanner(config, flags), scanner(config, flags, plain=True)
    for part in np.split(tokens, range(1, len(tokens), 333)):
        equal(fast.push(part), slow.push(part))


@given(rule=rules(), stream=streams(), data=st.data())
@settings(max_examples=60, deadline=None)
def test_blocks_of_any_size_equal_one_push(rule: dict[str, Any], stream: tuple[np.ndarray, int], data: st.DataObject) -> None:
    tokens, flags, config = stream[0], random_flags(stream[1]), TiltConfig(**rule)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(tokens)), max_size=8)))
    pieces = scanner(config, flags, bits=4)
    parts = [pieces.push(part) for part in np.split(tokens, cuts)]
    equal(tuple(np.concatenate(column) for column in zip(*parts, strict=True)), scanner(config, flags, bits=4).push(tokens))
    assert pieces.position == len(tokens)


@given(rule=rules(), stream=streams(), data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_future_changes_no_hint(rule: dict[str, Any], stream: tuple[np.ndarray, int], data: st.DataObject) -> None:
    tokens, flags, config = stream[0], random_flags(stream[1]), TiltConfig(**rule)
    cut = data.draw(st.integers(1, len(tokens)))
    changed = tokens.copy()
    changed[cut:] = (changed[cut:] + 1) % 8
    whole, other = (scanner(config, flags, bits=4).push(text) for text in (tokens, changed))
    equal(tuple(part[:cut] for part in whole), tuple(part[:cut] for part in other))


@given(rule=rules(), stream=streams(), data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_saved_scan_goes_on_as_if_never_stopped(
    rule: dict[str, Any], stream: tuple[np.ndarray, int], data: st.DataObject
) -> None:
    tokens, flags, config = stream[0], random_flags(stream[1]), TiltConfig(**rule)
    cut = data.draw(st.integers(0, len(tokens)))
    stopped, resumed = scanner(config, flags, bits=4), scanner(config, flags, plain=data.draw(st.booleans()), bits=4)
    stopped.push(tokens[:cut])
    state = stopped.state_dict()
    assert all(array.dtype.kind in "uif" for array in state.values())
    resumed.push(tokens[:7])
    resumed.load_state_dict(state)
    assert resumed.position == cut
    equal(resumed.push(tokens[cut:]), stopped.push(tokens[cut:]))


@given(stream=streams(), length=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_exact_counts_are_those_of_brute_force(stream: tuple[np.ndarray, int], length: int) -> None:
    tokens = stream[0].tolist()
    config = TiltConfig(contexts=(length,), thresholds=(0.01,), strength=1.0, confidence_scaled=True)
    hints, confidences = scanner(config).push(stream[0])
    for end in range(1, len(tokens) + 1):
        ends = range(length, end) if end >= length else ()
        followed = Counter(tokens[e] for e in ends if tokens[e - length : e] == tokens[end - length : end])
        if not followed:
            assert hints[end - 1] == -1
            continue
        assert followed[int(hints[end - 1])] == max(followed.values())
        assert confidences[end - 1] == max(followed.values()) / followed.total()


PERIOD = (300 + np.arange(101) % 20).astype(np.uint16)


@pytest.mark.parametrize("native", ["auto", "never"])
def test_period_of_twenty_tokens(native: Native) -> None:
    primed, _ = build_hints(PERIOD, PR2140, vocab_size=512, native=native, primer=int(PERIOD[1]))
    strict, _ = build_hints(PERIOD, PR2140, vocab_size=512, native=native)
    for hints, first, gates in ((primed, 35, 65), (strict, 34, 66)):
        spoken = np.flatnonzero(hints >= 0)
        assert (spoken[0], len(spoken)) == (first, gates)
        np.testing.assert_array_equal(hints[spoken], PERIOD[1:][spoken])
    assert primed[35] == 316
    every = replace(
        PR1557_ALONE,
        contexts=tuple(range(8, 17)),
        thresholds=(0.7,) * 3 + (0.6,) * 3 + (0.5,) * 3,
        minimum_counts=(3,) * 3 + (2,) * 6,
    )
    for config, first in ((PR1557_ALONE, 52), (every, 51)):
        _, strengths = build_hints(PERIOD, config, vocab_size=512, native=native)
        assert int(np.argmax(strengths > 0)) + 1 == first
        assert strengths[first - 1] == 2.0


@pytest.mark.parametrize("counting", ["exact", "pr2140"])
@pytest.mark.parametrize("plain", [False, True])
def test_majority_and_ties(counting: str, plain: bool) -> None:
    config = TiltConfig(counting=counting, thresholds=(0.01,), strength=1.0, confidence_scaled=True)
    scan, found = scanner(config, plain=plain), []
    for token in (400, 401, 401, 400, 400, 400, 400, 400, 400, 401):
        hints, strengths = scan.push(np.arange(100, 115, dtype=np.uint16))
        found.append((int(hints[-1]), float(strengths[-1])))
        scan.push(np.array([token], np.uint16))
    counts = ["1/1", "1/2", "2/3", "2/4", "3/5", "4/6", "5/7", "6/8", "7/9"]
    tokens = [400, 400, 401, 401, 400, 400, 400, 400, 400]
    assert [token for token, _ in found] == [-1, *tokens]
    shares = [np.float64(part.split("/")[0]) / np.float64(part.split("/")[1]) for part in counts]
    np.testing.assert_allclose([strength for _, strength in found[1:]], shares, rtol=1e-7)


def test_the_published_threshold_passes_every_four_fifths() -> None:
    whole = np.arange(1, 100_000)
    shares = (4 * whole).astype(np.float32) / (5 * whole).astype(np.float32)
    assert (shares >= np.float32(0.8)).all()
    assert (4 * whole / (5 * whole) >= 0.8).all()


def test_published_hash_values() -> None:
    assert context_key(range(100, 115)) == 236115817
    assert (236115817 * SLOT_MULTIPLIER) % (1 << 16) == 34717
    assert pair_key(236115817, 400, 15) == 236116028324971
    newest_first = list(range(99, 115))[::-1]
    assert (context_key(newest_first[:8]), context_key(newest_first)) == (40746518, 172865154)


@pytest.mark.parametrize("plain", [False, True])
def test_a_hash_collision_speaks_in_the_published_rule_only(plain: bool) -> None:
    rest = list(range(300, 313))
    tokens = np.array([433, 578, *rest, 400, 860, 1149, *rest], np.uint16)
    hashed, _ = scanner(PR2140, plain=plain).push(tokens)
    exact, _ = scanner(EXACT, plain=plain).push(tokens)
    assert hashed[-1] == 400
    assert (exact == -1).all()


def test_contexts_with_equal_tags_are_kept_apart() -> None:
    generator = np.random.default_rng(0)
    contexts = generator.integers(0, IDS, (1 << 20, 2)).astype(np.uint64)
    hashes = (contexts[:, 0] + np.uint64(1)) * np.uint64(0x9E3779B185EBCA87) + contexts[:, 1] + np.uint64(1)
    tags = (hashes ^ hashes >> np.uint64(32)) * np.uint64(SLOT_MULTIPLIER) >> np.uint64(32)
    order = np.argsort(tags, kind="stable")
    same = np.flatnonzero((np.diff(tags[order]) == 0) & (np.diff(hashes[order]) != 0))
    assert len(same) > 10
    config = TiltConfig(contexts=(2,), thresholds=(0.5,))
    for first, second in zip(contexts[order[same]], contexts[order[same + 1]], strict=True):
        hints, _ = scanner(config).push(np.array([*first, 7, *second, *first], np.uint16))
        assert hints[4] == -1, "the native scan compares tokens, not only the 32 bits of the hash that it stores"
        assert hints[6] == 7


def test_words_with_equal_tags_and_equal_ends_are_kept_apart() -> None:
    flags = TokenFlags(np.zeros(IDS, bool), np.arange(IDS) == 0)
    config = TiltConfig(contexts=(15,), within_word_strength=1.0)
    longer, shorter = [3, 24193, 8124], [24193, 8124]
    hints, _ = scanner(config, flags).push(np.array([0, *longer, 7, 0, *shorter, 9, 0, *longer, 7, 0, *shorter], np.uint16))
    assert (hints[3], hints[7]) == (-1, -1)
    assert (hints[12], hints[16]) == (7, 9)


def test_flags_change_nothing_but_the_agreement_bonus() -> None:
    arrays, generator = stored("hints_v512"), np.random.default_rng(0)
    tokens, flags = arrays["tokens"], flags_of(arrays)
    order = generator.permutation(512)
    others = TokenFlags(flags.leading_space[order], flags.boundary[order])
    equal(*(build_hints(tokens, EXACT, vocab_size=512, flags=given) for given in (flags, others)))
    (_, ours), (_, theirs) = (build_hints(tokens, PR1557, vocab_size=512, flags=given) for given in (flags, others))
    _, alone = build_hints(tokens, PR1557_ALONE, vocab_size=512)
    assert not np.array_equal(ours, theirs)
    for strengths in (ours, theirs):
        bonus = np.round(strengths - alone, 9)
        assert set(bonus.tolist()) == {0.0, 0.1}


def test_exact_word_experts_speak_from_the_words_read() -> None:
    flags = TokenFlags(np.isin(np.arange(16), [1, 4, 7]), np.arange(16) == 0)
    within = TiltConfig(contexts=(15,), within_word_strength=1.0)
    tokens = np.array([0, 1, 2, 3, 4, 5, 0, 1, 2, 3], np.uint16)
    hints, strengths = build_hints(np.append(tokens, [9]).astype(np.uint16), within, vocab_size=16, flags=flags)
    assert hints.tolist() == [-1, -1, -1, -1, -1, -1, -1, 2, 3, 4]
    assert set(strengths.tolist()) == {0.0, 1.0}
    start = TiltConfig(contexts=(15,), strength=0.0, word_start_strength=2.0)
    words = np.array([1, 2, 4, 7, 1, 2] * 5, np.uint16)
    hints, _ = build_hints(words, start, vocab_size=16, flags=flags)
    spoken = np.flatnonzero(hints >= 0)
    assert len(spoken)
    np.testing.assert_array_equal(hints[spoken], words[1:][spoken])


def test_the_count_of_the_commonest_token_wraps_at_sixteen_bits() -> None:
    config = TiltConfig(counting="pr1557", contexts=(1,), thresholds=(0.5,), strength=1.0, confidence_scaled=True)
    _, strengths = scanner(config, bits=4).push(np.zeros(65540, np.uint16))
    assert strengths[65535] == 1.0
    assert strengths[65536] == 0.0, "65,536 occurrences count as none"


@pytest.mark.parametrize(("targets", "bits"), [(1, 10), (200_000, 20), (5_000_000, 24), (40_540_160, 26), (10**9, 26)])
def test_tables_have_their_published_size_on_the_published_stream(targets: int, bits: int) -> None:
    assert HintScanner(PR1557_ALONE, targets=targets, vocab_size=8192, native="never").table_bits == bits


def test_flags_of_a_tokenizer(corpus: Path) -> None:
    tokenizer = Tokenizer.load(next(corpus.glob("*.model")))
    flags = token_flags(tokenizer)
    assert np.flatnonzero(flags.boundary).tolist() == [0, 1, 2, 3]
    assert [tokenizer.pieces[index][0] == SPACE for index in range(tokenizer.vocab_size)] == flags.leading_space.tolist()
    assert 0 < flags.opens.sum() < tokenizer.vocab_size


def test_memory_is_stated_and_small() -> None:
    tokens = np.random.default_rng(0).integers(0, 8192, 200_000).astype(np.uint16)
    scan = HintScanner(EXACT, targets=len(tokens), vocab_size=8192).scan
    scan.push(tokens)
    if not isinstance(scan, NativeScan):
        pytest.skip("no C compiler; the plain scan's memory is Python's")
    assert scan.memory < 45 * len(tokens)


def test_without_a_compiler_the_plain_scan_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    native_module.native_or_none.cache_clear()
    monkeypatch.setattr(native_module.shutil, "which", lambda name: None)
    with caplog.at_level("WARNING", logger="fairway"):
        hints = [build_hints(PERIOD, EXACT, vocab_size=512)[0] for _ in range(2)]
    native_module.native_or_none.cache_clear()
    assert len(caplog.records) == 1
    assert "apt-get install gcc" in caplog.text
    assert "plain Python" in caplog.text
    monkeypatch.undo()
    np.testing.assert_array_equal(hints[0], build_hints(PERIOD, EXACT, vocab_size=512)[0])


def test_settings_that_cannot_be_counted_are_refused() -> None:
    with pytest.raises(RecipeError, match="without token flags"):
        scanner(PR1557)
    with pytest.raises(RecipeError, match="must be 0 with counting=pr2140"):
        scanner(replace(PR2140, agreement=0.5), TokenFlags(np.zeros(IDS, bool), np.zeros(IDS, bool)))
    with pytest.raises(DataError, match="leading_space cover 3 ids, the vocabulary has 65536"):
        scanner(PR1557, TokenFlags(np.zeros(3, bool), np.zeros(3, bool)))
    with pytest.raises(DataError, match="at most 65536"):
        HintScanner(EXACT, targets=1, vocab_size=70_000)
    with pytest.raises(DataError, match="token 9 is outside the vocabulary of 8"):
        HintScanner(EXACT, targets=1, vocab_size=8).push(np.array([1, 9], np.uint16))
    for state in ({}, {"tokens": np.zeros(3, np.int64)}, {"tokens": np.zeros(3, np.uint16), "more": np.zeros(1, np.uint8)}):
        with pytest.raises(DataError, match="state of an n-gram scan"):
            scanner(EXACT).load_state_dict(state)


@needs_compiler
@given(
    turns=st.lists(st.tuples(st.lists(st.integers(0, 4), max_size=5), st.lists(st.integers(0, 4), max_size=6)), max_size=12),
    counting=st.sampled_from(["exact", "pr2140"]),
)
@settings(max_examples=60, deadline=None)
def test_native_and_plain_scans_take_turns_alike(turns: list[tuple[list[int], list[int]]], counting: str) -> None:
    """Contexts that are taken up are looked up and not counted, and none reaches back before them."""
    config = TiltConfig(counting=counting, contexts=(2,), thresholds=(0.5,), minimum_counts=(1,), strength=1.5)
    scans = [HintScanner(config, targets=100, vocab_size=5, native=native, resumes=True) for native in ("always", "never")]
    for context, pushed in turns:
        found = []
        for scan in scans:
            first = scan.resume(np.array(context, np.uint16))
            hints, strengths = scan.push(np.array(pushed, np.uint16))
            found.append((first, hints.tolist(), strengths.tolist()))
        assert found[0] == found[1]


@pytest.mark.parametrize("native", ["auto", "never"])
def test_a_context_that_is_taken_up_counts_nothing(native: Native) -> None:
    config = TiltConfig(contexts=(2,), thresholds=(0.5,), minimum_counts=(1,), strength=1.5)
    scan = HintScanner(config, targets=100, vocab_size=9, native=native, resumes=True)
    assert scan.resume(np.array([1, 2, 3], np.uint16)) == (-1, 0.0)
    hints, _ = scan.push(np.array([4, 5], np.uint16))
    assert hints.tolist() == [-1, -1]
    # The context (1, 2) was never counted, (2, 3) and (3, 4) were.
    assert scan.resume(np.array([1, 2], np.uint16)) == (-1, 0.0)
    assert scan.resume(np.array([2, 3], np.uint16)) == (4, 1.5)
    assert scan.resume(np.array([4], np.uint16)) == (-1, 0.0)
    assert scan.push(np.array([7], np.uint16))[0].tolist() == [-1]
    assert scan.resume(np.array([7, 3, 4], np.uint16)) == (5, 1.5)
    with pytest.raises(DataError, match="no state to save"):
        scan.state_dict()
