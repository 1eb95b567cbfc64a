import json
import re

from mmtok.report.sections.verdict import verdict
from mmtok.report.story import tell


def sentences(*paths):
    html = verdict(tell(paths, 0, True, print)).body
    return [re.sub(r"<[^>]+>", "", item) for item in re.findall(r"<li>(.*?)</li>", html)]


def change(home, figures):
    """Other seeds for each arm's PSNR, with places as the comparison would give them."""
    held = json.loads((home / "results.json").read_text())
    for row in held["rows"]:
        if row["arm"] in figures:
            row["figures"]["psnr"] = figures[row["arm"]][row["seed"]]
    (home / "results.json").write_text(json.dumps(held))


def test_what_the_intervals_separate_is_ranked_and_the_ceiling_stands_apart(comparison):
    said = sentences(comparison)
    assert re.match(r"PSNR: vq 25\.05 ± 0\.64 dB, ahead of &lt;b&gt;fsq&lt;/b&gt;\.", said[0])
    assert "none 30.05" in said[1]
    assert "the ceiling" in said[1]


def test_what_they_do_not_separate_is_never_ranked(comparison):
    assert "The intervals separate nothing in SSIM." in sentences(comparison)
    change(comparison, {"<b>fsq</b>": (24.0, 26.0)})
    assert "PSNR: the intervals separate none of" in sentences(comparison)[0]


def test_one_seed_ranks_nothing(comparison):
    held = json.loads((comparison / "results.json").read_text())
    held["rows"] = [row for row in held["rows"] if row["seed"] == 0]
    (comparison / "results.json").write_text(json.dumps(held))
    said = " ".join(sentences(comparison))
    assert "nothing is ranked" in said
    assert "ahead" not in said
    assert "best" not in said


def test_different_rates_are_a_warning(comparison):
    assert not any("different bits" in one for one in sentences(comparison))
    held = json.loads((comparison / "results.json").read_text())
    held["summary"]["bits_per_pixel"]["vq"]["mean"] = 1.2
    (comparison / "results.json").write_text(json.dumps(held))
    assert any("different bits" in one for one in sentences(comparison))


def test_runs_by_themselves_are_told_and_not_ranked(sound_run):
    said = " ".join(sentences(sound_run))
    assert "codec: 290 of" not in said  # the recipe of this one says no length
    assert "codec: 290 steps; SI-SDR 2.50 dB over 4 items; 75 % of 4 codes in use on its worst level." in said
    assert "No alarm stands." in said
