"""What may happen to a bundle, and the promise that `mmtok verify` then names."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmtok.cli import main
from mmtok.export.bundle import manifest, write_bundle
from mmtok.export.provenance import Provenance
from mmtok.export.token_spec import TokenSpec
from mmtok.export.verify import verify
from mmtok.tokenizers import build_tokenizer

CONV = {"name": "conv2d", "channels": 8, "multipliers": [1, 2], "blocks": 1, "groups": 4}
FOUND = {"val": {"samples": 9, "metrics": {"psnr": 20.0}, "usage": [{"size": 32, "active": 1.0}]}}


def tokenizer(seed=0):
    torch.manual_seed(seed)
    blocks = {"name": "image", "image_size": 16, "dim": 8, "encoder": CONV}
    return build_tokenizer(blocks, {"name": "vq", "codebook_size": 32}).eval()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_bundle(
        tokenizer(), tmp_path_factory.mktemp("verify") / "bundle", provenance=Provenance(evaluations=FOUND)
    )


@pytest.fixture
def bundle(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "bundle")


def seal(bundle):
    """What somebody does who edits a file and knows of the checksums."""
    content = manifest(bundle, TokenSpec.read(bundle))
    (bundle / "bundle.json").write_text(json.dumps(content))


def edit_json(bundle, name, change):
    content = json.loads((bundle / name).read_text())
    change(content)
    (bundle / name).write_text(json.dumps(content))


def edit_tensors(bundle, name, change):
    tensors = load_file(bundle / name)
    change(tensors)
    save_file(tensors, bundle / name)


def edit_source(bundle, name, old, new):
    text = (bundle / name).read_text()
    assert old in text
    (bundle / name).write_text(text.replace(old, new, 1))


# Damage to files, which checksums tell.


def flip_a_bit(bundle):
    file = bundle / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


def stop_half_way(bundle):
    file = bundle / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def lose_the_spec(bundle):
    (bundle / "token_spec.json").unlink()


def lose_the_manifest(bundle):
    (bundle / "bundle.json").unlink()


def lose_a_license_and_seal(bundle):
    (bundle / "LICENSE").unlink()
    seal(bundle)


def edit_a_source(bundle):
    edit_source(bundle, "mmtok_quantizers_lookup.py", "def dequantize", "def  dequantize")


def add_a_source(bundle):
    (bundle / "mmtok_helpers.py").write_text("import os")


def hide_a_source(bundle):
    (bundle / "sub").mkdir()
    shutil.copy(bundle / "mmtok_codes.py", bundle / "sub" / "mmtok_codes.py")


def add_a_pickle(bundle):
    torch.save({}, bundle / "pytorch_model.bin")


# Damage that was sealed again: what files say of each other.


def rename_the_model(bundle):
    edit_json(bundle, "config.json", lambda config: config.update(model_type="dac"))


def lose_the_auto_map(bundle):
    edit_json(bundle, "config.json", lambda config: config.pop("auto_map"))


def half_the_precision(bundle):
    edit_json(bundle, "config.json", lambda config: config.update(dtype="bfloat16"))


def widen_the_network(bundle):
    edit_json(bundle, "config.json", lambda config: config["tokenizer"]["encoder"].update(channels=16))


def lose_a_weight(bundle):
    edit_tensors(bundle, "model.safetensors", lambda state: state.pop("networks.encoder.conv_in.weight"))


def diverge(bundle):
    edit_tensors(
        bundle, "model.safetensors", lambda state: state["networks.decoder.conv_in.bias"].fill_(torch.nan)
    )  # fmt: skip


def add_a_code(bundle):
    edit_json(bundle, "token_spec.json", lambda spec: spec.update(codebook_sizes=[33]))
    edit_json(bundle, "config.json", lambda config: config["token_spec"].update(codebook_sizes=[33]))


def rename_tokens_in_one_place(bundle):
    edit_json(bundle, "token_spec.json", lambda spec: spec.update(prefix="pic"))


def swap_the_fingerprint(bundle):
    for name, part in (("token_spec.json", None), ("config.json", "token_spec")):
        edit_json(bundle, name, lambda content, part=part: (content[part] if part else content).update(fingerprint="0"))


def change_the_range(bundle):
    edit_json(bundle, "preprocessor_config.json", lambda content: content.update(value_range=[0.0, 1.0]))


def shuffle_the_codebook(bundle):
    def change(tables):
        tables["level_0"] = tables["level_0"].flip(0)

    edit_tensors(bundle, "codebook.safetensors", change)


def count_other_codes(bundle):
    edit_json(bundle, "usage.json", lambda usage: usage["levels"][0].update(size=64))


def import_lightning(bundle):
    edit_source(bundle, "mmtok_codes.py", "import torch\n", "import torch\nimport lightning\n")


def import_pickle(bundle):
    edit_source(bundle, "mmtok_codes.py", "import torch\n", "import torch\nimport pickle\n")


def train_on(bundle):
    edit_tensors(
        bundle, "model.safetensors", lambda state: state["networks.encoder.conv_out.weight"].mul_(1.02)
    )  # fmt: skip


def brighten(bundle):
    edit_tensors(bundle, "model.safetensors", lambda state: state["networks.decoder.conv_out.bias"].add_(0.01))


def change_golden_ids(bundle):
    def change(tensors):
        tensors["0.ids"] = (tensors["0.ids"] + 1) % 32

    edit_tensors(bundle, "golden.safetensors", change)


FILES = {
    flip_a_bit: ("files", "model.safetensors was changed"),
    stop_half_way: ("files", "model.safetensors has .* bytes, and had"),
    lose_the_spec: ("files", "token_spec.json is missing"),
    lose_the_manifest: ("files", "there is no bundle.json"),
    lose_a_license_and_seal: ("files", "LICENSE is not in bundle.json"),
    edit_a_source: ("files", "mmtok_quantizers_lookup.py .* and had"),
    add_a_source: ("no strangers", "mmtok_helpers.py is not in bundle.json"),
    hide_a_source: ("no strangers", "sub/mmtok_codes.py is not in bundle.json"),
    add_a_pickle: ("no strangers", "pytorch_model.bin is a pickle"),
}
SEALED = {
    rename_the_model: ("configuration", "model_type of config.json is 'dac'"),
    lose_the_auto_map: ("configuration", "no auto_map for AutoModel"),
    half_the_precision: ("configuration", "asks for bfloat16"),
    widen_the_network: ("weights", "do not fit the config.json"),
    lose_a_weight: ("weights", "networks.encoder.conv_in.weight"),
    diverge: ("weights", "networks.decoder.conv_in.bias holds values that are not finite"),
    add_a_code: ("token spec", "codebook_sizes=.33,., and the tokenizer has .32,."),
    rename_tokens_in_one_place: ("token spec", "token_spec.json and the token_spec in config.json differ"),
    swap_the_fingerprint: ("token spec", "fingerprint='0'"),
    change_the_range: ("preprocessing", "value_range=.0.0, 1.0., and the tokenizer has .-1.0, 1.0."),
    shuffle_the_codebook: ("codebooks", "level_0 of codebook.safetensors is not the codebook in the weights"),
    count_other_codes: ("usage", "is of codebooks of .64., and these are .32."),
    import_lightning: ("sources", "mmtok_codes.py, line .*, imports lightning"),
    import_pickle: ("sources", "imports pickle, which can run what it reads"),
    train_on: ("golden codes", "of item 0, with mmtok, latents differ"),
    brighten: ("golden codes", "of item 0, with mmtok, decoded signals differ"),
    change_golden_ids: ("golden codes", "are not those token_spec.json was written for"),
}


@pytest.mark.parametrize("damage", [*FILES, *SEALED], ids=lambda damage: damage.__name__)
def test_damage_is_caught_and_named(damage, bundle):
    damage(bundle)
    promise, reason = (FILES | SEALED)[damage]
    if damage in SEALED:
        seal(bundle)
    # Nothing of it was run: each of these is seen before.
    broken = verify(bundle, run_code=False)
    assert {item.promise for item in broken} == {promise}
    assert [item for item in broken if re.search(reason, item.reason)], broken


def test_a_sound_bundle_keeps_all_promises_in_a_clean_process(whole, capsys):
    pytest.importorskip("transformers")
    assert main(["verify", str(whole)]) == 0
    said = capsys.readouterr().out
    assert "transformers: kept" in said
    assert "programs: none" in said
    assert "all promises are kept" in said


def test_a_process_that_does_not_end_is_a_broken_promise(whole, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setattr("mmtok.export.promises.PATIENCE", 0.01)
    assert [str(item) for item in verify(whole)] == [
        "transformers: where mmtok is absent, transformers did not finish within 0.01 s"
    ]


def test_sources_that_compute_something_else_are_caught(bundle, capsys):
    pytest.importorskip("transformers")
    # mmtok itself, which does not run them, sees nothing.
    edit_source(bundle, "mmtok_tokenizers_image.py", 'mode="replicate"', 'mode="reflect"')
    edit_source(
        bundle, "mmtok_tokenizers_image.py", "latents = self.networks.encoder(x)", "latents = -self.networks.encoder(x)"
    )
    seal(bundle)
    assert main(["verify", str(bundle)]) == 1
    said = capsys.readouterr().out
    assert "golden codes: kept" in said
    assert "BROKEN transformers: of item 0, with its own sources" in said
    assert "broken promise" in said


@pytest.mark.slow
def test_sources_that_do_not_load_are_caught(bundle, capsys):
    pytest.importorskip("transformers")
    edit_source(bundle, "mmtok_parts.py", "import build_exported", "import build_all")
    seal(bundle)
    assert main(["verify", str(bundle)]) == 1
    assert "transformers cannot use it: ImportError" in capsys.readouterr().out


def test_what_is_no_bundle_is_no_broken_one(tmp_path, capsys):
    assert main(["verify", str(tmp_path)]) == 2
    assert "is no bundle" in capsys.readouterr().err
