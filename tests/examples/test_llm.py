"""The example of a language model, whole: on drawings and tones in a package like Tux Paint's."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image, ImageDraw

from mmtok.cli import main
from tests.datamodules.test_build_debian import make_deb

pytest.importorskip("accelerate")
HERE = Path(__file__).parents[2] / "examples"
ROOT = "usr/share/tuxpaint/stamps"
NAMES = [
    f"{colour}{shape}" for colour in ("red", "green", "blue", "black") for shape in ("round", "square", "bar", "dot")
]


@pytest.fixture
def example(monkeypatch, tmp_path):
    """The modules of the example, whose commands run in this process: a start each would take a minute."""
    before = set(sys.modules)
    threads = torch.get_num_threads()
    for folder in (HERE, HERE / "llm"):
        monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    import steps

    def run(*words):
        assert main(words) == 0, words

    monkeypatch.setattr(steps, "mmtok", run)
    yield __import__
    torch.set_num_threads(threads)
    for name in set(sys.modules) - before:
        if str(HERE) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def deb(tmp_path):
    """Sixteen stamps; half of them are spoken in two languages."""
    files = {}
    for number, name in enumerate(NAMES):
        topic = "shapes" if number % 2 else "symbols"
        files[f"{ROOT}/{topic}/{name}.png"] = drawing(number)
        files[f"{ROOT}/{topic}/{name}.txt"] = (
            f"A {name}. Nothing else.\nfr.utf8=Un {name}.\nde.utf8=Ein {name}.\n".encode()
        )
        if number % 4 < 2:
            for language in ("", "_fr", "_de"):
                files[f"{ROOT}/{topic}/{name}_desc{language}.ogg"] = tone(200 + 20 * number)
    return make_deb(tmp_path / "stamps.deb", "tuxpaint-stamps-default", files)


def drawing(number):
    picture = Image.new("RGBA", (50, 40), (0, 0, 0, 0))
    ImageDraw.Draw(picture).ellipse((5, 5, 20 + number, 30), fill=(number * 15, 90, 200, 255))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def tone(pitch, seconds=0.5):
    silence = np.zeros(2000)
    sound = np.sin(np.arange(int(16000 * seconds)) * pitch * 2 * np.pi / 16000)
    buffer = io.BytesIO()
    soundfile.write(buffer, np.concatenate([silence, sound, silence]), 16000, format="OGG")
    return buffer.getvalue()


def test_the_whole_example_runs_and_goes_on_where_it_stopped(example, deb, tmp_path, capsys):
    run = example("run")
    out = tmp_path / "llm"
    run.make(out, deb, 1, run.QUICK)
    report = json.loads((out / "report.json").read_text())
    assert report["image"]["codes"]["samples"] > 0
    assert 0 <= report["audio"]["captions"]["fr"]["right"] <= 1
    assert Image.open(out / "samples/pictures-val.png").width > 100
    assert list((out / "samples/sounds").glob("*.made.wav"))
    capsys.readouterr()
    (out / "done/report").unlink()
    run.make(out, deb, 1, run.QUICK)
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("== ")] == ["== report"]


def test_what_is_called_the_same_is_on_one_side(example, deb):
    data = example("data")
    things = data.read_things(deb)
    assert {thing.captions["en"] for thing in things} == {f"A {name}." for name in NAMES}
    assert {language for thing in things for language in thing.spoken} == {"en", "fr"}  # German is not asked for
    for seed in range(20):
        for thing in things:
            thing.name, thing.captions["en"] = (
                f"{seed}{thing.name}",
                f"A {'same' if thing.topic == 'shapes' else seed}.",
            )
        data.hold_out(things)
        for topic in ("shapes", "symbols"):
            assert len({thing.held_out for thing in things if thing.topic == topic}) == 1


def test_names_lose_the_silence_around_them(example):
    data = example("data")
    sound = np.zeros((1, 8000), np.float32)
    sound[0, 2000:4000] = 0.01
    assert data.trim(sound).shape == (1, 2080)
    assert np.sqrt(np.square(data.level(data.trim(sound))).mean()) == pytest.approx(0.1, rel=0.01)
    assert data.trim(np.zeros((1, 8000), np.float32)).shape == (1, 0)


def test_the_price_of_codes_is_what_counting_them_gives(example):
    report = example("report")
    price, entropy = report.unigram([10, 10, 10, 20], blocks=(10, 20), sizes=(2, 4))
    assert price[10] == pytest.approx(-np.log2(4 / 5))
    assert price[21] == pytest.approx(-np.log2(1 / 5))
    assert entropy == pytest.approx((3 * price[10] + price[20]) / 4)
