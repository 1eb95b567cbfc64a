"""Weights copied from transformers' MimiModel: the same latents, codes and sound, whole and in a stream."""

import json

import pytest
import torch

import mmtok
from mmtok.cli import main
from mmtok.codes import Codes
from mmtok.export.folder import write_native

transformers = pytest.importorskip("transformers")

SMALL = {"hidden_size": 16, "num_filters": 4, "upsampling_ratios": [4, 3], "codebook_size": 16, "codebook_dim": 8,
         "vector_quantization_hidden_dimension": 8, "num_quantizers": 4, "upsample_groups": 16, "num_hidden_layers": 2,
         "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2, "sliding_window": 5,
         "sampling_rate": 2400}  # fmt: skip
MODELS = {
    "mimi": {},
    "others": {"num_residual_layers": 2, "use_conv_shortcut": True, "num_semantic_quantizers": 2,
               "pad_mode": "replicate", "upsampling_ratios": [2, 2, 3], "compress": 1},
    "no projections": {"codebook_dim": 16, "vector_quantization_hidden_dimension": 16},
}  # fmt: skip


def theirs_of(name):
    torch.manual_seed(0)
    model = transformers.MimiModel(transformers.MimiConfig(**SMALL | MODELS[name])).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():  # zeros and ones at first, which hide what is exchanged
            parameter.add_((0.5 if "layer_scale" in key else 0.05) * torch.randn_like(parameter))
            if key.endswith("conv.weight"):  # so that the level stays that of sounds, from layer to layer
                parameter.mul_(0.7)
        for key, buffer in model.named_buffers():
            if key.endswith("embed_sum"):
                buffer.normal_()
            elif key.endswith("cluster_usage"):
                buffer.uniform_(0.5, 2)
                buffer[0] = 0  # a code that was never used: divided by the least usage, not by nothing
    return model


@pytest.fixture(params=MODELS)
def pair(request, tmp_path):
    model = theirs_of(request.param)
    model.save_pretrained(tmp_path / "model")
    return mmtok.load(tmp_path / "model"), model


def sound(hop):
    return (0.3 * torch.randn(2, 1, 30 * hop, generator=torch.Generator().manual_seed(3))).clamp(-1, 1)


def decisive(latents, quantizer):
    """(B, L, T) whether the best code is better than the second by 1e-4, and so were those of the levels before."""
    clear = []
    for index, part in enumerate(quantizer.parts):
        residual, levels = quantizer.project_in[index](latents), []
        for level in getattr(part, "parts", [part]):
            best = torch.cdist(residual, level.codebook).square().topk(2, largest=False).values
            levels.append(best[..., 1] - best[..., 0] > 1e-4)
            residual = residual - level(residual).values
        clear.append(torch.stack(levels, 1).long().cumprod(1).bool())
    return torch.cat(clear, 1)


@torch.no_grad()
def test_weights_from_transformers_give_the_same_latents_codes_and_sound(pair):
    ours, model = pair
    x = sound(ours.networks.downsample)
    z = model.encoder(x).latents
    torch.testing.assert_close(ours.embed(x).z, z.mT, atol=1e-5, rtol=0)
    codes, theirs = ours.encode(x), model.encode(x).audio_codes
    clear = decisive(z.mT, ours.quantizer)
    assert clear.float().mean() > 0.9
    assert theirs.unique().numel() > 8
    assert torch.equal(codes.ids[clear], theirs[clear])
    y = model.decode(theirs).audio_values
    whole = Codes(theirs, codes.lengths, codes.source_size)
    torch.testing.assert_close(ours.decode(whole), y, atol=1e-5, rtol=0)
    few = model.decode(theirs[:, :2]).audio_values
    torch.testing.assert_close(
        ours.decode(Codes(theirs[:, :2], codes.lengths, codes.source_size)), few, atol=1e-5, rtol=0
    )


@torch.no_grad()
def test_a_stream_of_it_is_what_one_pass_gives(pair):
    ours, _ = pair
    hop = ours.networks.downsample
    x = sound(hop)
    codes = ours.encode(x)
    stream = ours.streaming(2)
    ids = torch.cat([*(stream.encode(piece).ids for piece in x.split(hop + 5, 2)), stream.finish_encode().ids], 2)
    assert (ids == codes.ids).float().mean() > 0.99  # all but ties
    sizes = torch.full((2, 1), hop)
    parts = [stream.decode(Codes(frame, torch.ones(2, dtype=torch.int64), sizes)) for frame in codes.ids.split(1, 2)]
    y = torch.cat([*parts, stream.finish_decode()], 2)
    torch.testing.assert_close(y, ours.decode(codes), atol=1e-5, rtol=0)


def test_the_verb_reads_it_and_nothing_writes_it(tmp_path, capsys):
    theirs_of("mimi").save_pretrained(tmp_path / "model")
    assert main(["import", str(tmp_path / "model"), "-o", str(tmp_path / "out")]) == 0
    ours = mmtok.load(tmp_path / "out")
    assert ours.fingerprint() == mmtok.load(tmp_path / "model").fingerprint()
    with pytest.raises(ValueError, match=r"EncodecModel cannot express .*quantizer.name=split; only seanet with rq"):
        write_native(ours, tmp_path / "encodec", "hf-encodec")


@pytest.mark.parametrize(
    ("fields", "says"),
    [({"use_causal_conv": False}, "use_causal_conv=False cannot be expressed; only True"),
     ({"trim_right_ratio": 0.5}, "trim_right_ratio=0.5"), ({"attention_bias": True}, "attention_bias=True"),
     ({"num_key_value_heads": 1}, "num_key_value_heads=1 cannot be expressed; only 2"),
     ({"intermediate_size": 32}, "intermediate_size=32 cannot be expressed; only 64"),
     ({"upsample_groups": 1}, "upsample_groups=1 "), ({"hidden_act": "relu"}, "hidden_act='relu'"),
     ({"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}, "rope_parameters=.* only theta 10000"),
     ({"encoder_config": None}, "encoder_config=None has one half only"),
     ({"pad_mode": "circular"}, "pad_mode='circular'"), ({"norm_eps": 1e-6}, "norm_eps=1e-06"),
     ({"num_hidden_layers": 3}, "have no 'encoder_transformer.layers.2'")],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_expressed_is_refused_by_name(fields, says, tmp_path):
    theirs_of("mimi").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    with pytest.raises(ValueError, match=says):
        mmtok.load(tmp_path)
