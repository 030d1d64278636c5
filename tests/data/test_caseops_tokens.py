"""The case transform in tokenizers, byte costs, data folders, published exports and coded files."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from corpus_helpers import WORDS, make_texts, train_challenge_model, write_jsonl
from hypothesis import example, given, settings
from hypothesis import strategies as st
from published_helpers import serving, write_export

from fairway.audit.accounting import ADVERSARIAL, byte_accounting
from fairway.base.errors import DataError
from fairway.data import caseops
from fairway.data.build import build_dataset
from fairway.data.caseops import OPERATORS, TITLE
from fairway.data.dataset import Dataset
from fairway.data.describe import describe
from fairway.data.fetch import VARIANTS, fetch
from fairway.data.ledger import encode_document, encode_documents, loss
from fairway.data.shards import Shard, write_shard
from fairway.data.tokenizer import BOS, Tokenizer, train_tokenizer
from fairway.score.compress import text_to_tokens

NAME = VARIANTS["sp8192-caseops"].name
TRANSFORM = "lossless_caps_caseops_v1"
RESERVED = (
    Path(__file__).parents[3]
    / "shared/data/tokenizers/fineweb_8192_bpe_lossless_caps_caseops_v1_reserved.model"
)  # fmt: skip
needs_reserved = pytest.mark.skipif(not RESERVED.exists(), reason="the published CaseOps model is not on this machine")

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.text(
    "abAB  \n\t\u00e9\u2026\ufb01\u2122\u65e5" + OPERATORS, max_size=30
)


@pytest.fixture(scope="session")
def cased():
    """Documents with titles, names in capitals, inner capitals and literal operators."""
    texts = []
    for number, text in enumerate(make_texts(60)):
        words = [word.upper() if place % 7 == 3 else word.title() for place, word in enumerate(WORDS[number % 5 :])]
        texts.append(" ".join(words) + f" iPhone {OPERATORS[number % 4]} \u00c9COLE\n" + text)
    return texts


@pytest.fixture(scope="session")
def operating(cased):
    """A model of our own for transformed text."""
    return train_tokenizer(cased, 420, "caseops")


@pytest.fixture(scope="session")
def normalising(cased):
    """A toy model with the settings of the published CaseOps export."""
    transformed = [caseops.encode(text) for text in cased]
    return Tokenizer(train_challenge_model(transformed, user_defined_symbols=list(OPERATORS), vocab_size=420))


def test_operators_are_pieces_4_to_7_and_byte_pieces_follow(operating, normalising):
    for tokenizer in (operating, normalising):
        assert tokenizer.text_transform == "caseops"
        assert tokenizer.pieces[4:8] == tuple(OPERATORS)
        assert tokenizer.operators == (4, 5, 6, 7)
        assert tokenizer.byte_ids == tuple(range(8, 264))
        assert tokenizer.plain.text_transform == "none"
        assert not any(piece.isascii() and piece.lower() != piece for piece in tokenizer.pieces[264:])


def test_other_models_with_operators_do_not_transform(train_model, texts):
    wrong_order = Tokenizer(train_model(texts, user_defined_symbols=list(reversed(OPERATORS))))
    partly = Tokenizer(train_model(texts, user_defined_symbols=[TITLE]))
    learned = train_tokenizer([f"{text}{OPERATORS}" for text in texts], 400)
    for tokenizer in (wrong_order, partly, learned):
        assert tokenizer.operators
        assert tokenizer.text_transform == "none"
        assert tokenizer.plain is tokenizer


@settings(max_examples=300, deadline=None)
@given(text=TEXT.filter(lambda text: "\u2581" not in text))
def test_every_text_comes_back_from_our_own_tokens(operating, text):
    ids = operating.encode(text)
    assert operating.decode(ids) == text
    assert operating.decode_bytes(ids) == text.encode()
    twice = [BOS, *ids.tolist()] * 2
    assert operating.decode(twice) == 2 * text
    assert operating.decode_bytes(twice) == 2 * text.encode()
    assert operating.decode_batch(operating.encode_batch([text, "NASA", text]))[::2] == [text, text]
    assert (operating.plain.encode(caseops.encode(text)) == ids).all()


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(TEXT, max_size=4))
@example(texts=[f"{OPERATORS}Abc{OPERATORS[3] * 4}", "\u2122Abc", "\ufb01Ne", " Hi ", "a  Bc", "\u65e5\U0001f600X"])
def test_fast_and_plain_costs_agree_and_add_up(operating, normalising, texts):
    for tokenizer in (operating, normalising):
        texts = [text for text in texts if len(tokenizer.encode(text)) or not text]
        for text, fast in zip(texts, encode_documents(tokenizer, texts, 2, keep_lossy=True), strict=True):
            plain = encode_document(tokenizer, text)
            assert fast is not None
            assert np.array_equal(fast.tokens, plain.tokens)
            assert np.array_equal(fast.byte_costs, plain.byte_costs)
            assert fast.lossless == plain.lossless == (loss(tokenizer, text) == "")
            assert int(fast.byte_costs.sum()) == len(text.encode())


def test_operators_cost_nothing_and_literal_ones_three(operating):
    text = f"The NASA {OPERATORS} iPhone"
    document = encode_document(operating, text)
    costs = {4: [], 5: [], 6: [], 7: []}
    for token, cost in zip(document.tokens.tolist(), document.byte_costs.tolist(), strict=True):
        if token in costs:
            costs[token].append(cost)
    assert costs == {4: [0, 3], 5: [0, 3], 6: [3, 0], 7: [0, 0, 0, 0, 3]}


def test_documents_that_the_normaliser_changes_are_named(normalising):
    spoilt = "leaves case operators that cannot be undone"
    for text, clause in {
        "\u2122Abc": rf"changed from character 0 on, U\+2122, which {spoilt}",
        "the \ufb01Ne": rf"changed from character 4 on, U\+FB01, which {spoilt}",
        "The  End": r"changed from character 4 on, U\+0020",
        " Hi": r"changed from character 0 on, U\+0020",
        "Hi ": r"changed from character 2 on, U\+0020",
        "Hi\nYou": r"changed from character 2 on, U\+000A",
    }.items():
        assert re.fullmatch(clause, loss(normalising, text))
        assert encode_documents(normalising, [text]) == [None]
    assert loss(normalising, "The End") == ""
    lenient = normalising.decode(normalising.encode("\u2122Abc"))
    assert lenient == "TMAbc"


def test_difficult_texts(operating, normalising):
    """Test Y of the rules: each text is charged its UTF-8 length, and comes back or is left out by name."""
    for tokenizer in (operating, normalising):
        for text in (*ADVERSARIAL, "\n\n", "\u2122Abc", "\ufb01Ne"):
            document = encode_documents(tokenizer, [text])[0]
            if document is None:
                assert loss(tokenizer, text).startswith("changed from character ")
                continue
            assert int(document.byte_costs.sum()) == len(text.encode())
            assert document.byte_costs[0] == 0
            assert tokenizer.decode(document.tokens) == text
    assert [text for text in ADVERSARIAL if loss(operating, text)] == ["\u2581"]


@settings(max_examples=200, deadline=None)
@given(content=st.lists(st.binary(max_size=4) | TEXT.map(str.encode), max_size=3).map(b"".join))
@example(content=b"NASA\xffdef \xee\x80\x81\xee\x80Abc")
@example(content="\u2581A \u2122Abc \ufb01Ne\n\n Hi ".encode())
def test_any_file_comes_back_from_its_tokens(operating, normalising, content):
    for tokenizer in (operating, normalising):
        ids, dropped = text_to_tokens(content, tokenizer)
        assert tokenizer.decode_bytes([BOS, *ids])[dropped:] == content


def test_text_is_coded_as_it_was_trained(operating, cased):
    assert text_to_tokens(cased[0].encode(), operating) == (operating.encode(cased[0]).tolist(), 0)


@pytest.fixture(scope="session")
def folder(tmp_path_factory, cased):
    place = tmp_path_factory.mktemp("caseops")
    path = write_jsonl(place / "corpus.jsonl", cased)
    build_dataset([path], place / "data", vocab_size=420, val_documents=6, text_transform="caseops")
    return place / "data"


def test_a_built_folder_knows_its_transform(folder, cased, tmp_path):
    dataset = Dataset.open(folder)
    dataset.verify()
    assert json.loads((folder / "manifest.json").read_text())["text_transform"] == "caseops"
    assert dataset.text_transform == describe(dataset).text_transform == "caseops"
    stream = dataset.validation()
    edges = [*stream.documents.tolist(), len(stream.tokens)]
    for text, first, end in zip(cased, edges, edges[1:], strict=False):
        assert dataset.tokenizer.decode(stream.tokens[first + 1 : end]) == text
        assert int(stream.byte_costs[first:end].sum()) == len(text.encode())
    assert dataset.tokenizer.decode_bytes(stream.tokens) == "".join(cased[:6]).encode()
    assert byte_accounting(dataset.tokenizer, stream.tokens, stream.byte_costs, stream.documents).verdict == "pass"
    operators_too = stream.byte_costs + 3 * np.isin(stream.tokens, dataset.tokenizer.operators)
    assert byte_accounting(dataset.tokenizer, stream.tokens, operators_too, stream.documents).verdict == "fail"
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    manifest = json.loads((broken / "manifest.json").read_text())
    (broken / "manifest.json").write_text(json.dumps({**manifest, "text_transform": "none"}))
    with pytest.raises(DataError, match="made for text transform caseops, the shards for none"):
        Dataset.open(broken)


def test_a_sidecar_that_counts_the_transformed_text_is_refused(tmp_path, operating, cased):
    write_export(tmp_path, operating, cased[:20], name=NAME, sidecars=True)
    path = tmp_path / "datasets" / NAME / "fineweb_val_bytes_000000.bin"
    values = np.array(Shard(path).values)
    tokens = Shard(path.with_name("fineweb_val_000000.bin")).values
    values[np.isin(tokens, operating.operators)] = 3
    write_shard(path, values)
    with pytest.raises(DataError, match="case operators, which stand for none"):
        Dataset.open(tmp_path)


def test_a_missing_sidecar_is_refused(tmp_path, operating, cased, folder):
    write_export(tmp_path / "published", operating, cased[:20], name=NAME)
    with pytest.raises(DataError, match="has no byte sidecar"):
        Dataset.open(tmp_path / "published")
    shutil.copytree(folder, tmp_path / "built")
    (tmp_path / "built" / "val_bytes_000000.bin").unlink()
    with pytest.raises(DataError, match="0 val byte sidecars"):
        Dataset.open(tmp_path / "built")


def test_transform_and_given_model_must_fit(tmp_path, operating, tokenizer, cased):
    path = write_jsonl(tmp_path / "corpus.jsonl", cased)
    operating.save(tmp_path / "case.model")
    tokenizer.save(tmp_path / "plain.model")
    with pytest.raises(DataError, match=r"made for text transform caseops, not none.*--transform caseops"):
        build_dataset([path], tmp_path / "data", tokenizer=tmp_path / "case.model")
    with pytest.raises(DataError, match=r"made for text transform none, not caseops.*lack the case operators"):
        build_dataset([path], tmp_path / "data", tokenizer=tmp_path / "plain.model", text_transform="caseops")
    with pytest.raises(DataError, match=r"outside 268\.\.65536; 4 special and 256 byte pieces and 4 operators are fixed"):
        build_dataset([path], tmp_path / "data", vocab_size=266, text_transform="caseops")
    build_dataset([path], tmp_path / "data", tokenizer=tmp_path / "case.model", text_transform="caseops")
    assert Dataset.open(tmp_path / "data").tokenizer == operating


def test_lossy_documents_are_refused_by_name(tmp_path, normalising, cased):
    normalising.save(tmp_path / "case.model")
    flat = [" ".join(text.split()) for text in cased]
    path = write_jsonl(tmp_path / "a.jsonl", [*flat[:9], "\u2122Abc", *flat[9:]])
    options = {"tokenizer": tmp_path / "case.model", "text_transform": "caseops", "val_documents": 5}
    with pytest.raises(DataError, match=r"1 of 61 .*a\.jsonl:10 changed from character 0 on, U\+2122, which leaves case"):
        build_dataset([path], tmp_path / "data", **options)
    report = build_dataset([path], tmp_path / "data", lossy="drop", **options)
    assert report.manifest.train.dropped_lossy == 1
    assert report.manifest.val.bytes == sum(len(text.encode()) for text in flat[:5])


def declare(root, transform):
    manifest = json.loads((root / "manifest.json").read_text())
    manifest["tokenizers"][0]["text_transform"] = transform
    (root / "manifest.json").write_text(json.dumps(manifest))


def test_a_published_export_is_read_with_its_sidecars(tmp_path, operating, tokenizer, cased, monkeypatch):
    """Fetched, nested one folder deeper as some scripts write it, and in the layout of the repository."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("no_proxy", "*")
    hub = tmp_path / "hub" / "datasets"
    write_export(hub, operating, cased[:20], name=NAME, sidecars=True)
    declare(hub, TRANSFORM)
    with serving(tmp_path / "hub", VARIANTS["sp8192-caseops"].repository) as server:
        fetch("sp8192-caseops", tmp_path / "out", train_shards=3, endpoint=server.endpoint)
    nested = tmp_path / "nested"
    shutil.copytree(hub / "datasets", nested / "datasets" / "datasets")
    shutil.copytree(hub / "tokenizers", nested / "datasets" / "tokenizers")
    shutil.copy(hub / "manifest.json", nested)
    opened = [Dataset.open(place) for place in (tmp_path / "out", nested, tmp_path / "hub")]
    assert len({dataset.fingerprint for dataset in opened}) == 1
    for dataset in opened:
        assert dataset.text_transform == "caseops"
        stream = dataset.validation()
        assert stream.byte_rule == "sidecar"
        assert int(stream.byte_costs.sum()) == sum(len(text.encode()) for text in cased[:4])
        assert dataset.tokenizer.decode_bytes(stream.tokens) == "".join(cased[:4]).encode()
    declare(hub, "shouting_v2")
    with pytest.raises(DataError, match="text transform 'shouting_v2' is not known"):
        Dataset.open(hub)
    declare(hub, TRANSFORM)
    (hub / "tokenizers" / "toy.model").write_bytes(tokenizer.model)
    with pytest.raises(DataError, match="has no operators for it"):
        Dataset.open(hub)


