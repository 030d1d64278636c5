"""Hints and strengths equal the published systems', token by token; the leaky rule is caught by the test that ours passes."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hints_cases import EXACT, PR1420, PR1557_ALONE, flags_of, stored, whole

from fairway.config import TiltConfig
from fairway.recipes.tilts import PR1557, PR2140
from fairway.score.hints import Native, build_hints
from fairway.score.hints_flags import TokenFlags
from fairway.score.hints_plain import PlainScan, choose

LEAKY = replace(PR1557, within_word_strength=0.92, word_start_strength=0.5)
"""PR #1437 before its correction."""

Hints = tuple[np.ndarray, np.ndarray]


def built(arrays: dict[str, np.ndarray], config: TiltConfig, native: Native, *, first_target_primes: bool = False) -> Hints:
    tokens = arrays["tokens"]
    flags = flags_of(arrays) if config.agreement else None
    primer = int(tokens[1]) if first_target_primes else None
    return build_hints(tokens, config, vocab_size=512, flags=flags, native=native, primer=primer)


def check_2140(arrays: dict[str, np.ndarray], native: Native) -> Hints:
    hints, strengths = built(arrays, PR2140, native, first_target_primes=True)
    np.testing.assert_array_equal(hints, np.where(arrays["2140.gate"], arrays["2140.hint_ids"], -1))
    np.testing.assert_array_equal(strengths, arrays["2140.boost"].astype(np.float64))
    return hints, strengths


def check_exact(arrays: dict[str, np.ndarray], native: Native) -> Hints:
    hints, strengths = built(arrays, EXACT, native, first_target_primes=True)
    gate = arrays["2140.exact_top_prob"] >= np.float32(0.8)
    np.testing.assert_array_equal(hints, np.where(gate, arrays["2140.exact_top_token"].astype(np.int32), -1))
    np.testing.assert_array_equal(strengths, np.where(gate, 2.625, 0.0))
    return hints, strengths


def check_1557(arrays: dict[str, np.ndarray], native: Native, name: str) -> Hints:
    config = {"": PR1557, "_no_agree": PR1557_ALONE, "_1420": PR1420}[name]
    hints, strengths = built(arrays, config, native)
    beta = arrays[f"1557.beta{name}"][1:]
    np.testing.assert_array_equal(hints, np.where(beta > 0, arrays[f"1557.hint{name}"][1:], -1))
    np.testing.assert_array_equal(strengths, beta)
    return hints, strengths


@pytest.mark.parametrize("native", ["auto", "never"])
def test_pr2140_and_its_exact_variant(native: Native) -> None:
    arrays = stored("hints_v512")
    hints, _ = check_2140(arrays, native)
    assert int(np.argmax(hints >= 0)) == 1065
    check_exact(arrays, native)


@pytest.mark.parametrize("name", ["", "_no_agree", "_1420"])
def test_pr1557_and_pr1420(name: str) -> None:
    check_1557(stored("hints_v512"), "auto", name)


def test_whole_streams() -> None:
    stream, family_a, family_b = whole("stream_v512"), whole("tilt_2140_v512"), whole("tilt_1557_v512")
    arrays = stream | {f"2140.{name}": array for name, array in family_a.items()}
    arrays |= {f"1557.{name}": array for name, array in family_b.items()}
    targets = stream["tokens"][1:]
    hints, _ = check_2140(arrays, "auto")
    assert (int((hints >= 0).sum()), int((hints == targets).sum()), int(np.argmax(hints >= 0))) == (31429, 30503, 1065)
    exact, _ = check_exact(arrays, "auto")
    assert (int(((exact < 0) & (hints >= 0)).sum()), int(((exact >= 0) & (hints < 0)).sum())) == (24, 4)
    _, with_words = check_1557(arrays, "auto", "")
    _, alone = check_1557(arrays, "auto", "_no_agree")
    assert (int((with_words > 0).sum()), int((with_words != alone).sum())) == (18335, 3201)
    _, strengths = check_1557(arrays, "auto", "_1420")
    assert int((strengths > 0).sum()) == 18847


@pytest.mark.parametrize("bits", [20, 22])
def test_larger_tables_change_nothing_where_nothing_is_lost(bits: int) -> None:
    arrays = stored("hints_v512")
    usual = built(arrays, PR1557, "auto")
    larger = build_hints(arrays["tokens"], PR1557, vocab_size=512, flags=flags_of(arrays), native="auto", table_bits=bits)
    np.testing.assert_array_equal(usual, larger)


