import json
import re

import pytest

from mmtok.cli import main


def page_of(capsys, *words):
    assert main(["report", *map(str, words)]) == 0, capsys.readouterr().err
    capsys.readouterr()


def test_a_comparison_becomes_one_file_that_asks_no_network(comparison, tmp_path, capsys):
    target = tmp_path / "page.html"
    page_of(capsys, comparison, "-o", target, "--quick")
    text = target.read_text()
    ours = re.sub(r"<script>\n?/\*\n?\* Licensed to the Apache.*?</script>", "", text, flags=re.S)
    assert not re.search(r"""(src|href)=["']?(https?:)?//|url\(|@import|fetch\(|XMLHttpRequest""", ours)
    assert "default-src &#x27;none&#x27;" in text
    assert target.stat().st_size < 2_000_000


def test_names_of_people_are_text_and_never_markup(comparison, tmp_path, capsys):
    target = tmp_path / "page.html"
    page_of(capsys, comparison, "-o", target, "--quick", "--title", "</title><script>alert(1)</script>")
    text = target.read_text()
    assert "<b>fsq" not in text
    assert "&lt;b&gt;fsq&lt;/b&gt;" in text
    assert "<script>alert" not in text


def test_the_page_goes_beside_the_run_where_no_file_is_named(sound_run, capsys):
    page_of(capsys, sound_run, "--quick")
    assert "SI-SDR 2.50 dB" in (sound_run / "report.html").read_text()


def test_what_lengths_are_worth_is_told_and_is_no_evaluation(sound_run, tmp_path, capsys):
    searched = {"target": 12.0, "met": 0.5, "kept": 1.25, "tokens": 25.0, "fixed": 2.0, "crossed": 0.25}
    found = {
        "axis": "levels", "quality": "snr", "samples": 4, "searched": [{**searched, "rank_correlation": None}],
        "by_length": [{"steps": 1, "tokens": 20.0, "bits": 80.0, "snr": 3.25}],
    }  # fmt: skip
    (sound_run / "evaluation" / "lengths-val-step-300.json").write_text(json.dumps(found))
    page_of(capsys, sound_run, "-o", tmp_path / "page.html", "--quick")
    text = (tmp_path / "page.html").read_text()
    assert "What a length is worth" in text
    assert ">3.250<" in text
    assert "snr wanted (dB)" in text
    assert "SI-SDR 2.50 dB" in text  # of the evaluation, which is the older file


def test_runs_and_comparisons_of_other_signals_stand_side_by_side(comparison, sound_run, tmp_path, capsys):
    target = tmp_path / "page.html"
    page_of(capsys, comparison, sound_run, "-o", target, "--quick")
    text = target.read_text()
    assert "bits: vq" in text  # an arm is called by its comparison too
    assert "Evaluation" in text


def test_a_trained_run_shows_maps_galleries_and_its_own_items(run, tmp_path, capsys):
    target = tmp_path / "page.html"
    page_of(capsys, run, "-o", target, "--items", "2")
    text = target.read_text()
    held = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])
    maps = held["tokens"][0]["maps"]
    assert len(maps) == 2
    assert len(maps[0]["ids"][0]) == maps[0]["grid"][0] * maps[0]["grid"][1] == len(maps[0]["similar"])
    assert sum(map(len, held["usage"]["shares"][0]["levels"])) > 0
    assert text.count('class="pair"') == 2


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda home: (home / "results.json").write_text("{"), "no valid JSON"),
        (lambda home: (home / "results.json").write_text('{"rows": []}'), "has no 'summary'"),
        (lambda home: (home / "results.json").unlink(), "mmtok compare"),
        (lambda home: (home / "results.json").write_text('{"rows": [], "summary": {}, "missing": []}'), "nothing"),
        (lambda home: (home / "cells/vq/seed-0/metrics.csv").write_text("step,loss\n1,x\n"), "metrics.csv is damaged"),
        (lambda home: (home / "cells/vq/seed-0/examples/input-0.png").write_bytes(b"no"), "no picture"),
        (lambda home: (home / "cells/vq/seed-0/measures/reconstruction.json").write_text("[]"), "Remove it"),
        (lambda home: (home / "cells/vq/seed-0/config.yaml").write_text("a: ["), "config.yaml is damaged"),
    ],
)
def test_what_is_damaged_is_named_in_a_line(comparison, capsys, break_it, said):
    break_it(comparison)
    assert main(["report", str(comparison), "--quick"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("mmtok: ")
    assert said in error
    assert len(error.splitlines()) == 1
    assert not (comparison / "report.html").exists()


def test_a_cell_outside_of_its_comparison_is_refused(comparison, capsys):
    held = json.loads((comparison / "results.json").read_text())
    held["rows"][0]["folder"] = "../../elsewhere"
    (comparison / "results.json").write_text(json.dumps(held))
    assert main(["report", str(comparison), "--quick"]) == 2
    assert "outside of it" in capsys.readouterr().err


def test_no_run_at_all_is_said_with_what_would_be_one(tmp_path, capsys):
    assert main(["report", str(tmp_path / "nothing")]) == 2
    assert "there is no" in capsys.readouterr().err
    assert main(["report", str(tmp_path)]) == 2
    assert "no comparison" in capsys.readouterr().err


def test_a_run_in_which_nothing_happened_is_refused(sound_run, capsys):
    (sound_run / "metrics.csv").write_text("step,loss\n")
    (sound_run / "evaluation" / "step-290.json").unlink()
    assert main(["report", str(sound_run)]) == 2
    assert "nothing to report" in capsys.readouterr().err
