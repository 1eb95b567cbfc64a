"""Features of a teacher beside documents and vectors, through batches into a run."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from datamodules.base import datamodules
from datamodules.shards import ShardSet
from datamodules.text_bytes import TextBytes, TextBytesConfig
from datamodules.vectoritem import to_npy
from datamodules.vectors import Vectors, VectorsConfig
from datamodules.writer import ShardWriter
from mmtok.config import load_config
from mmtok.evaluation.heldout import HeldOut
from mmtok.export.bundle import write_bundle
from mmtok.schema import ConfigError
from mmtok.teachers import Teacher
from mmtok.teachers.texts import LETTERS, PIECES, _pieces
from mmtok.teachers.write import write_features
from mmtok.training.module import TokenizerModule

COMMON = {"batch_size": 4, "workers": 0, "streams": 1}


class Letters(Teacher):
    """How often a and e stand in a text."""

    name = "letters"
    content = ("txt",)

    def features(self, signals):
        return [np.array([data.count(b"a"), data.count(b"e")], np.float32) for _, data in signals]

    def about(self):
        return {"about": "a and e"}


def source(folder, kind, count=12):
    """Texts of several lengths, of `vectors` with a vector beside each."""
    with ShardWriter(folder, kind=kind, split="train") as writer:
        for number in range(count):
            members = {"txt": b"a" * number + b" tea " * (number + 1)}
            if kind == "vectors":
                members["npy"] = to_npy(np.full(8, number, np.float32))
            writer.add(f"item{number:02}", members)
    out = folder.parent / "taught"
    manifest, left_out = write_features(ShardSet.open(folder), out, Letters())
    assert (manifest.samples, left_out) == (count, [])
    return out


def first(module):
    module.plan(seed=0, accumulate=1)
    return next(iter(module.val_dataloader()))


def test_of_documents_they_are_of_the_whole(tmp_path):
    shards = str(source(tmp_path / "plain", "text"))
    config = TextBytesConfig(shards=shards, val_shards=shards, teacher="letters", bytes=8, val_bytes=8, **COMMON)
    batch = first(TextBytes(config))
    assert batch["teacher"].shape == (12, 2)
    for key, found in zip(batch["key"], batch["teacher"], strict=True):
        number = int(key[-2:])
        assert found.tolist() == [number + number + 1, number + 1]  # though 8 bytes of it were taken


def test_beside_vectors_they_are_not_taken_for_them(tmp_path):
    shards = str(source(tmp_path / "plain", "vectors"))
    module = Vectors(VectorsConfig(shards=shards, val_shards=shards, teacher="letters", **COMMON))
    batch = first(module)
    assert (module.width, batch["x"].shape, batch["teacher"].shape) == (8, (12, 8), (12, 2))
    assert [int(x[0]) for x in batch["x"]] == [int(key[-2:]) for key in batch["key"]]
    plain = first(Vectors(VectorsConfig(shards=shards, val_shards=shards, **COMMON)))
    assert "teacher" not in plain
    assert plain["x"].shape == (12, 8)
    sample = module.sample(0)
    assert torch.cat(list(sample)).shape == (12, 8)


@pytest.mark.parametrize("name", ["text_bytes", "vectors"])
def test_a_set_without_them_is_refused_by_name(tmp_path, name):
    kind = "text" if name == "text_bytes" else name
    source(tmp_path / "plain", kind)
    plain = str(tmp_path / "plain")
    config = datamodules.parse({"name": name, "shards": plain, "val_shards": plain, "teacher": "minilm", **COMMON})
    with pytest.raises(ConfigError, match=r"holds no minilm\.npy"):
        datamodules.build(config).plan(seed=0, accumulate=1)


RUNS = {
    "text": ["text/vq_bytes", "data.bytes=32", "quantizer.init=random"],
    "vector": ["vector/rqvae", "tokenizer.width=8", "tokenizer.standardize=false", "quantizer.init=random"],
}


@pytest.mark.parametrize("kind", RUNS)
@pytest.mark.parametrize("loss", ["distill", "contrastive"])
def test_codes_learn_from_them(kind, loss):
    layer, *words = RUNS[kind]
    own = ["loss.meaning.pool=true", "loss.meaning.levels=all"] if loss == "distill" else []
    words += [f"loss.meaning.name={loss}", "loss.meaning.features=2", "loss.meaning.balance=true", *own]
    torch.manual_seed(0)
    module = TokenizerModule(load_config([layer], words).config)
    x = torch.randint(97, 122, (4, 1, 32), dtype=torch.uint8) if kind == "text" else torch.randn(4, 8)
    batch = {"x": x, "teacher": torch.randn(4, 2)}
    out = module.tokenizer(x)
    terms = module._objective(out, batch)
    assert terms["meaning"].isfinite()
    (gradient,) = torch.autograd.grad(terms["meaning"], out.quantized.values, retain_graph=True)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("loss", ["distill", "contrastive"])
def test_what_taught_the_codes_stays_out_of_exports(tmp_path, loss):
    layer, *words = RUNS["vector"]
    own = ["loss.meaning.pool=true", "loss.meaning.levels=all"] if loss == "distill" else []
    words += [f"loss.meaning.name={loss}", "loss.meaning.features=2", *own]
    module = TokenizerModule(load_config([layer], words).config)
    heads, own = set(module.terms.parameters()), set(module.tokenizer.parameters())
    assert heads
    assert not heads & own
    write_bundle(module.tokenizer, tmp_path / "bundle")
    exported = [one for file in (tmp_path / "bundle").glob("*.safetensors") for one in load_file(file).values()]
    assert any(torch.equal(one, next(module.tokenizer.parameters())) for one in exported)
    assert not any(torch.equal(one, head) for one in exported for head in heads)


def test_they_need_not_lie_in_every_set_that_codes_are_measured_on(tmp_path):
    taught, plain = source(tmp_path / "plain", "vectors"), tmp_path / "plain"
    config = datamodules.parse(
        {
            "name": "vectors",
            "shards": str(taught),
            "val_shards": str(taught),
            "teacher": "letters",
            "width": 8,
            **COMMON,
        }
    )
    (batch,) = (batch for batch in HeldOut(config, shards=str(plain), samples=4))
    assert batch["x"].shape == (4, 8)


def test_one_pair_at_a_time_is_refused():
    layer, *words = RUNS["vector"]
    words += ["loss.meaning.name=contrastive", "loss.meaning.features=2", "data.batch_size=4", "trainer.accumulate=4"]
    with pytest.raises(ConfigError, match="needs 2 items at a time"):
        TokenizerModule(load_config([layer], words).config)


@pytest.mark.parametrize("kind", RUNS)
def test_places_of_them_are_refused(kind):
    layer, *words = RUNS[kind]
    words += ["loss.meaning.name=distill", "loss.meaning.features=2", "loss.meaning.levels=all"]
    with pytest.raises(ConfigError, match="of whole items"):
        TokenizerModule(load_config([layer], words).config)


def test_a_document_is_read_in_pieces():
    assert _pieces("") == [""]
    assert _pieces("one\n\n two") == ["one two"]
    pieces = _pieces("word " * 5000)
    assert len(pieces) == PIECES
    assert max(map(len, pieces)) <= LETTERS
