"""A run that starts from another's weights goes on from them."""

import pytest
import torch

from mmtok.export.folder import write_model
from mmtok.tokenizers import build_tokenizer
from mmtok.training.init_from import initialise
from mmtok.training.run import build_module, train

KMEANS = {"name": "vq", "codebook_size": 16, "init": "kmeans"}


def test_codes_that_were_taken_are_not_initialised_again(tiny, tmp_path):
    first = train(tiny(quantizer=KMEANS), lambda line: None)
    module = build_module(tiny(quantizer=KMEANS, seed=5))
    lines = initialise(module, str(first))
    assert lines[1:] == []
    quantizer = module.tokenizer.quantizer
    taken = quantizer.codebook.clone()
    assert torch.equal(module.ema.quantizer.codebook, taken)
    # Latents far from all codes: k-means would move every code there, an average moves those that were used a little.
    quantizer.update(quantizer(torch.randn(4, 16, 8) + 50).stats)
    assert int((quantizer.codebook == taken).all(1).sum()) >= 8


SOUNDS = {
    "name": "audio", "sample_rate": 24000, "dim": 8,
    "encoder": {"name": "seanet", "channels": 4, "strides": [2, 4], "core": "lstm", "core_layers": 1},
}  # fmt: skip
RQ = {"name": "rq", "codebook_size": 16, "depth": 2, "init": "kmeans"}


@pytest.fixture
def codec(tiny, tmp_path):
    """codec(tokenizer={...}, ...) -> a module for sounds beside `codec.source`, a tokenizer at 24 kHz in a folder."""
    torch.manual_seed(1)
    source = build_tokenizer(SOUNDS, RQ)
    for name, parameter in source.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)  # they begin at 0, and a new one would equal a taken one
    for part in source.quantizer.parts:
        part.updates.fill_(5)
        part.usage.uniform_()
    write_model(source, tmp_path / "source")

    def make(encoder=None, quantizer=None, seed=7, **blocks):
        tokenizer = SOUNDS | {"sample_rate": 16000, "encoder": SOUNDS["encoder"] | (encoder or {})}
        config = tiny(
            tokenizer=tokenizer, quantizer=RQ | (quantizer or {}), loss={"pixel": None, "wave": {"name": "l1"}},
            data={"name": "audio", "shards": "none", "sample_rate": 16000, "batch_size": 8},
            seed=seed, **blocks,
        )  # fmt: skip
        module = build_module(config)
        return module, initialise(module, str(tmp_path / "source"))

    make.source = source
    return make


def test_the_same_network_at_another_sample_rate_takes_everything(codec):
    module, lines = codec()
    assert lines[1:] == ["  from 24,000 to 16,000 Hz"]
    source = codec.source.state_dict()
    assert f": {len(source)} tensors taken" in lines[0]
    for state in (module.tokenizer.state_dict(), module.ema.state_dict()):
        assert all(torch.equal(value, source[name]) for name, value in state.items())
    assert module.tokenizer.spec.sample_rate == 16000


def test_a_deeper_quantizer_takes_the_levels_there_are_and_begins_the_others(codec):
    module, lines = codec(quantizer={"depth": 4})
    assert lines[2:] == ["  new: quantizer.parts.2", "  new: quantizer.parts.3"]
    parts, source = module.tokenizer.quantizer.parts, codec.source.quantizer.parts
    assert all(torch.equal(parts[level].codebook, source[level].codebook) for level in range(2))
    first = parts[0].codebook.clone()
    module.tokenizer.quantizer.train()
    module.tokenizer.quantizer.update(module.tokenizer.quantizer(torch.randn(4, 64, 8)).stats)
    assert [int(part.updates) for part in parts] == [6, 6, 1, 1]
    assert not torch.equal(parts[0].codebook, first)
    assert (parts[2].usage > 0).all()  # k-means on what the taken levels leave


def test_a_shallower_one_says_what_it_has_no_place_for(codec):
    _, lines = codec(quantizer={"depth": 1})
    assert lines[2:] == ["  not used: quantizer.parts.1"]


def test_other_strides_skip_their_layers_whole_and_name_them(codec):
    module, lines = codec(encoder={"strides": [2, 5]})
    assert lines[2:] == [
        "  skipped: networks.encoder.blocks.1.resample.parametrizations.weight.original1 (16, 8, 8) -> (16, 8, 10)",
        "  skipped: networks.decoder.blocks.0.resample.parametrizations.weight.original1 (16, 8, 8) -> (16, 8, 10)",
    ]
    state, source = module.tokenizer.state_dict(), codec.source.state_dict()
    for key in state:  # a norm or a bias of a layer whose directions are new is new as well
        resample = "encoder.blocks.1.resample" in key or "decoder.blocks.0.resample" in key
        assert torch.equal(state[key], source[key]) != resample, key


def test_codebooks_of_another_size_go_as_far_as_they_go(codec):
    module, lines = codec(quantizer={"codebook_size": 24})
    names = [f"quantizer.parts.{level}.{name}" for level in range(2) for name in ("codebook", "usage")]
    assert [line.split()[1] for line in lines[2:]] == names
    assert lines[2] == "  resized: quantizer.parts.0.codebook (16, 8) -> (24, 8)"
    part, source = module.tokenizer.quantizer.parts[0], codec.source.quantizer.parts[0]
    assert torch.equal(part.usage[:16], source.usage)
    assert not part.usage[16:].any()


def test_codes_of_another_dimension_leave_their_counter_behind(codec):
    module, lines = codec(quantizer={"code_dim": 4})
    assert "  skipped: quantizer.parts.0.codebook (16, 8) -> (16, 4)" in lines
    assert int(module.tokenizer.quantizer.parts[0].updates) == 0  # so that k-means begins


@torch.no_grad()
def test_normed_weights_and_plain_ones_are_the_same_weights(codec):
    module, lines = codec(encoder={"norm": "none"})
    assert lines[2:] == []
    x = 0.3 * torch.randn(1, 1, 256)
    torch.testing.assert_close(module.tokenizer.networks.encoder(x), codec.source.networks.encoder(x))


def test_a_grid_is_never_taken_from_another_configuration(tiny, tmp_path):
    blocks = {"name": "image", "image_size": 8, "dim": 8, "encoder": {"name": "conv2d", "channels": 8}}
    write_model(build_tokenizer(blocks, {"name": "fsq", "levels": [8, 5, 5]}), tmp_path / "source")
    module = build_module(tiny(tokenizer=blocks, quantizer={"name": "fsq", "levels": [5, 5, 8]}))
    lines = initialise(module, str(tmp_path / "source"))
    assert "  skipped: quantizer.radix (3,) -> (3,)" in lines
    assert module.tokenizer.quantizer.radix.tolist() == [5, 5, 8]
