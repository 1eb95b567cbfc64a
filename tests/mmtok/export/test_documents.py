"""Parts of documents are those of one sample: of its key, its shard and the vocabulary's own tokenizer."""

import shutil
from dataclasses import replace

import pytest
import torch

import mmtok
from datamodules.manifest import Manifest, Shard
from datamodules.shards import ShardSet
from datamodules.writer import ShardTar
from mmtok.export.bundle import write_bundle
from mmtok.export.documents import Keyed
from mmtok.export.pack import pack
from mmtok.export.token_spec import TokenSpec
from mmtok.export.vocab import load_base, merge
from mmtok.export.vocab_map import Vocabulary
from tests.mmtok.export import tiny, tokenizing
from tests.mmtok.export.packing import codes_of, expected, go, read_megatron

pytest.importorskip("transformers")


def test_a_caption_cannot_begin_a_picture(world, tmp_path):
    go(world, tmp_path / "out", "codes-image", orders=[("text",)])
    vocabulary = Vocabulary.read(world / "vocab")
    rows = read_megatron(tmp_path / "out")
    assert all(row.max() < vocabulary.text for row in rows)
    assert all((row[:-1] != load_base(world / "base").eos_token_id).all() for row in rows)


def test_texts_come_from_another_set_and_keys_that_lack_a_part_are_counted(world, tmp_path):
    # The sounds have no texts of their own: items 5 to 9 have one in the pictures' source.
    facts = go(world, tmp_path / "out", "codes-audio", "pictures", orders=[("text", "audio")])
    rows = [row.tolist() for row in read_megatron(tmp_path / "out")]
    assert rows == list(expected(world, ("text", "audio")).values())
    assert (facts.keys, facts.documents, len(rows)) == (16, 5, 5)
    assert facts.missing == {"text,aud: aud": 6, "text,aud: text": 5}


def test_codes_of_another_tokenizer_are_refused(world, tmp_path):
    # downstream.md 3.5: every shard carries the hash of its spec, and packing refuses a mismatch.
    other = tiny.image_tokenizer(tmp_path / "other", seed=1)
    tokenizing.go(other, world / "pictures", tmp_path / "codes")
    with pytest.raises(ValueError, match=r"holds codes of another tokenizer .*'img' has fingerprint="):
        pack([str(tmp_path / "codes")], world / "vocab", tmp_path / "out", to="megatron")
    assert not (tmp_path / "out").exists()


def test_a_spec_that_was_changed_is_refused(world, tmp_path):
    shutil.copytree(world / "codes-image", tmp_path / "codes")
    spec = TokenSpec.read(tmp_path / "codes")
    (tmp_path / "codes" / "token_spec.json").write_text(replace(spec, codebook_sizes=(128,)).to_json())
    with pytest.raises(ValueError, match="was made for the spec"):
        pack([str(tmp_path / "codes")], world / "vocab", tmp_path / "out", to="megatron")


def test_raw_codes_serve_another_layout_of_the_same_tokenizer(world, tmp_path):
    # Raw codes do not know of rows and headers: a vocabulary of other ones lays the same shards out its way.
    write_bundle(mmtok.load(str(world / "i")), tmp_path / "image", header=True, prefix="pic")
    merge(world / "base", [tmp_path / "image"], tmp_path / "vocab")
    pack([str(world / "codes-image")], tmp_path / "vocab", tmp_path / "out", to="megatron")
    vocabulary, codes = Vocabulary.read(tmp_path / "vocab"), codes_of(world, "image")
    for row, wanted in zip(read_megatron(tmp_path / "out"), codes.values(), strict=True):
        found = vocabulary.from_ids([row[:-1]], vocabulary.spec("pic"))
        assert torch.equal(found.ids, wanted.ids)
        assert found.grid == wanted.grid


def write_repeating(folder, extension, counts=(3, 3), content=lambda at: f"{at[0]}.{at[1]}".encode()):
    """Shards with the same keys: text s.k of shard s, item k."""
    folder.mkdir()
    shards = []
    for number, count in enumerate(counts):
        tar = ShardTar(folder / f"s{number}.tar")
        for item in range(count):
            tar.add(f"{item:04d}", {extension: content((number, item))})
        index, sha256 = tar.close()
        shards.append(Shard(name=f"s{number}", samples=count, bytes=index.tar_bytes, sha256=sha256))
    Manifest(kind="text", split="train", extensions=(extension,), shards=tuple(shards)).save(folder)
    return ShardSet.open(folder)