PUBLISHED = [
    ("The NASA Launch", "4 320 8133 5 5566 8136 8133 4 1632 1709", "0 3 1 0 3 1 1 0 2 4"),
    ("A", "4 8136", "0 1"),
    ("AB", "5 373", "0 2"),
    ("aB", "8136 6 8153", "1 0 1"),
    ("ABc", "4 8136 6 3608", "0 1 0 2"),
    ("DON'T", "5 1670 8165 4 8135", "0 3 1 0 1"),
    ("iPhone OpenAI", "8138 6 2087 8133 4 3094 6 8136 6 8138", "1 0 5 1 0 4 0 1 0 1"),
    ("U.S.", "4 8146 8154 4 8140 8154", "0 1 1 0 1 1"),
    ("x2Y", "8161 8162 4 8151", "1 1 0 1"),
    ("\ue002x", "7 5 8161", "0 3 1"),
    ("\u00c9COLE", "203 145 5 740 297", "0 2 0 2 2"),
    ("caf\u00e9 \u65e5", "8145 1461 203 177 8133 238 159 173", "1 2 0 2 1 0 0 3"),
    ("Hi\n\nYou", "4 3152 8133 4 647", "0 2 2 0 3"),
    ("\ufb01ne", "8149 457", "0 5"),
    ("\u2122Abc", "92 85 4 373 8145", "0 3 0 2 1"),
]


