"""A tokenizer of vectors, its bundle, and the corpus of items that goes along."""

import json

import numpy as np
import pytest
import torch

import mmtok
from benchmarks.sets import write_vectors
from mmtok.cli import main
from mmtok.codes import Codes
from mmtok.corpus import Corpus
from mmtok.export.items import code_items
from mmtok.export.token_spec import TokenSpec
from mmtok.export.verify import verify
from mmtok.export.vocab_map import Vocabulary


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vectors")
    write_vectors(folder)
    return folder


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "rkmeans"
    words = [f"data.shards={data / 'train'}", f"run_dir={folder}", "tokenizer.width=12"]
    assert main(["train", "vector/rkmeans", *words, "quantizer.codebook_size=8", "quantizer.depth=2"]) == 0
    return folder


@pytest.fixture(scope="module")
def bundle(data, run, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundles") / "items"
    items = f"{data / 'train'},{data / 'val'}"
    assert main(["export", str(run), str(out), "--items", items, "--extra-size", "32"]) == 0
    return out


def test_a_bundle_brings_the_corpus_and_its_trie_and_keeps_its_promises(bundle):
    assert verify(bundle, run_code=False) == []
    items = Corpus.load(bundle)
    assert len(items) == 129
    assert items.kinds == ("code", "code", "disambiguation")
    assert len(np.unique(items.ids, axis=0)) == 129
    tokenizer = mmtok.load(bundle)
    assert tokenizer.fingerprint() == items.fingerprint
    spec = TokenSpec.read(bundle)
    assert (spec.codebook_sizes, spec.coded, spec.kinds) == ((8, 8, 32), (8, 8), items.kinds)


def test_a_loaded_bundle_gives_the_codes_of_the_corpus(bundle, data):
    tokenizer, items = mmtok.load(bundle), Corpus.load(bundle)
    again = code_items(tokenizer, str(data / "train"), method="none")
    rows = [items.rows[key] for key in again.keys]
    assert (again.ids == items.ids[rows, :2]).mean() > 0.99


def test_names_of_items_are_tokens_of_a_vocabulary_and_come_back(bundle):
    spec, items = TokenSpec.read(bundle), Corpus.load(bundle)
    vocabulary = Vocabulary.arrange(100, [spec])
    ids = torch.from_numpy(items.ids)[..., None]
    codes = Codes(ids, torch.ones(len(ids), dtype=torch.int64), torch.full((len(ids), 1), 12))
    sequences = vocabulary.to_ids(codes, spec)
    assert all(len(sequence) == 5 for sequence in sequences)  # start, three levels, end
    assert torch.equal(vocabulary.from_ids(sequences, spec).ids, ids)


def test_a_folder_that_is_taken_is_found_before_items_are_coded(bundle, data, run, monkeypatch, capsys):
    monkeypatch.setattr("mmtok.export.items.code_items", lambda *_, **__: pytest.fail("items were coded"))
    assert main(["export", str(run), str(bundle), "--items", str(data / "train")]) == 2
    assert "is a bundle already. Give --overwrite" in capsys.readouterr().err


def test_a_corpus_that_was_changed_is_a_broken_promise(bundle, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    trie = json.loads((copy / "trie.json").read_text())
    trie["trie"] = {}
    (copy / "trie.json").write_text(json.dumps(trie))
    manifest = json.loads((copy / "bundle.json").read_text())
    manifest["files"].pop("trie.json")
    (copy / "bundle.json").write_text(json.dumps(manifest))
    assert [broken.promise for broken in verify(copy, run_code=False)] == ["items"]


def test_a_spec_without_kinds_reads_and_hashes_as_before_there_were_any():
    spec = TokenSpec("image", (256,), "img", length="grid")
    assert "kinds" not in spec.to_json()
    assert TokenSpec.parse(json.loads(spec.to_json())) == spec
    with pytest.raises(ValueError, match="only the last one may be of disambiguation"):
        TokenSpec("vector", (8, 8), "vec", kinds=("disambiguation", "code"))


def test_sinkhorn_parts_items_and_numbers_those_it_cannot(run, data):
    tokenizer = mmtok.load(run)
    raw = code_items(tokenizer, str(data / "train"), method="none")
    parted = code_items(tokenizer, str(data / "train"), method="sinkhorn")
    named = code_items(tokenizer, str(data / "train"), method="sinkhorn+extra")
    counts = [len(np.unique(made.ids, axis=0)) for made in (raw, parted, named)]
    assert counts[0] < counts[1] <= counts[2] == 120


def test_options_that_make_no_sense_are_refused(run, data, tmp_path, capsys):
    def said(*words):
        assert main(["export", str(run), str(tmp_path / "out"), *words]) == 2
        return capsys.readouterr().err

    assert "none are named: --items SET" in said("--collisions", "extra")
    assert "raise extra_size to" in said("--items", str(data / "train"), "--extra-size", "2")
    assert "of the level that --collisions extra adds" in said(
        "--items", str(data / "train"), "--collisions", "none", "--extra-size", "4"
    )
    assert not (tmp_path / "out").exists()


def test_items_of_another_width_are_refused(run, tmp_path):
    from datamodules.build import build_shards

    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32))
    build_shards(str(tmp_path / "x.npy"), tmp_path / "sets")
    with pytest.raises(ValueError, match="vectors of 5 numbers, and the tokenizer takes 12"):
        code_items(mmtok.load(run), str(tmp_path / "sets" / "train"))


def test_vectors_of_a_file_are_encoded_and_decoded_by_the_verbs(run, tmp_path):
    x = np.random.default_rng(0).normal(size=(3, 12)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    assert main(["encode", str(run), str(tmp_path / "x.npy"), "-o", str(tmp_path / "codes")]) == 0
    assert main(["decode", str(run), str(tmp_path / "codes/x.codes.safetensors"), "-o", str(tmp_path / "back")]) == 0
    assert np.load(tmp_path / "back/x.npy").shape == x.shape


def test_evaluate_measures_the_whole_corpus(run, capsys):
    assert main(["evaluate", str(run)]) == 0
    out = capsys.readouterr().out
    assert "129 vectors: " in out
    assert "shuffled" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["vector/rkmeans", "data.name=texts"],
            "data.name=texts gives documents, and this tokenizer is trained on vector",
        ),
        (["vector/rkmeans", "data.shards={shards}", "tokenizer.width=5"], "12 numbers"),
        (["text/bytes", "quantizer.name=vq", "data.shards={shards}"], "no quantizer"),
    ],
)
def test_recipes_whose_blocks_do_not_fit_are_refused_in_one_line(data, tmp_path, capsys, words, message):
    words = [word.format(shards=data / "train") for word in words]
    assert main(["train", *words, f"run_dir={tmp_path / 'run'}"]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


def test_shards_of_vectors_become_shards_of_codes(run, data, tmp_path):
    from datamodules.shards import ShardSet

    assert main(["tokenize", str(run), str(data / "val"), str(tmp_path / "tokens")]) == 0
    tokens = ShardSet.open(str(tmp_path / "tokens"))
    assert len(tokens) == 9
    assert "codes.npy" in tokens.read(0, 0).members
