"""Codecs beside the arms: asked what the arms were asked, and marked where they cannot go as low."""

import json

from mmtok.compare.arms import arms_over
from mmtok.compare.codecs import measure_codecs_of
from mmtok.compare.plan import Comparison
from mmtok.compare.results import Results, gather, tables
from mmtok.compare.statistics import Mean
from tests.conftest import SMALL


def test_codecs_are_asked_as_the_arms_and_say_where_their_least_rate_is_above(shards, tmp_path):
    words = [f"data.shards={shards}/train", *(word for word in SMALL if not word.startswith("quantizer."))]
    made = Comparison.make(
        tmp_path / "of", ["image/demo"], words, arms_over(["quantizer=fsq"]),
        options={"reconstruction.features": "none", "reconstruction.samples": 2},
    )  # fmt: skip
    made.save()
    at = {"bits_per_pixel": {"small": Mean(0.15, None, 1), "large": Mean(20.0, None, 1)}}
    measure_codecs_of(made, Results((), (), at, {}))
    rows = json.loads((made.folder / "codecs.json").read_text())["rows"]
    assert {row["beside"] for row in rows} == {0.15, 20.0}
    assert not [name for row in rows for name in row["metrics"] if name.startswith(("FD-", "KID-"))]
    of_jpeg = {row["beside"]: row["reached"] for row in rows if row["codec"] == "JPEG"}
    assert of_jpeg == {0.15: False, 20.0: True}
    told = tables(gather(made))
    assert ", least" in told
    assert "the least rate is above that of some arms" in told


def test_rates_of_arms_stand_in_the_tables_without_a_prior():
    row = {"arm": "a", "seed": 0, "figures": {"bits_per_pixel": 0.5}}
    assert "bits_per_pixel" in tables(Results((row,), (), {"bits_per_pixel": {"a": Mean(0.5, None, 1)}}, {}))


def test_a_mean_is_written_as_the_page_writes_it():
    assert str(Mean(495.62, 271.3, 2)) == "496 ± 271"
    assert str(Mean(25.21, 0.304, 3)) == "25.21 ± 0.30"
    assert str(Mean(25.21, None, 1)) == "25.21"
