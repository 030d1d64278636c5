import gzip
import json
import lzma
import sys

import pytest

from fairway.base.errors import DataError, MachineError
from fairway.data.documents import list_files, read_documents

LINES = ["first\n", "zw\u00f6lf \u65e5", "", "last\r\nline"]


def records(texts, key="text"):
    return "".join(json.dumps({key: text}) + "\n" for text in texts).encode()


def read(*inputs, **options):
    return [document.text for document in read_documents(list(inputs), **options)]


def write(path, content):
    path.write_bytes(content)
    return path


def test_jsonl_plain_and_compressed_give_the_same_documents(tmp_path):
    import zstandard

    content = records(LINES)
    paths = [
        write(tmp_path / "a.jsonl", content),
        write(tmp_path / "a.jsonl.gz", gzip.compress(content)),
        write(tmp_path / "a.jsonl.xz", lzma.compress(content)),
        write(tmp_path / "a.jsonl.zst", zstandard.ZstdCompressor().compress(content)),
    ]
    for path in paths:
        assert read(path) == LINES
    half = len(records(LINES[:2]))
    frames = zstandard.ZstdCompressor().compress(content[:half]) + zstandard.ZstdCompressor().compress(content[half:])
    assert read(write(tmp_path / "b.jsonl.zst", frames)) == LINES


@pytest.mark.parametrize("suffix", ["gz", "xz", "zst"])
def test_a_cut_or_damaged_archive_is_refused(tmp_path, suffix):
    import zstandard

    content = records([str(number) * 50 for number in range(2000)])
    pack = {"gz": gzip.compress, "xz": lzma.compress, "zst": zstandard.ZstdCompressor().compress}[suffix]
    whole = pack(content)
    for bad in (whole[: len(whole) // 2], whole[: len(whole) - 1], b"garbage" + whole):
        with pytest.raises(DataError, match=rf"a\.jsonl\.{suffix}"):
            read(write(tmp_path / f"a.jsonl.{suffix}", bad))


def test_parquet_column(tmp_path):
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"body": LINES, "id": [1, 2, 3, 4]}), path)
    assert read(path, text_field="body") == LINES
    with pytest.raises(DataError, match="no column 'text'; it has body, id"):
        read(path)
    with pytest.raises(DataError, match=r"a\.parquet:row 0 has no string"):
        read(path, text_field="id")
    with pytest.raises(DataError, match="not a readable parquet"):
        read(write(tmp_path / "b.parquet", b"PAR1 nonsense"))


@pytest.mark.parametrize(("library", "name"), [("pyarrow", "a.parquet"), ("zstandard", "a.jsonl.zst")])
def test_a_missing_library_names_the_pip_line(tmp_path, monkeypatch, library, name):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MachineError, match=r"pip install 'fairway\[data\]'"):
        read(write(tmp_path / name, b"x"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "a"}\n{"text": "\xff"}\n', r"a\.jsonl:2 is not UTF-8"),
        (b'{"text": "a"}\n\n{"text": "\\ud800"}\n', r"a\.jsonl:3 holds a lone surrogate"),
        (b'{"text": "a"}\n{"text": 5}\n', r"a\.jsonl:2 has no string under 'text'"),
        (b'{"body": "a"}\n', r"a\.jsonl:1 has no string under 'text'"),
        (b'["a"]\n', r"a\.jsonl:1 has no string"),
        (b'{"text": "a"\n', r"a\.jsonl:1 is not one JSON object"),
        (b"", "corpus is empty"),
    ],
)
def test_bad_records_are_refused_with_file_and_line(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read(write(tmp_path / "a.jsonl", content))


def test_a_surrogate_pair_in_json_is_one_character(tmp_path):
    assert read(write(tmp_path / "a.jsonl", b'{"text": "\\ud83d\\ude00"}\n')) == ["\U0001f600"]


def test_text_that_is_not_utf8_names_file_and_line(tmp_path):
    path = write(tmp_path / "a.txt", b"one\ntwo\nthr\xe9e\n")
    with pytest.raises(DataError, match=r"a\.txt is not UTF-8: byte 0xe9 at offset 11, line 3"):
        read(path)


def test_text_is_not_changed(tmp_path):
    text = "\ufeff a\r\nb\rc\x00 \n"
    assert read(write(tmp_path / "a.txt", text.encode())) == [text]


def test_folder_order_depends_on_relative_paths_and_seed_only(tmp_path):
    for place in ("one", "two"):
        for number in range(30):
            file = tmp_path / place / f"sub{number % 3}" / f"{number}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"text {number}")
        (tmp_path / place / ".hidden").write_bytes(b"\xff")
        (tmp_path / place / "empty.txt").write_bytes(b"")
    first, second = read(tmp_path / "one"), read(tmp_path / "two")
    assert first == second
    assert len(first) == 30
    assert read(tmp_path / "one", order_seed=1) != first
    assert sorted(read(tmp_path / "one", order_seed=1)) == sorted(first)
    in_order = [file.name for file in list_files(tmp_path / "one", None)]
    assert in_order == sorted(in_order)
    assert first != read(tmp_path / "one", order_seed=None)


def test_globs_and_indices_over_several_inputs(tmp_path):
    write(tmp_path / "a.jsonl", records(["1", "2"]))
    write(tmp_path / "b.jsonl", records(["3"]))
    documents = list(read_documents([str(tmp_path / "*.jsonl"), tmp_path / "a.jsonl"], first_index=7))
    assert [document.text for document in documents] == ["1", "2", "3", "1", "2"]
    assert [document.index for document in documents] == [7, 8, 9, 10, 11]
    assert documents[2].source.endswith("b.jsonl:1")


def test_inputs_that_do_not_exist_are_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path / "none.txt")
    with pytest.raises(DataError, match="holds no file"):
        read(str(tmp_path / "*.txt"))
    with pytest.raises(DataError, match="corpus is empty"):
        read()
    with pytest.raises(DataError, match="corpus is empty"):
        read(write(tmp_path / "empty.txt", b""))


def test_the_standard_library_is_a_corpus_without_tests_or_repeats():
    documents = list(read_documents(["python-stdlib"]))
    names = [document.source for document in documents]
    assert "python-stdlib/json/decoder.py" in names
    assert not [name for name in names if "/test/" in name or "site-packages" in name or "/tests/" in name]
    assert len({document.text for document in documents}) == len(documents) > 200
    assert names == [document.source for document in read_documents(["python-stdlib"])]
    assert names != sorted(names)
