"""Compression of any bytes: everything comes back, and damage ends in an error, never in wrong text."""

import contextlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from fairway.base.errors import ArtifactError
from fairway.config import MachineConfig, PassName
from fairway.data.dataset import Dataset
from fairway.data.tokenizer import Tokenizer, train_tokenizer
from fairway.score.coded_file import CodedFile
from fairway.score.compress import Coder, compress, decompress, text_to_tokens
from fairway.score.plan import Block, fixed_plan, plain_windows
from fairway.score.predictor import Predictor, Revealed, WindowBatch
from fairway.train.machine import choose

ARTIFACT = bytes(range(8))


class Repeating:
    """Half of the mass on the token before, the rest spread evenly: the smallest predictor that looks at its text."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        same, other = 0.5 + 0.5 / vocab_size, 0.5 / vocab_size
        self.table = torch.full((vocab_size, vocab_size), other).fill_diagonal_(same).log()

    def predict(self, batch: WindowBatch) -> torch.Tensor:
        return self.table[batch.inputs[:, batch.first_scored :]]

    def observe(self, block: Revealed) -> None:
        pass


@pytest.fixture(scope="module")
def tokenizer(corpus: Path) -> Tokenizer:
    return Dataset.open(corpus).tokenizer


class SmallCoder:
    """Compress and decompress with the small predictor."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.predictor = Repeating(tokenizer.vocab_size)
        self.inner = Coder(self.make, tokenizer, ARTIFACT, choose(MachineConfig(device="cpu", threads=1)))

    def make(self, name: PassName, targets: int, documents: int) -> tuple[Predictor, list[Block]]:
        assert documents == 1
        assert name == "plain"
        return self.predictor, fixed_plan(plain_windows(targets, 4))

    def code(self, content: bytes) -> bytes:
        return compress(content, self.inner, "plain").to_bytes()

    def restore(self, data: bytes, artifact: bytes = ARTIFACT) -> bytes:
        return decompress(CodedFile.from_bytes(data, "test.fwc"), replace(self.inner, artifact=artifact))[0]


@pytest.fixture(scope="module")
def coder(tokenizer: Tokenizer) -> SmallCoder:
    return SmallCoder(tokenizer)


ADVERSARIAL = [
    *(b"", b"\x00", b" ", b"  ", b"\n", b"\r\n", b"\xff", b"\xed\xa0\x80", b"\xed\xb2\x80text", bytes(range(256))),
    *(
        text.encode()
        for text in ("\u2581", "a\u2581b \u2581", "\ue001\ue002\ue003\ue004 The", "e\u0301\u00e9\ufb01\u0130\u00df")
    ),
    *(text.encode() for text in ("\U0001f600\U0001f469\u200d\U0001f4bb", "<s></s><unk><0x41>", "\ufeffbom")),
    *(b"\xc3", b"abc\xc3", b"\xf0\x9f\x98", b"def f(x):\n    return x\n" * 3),
]


@pytest.mark.parametrize("content", ADVERSARIAL, ids=lambda content: repr(content[:12]))
def test_adversarial_bytes_come_back(content: bytes, coder: SmallCoder) -> None:
    assert coder.restore(coder.code(content)) == content


def test_every_single_byte_comes_back(coder: SmallCoder) -> None:
    for byte in range(256):
        assert coder.restore(coder.code(bytes([byte]))) == bytes([byte])


