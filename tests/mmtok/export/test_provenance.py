"""What a bundle tells of where it comes from."""

import json

import pytest
import torch

import mmtok
from mmtok.cli import main
from mmtok.export.bundle import write_bundle
from mmtok.export.folder import write_model
from mmtok.export.provenance import Provenance, without_places
from mmtok.tokenizers import build_tokenizer

CONV = {"name": "conv2d", "channels": 8, "multipliers": [1, 2], "blocks": 1, "groups": 4}


def image():
    torch.manual_seed(0)
    return build_tokenizer({"name": "image", "image_size": 16, "dim": 8, "encoder": CONV}, "vq").eval()


def test_no_file_of_a_bundle_tells_a_place_on_the_machine(tmp_path):
    place = str(tmp_path.resolve())
    found = {
        "samples": 1,
        "metrics": {"psnr": 2.0},
        "choices": {"data": [f"{place}/cache/val"], "cache": f"in {place}/c"},
    }
    config = {"run_dir": f"{place}/runs/a b", "data": {"shards": [f"{place}/train-{{00..10}}.tar"], "rate": 8}}
    made = Provenance(f"{place}/runs/x", config=config | {"init_from": f"{place}/y"}, evaluations={"val": found})
    bundle = write_bundle(image(), tmp_path / "bundle", provenance=made)
    for file in bundle.rglob("*"):
        assert place.encode() not in file.read_bytes(), file.name
    card = (bundle / "README.md").read_text()
    assert '"run_dir": "a b"' in card
    assert '"train-{00..10}.tar"' in card
    assert json.loads((bundle / "evaluation.json").read_text())["val"]["choices"] == {"data": ["val"], "cache": "in c"}


def test_an_import_does_not_tell_where_it_lay(tmp_path):
    write_model(image(), tmp_path / "model")
    assert main(["import", str(tmp_path / "model"), "-o", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / "config.json").read_text())["source"] == "model"
    bundle = write_bundle(mmtok.load(tmp_path / "out"), tmp_path / "bundle")
    assert all(str(tmp_path).encode() not in file.read_bytes() for file in bundle.iterdir())


@pytest.mark.parametrize(
    "text", ["https://hub.org/a/b", "descript/dac", "runs/a/b", "km/h", "a / b", "../x/y", "{a}/b", "16 kHz"]
)
def test_other_texts_stay(text):
    assert without_places(text) == text
