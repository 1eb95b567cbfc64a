"""Vectors too few, or too much alike, for what is measured of them: said so, and no traceback."""

import json

import numpy as np
import pytest

from mmtok.cli import main


@pytest.mark.parametrize(("count", "alike"), [(9, False), (40, True)])
def test_what_cannot_be_told_is_said_to_be_so(tmp_path, capsys, count, alike):
    rows = np.random.default_rng(0).normal(size=(count, 6)).astype(np.float32)
    np.save(tmp_path / "x.npy", np.ones_like(rows) if alike else rows)
    assert main(["shards", "build", str(tmp_path / "x.npy"), "-o", str(tmp_path / "set"), "--val-fraction", "0.2"]) == 0
    words = [f"data.shards={tmp_path / 'set' / 'train'}", "tokenizer.width=6", f"run_dir={tmp_path / 'run'}"]
    assert main(["train", "vector/rkmeans", *words, "quantizer.codebook_size=64"]) == 0
    assert "items for 64 codes, which are copies of them" in capsys.readouterr().out
    assert main(["evaluate", str(tmp_path / "run"), "--out", str(tmp_path / "found.json")]) == 0
    assert json.loads((tmp_path / "found.json").read_text())["metrics"]["knn_recall"] is None
    assert "n/a of the 10 nearest neighbours" in capsys.readouterr().out
