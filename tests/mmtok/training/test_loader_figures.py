"""What the loader says of itself reaches the log."""

import csv

import pytest

from mmtok.cli import main

FIGURES = {"data/bad_share", "speed/read_seconds", "speed/decode_seconds"}


def test_a_run_logs_how_far_its_set_is_and_what_reading_cost(run):
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    assert {*FIGURES, "data/epochs"} <= rows[-1].keys()
    assert float(rows[-1]["data/epochs"]) == pytest.approx((8 + 12) / 2 / 48)  # the mean of updates 2 and 3
    assert float(rows[-1]["speed/decode_seconds"]) > 0


def test_a_mixture_at_an_address_trains_and_logs_each_set_and_the_cache(shards, tmp_path):
    recipe = tmp_path / "mixture.yaml"
    recipe.write_text(
        f"data:\n  shards:\n  - {{path: 'file://{shards}/train', weight: 3}}\n  - {{path: '{shards}/val'}}\n"
        f"  cache_dir: {tmp_path}/cache\n  cache_gb: 0.1\n"
    )
    small = (
        "tokenizer.encoder.channels=8", "quantizer.codebook_size=64", "data.batch_size=4", "data.image_size=32",
        "data.workers=0", "data.val_samples=6", "optim.warmup_steps=0", "trainer.precision=32",
        "trainer.accelerator=cpu", "trainer.threads=1", "trainer.max_steps=3", "trainer.val_every=0",
    )  # fmt: skip
    words = ["train", "image/demo", "logger/quiet", str(recipe), f"run_dir={tmp_path}/run", *small]
    assert main(words) == 0
    last = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))[-1]
    assert float(last["data/samples/shards-train"]) + float(last["data/samples/shards-val"]) == 10
    assert "speed/cache_misses" in last
