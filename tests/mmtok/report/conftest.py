"""A comparison of pictures and a run of sounds as folders, with figures made up and no training."""

import json
import math
import struct
import wave

import pytest
import torch
import yaml
from PIL import Image

from mmtok.compare.axes import axis_of
from mmtok.compare.results import Results
from mmtok.compare.statistics import mean_of, ranks

RATE = {"bits_per_pixel": (0.6, 0.6), "tokens_per_sample": (64.0, 64.0)}
ROWS = {
    "none": {"psnr": (30.0, 30.1)},
    "vq": {"psnr": (25.0, 25.1), "ssim": (0.8, 0.7), **RATE},
    "<b>fsq</b>": {"psnr": (22.0, 22.2), "ssim": (0.7, 0.8), **RATE},
}
"""Arm -> figure -> seeds. One has a name that is markup, and one quantizes nothing."""
CONFIG = {
    "tokenizer": {"name": "image", "encoder": {"name": "conv2d"}},
    "quantizer": {"name": "vq", "codebook_size": 4},
    "trainer": {},
}


SOUNDS = {"tokenizer": {"name": "audio"}, "quantizer": {"name": "rq"}, "trainer": {}}
USAGE = {
    "size": 4, "tokens": 400, "tokens_per_code": 100.0, "active": 0.75, "active_expected": 0.75, "live": 0.75,
    "perplexity": 2.5, "perplexity_norm": 0.62, "entropy_norm": 0.7, "gini": 0.4, "evenness": 0.6, "top1_share": 0.5,
    "state": "ok",
}  # fmt: skip


def write_log(folder, columns):
    rows = ["step," + ",".join(columns)]
    rows += [f"{10 * i}," + ",".join(f"{make(i)}" for make in columns.values()) for i in range(1, 30)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")


@pytest.fixture
def comparison(tmp_path, make_comparison):
    """Of pictures."""
    return make_comparison(tmp_path / "bits")


@pytest.fixture(scope="session")
def make_comparison():
    """Fills a folder with compare.json, results.json and cells, without checkpoints; of pictures or of sounds."""
    return _comparison


def _comparison(home, *, sounds=False):
    rows = []
    for arm, figures in ROWS.items():
        for seed in range(2):
            cell = f"cells/{arm.strip('</>b')}/seed-{seed}"
            _cell(home / cell, codes=arm != "none", sounds=sounds)
            own = {name: values[seed] for name, values in figures.items()}
            rows.append(
                {
                    "arm": arm, "seed": seed, "words": [], "path": "", "folder": cell, "figures": own, "usage": [],
                    "absent": {},
                }
            )  # fmt: skip
    by_figure = {}
    for row in rows:
        for name, value in row["figures"].items():
            by_figure.setdefault(name, {}).setdefault(row["arm"], []).append(value)
    means = {name: {arm: mean_of(values) for arm, values in arms.items()} for name, arms in by_figure.items()}
    places = {
        name: ranks(arms, bool(axis.higher))
        for name, arms in by_figure.items()
        if (axis := axis_of(name)) and axis.higher is not None
    }
    results = Results(tuple(rows), (), means, places)
    (home / "compare.json").write_text("{}")
    (home / "results.json").write_text(json.dumps(results.to_dict()))
    return home


def _cell(folder, *, codes, sounds):
    write_log(folder, {"val/psnr": lambda i: 20 + i / 10, "loss": lambda i: 1 / i, "usage/active": lambda i: 0.9})
    (folder / "config.yaml").write_text(yaml.safe_dump(SOUNDS if sounds else CONFIG))
    (folder / "measures").mkdir()
    report = {"samples": 10, "metrics": {"psnr": 25.0}, "usage": [USAGE] if codes else [], "choices": {}}
    held = {"options": {}, "figures": {"psnr": 25.0}, "report": report, "counts": [[200, 150, 50, 0]] if codes else []}
    (folder / "measures" / "reconstruction.json").write_text(json.dumps(held))
    (folder / "examples").mkdir()
    for number in range(2):
        for name, tint in (("input", 40), ("output", 60)):
            path = folder / "examples" / f"{name}-{number}"
            if sounds:
                write_tone(path.with_suffix(".wav"), 5 * tint + number)
            else:
                Image.new("RGB", (16, 16), (tint, 90 * number, 120)).save(path.with_suffix(".png"))


@pytest.fixture
def sound_run(tmp_path):
    """A run of sounds as a comparison's cell leaves it, read by itself."""
    folder = tmp_path / "codec"
    write_log(folder, {"val/si_sdr": lambda i: i / 10, "alarm/collapse": lambda i: int(10 <= i < 20)})
    (folder / "config.yaml").write_text(yaml.safe_dump(SOUNDS))
    (folder / "evaluation").mkdir()
    report = {
        "samples": 4,
        "metrics": {"si_sdr": 2.5, "bits_per_second": 2000.0},
        "usage": [USAGE, USAGE],
        "choices": {},
    }
    (folder / "evaluation" / "step-290.json").write_text(json.dumps(report))
    return folder


def write_tone(path, hertz, rate=8000):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        samples = [round(9000 * math.sin(2 * math.pi * hertz * i / rate)) for i in range(rate)]
        file.writeframes(struct.pack(f"<{rate}h", *samples))


@pytest.fixture
def pictures():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8, generator=generator)
