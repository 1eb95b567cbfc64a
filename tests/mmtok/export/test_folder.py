"""Folders of models: those of transformers read and written, ours in between, by `mmtok.load` and by the verbs."""

import json
import wave

import pytest
import torch
from safetensors.torch import load_file, save_file

import mmtok
from mmtok.cli import main
from mmtok.export.folder import read_model, write_model, write_native
from mmtok.tokenizers import build_tokenizer
from mmtok.tokenizers.sounds import write_wave

transformers = pytest.importorskip("transformers")

ENCODEC = {"num_filters": 4, "hidden_size": 16, "codebook_size": 64, "upsampling_ratios": [5, 4], "sampling_rate": 8000,
           "target_bandwidths": [2.4, 9.6]}  # fmt: skip
DAC = {"encoder_hidden_size": 4, "decoder_hidden_size": 64, "n_codebooks": 4, "codebook_size": 64,
       "downsampling_ratios": [2, 5], "sampling_rate": 8000}  # fmt: skip

SET_BY_LOADING = {"dtype", "architectures", "_name_or_path", "target_bandwidths"}


def model_of(kind, seed=0):
    torch.manual_seed(seed)
    config = transformers.EncodecConfig(**ENCODEC) if kind == "encodec" else transformers.DacConfig(**DAC)
    model = transformers.AutoModel.from_config(config).eval()
    for key, buffer in model.named_buffers():
        if key.endswith(("embed", "cluster_size")):
            buffer.copy_(0.2 * torch.randn_like(buffer).abs())
    return model


@pytest.fixture(params=["encodec", "dac"])
def kind(request):
    return request.param


@pytest.fixture
def folder(kind, tmp_path):
    model_of(kind).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def talk(tmp_path):
    x = torch.randn(1, 1, 8000, generator=torch.Generator().manual_seed(0)).mul(0.2)
    write_wave([x], tmp_path / "talk.wav", 8000)
    return tmp_path / "talk.wav"


def ids_of(model, x):
    if isinstance(model, transformers.EncodecModel):
        return model.encode(x, bandwidth=model.config.target_bandwidths[-1]).audio_codes[0]
    return model.encode(x).audio_codes


