"""Bundles: what is in them, that they are the tokenizer they were written from, and where they work."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import mmtok
from mmtok.cli import main
from mmtok.export import clean
from mmtok.export.bundle import write_bundle
from mmtok.export.golden import differences, golden, inputs
from mmtok.export.promises import ABSENT
from mmtok.export.provenance import Provenance, read_origin
from mmtok.export.token_spec import Layout, TokenSpec
from mmtok.export.verify import verify
from mmtok.export.vocab_map import FILE, Vocabulary
from mmtok.tokenizers import build_tokenizer
from mmtok.tokenizers.pixels import to_pil

ROOT = Path(__file__).parents[3]
CONV = {"name": "conv2d", "channels": 8, "multipliers": [1, 2], "blocks": 1, "groups": 4}
SEANET = {"name": "seanet", "channels": 4, "strides": [2, 5]}
QUERIES = {"name": "queries", "patch": 4, "width": 16, "layers": 1, "heads": 2, "queries": 6}
RQ = {"name": "rq", "codebook_size": 32, "depth": 3, "code_dim": 4, "cosine": True}


def image(quantizer="vq", seed=0, **encoder):
    torch.manual_seed(seed)
    return build_tokenizer(
        {"name": "image", "image_size": 24, "dim": 8, "encoder": CONV | encoder}, quantizer
    ).eval()  # fmt: skip


def audio(quantizer=RQ, seed=0, **encoder):
    torch.manual_seed(seed)
    return build_tokenizer(
        {"name": "audio", "sample_rate": 8000, "dim": 16, "encoder": SEANET | encoder}, quantizer
    ).eval()


def row(quantizer="vq", **fields):
    torch.manual_seed(0)
    block = {"name": "image_1d", "image_size": 24, "dim": 8, "encoder": QUERIES} | fields
    return build_tokenizer(block, quantizer).eval()


TOKENIZERS = {
    "vq": lambda: image({"name": "vq", "codebook_size": 32}),
    "l2": lambda: image({"name": "vq", "codebook_size": 32, "code_dim": 4, "l2": True}),
    "fsq": lambda: image("fsq"),
    "lfq": lambda: image("lfq"),
    "pq": lambda: image({"name": "pq", "codebook_size": 32}),
    "nested": lambda: image({"name": "product", "inner": {"name": "residual", "inner": "fsq", "depth": 2}}),
    "row": row,
    "nested_row": lambda: row(RQ, nested="uniform"),
    "rq": audio,
    "shared": lambda: audio(RQ | {"shared": True}),
    "split": lambda: audio({"name": "split", "acoustic": RQ}),
    "lstm": lambda: audio(core="lstm"),
}


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request):
    return TOKENIZERS[request.param]()


def test_a_bundle_is_the_tokenizer_it_was_written_from(tokenizer, tmp_path):
    again = mmtok.load(write_bundle(tokenizer, tmp_path / "bundle"))
    assert again.fingerprint() == tokenizer.fingerprint()
    assert again.spec == tokenizer.spec
    for item in golden(tokenizer):
        found = again.encode(item.x)
        assert not differences(item, ids=found.ids, z=again.embed(item.x).z, decoded=again.decode(item.codes))


def test_what_a_bundle_says_is_so(tokenizer, tmp_path):
    assert verify(write_bundle(tokenizer, tmp_path / "bundle"), run_code=False) == []


def test_weight_norms_are_folded_and_the_configuration_says_so(tmp_path):
    # audio.md trap 31
    tokenizer = audio()
    bundle = write_bundle(tokenizer, tmp_path / "bundle")
    names = load_file(bundle / "model.safetensors").keys()
    assert not [name for name in names if "parametrizations" in name]
    assert json.loads((bundle / "config.json").read_text())["tokenizer"]["encoder"]["norm"] == "none"
    assert [name for name in tokenizer.state_dict() if "parametrizations" in name]  # the original stays as it was


def test_a_network_that_cannot_be_folded_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("mmtok.export.bundle.build_exported", lambda blocks: audio())
    with pytest.raises(ValueError, match="cannot be folded"):
        write_bundle(audio(), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_margins_tell_which_ids_are_promised(tokenizer):
    # downstream.md 3.2, sglang-omni#749: 41 of 300 codes changed with the size of the batch alone.
    for item in golden(tokenizer):
        assert item.margins.shape == item.codes.ids.shape[1:]
        assert (item.margins >= 0).all()
        tied = item._replace(margins=item.margins.clone())
        tied.margins[0] = 0
        # Nothing is promised at a level that follows one which may be another code.
        assert not tied.promised.any()


def test_the_margin_is_what_it_takes_to_change_a_code():
    quantizer = image({"name": "vq", "codebook_size": 32}).quantizer
    z = torch.randn(1, 50, 8)
    best = torch.cdist(z[0], quantizer.codebook).square().sort(1).values
    torch.testing.assert_close(quantizer.margins(z)[0], best[:, 1] - best[:, 0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["vq", "l2", "fsq", "lfq", "pq", "rq"])
def test_codebooks_are_those_the_ids_mean(name, tmp_path):
    tokenizer = TOKENIZERS[name]()
    tables = load_file(write_bundle(tokenizer, tmp_path / "bundle") / "codebook.safetensors")
    assert [tables[f"level_{i}"].shape[0] for i in range(len(tables))] == list(tokenizer.spec.codebook_sizes)
    leaf = getattr(tokenizer.quantizer, "parts", [tokenizer.quantizer])[0]
    ids = torch.arange(leaf.codebook_sizes[0])[None, None]
    torch.testing.assert_close(leaf.project_out(tables["level_0"])[None], leaf.decode(ids))


@pytest.mark.parametrize(("part", "task", "lost"), [("encoder", "decode", "decoder"), ("decoder", "encode", "encoder")])
def test_half_a_bundle_does_its_half_and_says_what_it_lacks(part, task, lost, tmp_path):
    whole = audio()
    bundle = write_bundle(whole, tmp_path / "bundle", part=part)
    assert verify(bundle, run_code=False) == []
    half, item = mmtok.load(bundle), golden(whole)[0]
    assert not [name for name in half.state_dict() if f"networks.{lost}" in name]
    assert half.fingerprint() == whole.fingerprint()
    with pytest.raises(ValueError, match=f"without its {lost} and cannot {task}"):
        half.decode(item.codes) if task == "decode" else half.encode(item.x)
    found = {"ids": half.encode(item.x).ids} if part == "encoder" else {"decoded": half.decode(item.codes)}
    assert not differences(item, **found)
    # One vocabulary serves both halves.
    assert TokenSpec.read(bundle).sha256 == TokenSpec.read(write_bundle(whole, tmp_path / "whole")).sha256


@pytest.mark.parametrize(("name", "kind"), [("rq", "talk.wav"), ("lstm", "talk.wav"), ("vq", "picture.png")])
def test_the_verbs_take_half_a_bundle_for_its_half(name, kind, tmp_path, capsys):
    whole = TOKENIZERS[name]()
    folders = {part: write_bundle(whole, tmp_path / part, part=part) for part in ("both", "encoder", "decoder")}
    (x, *_), file = inputs(whole), tmp_path / kind
    whole.write(x, file)
    for part in ("both", "encoder"):
        words = ["encode", str(folders[part]), str(file), "-o", str(tmp_path / f"codes-{part}"), "--format", "mmc"]
        assert main(words) == 0, capsys.readouterr().err
    codes = {path.parent.name: path for path in tmp_path.glob("codes-*/*.mmc")}
    assert codes["codes-both"].read_bytes() == codes["codes-encoder"].read_bytes()
    assert main(["decode", str(folders["decoder"]), str(codes["codes-encoder"]), "-o", str(tmp_path / "again")]) == 0
    assert main(["encode", str(folders["decoder"]), str(file), "-o", str(tmp_path / "none")]) == 2
    assert "without its encoder and cannot encode" in capsys.readouterr().err


def test_a_bundle_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    bundle = write_bundle(image(), tmp_path / "bundle")
    before = (bundle / "bundle.json").read_bytes()
    with pytest.raises(ValueError, match="is a bundle already"):
        write_bundle(image(seed=1), bundle)
    monkeypatch.setattr("mmtok.export.bundle.card", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_bundle(image(seed=1), bundle, overwrite=True)
    assert (bundle / "bundle.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    monkeypatch.undo()
    write_bundle(image(seed=1), bundle, overwrite=True)
    assert mmtok.load(bundle).fingerprint() == image(seed=1).fingerprint()


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(ValueError, match="no bundle"):
        write_bundle(image(), tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "years"


def test_a_tokenizer_without_codes_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"quantizer\.name=none gives no codes"):
        write_bundle(image("none"), tmp_path / "bundle")


def test_a_run_is_exported_with_what_is_known_of_it(run, tmp_path, capsys):
    found = {"samples": 6, "metrics": {"psnr": 21.5}, "usage": [{"size": 64, "active": 0.5}], "choices": {}}
    run = shutil.copytree(run, tmp_path / "run")  # others read theirs, whose evaluation this would be
    (run / "evaluation").mkdir(exist_ok=True)
    (run / "evaluation" / "val-step-3.json").write_text(json.dumps(found))
    (run / "evaluation" / "val-step-2.json").write_text(json.dumps(found | {"metrics": {"psnr": 3.0}}))
    out = tmp_path / "bundle"
    words = ["export", str(run), str(out), "--prefix", "pic", "--rows", "--header", "--order", "level_major"]
    assert main([*words, "--role", "generation"]) == 0
    assert "of their ids promised" in capsys.readouterr().out
    assert mmtok.load(out).fingerprint() == mmtok.load(run).fingerprint()
    spec = TokenSpec.read(out)
    assert (spec.prefix, spec.rows, spec.header, spec.role) == ("pic", True, True, "generation")
    assert spec.layout == Layout("flat", "level_major")
    assert json.loads((out / "usage.json").read_text()) == {"of": "val-step-3", "levels": found["usage"]}
    known = json.loads((out / "evaluation.json").read_text())
    assert known["val-step-3"]["metrics"] == found["metrics"]
    assert "val-step-2" not in known  # of other weights
    card = (out / "README.md").read_text()
    assert "psnr 21.5" in card
    assert "trained for 3 updates" in card
    assert '"codebook_size": 64' in card  # the whole configuration
    # What was a bundle goes on as one, with what is known.
    assert main(["export", str(out), str(tmp_path / "half"), "--encoder-only"]) == 0
    assert "psnr 21.5" in (tmp_path / "half" / "README.md").read_text()
    assert TokenSpec.read(tmp_path / "half") == spec  # one vocabulary serves both halves
    assert main(["export", str(tmp_path / "half"), str(tmp_path / "more")]) == 2
    assert "was exported with its encoder alone. Export the whole bundle" in capsys.readouterr().err


def test_words_that_do_not_go_together_are_refused(tmp_path, capsys):
    assert main(["export", "runs/x"]) == 2
    assert "name one folder" in capsys.readouterr().err
    assert main(["export", "runs/x", str(tmp_path), "--as", "hf-dac", "--torch-export"]) == 2
    assert "--torch-export is for bundles" in capsys.readouterr().err


def test_an_import_keeps_its_origin(tmp_path):
    first = write_bundle(audio(), tmp_path / "a", provenance=Provenance(source="descript/dac"))
    assert read_origin(first).provenance.source == "descript/dac"


def in_a_process_without_mmtok(script, *words):
    start = (
        f"import runpy, sys; Without = runpy.run_path({clean.__file__!r})['Without']\n"
        f"sys.meta_path[:] = [Without(finder, {list(ABSENT)!r}) for finder in sys.meta_path]\n"
        "import torch; torch.set_num_threads(1)\n"
        f"sys.argv = [{str(script)!r}, *{list(map(str, words))!r}]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    return subprocess.run([sys.executable, "-I", "-c", start], capture_output=True, text=True, cwd="/", check=False)


@pytest.mark.parametrize("rows", [True, False])
def test_the_five_lines_work_where_mmtok_is_absent(tmp_path, monkeypatch, rows):
    # downstream.md 3.2, chameleon#74 and transformers#33647: ids were hidden inside `forward`. platform.md 9:
    # transformers builds on the meta device, where buffers that are not saved came back as garbage.
    pytest.importorskip("transformers")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    tokenizer = image({"name": "vq", "codebook_size": 32})
    bundle = write_bundle(tokenizer, tmp_path / "bundle", rows=rows)
    vocabulary = Vocabulary.arrange(1000, [TokenSpec.read(bundle)])
    (tmp_path / FILE).write_text(vocabulary.to_json())
    picture = to_pil(golden(tokenizer)[0].x)[0]
    picture.save(tmp_path / "in.png")
    done = in_a_process_without_mmtok(
        ROOT / "examples/five_lines.py", bundle, tmp_path, tmp_path / "in.png", tmp_path / "out.png"
    )
    assert done.returncode == 0, done.stderr
    assert "from the same codes" in done.stdout
    codes = tokenizer.encode(tokenizer.preprocess(tmp_path / "in.png"))
    ids = vocabulary.to_ids(codes, TokenSpec.read(bundle))[0]
    assert str(ids[:8].tolist()) in done.stdout
    assert (tmp_path / "out.png").is_file()


def test_processors_prepare_as_the_tokenizer_does(tmp_path):
    pytest.importorskip("transformers")
    from mmtok.export.bundle import preprocessor
    from mmtok.export.hub import processing_audio, processing_image

    pictures = image()
    picture = to_pil(golden(pictures)[0].x)[0]
    made = processing_image.MmtokProcessor(**preprocessor(pictures))
    assert made(picture)["x"].equal(pictures.preprocess(picture))
    assert made([picture, picture], size=12)["x"].equal(
        pictures.preprocess(picture, resize=12, crop=12).repeat(2, 1, 1, 1)
    )
    sounds = audio()
    long, short = torch.rand(400) - 0.5, torch.rand(330) - 0.5
    batch = processing_audio.MmtokProcessor(**preprocessor(sounds))([long, short], sampling_rate=8000)
    assert batch["lengths"].tolist() == [400, 330]
    codes = sounds.encode(batch["x"], batch["lengths"])
    assert codes.ids[1:, :, :33].equal(sounds.encode(sounds.preprocess(short)).ids)
