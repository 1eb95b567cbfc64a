"""A vocabulary of text as a folder: read here and by transformers, extended by a merge, and held to its promises."""

import json

import pytest

import mmtok
from mmtok.cli import main
from mmtok.codes import CodeSpec
from mmtok.export.text import TEXTS, write_text
from mmtok.export.token_spec import TokenSpec
from mmtok.export.verify import verify
from mmtok.tokenizers.subword import SubwordConfig, SubwordTokenizer

pytest.importorskip("transformers")
SPELLED = "an <|endoftext|> that is spelled, and <|reserved:0|>"


def fitted(**fields):
    tokenizer = SubwordTokenizer(SubwordConfig(vocab_size=512, **fields))
    tokenizer.fit([*TEXTS, "the cat sat on the mat, again and again"] * 20)
    return tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return fitted()


@pytest.fixture
def folder(tokenizer, tmp_path):
    return write_text(tokenizer, tmp_path / "text")


@pytest.mark.parametrize("fields", [{}, {"alphabet": "characters"}, {"model": "unigram", "normalize": "nfc"}])
def test_all_promises_are_kept_where_mmtok_is_absent_too(fields, tmp_path):
    said = []
    folder = write_text(fitted(**fields), tmp_path / "text")
    assert verify(folder, say=said.append) == []
    assert said == ["files: kept", "vocabulary: kept", "golden texts: kept", "transformers: kept"]


def test_it_is_loaded_as_what_it_was(tokenizer, folder):
    again = mmtok.load(folder)
    assert again.fingerprint() == tokenizer.fingerprint()
    assert again.tokens([SPELLED, *TEXTS]) == tokenizer.tokens([SPELLED, *TEXTS])
    assert "fitted" not in json.loads((folder / "mmtok_text.json").read_text())["tokenizer"]


def test_transformers_reads_a_spelled_control_token_as_text_where_it_is_told_to(tokenizer, folder):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(folder)
    ours = tokenizer.tokens([SPELLED])[0]
    assert theirs(SPELLED, split_special_tokens=True).input_ids == ours
    assert theirs.eos_token_id in theirs(SPELLED).input_ids
    assert theirs.eos_token_id not in ours
    assert len(theirs) == tokenizer.spec.codebook_sizes[0]


def test_a_merge_extends_it_and_keeps_its_ids(tokenizer, folder, tmp_path):
    from transformers import AutoTokenizer

    (tmp_path / "img").mkdir()
    spec = TokenSpec.of(CodeSpec("image", (64,), downsample=8))
    (tmp_path / "img" / "token_spec.json").write_text(spec.to_json())
    out = tmp_path / "vocab"
    assert main(["vocab", "merge", "--base", str(folder), str(tmp_path / "img"), "-o", str(out)]) == 0
    assert main(["vocab", "check", str(out)]) == 0
    merged = AutoTokenizer.from_pretrained(out)
    text = TEXTS[3]
    assert merged(text).input_ids == tokenizer.tokens([text])[0]
    assert merged("<|img:00007|>").input_ids[0] >= tokenizer.spec.codebook_sizes[0]
    assert merged.eos_token == "<|endoftext|>"


def test_a_changed_file_is_a_broken_promise(folder):
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"the"', '"thx"'))
    assert [str(one) for one in verify(folder)] == ["files: tokenizer.json was changed: its sha256 is another"]
    with pytest.raises(ValueError, match=r"is damaged: tokenizer.json was changed"):
        mmtok.load(folder)


def test_golden_texts_that_differ_are_named(folder, monkeypatch):
    monkeypatch.setattr("mmtok.export.verify_text.manifest_kept", lambda *args: iter(()))
    items = json.loads((folder / "golden.json").read_text())
    items["items"][3]["ids"][2] = 5
    (folder / "golden.json").write_text(json.dumps(items))
    assert "text 3 has other ids with mmtok" in str(verify(folder)[0])
    assert "from place 2 on" in str(verify(folder)[0])


def test_what_exists_is_not_replaced_unless_asked_to(tokenizer, folder):
    with pytest.raises(ValueError, match=r"is a bundle already. Give --overwrite"):
        write_text(tokenizer, folder)
    write_text(tokenizer, folder, overwrite=True)


def test_a_vocabulary_that_was_not_fitted_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="not fitted yet"):
        write_text(SubwordTokenizer(SubwordConfig()), tmp_path / "text")
    assert not list(tmp_path.iterdir())