def assert_same(tokenizer, model):
    x = 0.3 * torch.randn(1, 1, 20 * tokenizer.networks.downsample, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(tokenizer.embed(x).z, model.encoder(x).mT, atol=1e-5, rtol=0)
        ids = tokenizer.encode(x).ids
        assert ids.shape[1] == tokenizer.quantizer.depth
        assert (ids == ids_of(model, x)).float().mean() > 0.95  # all but ties: test_hf_audio.py looks at those


def test_the_folder_of_a_model_is_a_tokenizer(folder, kind):
    tokenizer = mmtok.load(folder)
    assert_same(tokenizer, model_of(kind))
    assert tokenizer.spec.sample_rate == 8000
    assert not tokenizer.training
    # Codes carry it, so it must be the same however often the model is read.
    torch.rand(1)
    assert mmtok.load(folder).fingerprint() == tokenizer.fingerprint()


def test_a_model_in_several_files_is_read_whole(kind, tmp_path):
    model_of(kind).save_pretrained(tmp_path / "one")
    model_of(kind).save_pretrained(tmp_path / "several", max_shard_size="20KB")
    assert len(list((tmp_path / "several").glob("*.safetensors"))) > 1
    assert mmtok.load(tmp_path / "several").fingerprint() == mmtok.load(tmp_path / "one").fingerprint()


def test_an_import_encodes_to_the_codes_of_its_model(folder, kind, talk, tmp_path, capsys):
    out = tmp_path / "imported"
    assert main(["import", str(folder), "-o", str(out)]) == 0
    assert "sample rate 8,000 Hz | frames/s" in capsys.readouterr().out
    assert sorted(file.name for file in out.iterdir()) == ["config.json", "model.safetensors"]
    assert mmtok.load(out).fingerprint() == mmtok.load(folder).fingerprint()
    codes = tmp_path / "codes" / "talk.mmc"
    assert main(["encode", str(out), str(talk), "-o", str(codes.parent), "--format", "mmc"]) == 0
    assert main(["decode", str(folder), str(codes), "-o", str(tmp_path / "back")]) == 0  # the same tokenizer
    with wave.open(str(tmp_path / "back" / "talk.wav")) as file:
        assert (file.getframerate(), file.getnframes()) == (8000, 8000)
    assert main(["import", str(folder), "-o", str(out)]) == 2
    assert "exists already. Give --overwrite" in capsys.readouterr().err


def test_what_is_exported_loads_in_transformers(folder, kind, tmp_path, capsys):
    out = tmp_path / "exported"
    assert main(["export", str(folder), "--as", f"hf-{kind}", "-o", str(out)]) == 0
    assert f"{'Encodec' if kind == 'encodec' else 'Dac'}Model.from_pretrained('{out}')" in capsys.readouterr().out
    model = transformers.AutoModel.from_pretrained(out).eval()
    assert_same(mmtok.load(folder), model)
    given, theirs = model.config.to_dict(), model_of(kind).config.to_dict()
    unlike = {key for key in theirs if given[key] != theirs[key]} - SET_BY_LOADING
    assert not unlike
    extractor = transformers.AutoFeatureExtractor.from_pretrained(out)
    assert extractor(torch.zeros(100).numpy(), sampling_rate=8000)["input_values"][0].shape[-1] >= 100
    if kind == "encodec":  # 1, 2, 4 of 4 levels, of 6 bits at 400 frames a second
        assert model.config.target_bandwidths == [2.4, 4.8, 9.6]


TINY = {"name": "seanet", "channels": 4, "strides": [4, 5]}
RQ = {"name": "rq", "codebook_size": 16, "depth": 2}


@pytest.mark.parametrize(
    ("kind", "encoder", "quantizer", "said"),
    [
        ("encodec", {}, RQ, r"cannot express tokenizer.encoder.core='none' \(only 'lstm'\)"),
        ("encodec", {"core": "lstm", "dilations": [1, 3, 5]}, RQ, r"encoder.dilations=\[1, 3, 5\] \(only \[1, 3, 9\]"),
        ("encodec", {"core": "lstm"}, RQ | {"l2": True}, r"quantizer.l2=True \(only False\)"),
        ("encodec", {"core": "lstm"}, {"name": "fsq"}, "quantizer.name=fsq; only seanet with rq"),
        ("dac", {"causal": False}, RQ, "cannot express quantizer.code_dim=0; only less"),
        ("dac", {}, RQ | {"code_dim": 4}, r"encoder.causal=True \(only False\)"),
    ],
)
def test_what_a_class_cannot_express_is_refused_by_name(kind, encoder, quantizer, said, tmp_path):
    tokenizer = build_tokenizer({"name": "audio", "dim": 16, "encoder": TINY | encoder}, quantizer)
    with pytest.raises(ValueError, match=said):
        write_native(tokenizer, tmp_path / "out", f"hf-{kind}")
    assert not (tmp_path / "out").exists()


def test_pictures_are_no_dac(tmp_path):
    tokenizer = build_tokenizer({"name": "image", "image_size": 8, "encoder": {"name": "conv2d"}}, {"name": "vq"})
    with pytest.raises(ValueError, match="DacModel is for sounds"):
        write_native(tokenizer, tmp_path, "hf-dac")


def test_any_tokenizer_survives_our_folder(tmp_path):
    quantizer = {"name": "split", "semantic": {"name": "fsq"}, "acoustic": RQ}
    tokenizer = build_tokenizer({"name": "audio", "dim": 16, "encoder": TINY}, quantizer)
    write_model(tokenizer, tmp_path / "a", source="a test")
    back = read_model(tmp_path / "a")
    assert back.fingerprint() == tokenizer.fingerprint()
    assert (back.config, back.quantizer.config) == (tokenizer.config, tokenizer.quantizer.config)


def replace_config(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def as_pickle(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def with_index(folder, **places):
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def without(folder, part):
    state = load_file(folder / "model.safetensors")
    save_file({key: value for key, value in state.items() if part not in key}, folder / "model.safetensors")


DAMAGE = {
    "kind": (
        lambda f: replace_config(f, model_type="dax"),
        "model_type='dax' is no tokenizer known here. Did you mean",
    ),
    "type": (lambda f: replace_config(f, sampling_rate="fast"), "sample_rate must be an int, got 'fast'"),
    "width": (lambda f: replace_config(f, hidden_size=32), "hidden_size=32 cannot be expressed; only"),
    "sense": (lambda f: replace_config(f, downsampling_ratios=3), "the configuration of this DacModel makes no sense"),
    "shape": (lambda f: replace_config(f, codebook_size=32), r"fit .*codebook is \[64, 8\], and should be \[32, 8\]"),
    "pickle": (as_pickle, "pytorch_model.bin is a pickle"),
    "half": (lambda f: without(f, "decoder"), "have no 'decoder.conv1'"),
    "tensor": (lambda f: without(f, "conv1.bias"), r"encoder.conv_in.bias is none, and should be \[4\]"),
    "json": (lambda f: (f / "config.json").write_text("{"), "config.json is no valid JSON"),
    "list": (lambda f: (f / "config.json").write_text("[]"), "must hold a mapping"),
    "noise": (lambda f: (f / "model.safetensors").write_bytes(b"x" * 40), "model.safetensors is damaged"),
    "none": (lambda f: (f / "model.safetensors").unlink(), "there is no model.safetensors"),
    "outside": (lambda f: with_index(f, w="../a.safetensors"), "names '../a.safetensors', which is no"),
    "promise": (lambda f: with_index(f, w="a.safetensors"), "promises 'w', which is in none"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_folder_that_is_not_whole_or_not_known_says_what_is_wrong(case, tmp_path):
    damage, said = DAMAGE[case]
    model_of("dac").save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(ValueError, match=said):
        mmtok.load(tmp_path)


def test_an_import_that_is_refused_leaves_no_folder(tmp_path, capsys):
    model_of("dac").save_pretrained(tmp_path / "in")
    replace_config(tmp_path / "in", codebook_size=32)
    assert main(["import", str(tmp_path / "in"), "-o", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


def test_a_run_is_nothing_to_import(tmp_path, capsys):
    assert main(["import", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert "there is no config.json in" in capsys.readouterr().err
