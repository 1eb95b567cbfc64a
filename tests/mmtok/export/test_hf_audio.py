"""Weights copied between tokenizers here and transformers' EncodecModel and DacModel, in both directions."""

import pytest
import torch

from mmtok.export import hf_dac, hf_encodec
from mmtok.export.formats import to_native
from mmtok.networks.conv1d import Conv1d, ConvTranspose1d
from mmtok.networks.weight_norm import fold_state
from mmtok.tokenizers.base import build_tokenizer

transformers = pytest.importorskip("transformers")

ENCODEC = {"num_filters": 4, "hidden_size": 16, "codebook_size": 64, "upsampling_ratios": [5, 4, 3, 2]}
DAC = {"encoder_hidden_size": 4, "decoder_hidden_size": 64, "n_codebooks": 4, "codebook_size": 64}
MODELS = {
    "encodec": ("Encodec", hf_encodec, ENCODEC | {"target_bandwidths": [9.6]}),
    "encodec-deeper": ("Encodec", hf_encodec, ENCODEC | {"num_residual_layers": 2, "use_conv_shortcut": False,
                                                         "target_bandwidths": [9.6]}),
    "encodec-centred": ("Encodec", hf_encodec, ENCODEC | {"use_causal_conv": False, "pad_mode": "constant",
                                                          "target_bandwidths": [9.6]}),
    "dac": ("Dac", hf_dac, DAC),
    "dac-16k": ("Dac", hf_dac, DAC | {"downsampling_ratios": [2, 4, 5, 8]}),
}  # fmt: skip


def theirs_of(name, seed=0):
    kind, _, fields = MODELS[name]
    torch.manual_seed(seed)
    model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # zeros and ones at first, which hide what is exchanged
            parameter.add_(0.05 * torch.randn_like(parameter))
        for key, buffer in model.named_buffers():
            if key.endswith(("embed", "cluster_size")):
                buffer.copy_(0.2 * torch.randn_like(buffer).abs())
    return model


def ours_of(name):
    model = theirs_of(name)
    blocks = MODELS[name][1].config_of(model.config.to_dict())
    torch.manual_seed(1)
    ours = build_tokenizer(**blocks).eval()
    for part in ours.networks.modules() if name.startswith("dac") else ():
        if isinstance(part, Conv1d | ConvTranspose1d):
            # What snakes add would grow from layer to layer to levels of which a sine keeps no digits.
            part.weight = 0.6 * part.weight.detach()
    return ours


def sound(net):
    return 0.3 * torch.randn(2, 1, 20 * net.downsample, generator=torch.Generator().manual_seed(3))


def decisive(latents, quantizer):
    """(B, L, T) whether the best code is better than the second by 1e-4, and so were those of the levels before."""
    residual, clear = latents, []
    for part in quantizer.parts:
        x, codes = part.project_in(residual), part.codebook
        if part.config.cosine:
            x, codes = torch.nn.functional.normalize(x, dim=-1), torch.nn.functional.normalize(codes, dim=-1)
        best = torch.cdist(x, codes).square().topk(2, largest=False).values
        clear.append(best[..., 1] - best[..., 0] > 1e-4)
        residual = residual - part(residual).values
    return torch.stack(clear, 1).long().cumprod(1).bool()


def codes_of(model, x):
    if isinstance(model, transformers.EncodecModel):
        return model.encode(x, bandwidth=9.6).audio_codes[0]
    return model.encode(x).audio_codes


def assert_same(ours, model):
    x = sound(ours.networks)
    z = model.encoder(x)
    torch.testing.assert_close(ours.networks.encoder(x), z, atol=1e-5, rtol=0)
    latents = z.transpose(1, 2)
    out = ours.quantizer(latents)
    clear = decisive(latents, ours.quantizer)
    assert clear.float().mean() > 0.9
    codes = codes_of(model, x)
    assert torch.equal(out.ids[clear], codes[clear])
    values = ours.quantizer.decode(codes).transpose(1, 2)
    y = model.decoder(values)
    torch.testing.assert_close(ours.networks.decoder(values), y, atol=1e-5, rtol=0)
    whole = model.decode(codes[None], [None]) if isinstance(model, transformers.EncodecModel) else model.decode(
        audio_codes=codes
    )  # fmt: skip
    torch.testing.assert_close(whole.audio_values.view_as(y), y, atol=1e-5, rtol=0)
    return y


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_weights_from_transformers_give_the_same_latents_codes_and_sound(name):
    model, ours = theirs_of(name), ours_of(name)
    state = MODELS[name][1].state_from(model.state_dict(), ours)
    missing, unexpected = ours.load_state_dict(state, strict=False)
    assert not unexpected
    assert {key.split(".")[-1] for key in missing} <= {"probe", "usage"}
    y = assert_same(ours, model)
    if name == "dac-16k":  # audio.md trap 23
        assert y.shape[2] == 20 * 320 - 8


def test_what_is_written_as_dac_fits_the_slot_of_processors():
    # downstream.md 3.3: `audio_tokenizer` of a processor takes a few classes by name, and remote code is none of them.
    from transformers.processing_utils import MODALITY_TO_BASE_CLASS_MAPPING

    from mmtok.export.formats import WRITTEN

    assert WRITTEN["hf-dac"].MODEL in MODALITY_TO_BASE_CLASS_MAPPING["audio_tokenizer"]


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_weights_to_transformers_give_the_same_latents_codes_and_sound(name):
    model, ours = theirs_of(name, seed=5), ours_of(name)
    for part in ours.quantizer.parts:
        part.usage.uniform_()
    state = MODELS[name][1].state_to(ours.state_dict(), ours)
    model.load_state_dict(state)  # strict: nothing is missing, nothing is new
    assert_same(ours, model)


@pytest.mark.parametrize("name", ["encodec", "dac"])
@torch.no_grad()
def test_folded_weights_map_as_normed_ones_do(name):
    ours = ours_of(name)
    maps = MODELS[name][1]
    normed, folded = ours.state_dict(), fold_state(ours.state_dict())
    twin = theirs_of(name, seed=5)
    twin.load_state_dict(maps.state_to(folded, ours))
    assert_same(ours, twin)
    back = maps.state_from(maps.state_to(normed, ours), ours)
    for key, value in fold_state(back).items():
        if not key.endswith("updates"):
            torch.testing.assert_close(value, folded[key])


@pytest.mark.parametrize(
    ("fields", "says"),
    [({"norm_type": "time_group_norm"}, "norm_type"), ({"normalize": True}, "normalize"),
     ({"chunk_length_s": 1.0}, "chunk_length_s"), ({"pad_mode": "replicate"}, "pad_mode")],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_expressed_is_refused_by_name(fields, says):
    with pytest.raises(ValueError, match=says):
        hf_encodec.config_of(fields)


def test_weights_of_another_architecture_are_refused():
    ours = ours_of("dac")
    with pytest.raises(ValueError, match=r"have no .encoder[.]conv1.: they are of another"):
        hf_dac.state_from({"decoder.conv1.weight": torch.zeros(1)}, ours)


@pytest.mark.parametrize("name", ["encodec", "dac"])
def test_what_stands_for_dropped_levels_is_refused_where_there_is_no_place_for_it(name):
    blocks = MODELS[name][1].config_of(theirs_of(name).config.to_dict())
    ours = build_tokenizer(blocks["tokenizer"], blocks["quantizer"] | {"absent": "learned", "dropout": 0.5}).eval()
    with pytest.raises(ValueError, match=r"cannot express quantizer\.absent='learned'"):
        to_native(ours, f"hf-{name}")
