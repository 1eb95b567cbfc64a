"""A text tokenizer, packs in tests, and their readers: those that each format is for."""

import itertools
import json
import struct

import numpy as np
import pytest

from datamodules.shards import ShardSet
from mmtok.export.pack import pack
from mmtok.export.vocab_map import Vocabulary
from tests.mmtok.export import tokenizing

LENGTH = 128
TEXT_IN_MARKUP = "a <|img_start|> is <|endoftext|> no picture"


def write_text_base(folder):
    """A byte-level BPE with an end of text and a pad."""
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    names = ["<|endoftext|>", "<|pad|>"]
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet, special_tokens=names)
    made.train_from_iterator(["picture number sound"], trainer)
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "GPT2Tokenizer", "eos_token": names[0], "pad_token": names[1]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def go(world, out, *sets, **options):
    return pack([str(world / one) for one in sets], world / "vocab", out, **{"to": "megatron"} | options)


def codes_of(world, name):
    return tokenizing.read(world / f"codes-{name}")


def expected(world, order):
    """Key -> ids of the document, made one by one."""
    from mmtok.export.vocab import load_base

    vocabulary, tokenizer = Vocabulary.read(world / "vocab"), load_base(world / "base")
    tokenizer.backend_tokenizer.encode_special_tokens = True
    parts = {name: codes_of(world, name) for name in ("image", "audio")}
    texts = {}
    pictures = ShardSet.open(world / "pictures")
    for shard, count in enumerate(pictures.counts):
        for i in range(count):
            sample = pictures.read(shard, i)
            texts[sample.key] = sample.members["txt"].decode()
    found = {}
    for key in sorted({*texts, *parts["audio"]}):
        made = []
        for name in order:
            if name == "text" and key in texts:
                made.append(tokenizer.backend_tokenizer.encode(texts[key], add_special_tokens=False).ids)
            elif key in parts.get(name, {}):
                spec = vocabulary.spec({"image": "img", "audio": "aud"}[name])
                made.append(vocabulary.to_ids(parts[name][key], spec)[0].tolist())
        if len(made) == len(order):
            found[key] = [*itertools.chain(*made), tokenizer.eos_token_id]
    return found


def documents_in(rows, end, pad):
    """Documents of rows, cut at their ends; only padding may follow."""
    found = []
    for row in rows:
        ids = row.tolist()
        while end in ids:
            at = ids.index(end) + 1
            found.append(ids[:at])
            ids = ids[at:]
        assert set(ids) <= {pad}
    return found


def read_megatron(folder, name="train"):
    """By the published layout alone."""
    index, data = (folder / f"{name}.idx").read_bytes(), (folder / f"{name}.bin").read_bytes()
    assert index[:9] == b"MMIDIDX\x00\x00"
    version, kind = struct.unpack_from("<QB", index, 9)
    assert version == 1
    dtype = {1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 8: np.uint16}[kind]
    sequences, documents = struct.unpack_from("<QQ", index, 18)
    lengths = np.frombuffer(index, "<i4", sequences, 34)
    pointers = np.frombuffer(index, "<i8", sequences, 34 + 4 * sequences)
    bounds = np.frombuffer(index, "<i8", documents, 34 + 12 * sequences)
    assert len(index) == 34 + 12 * sequences + 8 * documents
    assert bounds.tolist() == list(range(sequences + 1))
    assert len(data) == int(lengths.sum()) * np.dtype(dtype).itemsize
    return [np.frombuffer(data, dtype, n, at).astype(np.int64) for n, at in zip(lengths, pointers, strict=True)]


def read_parquet(folder):
    parquet = pytest.importorskip("pyarrow.parquet")
    tables = [parquet.read_table(file) for file in sorted(folder.glob("*.parquet"))]
    return [np.array(ids) for table in tables for ids in table["input_ids"].to_pylist()]


def read_datasets(folder):
    datasets = pytest.importorskip("datasets")
    data = datasets.load_dataset(str(folder), split="train", cache_dir=str(folder.parent / "cache"))
    return [np.array(row["input_ids"]) for row in data]


def read_webdataset(folder):
    import webdataset

    tars = sorted(map(str, folder.glob("*.tar")))
    samples = webdataset.WebDataset(tars, shardshuffle=False, empty_check=False).decode()
    return [one["ids.npy"].astype(np.int64) for one in samples]


def read_litdata(folder):
    pytest.importorskip("litdata")
    from litdata import StreamingDataset, TokensLoader

    data = StreamingDataset(str(folder), item_loader=TokensLoader(block_size=LENGTH), shuffle=False)
    return [np.asarray(data[i], dtype=np.int64) for i in range(len(data))]


READERS = {
    "megatron": read_megatron, "parquet": read_parquet, "datasets": read_datasets, "webdataset": read_webdataset,
    "litdata": read_litdata,
}  # fmt: skip
