"""Weights copied between tokenizers here and transformers' JanusVQVAE and diffusers' VQModel, in both directions."""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers.models.janus.modeling_janus import JanusVQVAE, JanusVQVAEConfig

import mmtok
from mmtok.cli import main
from mmtok.export.folder import write_model, write_native
from mmtok.export.formats import from_native, to_native
from mmtok.tokenizers import build_tokenizer

diffusers = pytest.importorskip("diffusers")

JANUS = {"embed_dim": 4, "num_embeddings": 32, "latent_channels": 8, "base_channels": 32,
         "channel_multiplier": [1, 2], "num_res_blocks": 1, "num_patches": 6}  # fmt: skip
DIFFUSERS = {"block_out_channels": [32, 64], "down_block_types": ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
             "up_block_types": ["AttnUpDecoderBlock2D", "UpDecoderBlock2D"], "latent_channels": 8, "vq_embed_dim": 4,
             "num_vq_embeddings": 32, "sample_size": 12, "norm_num_groups": 16, "layers_per_block": 2,
             "lookup_from_codebook": True}  # fmt: skip
PLAIN = {"block_out_channels": [32, 32], "down_block_types": ["DownEncoderBlock2D"] * 2, "latent_channels": 3,
         "up_block_types": ["UpDecoderBlock2D"] * 2, "num_vq_embeddings": 32, "mid_block_add_attention": False,
         "lookup_from_codebook": True}  # fmt: skip
MODELS = {"janus": ("hf-janus-vq", JANUS), "diffusers": ("diffusers-vq", DIFFUSERS), "plain": ("diffusers-vq", PLAIN)}

VQGAN = {"name": "conv2d", "channels": 32, "multipliers": [1, 2], "blocks": 1, "decoder_blocks": 2, "attention": [2],
         "mid_attention": True}  # fmt: skip
OURS = {  # every way of having 1x1 layers around the codes
    "janus": ("hf-janus-vq", {"z_channels": 8}, {"l2": True}),
    "janus, gradient": ("hf-janus-vq", {"z_channels": 8}, {"l2": True, "learn": "gradient"}),
    "janus, projections": ("hf-janus-vq", {}, {"l2": True, "code_dim": 3}),
    "diffusers, both": ("diffusers-vq", {"z_channels": 8, "channels": 8, "groups": 8}, {"code_dim": 3}),
    "diffusers, none": ("diffusers-vq", {"attention": [], "mid_attention": False}, {}),
    "diffusers, directions": ("diffusers-vq", {"attention": [1, 2]}, {"l2": True, "code_dim": 5}),
}


