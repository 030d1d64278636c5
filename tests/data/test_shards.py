import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.base.errors import DataError
from fairway.data.shards import Shard, ShardWriter, find_shards, open_shards, shard_name, write_shard


def tokens(*values):
    return np.array(values, np.uint16)


def test_bytes_on_disk(tmp_path):
    path = tmp_path / "train_000000.bin"
    write_shard(path, tokens(1, 5, 8191))
    content = path.read_bytes()
    assert len(content) == 1030
    assert content[:12] == bytes.fromhex("88d834010100000003000000")
    assert content[-6:] == bytes.fromhex("01000500ff1f")
    assert not any(content[12:1024])
    shard = Shard(path)
    assert shard.tokens == 3
    assert shard.values.tolist() == [1, 5, 8191]
    assert not shard.values.flags.writeable


def test_an_empty_shard_is_allowed(tmp_path):
    write_shard(tmp_path / "train_000000.bin", tokens())
    assert Shard(tmp_path / "train_000000.bin").tokens == 0


def change(content, offset, value):
    return content[:offset] + value + content[offset + len(value) :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: change(content, 0, b"\x89"), "not a token shard: magic 20240521"),
        (lambda content: change(content, 0, bytes.fromhex("0134d888")), "not a token shard"),
        (lambda content: change(content, 4, b"\x02"), "version 2"),
        (lambda content: change(content, 8, b"\x04"), "4 tokens = 1032 bytes"),
        (lambda content: change(content, 8, b"\x02"), "2 tokens = 1028 bytes"),
        (lambda content: change(content, 8, b"\xff\xff\xff\xff"), "-1 tokens"),
        (lambda content: content[:-1], "1029 bytes"),
        (lambda content: content + b"\0", "1031 bytes"),
        (lambda content: content[:1023], "less than its header"),
        (lambda content: b"", "0 bytes"),
    ],
)
def test_every_damage_to_the_frame_is_refused(tmp_path, damage, message):
    path = tmp_path / "train_000000.bin"
    write_shard(path, tokens(1, 5, 8191))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=message):
        Shard(path)


def test_a_changed_file_is_seen_at_once(tmp_path):
    path = tmp_path / "train_000000.bin"
    write_shard(path, tokens(1, 2))
    assert Shard(path).values.tolist() == [1, 2]
    write_shard(path, tokens(3, 4, 5))
    assert Shard(path).values.tolist() == [3, 4, 5]


def test_missing_file_and_vocabulary(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        Shard(tmp_path / "train_000000.bin")
    write_shard(tmp_path / "train_000000.bin", tokens(1, 400))
    Shard(tmp_path / "train_000000.bin").check_vocabulary(401)
    with pytest.raises(DataError, match="holds token 400, but the tokenizer has 400 pieces"):
        Shard(tmp_path / "train_000000.bin").check_vocabulary(400)


def test_sidecars_and_other_names_are_never_taken_for_tokens(tmp_path):
    names = ["fineweb_val_000000.bin", "fineweb_val_bytes_000000.bin", "fineweb_train_000000.bin"]
    others = [
        "val_00000.bin",
        "val_0000000.bin",
        "xval_000000.bin",
        "val_bytes_000000.bin.part",
        "val_bits_000000.bin",
        "val.bin",
    ]
    for name in names + others:
        write_shard(tmp_path / name, tokens(7))
    assert [path.name for path in find_shards(tmp_path, "val")] == names[:1]
    assert [path.name for path in find_shards(tmp_path, "val", sidecar=True)] == names[1:2]
    assert [path.name for path in find_shards(tmp_path, "train")] == names[2:]
    assert find_shards(tmp_path / "none", "train") == []


def test_a_gap_or_a_mixture_of_shards_is_refused(tmp_path):
    for index in (0, 1, 3):
        write_shard(tmp_path / shard_name("train", index), tokens(1))
    with pytest.raises(DataError, match=r"lacks train_000002\.bin"):
        find_shards(tmp_path, "train")
    write_shard(tmp_path / shard_name("train", 2), tokens(1))
    assert len(find_shards(tmp_path, "train")) == 4
    write_shard(tmp_path / shard_name("train", 1, prefix="fineweb_"), tokens(1))
    with pytest.raises(DataError, match="holds both"):
        find_shards(tmp_path, "train")


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(0, 12), max_size=8), size=st.integers(1, 9))
def test_cutting_keeps_every_token_in_order(tmp_path_factory, lengths, size):
    folder = tmp_path_factory.mktemp("cut")
    writer = ShardWriter(folder, "train", size)
    stream = np.arange(sum(lengths), dtype=np.uint16)
    start = 0
    for length in lengths:
        part = stream[start : start + length]
        writer.append(part, part + np.uint16(1000))
        start += length
    count = writer.close()
    shards = open_shards(find_shards(folder, "train"))
    sidecars = open_shards(find_shards(folder, "train", sidecar=True))
    assert len(shards) == len(sidecars) == count == -(-len(stream) // size)
    assert [shard.tokens for shard in shards[:-1]] == [size] * (count - 1 if count else 0)
    joined = np.concatenate([shard.values for shard in shards]) if shards else stream[:0]
    costs = np.concatenate([shard.values for shard in sidecars]) if sidecars else stream[:0]
    assert np.array_equal(joined, stream)
    assert np.array_equal(costs, stream + np.uint16(1000))


def test_a_full_disk_leaves_no_file(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    from fairway.base.errors import MachineError

    with pytest.raises(MachineError, match="no space left"):
        write_shard(tmp_path / "train_000000.bin", tokens(1))
    assert list(tmp_path.iterdir()) == []
