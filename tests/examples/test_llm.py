"""The example of a language model, whole: on drawings and tones in a package like Tux Paint's."""

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from PIL import Image, ImageDraw
from transformers import LlamaConfig, LlamaForCausalLM

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
        of_example = str(HERE) in str(getattr(sys.modules[name], "__file__", ""))
        if of_example or name.partition(".")[0] == "transformers_modules":  # whose folder is another in each test
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


def test_pictures_may_be_rows_as_long_as_a_quality_takes(example, deb, tmp_path):
    run = example("run")
    out = tmp_path / "llm"
    small = ("tokenizer.encoder.queries=6", "tokenizer.encoder.width=32", "quantizer.codebook_size=16")
    quick = replace(run.QUICK, psnr=12.0, image=(*small, "data.batch_size=4", "data.workers=0"))
    run.make(out, deb, 1, quick, ("image",))
    report = json.loads((out / "report.json").read_text())
    assert set(report) == {"image"}
    assert 1 <= report["image"]["lengths"]["fewest"] <= report["image"]["lengths"]["most"] <= 6
    assert Image.open(out / "samples/pictures-val.png").width > 100
    assert not (out / "samples/sounds").exists()


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


def small_llama(size=40):
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=size, initializer_range=0.5, **shape)).eval()


def test_documents_of_a_row_do_not_see_each_other(example, tmp_path):
    model = small_llama()
    lengths = [7, 5]
    ids = [*torch.randint(1, 40, (12,)).tolist(), 0, 0, 0]
    pq.write_table(pa.table({"input_ids": [ids], "lengths": [lengths]}), tmp_path / "train-00000.parquet")
    row = example("model").Packed(tmp_path)[0]
    assert row["labels"].ne(-100).nonzero().flatten().tolist() == [1, 2, 3, 4, 5, 6, 8, 9, 10, 11]
    with torch.inference_mode():
        # As the Trainer does: with a cache, transformers does not look where positions begin anew.
        packed = model(**{name: value[None] for name, value in row.items()}, use_cache=False).loss
        alone = [model(torch.tensor([part]), labels=torch.tensor([part])).loss for part in (ids[:7], ids[7:12])]
    torch.testing.assert_close(packed, (alone[0] * 6 + alone[1] * 4) / 10)


def test_likelihoods_are_those_of_each_answer_alone(example):
    model = small_llama()
    prompts, answers = [[1], [1, 2, 3, 4], [5, 6]], [[7, 8, 9], [9], [4, 5]]
    together = example("held_out").log_likelihoods(model, prompts, answers)
    for prompt, answer, found in zip(prompts, answers, together, strict=True):
        with torch.inference_mode():
            scores = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        right = [scores[len(prompt) - 1 + place, code] for place, code in enumerate(answer)]
        torch.testing.assert_close(found, torch.stack(right))


def test_equal_scores_count_half(example):
    report = example("report")
    scores = torch.tensor([[3.0, 1.0, 2.0], [5.0, 5.0, 5.0]])
    assert report.rank(scores, torch.tensor([2, 0])).tolist() == [1.0, 1.0]
    same = [SimpleNamespace(caption=caption, ids=[0] * 18) for caption in ("A b.", "A longer one.")]
    assert report.by_length(same, ["A b.", "A longer one."], same).std() == 0
    grows = [SimpleNamespace(caption="a" * n, ids=[0] * (3 * n)) for n in (3, 5, 9)]
    assert report.by_length(grows, [one.caption for one in grows], grows).argmax(1).tolist() == [0, 1, 2]
    wins = report.pairs_as_long(scores, torch.tensor([2, 0]), ["long", "longer", "a very long one"])
    assert wins == 0.5  # of the first there is none as long; the second's are equal
    assert report.pairs_as_long(scores[:1], torch.tensor([0]), ["long", "longer", "a very long one"]) == 1
