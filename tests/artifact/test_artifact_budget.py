"""The byte budget on real files, and advice that works."""

import numpy as np
import pytest
from artifact_samples import half_floats

from fairway.artifact.budget import ByteBudget, CodeClass, clip_factor, gaussian_bits, measure
from fairway.artifact.container import write_artifact
from fairway.artifact.frequencies import entropy_bits
from fairway.artifact.records import CodedTensor
from fairway.base.errors import ArtifactError, BudgetError
from fairway.config import QuantConfig


def codes_at(clip_sigmas, bits=6, rows=128, columns=512, seed=4):
    limit = 2 ** (bits - 1) - 1
    weights = np.random.default_rng(seed).standard_normal((rows, columns))
    return np.clip(np.rint(weights * limit / clip_sigmas), -limit, limit).astype(np.int8)


def write(path, clip_sigmas, bits=6):
    name = "blocks.0.mlp.up.weight" if bits == 6 else "embedding.weight"
    return write_artifact(path, {name: CodedTensor(codes_at(clip_sigmas, bits), half_floats(128, 3), bits)}, {})


@pytest.mark.parametrize(
    ("bits", "clip_sigmas", "expected"), [(6, 12.85, 3.3279), (6, 11.5, 3.4860), (7, 14, 4.2200), (8, 20, 4.7153)]
)
def test_the_entropy_formula_matches_the_specification(bits, clip_sigmas, expected):
    assert gaussian_bits(clip_sigmas / (2 ** (bits - 1) - 1)) == pytest.approx(expected, abs=1e-4)


def test_the_sensitivity_is_that_of_the_specification():
    group = CodeClass("quant.mlp.clip_sigmas", 31_719_424, 6, 12.85)
    factor = clip_factor(group, 4_389)
    assert 12.85 * (factor - 1) == pytest.approx(0.01, rel=0.01)


def test_a_total_at_the_cap_fits_and_one_byte_less_does_not(tmp_path):
    report = write(tmp_path / "model.fwz", 12.85)
    (tmp_path / "code.bundle").write_bytes(bytes(500))
    for code in (bytes(500), tmp_path / "code.bundle"):
        budget = measure(tmp_path / "model.fwz", code, report.total_bytes + 500)
        assert (budget.artifact_bytes, budget.code_bytes, budget.slack) == (report.total_bytes, 500, 0)
        budget.check()
    tight = measure(tmp_path / "model.fwz", bytes(500), report.total_bytes + 499)
    with pytest.raises(
        BudgetError, match=f"= {report.total_bytes + 500:,} bytes, 1 above the cap of {report.total_bytes + 499:,}; to fit"
    ):
        tight.check()


def test_following_the_advice_makes_the_artifact_fit(tmp_path):
    report = write(tmp_path / "model.fwz", 12.85)
    cap = report.total_bytes - 1_000
    budget = measure(tmp_path / "model.fwz", b"", cap, QuantConfig())
    advised = float(budget.advice().split("quant.mlp.clip_sigmas from 12.85 to ")[1].split(",")[0])
    assert 13.2 < advised < 14.2
    assert write(tmp_path / "smaller.fwz", advised + 0.02).total_bytes <= cap
    measure(tmp_path / "smaller.fwz", b"", cap).check()


def test_advice_names_every_class_the_bits_and_the_width(tmp_path):
    tensors = {
        "blocks.0.mlp.up.weight": CodedTensor(codes_at(12.85), half_floats(128, 3), 6),
        "embedding.weight": CodedTensor(codes_at(20, 8, rows=32), half_floats(32, 3), 8),
    }
    report = write_artifact(tmp_path / "model.fwz", tensors, {})
    budget = measure(tmp_path / "model.fwz", b"", report.total_bytes - 800)
    for text in ("quant.mlp.clip_sigmas by", "quant.embedding.clip_sigmas by", "quant.mlp.bits=5", "model.width"):
        assert text in budget.advice()


def test_one_bit_less_saves_about_one_bit_per_weight():
    six, five = codes_at(12.85), codes_at(12.85, bits=5)
    bits = [float(entropy_bits(np.bincount(codes.view(np.uint8).ravel()))) / codes.size for codes in (six, five)]
    assert 0.9 < bits[0] - bits[1] < 1.1


def test_an_impossible_excess_is_not_answered_with_an_absurd_clip():
    group = CodeClass("quant.mlp.clip_sigmas", 1000, 6, 12.85)
    assert clip_factor(group, 10**6) is None
    text = ByteBudget(2_000_000, 0, 1_000_000, (group,)).advice()
    assert "clip_sigmas" not in text
    assert "30 % smaller" in text


def test_missing_files_are_refused(tmp_path):
    write(tmp_path / "model.fwz", 12.85)
    with pytest.raises(ArtifactError, match=r"code\.bundle cannot be read"):
        measure(tmp_path / "model.fwz", tmp_path / "code.bundle", 1000)
    with pytest.raises(ArtifactError, match="does not exist"):
        measure(tmp_path / "absent.fwz", b"", 1000)
