"""Programs of torch.export: the golden codes at sizes and batches other than those they were traced with."""

import json
import shutil
import zipfile

import pytest
import torch

from mmtok.cli import main
from mmtok.export.bundle import folded, manifest, write_bundle
from mmtok.export.golden import golden
from mmtok.export.program import DECODER, ENCODER, check_programs, write_programs
from mmtok.export.token_spec import TokenSpec
from mmtok.export.verify import verify
from mmtok.tokenizers import build_tokenizer

CONV = {"name": "conv2d", "channels": 4, "multipliers": [1, 2], "blocks": 1, "groups": 2, "mid_blocks": 1}
SEANET = {"name": "seanet", "channels": 2, "strides": [2, 5]}
RQ = {"name": "rq", "codebook_size": 32, "depth": 2, "code_dim": 4}


def image(quantizer, seed=0, **encoder):
    torch.manual_seed(seed)
    tokenizer = build_tokenizer({"name": "image", "image_size": 24, "dim": 8, "encoder": CONV | encoder}, quantizer)
    return folded(tokenizer.eval())


def audio(quantizer=RQ, encoder=SEANET, **fields):
    torch.manual_seed(0)
    blocks = {"name": "audio", "sample_rate": 4000, "dim": 8, "encoder": SEANET | encoder, **fields}
    return folded(build_tokenizer(blocks, quantizer).eval())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(image("lfq"), tmp_path_factory.mktemp("programs") / "bundle", programs=True)


def test_a_program_needs_none_of_our_sources_and_takes_other_sizes(bundle):
    encoder, decoder = (torch.export.load(bundle / name).module() for name in (ENCODER, DECODER))
    tokenizer = image("lfq")
    for batch, height, width in [(1, 8, 34), (3, 26, 10)]:
        x = torch.rand(batch, 3, height, width) * 2 - 1
        codes = tokenizer.encode(x)
        ids = encoder(x)
        assert ids.shape == (batch, 1, height // 2, width // 2)
        assert (ids.flatten(2) == codes.ids).float().mean() > 0.99  # all but ties
        torch.testing.assert_close(decoder(codes.ids.unflatten(2, codes.grid)), tokenizer.decode(codes))
    graph = str(torch.export.load(bundle / ENCODER).graph)
    assert "mmtok" not in graph


def test_nothing_in_a_program_is_a_pickle(bundle, tmp_path):
    for name in (ENCODER, DECODER):
        with zipfile.ZipFile(bundle / name) as archive:
            assert not [
                item.filename for item in archive.infolist() if item.filename.endswith(".pt") and item.file_size
            ]
    # With one, it is not loaded: PyTorch would unpickle it.
    with zipfile.ZipFile(bundle / DECODER) as source, zipfile.ZipFile(tmp_path / DECODER, "w") as target:
        for item in source.infolist():
            content = b"cos\nsystem\n" if item.filename.endswith("sample_inputs/model.pt") else source.read(item)
            target.writestr(item.filename, content)
    with pytest.raises(ValueError, match=r"decoder\.pt2 holds a pickle"):
        list(check_programs(tmp_path, golden(image("lfq")), 2))


def test_a_program_of_other_weights_is_caught(bundle, tmp_path):
    broken = shutil.copytree(bundle, tmp_path / "bundle")
    write_programs(image("lfq", seed=1), tmp_path, golden(image("lfq", seed=1)), "encoder")
    shutil.move(tmp_path / ENCODER, broken / ENCODER)
    (broken / "bundle.json").write_text(json.dumps(manifest(broken, TokenSpec.read(broken))))
    found = verify(broken, run_code=False)
    assert {item.promise for item in found} == {"programs"}
    assert "encoder.pt2, item 0, 1 at a time" in found[0].reason


def test_sounds_of_any_length(tmp_path):
    tokenizer = audio()
    write_programs(tokenizer, tmp_path, golden(tokenizer), "encoder")
    assert not (tmp_path / DECODER).exists()
    x = torch.rand(2, 1, 730) - 0.5
    found = torch.export.load(tmp_path / ENCODER).module()(x)
    assert (found == tokenizer.encode(x).ids).float().mean() > 0.99


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda: image("fsq", mid_attention=True),
        lambda: image({"name": "pq", "codebook_size": 32}, patch=2, channels_last=True),
        lambda: audio(encoder={"causal": False}),
        lambda: audio(encoder={"causal": False, "transpose_padding": "dac"}),
        lambda: audio(encoder={"pad_mode": "reflect"}),
        lambda: audio(encoder={"core": "attention", "attention_heads": 2, "attention_window": 8}),
        lambda: audio({"name": "split", "acoustic": RQ}),
    ],
)
def test_every_network_has_a_program(make, tmp_path):
    tokenizer = make()
    write_programs(tokenizer, tmp_path, golden(tokenizer), "both")


def test_what_no_program_can_hold_is_refused(tmp_path, capsys):
    for tokenizer, reason in [
        (audio(encoder={"core": "lstm"}), "encoder.core=lstm"),
        (audio(normalize="rms"), "have a gain beside them"),
    ]:
        with pytest.raises(ValueError, match=reason):
            write_programs(tokenizer, tmp_path, golden(tokenizer), "both")


def test_the_verb_writes_and_verifies_programs(run, tmp_path, capsys):
    assert main(["export", str(run), str(tmp_path / "out"), "--torch-export", "--decoder-only"]) == 0
    assert (tmp_path / "out" / DECODER).is_file()
    assert not (tmp_path / "out" / ENCODER).exists()
    assert main(["verify", str(tmp_path / "out"), "--no-code"]) == 0
    assert "programs: kept" in capsys.readouterr().out
