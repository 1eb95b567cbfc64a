"""A damaged bundle is noticed by whoever reads it, and not only by `mmtok verify`."""

import json
import shutil

import pytest
import torch

import mmtok
from mmtok.cli import main
from mmtok.export.bundle import write_bundle
from mmtok.export.golden import inputs
from mmtok.export.sealed import refuse_changed
from mmtok.schema import read_json
from mmtok.tokenizers import build_tokenizer

CONV = {"name": "conv2d", "channels": 8, "multipliers": [1, 1], "blocks": 1, "groups": 4}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    torch.manual_seed(0)
    image = build_tokenizer({"name": "image", "image_size": 16, "dim": 8, "encoder": CONV}, "vq").eval()
    folder = tmp_path_factory.mktemp("sealed")
    image.write(inputs(image)[0], folder / "picture.png")
    return write_bundle(image, folder / "whole")


@pytest.fixture
def bundle(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "a bundle")


def flip(file):
    """One bit in the middle: the size stays, and safetensors see nothing."""
    data = bytearray(file.read_bytes())
    data[len(data) * 3 // 4] ^= 1
    file.write_bytes(data)


DAMAGE = {
    "model.safetensors was changed: its sha256 is another": lambda b: flip(b / "model.safetensors"),
    "model.safetensors has .* bytes, and had": lambda b: (b / "model.safetensors").write_bytes(b"torn"),
    "config.json has .* bytes, and had": lambda b: (b / "config.json").write_text(
        json.dumps(read_json(b / "config.json") | {"note": 1})
    ),
    "token_spec.json was changed": lambda b: (b / "token_spec.json").write_text(
        (b / "token_spec.json").read_text().replace('"img"', '"pic"')
    ),
}


@pytest.mark.parametrize("said", DAMAGE)
def test_a_damaged_bundle_is_not_loaded_and_verify_is_named(said, bundle, whole, tmp_path, capsys):
    DAMAGE[said](bundle)
    with pytest.raises(ValueError, match=said):
        mmtok.load(bundle)
    picture = whole.parent / "picture.png"
    assert main(["encode", str(bundle), str(picture), "-o", str(tmp_path / "codes")]) == 2
    assert f"See all of it with: mmtok verify '{bundle}'" in capsys.readouterr().err
    assert main(["verify", str(bundle), "--no-code"]) == 1


@pytest.mark.parametrize(("file", "words"), [("token_spec.json", []), ("codebook.safetensors", ["--init", "codebook"])])
def test_no_vocabulary_is_made_of_a_damaged_bundle(file, words, bundle, tmp_path, capsys):
    tokenizers = pytest.importorskip("tokenizers")
    pytest.importorskip("transformers")
    (tmp_path / "base").mkdir()
    base = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    base.save(str(tmp_path / "base" / "tokenizer.json"))
    merge = [
        "vocab",
        "merge",
        "--base",
        str(tmp_path / "base"),
        str(bundle),
        "-o",
        str(tmp_path / "v"),
        "--hidden",
        "8",
    ]
    flip(bundle / file)
    assert main([*merge, *words]) == 2
    assert f"is damaged: {file} was changed" in capsys.readouterr().err
    assert not (tmp_path / "v").exists()


def test_what_is_not_in_use_is_left_to_verify(bundle, tmp_path):
    (bundle / "README.md").write_text("mine")
    mmtok.load(bundle)
    refuse_changed(tmp_path / "no bundle at all", ("config.json",))


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"files": {"config.json": 3}}'])
def test_a_list_that_cannot_be_read_is_damage(content, bundle):
    (bundle / "bundle.json").write_text(content)
    with pytest.raises(ValueError, match=r"bundle\.json is damaged .* mmtok verify"):
        mmtok.load(bundle)


def test_json_of_a_file_is_a_mapping_or_an_error_that_names_it(tmp_path):
    with pytest.raises(ValueError, match=r"there is no .*x.json. Do this.$"):
        read_json(tmp_path / "x.json", "Do this.")
    for text, said in (("{", "x.json is no valid JSON"), ("[1]", "x.json must hold a mapping, got list")):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(ValueError, match=said):
            read_json(tmp_path / "x.json")


def test_a_bundle_is_not_imported(bundle, tmp_path, capsys):
    assert main(["import", str(bundle), "-o", str(tmp_path / "out")]) == 2
    assert "is a bundle, which every verb takes as it is; an import of it would lose" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_half_a_bundle_is_not_evaluated_and_leaves_nothing(whole, tmp_path, capsys):
    for part, lacking in (("encoder", "decoder"), ("decoder", "encoder")):
        half = write_bundle(mmtok.load(whole), tmp_path / part, part=part)
        assert main(["evaluate", str(half), "--shards", str(tmp_path)]) == 2
        assert f"cannot be evaluated: it was exported without its {lacking}. Use a whole" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["decoder", "encoder"]


def test_commands_to_give_next_can_be_pasted(whole, tmp_path, capsys):
    out = tmp_path / "with a space"
    assert main(["export", str(whole), str(out)]) == 0
    assert f"mmtok verify '{out}'" in capsys.readouterr().out