@pytest.fixture(scope="module")
def reserved():
    return Tokenizer.load(RESERVED)


@needs_reserved
@pytest.mark.parametrize(("text", "ids", "costs"), PUBLISHED)
def test_ids_and_bytes_of_the_published_model(reserved, text, ids, costs):
    assert reserved.sha256 == "97754754561f20def5edd99765ca0668f880bd94e67316d54aa10ab25f45cc4d"
    (document,) = encode_documents(reserved, [text], keep_lossy=True)
    for encoded in (document, encode_document(reserved, text)):
        assert encoded is not None
        assert encoded.tokens[1:].tolist() == [int(index) for index in ids.split()]
        assert encoded.byte_costs[1:].tolist() == [int(cost) for cost in costs.split()]


@needs_reserved
def test_stripped_ends_of_the_published_model(reserved):
    """What each token covers counts 2 of 4 bytes; the ledger charges the stripped ends to the first and the last token."""
    content = caseops.encode(" Hi ").encode()
    ids, spans = reserved.plain.encode_with_spans(content)
    assert ids == [4, 3152]
    assert caseops.byte_counts([content[first:end].decode().rstrip() for first, end in spans]) == [0, 2]
    assert encode_document(reserved, " Hi ").byte_costs.tolist() == [0, 1, 3]


@needs_reserved
@settings(max_examples=300, deadline=None)
@given(text=TEXT)
def test_fast_and_plain_costs_agree_for_the_published_model(reserved, text):
    if not len(reserved.encode(text)) and text:
        return
    (fast,) = encode_documents(reserved, [text], keep_lossy=True)
    plain = encode_document(reserved, text)
    assert fast is not None
    assert np.array_equal(fast.byte_costs, plain.byte_costs)
    assert int(fast.byte_costs.sum()) == len(text.encode())


@needs_reserved
@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(min_codepoint=32, max_codepoint=126) | st.sampled_from("\n\t"), max_size=40))
def test_printable_text_survives_the_published_model_but_for_its_spaces(reserved, text):
    assert caseops.decode(reserved.plain.decode(reserved.encode(text))) == " ".join(text.split())