def test_zero_strength_hints_of_the_published_logs_tilt_nothing() -> None:
    arrays = stored("hints_v512")
    silent = (arrays["1557.hint"] >= 0) & (arrays["1557.beta"] == 0)
    hints, strengths = built(arrays, PR1557, "auto")
    assert silent.sum() > 1000
    assert (hints[silent[1:]] == -1).all()
    assert (strengths[silent[1:]] == 0).all()


@pytest.mark.parametrize("native", ["auto", "never"])
def test_hints_of_the_published_pass(native: Native) -> None:
    arrays = stored("pass_1557")
    flags, vocab = flags_of(arrays, "is_boundary"), int(arrays["vocab_size"])
    hints, strengths = build_hints(arrays["tokens"], PR1557, vocab_size=vocab, flags=flags, native=native)
    beta = arrays["beta"][1:]
    np.testing.assert_array_equal(hints, np.where(beta > 0, arrays["hint"][1:], -1))
    np.testing.assert_array_equal(strengths, beta)
    assert int((beta > 0).sum()) == 1233


def leaky_hints(tokens: np.ndarray, flags: TokenFlags) -> Hints:
    """The rule before its correction: whether the word experts speak is decided by the token that is being predicted."""
    scan = PlainScan(LEAKY, flags, 14)
    chosen = []
    for target_index in range(len(tokens) - 1):
        scan.push(tokens[target_index : target_index + 1])
        for expert in scan.words:
            expert.last = int(tokens[target_index + 1])
        chosen.append(choose(scan._candidates(), LEAKY.agreement))
        for expert in scan.words:
            expert.last = int(tokens[target_index])
    return np.array([token for token, _ in chosen]), np.array([strength for _, strength in chosen])


def corrected_hints(tokens: np.ndarray, flags: TokenFlags) -> Hints:
    return build_hints(tokens, LEAKY, vocab_size=512, flags=flags, native="auto")


def violations(build: Callable[[np.ndarray, TokenFlags], Hints]) -> tuple[int, int]:
    """Replace the text after a cut: how often a hint changes up to the first replaced target, and how often before it.

    The cuts are targets at which the word experts speak, where a leak would show.
    """
    arrays, generator = stored("hints_v512"), np.random.default_rng(0)
    tokens, flags = arrays["tokens"][:600], flags_of(arrays)
    whole_text = build(tokens, flags)
    speaks = np.flatnonzero(whole_text[1] > 0)
    at_target = before = 0
    for cut in generator.permutation(speaks[speaks > 50])[:8]:
        changed = tokens.copy()
        changed[cut + 1 :] = generator.integers(264, 512, len(tokens) - cut - 1)
        pairs = list(zip(whole_text, build(changed, flags), strict=True))
        at_target += any(not np.array_equal(a[: cut + 1], b[: cut + 1]) for a, b in pairs)
        before += any(not np.array_equal(a[:cut], b[:cut]) for a, b in pairs)
    return at_target, before


def test_the_leaky_rule_is_the_stored_one_and_is_caught() -> None:
    arrays = stored("hints_v512")
    hints, strengths = leaky_hints(arrays["tokens"][:2001], flags_of(arrays))
    beta = arrays["leaky.beta_1437"][1:2001]
    np.testing.assert_array_equal(hints, np.where(beta > 0, arrays["leaky.hint_1437"][1:2001], -1))
    np.testing.assert_array_equal(strengths, beta)
    at_target, before = violations(leaky_hints)
    assert at_target > 0
    assert before == 0, "the leak is at the predicted token itself, nowhere before"


def test_the_corrected_rule_passes_the_same_test() -> None:
    assert violations(corrected_hints) == (0, 0)


def test_the_stored_leak_reveals_the_class_of_the_target() -> None:
    arrays = stored("hints_v512")
    opens, leaky = arrays["has_leading_space"].astype(bool), arrays["leaky.beta_1437"][1:]
    targets = arrays["tokens"][1:].astype(np.int64)
    ours = corrected_hints(arrays["tokens"], flags_of(arrays))[1]
    by_within = leaky == LEAKY.within_word_strength
    assert by_within.sum() > 500
    assert not opens[targets[by_within]].any()
    assert opens[targets[ours == LEAKY.within_word_strength]].any()