def test_keys_that_repeat_between_shards_keep_their_own_captions(world, tmp_path):
    write_repeating(tmp_path / "set", "txt")
    pack([str(tmp_path / "set")], world / "vocab", tmp_path / "out", to="megatron", orders=[("text",)])
    tokenizer = load_base(world / "base")
    said = [tokenizer.decode(row[:-1]) for row in read_megatron(tmp_path / "out")]
    assert said == ["0.0", "0.1", "0.2", "1.0", "1.1", "1.2"]


def test_a_repeated_key_is_never_found_in_another_shard(tmp_path):
    whole, less = (Keyed(write_repeating(tmp_path / name, "txt", n)) for name, n in (("a", (3, 3)), ("b", (2, 3))))
    assert less.find("0002", "s1", whole) == (1, 2)
    assert less.find("0002", "s0", whole) is None
    with pytest.raises(ValueError, match=r"keys repeat between shards of .*has no shard 'other'"):
        less.find("0002", "other", whole)


def test_a_key_that_stands_twice_in_one_shard_is_refused(tmp_path):
    tar = ShardTar(tmp_path / "s.tar")
    for key in ("a", "b", "a"):
        tar.add(key, {"txt": b"words"})
    index, sha256 = tar.close()
    shard = Shard(name="s", samples=3, bytes=index.tar_bytes, sha256=sha256)
    Manifest(kind="text", extensions=("txt",), shards=(shard,)).save(tmp_path)
    with pytest.raises(ValueError, match="key a stands twice in s of"):
        list(Keyed(ShardSet.open(tmp_path)))


def write_pictures(folder, bad):
    """Two shards with the keys 0000 and 0001 in each, of which some cannot be read."""
    write_repeating(folder, "png", (2, 2), lambda at: b"none" if at in bad else tiny.png(16, 16, hash(at) % 97))
    return folder


def test_codes_of_a_key_that_repeats_in_the_source_are_not_taken_from_another_shard(world, tmp_path):
    # What is left has unique keys in both sets, and 0000 is another picture in each.
    sets = []
    for name, bad in (("one", {(1, 0), (0, 1)}), ("two", {(0, 0), (1, 1)})):
        source = write_pictures(tmp_path / name, bad)
        assert len(tokenizing.go(str(world / "image"), source, tmp_path / f"codes-{name}").bad) == 2
        sets.append(Keyed(ShardSet.open(tmp_path / f"codes-{name}")))
    one, two = sets
    assert [(shard, key) for shard, key, _, _ in one] == [("s0", "0000"), ("s1", "0001")]
    assert [(shard, key) for shard, key, _, _ in two] == [("s0", "0001"), ("s1", "0000")]
    assert one.repeated
    assert two.find("0000", "s0", one) is None
    text = Keyed(write_repeating(tmp_path / "text", "txt", (2, 2)))
    assert text.find("0000", "s0", one) == (0, 0)


def test_a_job_that_has_not_ended_is_not_taken_for_tars_without_a_manifest(world, tmp_path):
    shutil.copytree(world / "codes-image", tmp_path / "codes")
    (tmp_path / "codes" / "manifest.json").unlink()
    with pytest.raises(
        ValueError, match=r"The same command finishes it: mmtok tokenize .*image SHARDS .*codes"
    ) as said:
        pack([str(tmp_path / "codes")], world / "vocab", tmp_path / "out", to="megatron")
    assert "shards index" not in str(said.value)


def test_an_error_of_reading_ends_a_pack_instead_of_thinning_it(world, tmp_path, monkeypatch):
    def read(self, *args):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(ShardSet, "read", read)
    with pytest.raises(OSError, match=r"item000 in train-000000 cannot be read: .*Input/output error"):
        go(world, tmp_path / "out", "codes-image")
    assert not (tmp_path / "out").exists()