def shaken(model):
    """The model with what begins as zeros or ones drawn too."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
            if name.endswith(("embedding.weight", "codebook")):
                parameter.normal_()
    return model.eval()


def theirs_of(name, seed=0):
    form, fields = MODELS[name]
    torch.manual_seed(seed)
    if form == "diffusers-vq":
        return shaken(diffusers.VQModel(**fields))
    model = shaken(JanusVQVAE(JanusVQVAEConfig(**fields)))
    codes = model.quantize.embedding.weight
    codes.data = F.normalize(codes.data, dim=-1)
    return model


def ours_of(name):
    _, encoder, quantizer = OURS[name]
    torch.manual_seed(2)
    ours = build_tokenizer(
        {"name": "image", "image_size": 12, "dim": 6, "encoder": VQGAN | encoder},
        {"name": "vq", "codebook_size": 32} | quantizer,
    )
    shaken(ours)
    torch.nn.init.normal_(ours.quantizer.codebook, std=0.3)
    if ours.quantizer.config.l2 and ours.quantizer.config.learn == "ema":
        ours.quantizer.codebook.copy_(F.normalize(ours.quantizer.codebook, dim=-1))
    return ours


def loaded(name, folder):
    if name == "diffusers-vq":
        return diffusers.VQModel.from_pretrained(folder).eval()
    return JanusVQVAE.from_pretrained(folder).eval()


def run(model, x):
    """Latents (B, T, D) before the choice, ids (B, T), and pictures of those ids, as the model itself gives them."""
    shape = x.shape[0], x.shape[2] // 2, x.shape[3] // 2, -1
    if isinstance(model, diffusers.VQModel):
        z = model.encode(x).latents
        ids = model.quantize(z)[2][2]
        y = model.decode(ids, force_not_quantize=True, shape=shape).sample
    else:
        z, ids = model.quant_conv(model.encoder(x)), model.encode(x).image_tokens
        y = model.decode(ids.view(x.shape[0], -1))
    return z.flatten(2).mT, ids.view(x.shape[0], -1), y


@torch.no_grad()
def assert_same(ours, model):
    x = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(3)) * 2 - 1
    z, ids, y = run(model, x)
    own = ours.quantizer.project_in(ours.embed(x).z)
    torch.testing.assert_close(own, z, atol=1e-5, rtol=0)
    codes = ours.encode(x)
    best = torch.cdist(F.normalize(z, dim=-1) if ours.quantizer.config.l2 else z, ours.quantizer.code_table()).square()
    least = best.topk(2, largest=False).values
    clear = least[..., 1] - least[..., 0] > 1e-4
    assert clear.float().mean() > 0.9
    assert ids.unique().numel() > 3
    assert torch.equal(codes.ids[:, 0][clear], ids[clear])
    torch.testing.assert_close(ours.decode(replace(codes, ids=ids[:, None])), y, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_was_saved_is_a_tokenizer(name, tmp_path):
    model = theirs_of(name)
    model.save_pretrained(tmp_path)
    ours = mmtok.load(tmp_path)
    assert_same(ours, model)
    assert (ours.config.image_size, ours.networks.downsample) == ((12, 2) if name != "plain" else (32, 2))
    assert mmtok.load(tmp_path).fingerprint() == ours.fingerprint()


@pytest.mark.parametrize("name", OURS)
def test_a_tokenizer_that_was_written_is_a_model(name, tmp_path):
    ours, form = ours_of(name), OURS[name][0]
    write_native(ours, tmp_path / "model", form)
    assert_same(ours, loaded(form, tmp_path / "model"))
    back = mmtok.load(tmp_path / "model")
    assert_same(back, loaded(form, tmp_path / "model"))


@pytest.mark.parametrize("name", MODELS)
def test_what_is_imported_is_written_as_it_was(name):
    model, form = theirs_of(name), MODELS[name][0]
    config = {"_class_name": "VQModel", **model.config} if form == "diffusers-vq" else model.config.to_dict()
    files, state = to_native(from_native(form, config, model.state_dict()), form)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(state[key], value, atol=1e-6, rtol=0)  # Janus' rows are normalised, which rounds
    assert state.keys() == model.state_dict().keys()
    same = {"model_type", "num_patches", "channel_multiplier", "latent_channels", "norm_num_groups", "up_block_types"}
    assert all(files.config[key] == config[key] for key in same & files.config.keys())


def test_the_verbs_write_and_read_both(tmp_path, capsys):
    ours = ours_of("janus")
    write_model(ours, tmp_path / "run")
    for form, said in (("hf-janus-vq", "transformers.JanusVQVAE"), ("diffusers-vq", "diffusers.VQModel")):
        out = tmp_path / form
        assert main(["export", str(tmp_path / "run"), "--as", form, "-o", str(out)]) == 0
        assert f"{said}.from_pretrained('{out}')" in capsys.readouterr().out
        assert main(["import", str(out), "-o", str(tmp_path / f"{form}-back")]) == 0
        assert_same(mmtok.load(tmp_path / f"{form}-back"), loaded(form, out))


def test_a_processor_of_transformers_makes_the_pixels_of_preprocess(tmp_path):
    from PIL import Image
    from transformers import AutoImageProcessor

    ours = ours_of("janus")
    write_native(ours, tmp_path, "hf-janus-vq")
    pixels = torch.randint(0, 255, (24, 36, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    picture = Image.fromarray(pixels.numpy())
    given = AutoImageProcessor.from_pretrained(tmp_path)(picture, return_tensors="pt")["pixel_values"]
    own = ours.preprocess(picture, fit=True)
    assert (given - own).abs().max() < 2.01 / 255  # one step: bicubic of PIL and of torch round differently


def test_the_tokenizer_of_a_whole_janus_is_read_out_of_it(tmp_path):
    model = theirs_of("janus")
    state = {f"model.vqmodel.{key}": value for key, value in model.state_dict().items()}
    save_file(state | {"model.language_model.norm.weight": torch.ones(4)}, tmp_path / "model.safetensors")
    config = {"model_type": "janus", "vq_config": model.config.to_dict()}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert_same(mmtok.load(tmp_path), model)


def test_older_names_of_attention_are_known(tmp_path):
    model = theirs_of("diffusers")
    model.save_pretrained(tmp_path)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(tmp_path / "diffusion_pytorch_model.safetensors")
    for new, name in old.items():
        state = {key.replace(f".{new}.", f".{name}."): value for key, value in state.items()}
    save_file(state, tmp_path / "diffusion_pytorch_model.safetensors")
    assert_same(mmtok.load(tmp_path), model)


@pytest.mark.parametrize(
    ("form", "encoder", "quantizer", "said"),
    [
        ("hf-janus-vq", {"attention": []}, {"l2": True}, r"encoder.attention=\[\] \(only \[2\]\)"),
        ("hf-janus-vq", {"groups": 16}, {"l2": True}, r"encoder.groups=16 \(only 32\)"),
        ("hf-janus-vq", {"channels": 48}, {"l2": True}, "channels=48, which make norms of 24 and 32 groups"),
        ("hf-janus-vq", {}, {}, r"lengths from .* JanusVQVAE normalises them .* Train with quantizer.l2=true"),
        ("diffusers-vq", {"decoder_blocks": None}, {}, r"encoder.decoder_blocks=1 \(only 2\)"),
        ("diffusers-vq", {"patch": 2, "attention": []}, {}, r"encoder.patch=2 \(only 1\)"),
        ("diffusers-vq", {"norm": "none"}, {}, r"encoder.norm='none' \(only 'group'\)"),
        ("diffusers-vq", {"shortcut": "hidden"}, {}, r"encoder.shortcut='hidden' \(only 'input'\)"),
        ("diffusers-vq", {"mid_blocks": 3}, {}, r"encoder.mid_blocks=3 \(only 2\)"),
        ("diffusers-vq", {}, {"cosine": True}, r"quantizer.cosine=True \(only False\)"),
        ("diffusers-vq", {}, {"name": "fsq"}, "quantizer.name=fsq; only conv2d with vq can be"),
        ("diffusers-vq", {}, {"name": "rq"}, "quantizer.name=rq; only conv2d with vq can be"),
    ],
    ids=str,
)
def test_what_a_class_cannot_express_is_refused_by_name(form, encoder, quantizer, said, tmp_path):
    tokenizer = build_tokenizer(
        {"name": "image", "image_size": 12, "dim": 6, "encoder": VQGAN | encoder}, {"name": "vq"} | quantizer
    )
    with pytest.raises(ValueError, match=said):
        write_native(tokenizer, tmp_path / "out", form)
    assert not (tmp_path / "out").exists()


def test_codes_chosen_by_direction_need_length_one_where_distance_chooses(tmp_path):
    ours = ours_of("diffusers, directions")
    ours.quantizer.codebook.mul_(1.01)
    with pytest.raises(ValueError, match=r"lengths from 1\.01 to 1\.01\. VQModel chooses by distance"):
        write_native(ours, tmp_path, "diffusers-vq")


def test_a_square_must_be_of_whole_positions(tmp_path):
    tokenizer = build_tokenizer({"name": "image", "image_size": 13, "dim": 6, "encoder": VQGAN}, {"name": "vq"})
    with pytest.raises(ValueError, match="image_size=13; only multiples of the stride, 2"):
        write_native(tokenizer, tmp_path, "hf-janus-vq")


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [("janus", {"double_latent": True}, "double_latent=True"), ("janus", {"out_channels": 1}, "out_channels=1"),
     ("diffusers", {"act_fn": "relu"}, "act_fn='relu'"), ("diffusers", {"norm_type": "spatial"}, "norm_type='spatial'"),
     ("diffusers", {"block_out_channels": [32, 40]}, r"block_out_channels=\[32, 40\]"),
     ("diffusers", {"up_block_types": ["UpDecoderBlock2D"] * 2}, "at other levels in down_block_types"),
     ("diffusers", {"down_block_types": ["DownBlock2D"] * 2}, "down_block_types=.* only 2 of DownEncoderBlock2D"),
     ("diffusers", {"layers_per_block": 1}, "attentions.2.group_norm.bias', for which the configuration has no place"),
     ("diffusers", {"layers_per_block": 3}, "have no 'encoder.down_blocks.0.resnets.2.norm1.weight'")],
    ids=str,
)  # fmt: skip
def test_what_a_tokenizer_cannot_express_is_refused_by_name(name, fields, said, tmp_path):
    theirs_of(name).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    with pytest.raises(ValueError, match=said):
        mmtok.load(tmp_path)


def test_rows_that_janus_itself_reads_in_two_ways_are_refused(tmp_path):
    model = theirs_of("janus")
    model.quantize.embedding.weight.data.mul_(2)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"lengths from 2 to 2\. JanusVQVAE.encode .*Normalise quantize.embedding"):
        mmtok.load(tmp_path)