@pytest.mark.parametrize("size", [100_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_as_much_of_one_character_comes_back(size: int) -> None:
    """Spaces, of which pieces hold up to 16, so that a megabyte is 62,500 tokens and not a million."""
    coder = SmallCoder(train_tokenizer(["x" + " " * 4000] * 20, 268))
    data = coder.code(b" " * size)
    assert coder.restore(data) == b" " * size
    assert len(data) < size // 50


def test_long_runs_of_what_no_piece_holds_come_back(coder: SmallCoder) -> None:
    for content in (b"\xff" * 2000, b"\x00" * 2000):
        assert coder.restore(coder.code(content)) == content


PIECES = st.one_of(
    st.binary(max_size=4),
    st.text(max_size=3).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from([" ", "  ", "the ", "def ", "\u2581", "\ue001", "\n\n", "\x00", "\U0001f600"]).map(str.encode),
)


def many(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        phases=[Phase.explicit, Phase.generate],
    )


@many(500)
@given(pieces=st.lists(PIECES, max_size=3))
@example(pieces=[b"\xe2\x96", b"\x81"])
def test_random_bytes_come_back(pieces: list[bytes], coder: SmallCoder) -> None:
    content = b"".join(pieces)
    assert coder.restore(coder.code(content)) == content


@pytest.mark.long
@many(10_000)
@given(pieces=st.lists(PIECES, max_size=3))
def test_ten_thousand_random_byte_strings_come_back(pieces: list[bytes], coder: SmallCoder) -> None:
    content = b"".join(pieces)
    assert coder.restore(coder.code(content)) == content


@settings(max_examples=300, deadline=None)
@given(content=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
def test_tokens_stand_for_the_bytes(content: bytes, tokenizer: Tokenizer) -> None:
    ids, dropped = text_to_tokens(content, tokenizer)
    assert tokenizer.decode_bytes(ids)[dropped:] == content


def test_text_is_not_escaped(tokenizer: Tokenizer) -> None:
    text = "def encode(self, o):\n    return o\n"
    assert text_to_tokens(text.encode(), tokenizer) == (tokenizer.encode(text).tolist(), 0)


def test_only_what_the_tokenizer_loses_is_escaped(tokenizer: Tokenizer) -> None:
    ids, _ = text_to_tokens("return a \u2581 self".encode(), tokenizer)
    bytes_used = [index for index in ids if tokenizer.kinds[index] == "byte"]
    assert [tokenizer.surfaces[index] for index in bytes_used] == [b"\xe2", b"\x96", b"\x81"]


def test_every_flipped_bit_is_refused(coder: SmallCoder) -> None:
    data = coder.code(b"def f(x):\n    return x\n")
    for position in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            with pytest.raises(ArtifactError):
                coder.restore(bytes(damaged))
    for length in range(len(data)):
        with pytest.raises(ArtifactError):
            coder.restore(data[:length])


def test_damage_behind_a_forged_checksum_never_gives_wrong_text(coder: SmallCoder) -> None:
    """Even if the file's checksum is made to fit, the text's own does not; the last word holds bits that decide nothing."""
    content = b"def f(x):\n    return x\n" * 4
    whole = CodedFile.from_bytes(coder.code(content), "test.fwc")
    for position in range(len(whole.words)):
        words = whole.words.copy()
        words[position] ^= 1 << 7
        forged = replace(whole, words=words)
        if position < len(whole.words) - 1:
            with pytest.raises(ArtifactError):
                coder.restore(forged.to_bytes())
        else:
            with contextlib.suppress(ArtifactError):
                assert coder.restore(forged.to_bytes()) == content


def test_another_artifact_is_refused(coder: SmallCoder) -> None:
    with pytest.raises(ArtifactError, match="not with this one"):
        coder.restore(coder.code(b"text"), artifact=bytes(8))


def test_files_of_other_kinds_are_refused_by_name() -> None:
    with pytest.raises(ArtifactError, match=r"notes\.txt is not coded text"):
        CodedFile.from_bytes(b"just some text", "notes.txt")
    with pytest.raises(ArtifactError, match="has version 03; this release reads 02"):
        CodedFile.from_bytes(b"FWCODED\x03" + bytes(40), "new.fwc")


def test_the_header_is_small(coder: SmallCoder) -> None:
    coded = CodedFile.from_bytes(coder.code(b"x"), "test.fwc")
    assert coded.overhead <= 120
    assert np.array_equal(CodedFile.from_bytes(coded.to_bytes(), "again").words, coded.words)
