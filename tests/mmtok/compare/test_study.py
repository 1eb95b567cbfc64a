"""Studies: files with parts, each a comparison; and the measures that only some tokenizers have."""

import pytest
import torch

from mmtok.cli import main
from mmtok.compare.levels import bit_figures
from mmtok.compare.study import Study
from mmtok.schema import ConfigError
from tests.conftest import SMALL


def test_the_survey_plans_every_part_whose_data_are_given(shards, tmp_path):
    study = Study.read("survey")
    found, left = study.comparisons(tmp_path, {"cifar": f"{shards}/train"})
    assert [part.name for part, _ in found] == ["quantizers", "levels", "codebook", "bits"]
    assert any("--data digits=SHARDS" in line for line in left)
    arms = {cell.arm.name for _, cell in found[0][1].cells}
    assert {"none", "vq", "rq", "pq", "fsq", "lfq"} <= arms
    assert {cell.seed for _, cell in found[0][1].cells} == {0, 1}
    assert {cell.arm.name for _, cell in found[2][1].cells} >= {"codebook_size=64", "code_dim=4"}
    assert not list(tmp_path.iterdir())


def test_the_parts_of_sounds_are_planned_too(sound_shards, tmp_path):
    found, _ = Study.read("survey").comparisons(tmp_path, {"digits": f"{sound_shards}/train"}, seeds=1)
    assert [part.name for part, _ in found] == ["digits"]
    assert len(found[0][1].cells) == 5


def test_mistakes_in_a_study_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no such set\. Known: cifar, digits, fashion"):
        Study.read("survey").comparisons(tmp_path, {"cifr": "x"})
    with pytest.raises(ConfigError, match=r"no study 'surveys'\. Did you mean survey"):
        Study.read("surveys")
    broken = tmp_path / "broken.yaml"
    broken.write_text("title: x\nseeds: 1\nparts: [{name: a, askz: b}]\n")
    with pytest.raises(ConfigError, match="askz"):
        Study.read(str(broken))
    broken.write_text("[1")
    with pytest.raises(ConfigError, match="no YAML"):
        Study.read(str(broken))


def test_a_study_is_done_part_by_part(shards, tmp_path, capsys):
    file = tmp_path / "own.yaml"
    own = [word for word in SMALL if not word.startswith("quantizer.")]
    file.write_text(
        "title: own\nseeds: 1\nparts:\n"
        "- {name: levels, asks: 'What does each level add?', data: cats, recipe: [image/demo, logger/quiet],\n"
        f"   settings: [{', '.join(own)}], over: ['quantizer.depth=2'], measures: [levels, bits]}}\n"
    )
    words = ["compare", "--study", str(file), "--data", f"cats={shards}/train", "-o", str(tmp_path / "out")]
    assert main([*words, "quantizer.name=rq", "quantizer.codebook_size=16"]) == 0
    said = capsys.readouterr().out
    assert "# levels: What does each level add?" in said
    assert "snr_gain_level_2" in said
    assert main(["report", str(tmp_path / "out"), "--quick"]) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<title>own</title>" in page
    assert "What does each level add?" in page


def test_free_bits_lose_nothing_and_repeated_ones_a_bit():
    ids = torch.randint(16, (20_000,), generator=torch.Generator().manual_seed(0))
    free = bit_figures(ids, 4)
    assert free["bits_lost_to_dependence"] < 0.01
    assert free["bit_correlation_max"] < 0.05
    assert free["joint_entropy"] == pytest.approx(4, abs=0.01)
    twice = ids % 8 + 8 * (ids % 2)  # the first bit says what the last one says
    found = bit_figures(twice, 4)
    assert found["bits_lost_to_dependence"] == pytest.approx(1, abs=0.01)
    assert found["bit_correlation_max"] == pytest.approx(1, abs=0.01)


def test_the_study_of_collapse_has_a_row_without_restarts_and_auxiliary_losses(shards, tmp_path):
    found, _ = Study.read("collapse").comparisons(tmp_path, {"cifar": f"{shards}/train"}, seeds=1)
    cells = {cell.arm.name: cell.config(place) for place, cell in found[0][1].cells}
    assert len(cells) == 9
    assert {config.quantizer.codebook_size for config in cells.values()} == {16384}
    plain = cells["l2_kmeans"].quantizer
    assert (plain.restart, plain.entropy_weight, plain.init, plain.l2) == (0, 0, "kmeans", True)
    assert {cell.config(place).quantizer.codebook_size for place, cell in found[1][1].cells} == {65536}
