"""A comparison by the command itself: trained, measured, gathered, continued."""

import json

import pytest

from mmtok.cli import main
from tests.conftest import SMALL, SMALL_CODEC

ASK = [
    word
    for ask in (
        "prior.steps=3", "prior.width=16", "prior.heads=2", "probe.steps=2", "cost.rounds=1",
        "reconstruction.features=dct",
    )
    for word in ("--ask", ask)
]  # fmt: skip


def words(shards, folder, *more):
    own = [word for word in SMALL if not word.startswith("quantizer.")]
    return [
        "compare",
        "image/demo",
        "logger/quiet",
        f"data.shards={shards}/train",
        *own,
        "-o",
        str(folder),
        *ASK,
        *more,
    ]


@pytest.fixture(scope="module")
def folder(shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare") / "of"
    more = ["--over", "quantizer=none,fsq", "--seeds", "2", "--jobs", "2"]
    assert main(words(shards, folder, *more)) == 0
    return folder


def test_every_cell_is_a_run_with_its_measures(folder):
    for arm in ("none", "fsq"):
        for seed in (0, 1):
            cell = folder / "cells" / arm / f"seed-{seed}"
            assert (cell / "checkpoints" / "last.ckpt").is_file()
            assert {path.stem for path in (cell / "measures").iterdir()} == {"reconstruction", "prior", "probe", "cost"}
            assert (cell / "examples" / "input-0.png").is_file()
            assert f"seed: {seed}\n" in (cell / "config.yaml").read_text()


def test_results_hold_figures_of_every_cell_with_means_and_places(folder):
    results = json.loads((folder / "results.json").read_text())
    assert [(row["arm"], row["seed"]) for row in results["rows"]] == [("none", 0), ("fsq", 0), ("none", 1), ("fsq", 1)]
    assert results["missing"] == []
    values = [row["figures"]["psnr"] for row in results["rows"] if row["arm"] == "fsq"]
    psnr = results["summary"]["psnr"]["fsq"]
    assert psnr["mean"] == pytest.approx(sum(values) / 2)
    assert psnr["half"] > 0
    assert set(psnr["place"]) <= {1, 2}
    assert "prior_bits_per_sample" not in results["rows"][0]["figures"]
    assert results["rows"][0]["absent"]["prior"].startswith("nothing is quantized")
    assert results["rows"][1]["figures"]["bits_per_sample"] == pytest.approx(64 * 9.9658, rel=1e-4)
    assert "FD-DCT" in results["summary"]


def test_tables_are_told_again(folder, capsys):
    assert main(["compare", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "**Distortion**" in said
    assert "FD-DCT ↓" in said
    assert "| fsq " in said


def test_what_stands_is_not_done_again_and_what_was_lost_is(folder, shards, capsys):
    kept = folder / "cells" / "none" / "seed-0" / "measures" / "cost.json"
    lost = folder / "cells" / "fsq" / "seed-1" / "measures" / "cost.json"
    before = kept.stat().st_mtime_ns
    lost.unlink()
    assert main(["compare", str(folder)]) == 0
    assert "fsq, seed 1: cost" in capsys.readouterr().out
    assert main(words(shards, folder, "--over", "quantizer=none,fsq", "--seeds", "2")) == 0
    assert kept.stat().st_mtime_ns == before
    assert lost.is_file()
    assert "1/1 cells" in capsys.readouterr().out


def test_a_figure_made_with_other_options_stands_beside_none(folder, shards, capsys):
    path = folder / "cells" / "fsq" / "seed-0" / "measures" / "cost.json"
    kept = path.read_text()
    path.write_text(kept.replace('"rounds": 1', '"rounds": 7'))
    assert main(["compare", str(folder)]) == 0
    assert "fsq, seed 0: cost" in capsys.readouterr().out
    path.write_text(kept)
    assert main(["compare", str(folder)]) == 0
    assert "fsq, seed 0: cost" not in capsys.readouterr().out


def test_a_call_for_fewer_seeds_tells_of_all_that_stand(folder, shards, capsys):
    assert main(words(shards, folder, "--over", "quantizer=none", "--seeds", "1", "--measures", "cost")) == 0
    rows = json.loads((folder / "results.json").read_text())["rows"]
    assert {(row["arm"], row["seed"]) for row in rows} == {(arm, seed) for arm in ("none", "fsq") for seed in (0, 1)}
    assert all("psnr" in row["figures"] for row in rows)  # what was measured before stays asked


def test_another_recipe_in_the_same_folder_is_refused(folder, shards, capsys):
    assert main(words(shards, folder, "--over", "quantizer=none,fsq", "optim.lr=1e-4")) == 2
    assert "made with another settings" in capsys.readouterr().err


def test_what_stands_is_measured_beside_and_what_fails_leaves_the_others(run, shards, tmp_path, monkeypatch, capsys):
    (tmp_path / "theirs_for_compare.py").write_text(
        "import torch\n"
        "class Mean:\n"
        "    modality, codebook_sizes, downsample = 'image', (256,), 32\n"
        "    def encode(self, x):\n"
        "        return ((x.mean((1, 2, 3)) + 1) * 127.5).round().long()[:, None, None, None]\n"
        "    def decode(self, ids):\n"
        "        return (ids / 127.5 - 1).expand(-1, 3, 32, 32)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    given = [
        "--with",
        f"mine={run}",
        "--with",
        "grey=theirs_for_compare:Mean",
        "--measures",
        "reconstruction,prior,cost",
    ]
    assert main(words(shards, tmp_path / "out", *given)) == 0
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert [row["arm"] for row in rows] == ["mine", "grey"]
    assert rows[1]["figures"]["bits_per_sample"] == 8
    assert 5 < rows[1]["figures"]["psnr"] < 30
    assert "quantization_gap" in rows[0]["figures"]
    assert "quantization_gap" not in rows[1]["figures"]
    assert {"step_seconds", "parameters"} <= {*rows[0]["figures"]}  # of the run's own log


@pytest.mark.slow
def test_sounds_are_compared_by_the_same_verb(sound_shards, tmp_path):
    pytest.importorskip("soundfile")
    own = [word for word in SMALL_CODEC if not word.startswith("quantizer.")]
    recipe = ["compare", "audio/demo", "logger/quiet", f"data.shards={sound_shards}/train", *own]
    over = ["--over", "quantizer.depth=1,2", "quantizer.codebook_size=16", "-o", str(tmp_path / "out"), *ASK]
    assert main([*recipe, *over, "--ask", "reconstruction.judged=0", "--ask", "prior.most=64", "--codecs"]) == 0
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert {"si_sdr", "prior_bits_per_second", "quantization_gap"} <= {*rows[1]["figures"]}
    assert rows[1]["figures"]["bits_per_sample"] == pytest.approx(2 * rows[0]["figures"]["bits_per_sample"])
    assert (tmp_path / "out" / "cells" / "depth=2" / "seed-0" / "examples" / "output-0.wav").is_file()
    codecs = json.loads((tmp_path / "out" / "codecs.json").read_text())["rows"]
    rates = {max(6000, round(row["figures"]["bits_per_second"], -1)) for row in rows}
    assert {round(row["asked_bits_per_second"], -1) for row in codecs} == rates  # Opus has none below 6,000


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--over", "quantizer=none", "--measures", "priors"], "there is no measure 'priors'"),
        (["--over", "quantizer=none", "--ask", "prior.step=3"], "prior"),
        (["--over", "quantizer=none", "--seeds", "0"], "--seeds=0"),
        (["--over", "quantizer=none", "--jobs", "0"], "--jobs=0"),
        ([], "nothing to compare"),
        (["--over", "quantizer=none", "--ask", "prior.steps=[3"], "'[3' is no value of YAML"),
        (["--study", "collapse", "--measures", "cost"], "Leave it out, or write a study file"),
        (["--study", "collapse", "--seeds", "0"], "--seeds=0"),
        (["--over", "optim.lrr=1,2"], "lrr"),
    ],
)
def test_mistakes_are_found_before_anything_is_trained(shards, tmp_path, capsys, more, said):
    folder = tmp_path / "out"
    assert main([*words(shards, folder), *more]) == 2
    assert said in capsys.readouterr().err
    assert not folder.exists()


def test_the_cells_go_to_slurm_as_an_array(shards, tmp_path, capsys):
    over = ["--over", "quantizer=none,fsq", "--slurm", "cpu", "--dry-run"]
    assert main(words(shards, tmp_path / "out", *over)) == 0
    said = capsys.readouterr().out
    assert 'compare --cell "$run_dir"' in said
    assert "--array=0-1" in said
    assert not (tmp_path / "out").exists()
