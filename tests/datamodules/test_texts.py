"""Texts: from files and pages to shards, and from shards to a sample that is balanced and always the same."""

import json

import pytest

from datamodules.base import datamodules
from datamodules.build import build_shards
from datamodules.build.texts import words_of
from datamodules.shards import ShardSet
from datamodules.texts import _First, share_out


@pytest.fixture
def folder(tmp_path):
    for language, count in (("en", 60), ("fr", 20), ("ja", 5)):
        home = tmp_path / "texts" / language
        home.mkdir(parents=True)
        for i in range(count):
            (home / f"{i}.txt").write_text(f"{language} {i} " * 50, encoding="utf-8")
    return tmp_path / "texts"


def module(shards, **fields):
    return datamodules.build({"name": "texts", "shards": str(shards), "workers": 0, **fields})


def test_pages_keep_words_and_lose_menus():
    page = (
        "<head><title>t</title></head><nav>Home</nav><h1>One</h1><p>Two\n <b>three</b></p><pre>a\n  b</pre><p>&amp;</p>"
    )
    assert words_of(page) == "One\nTwo three\na\n  b\n&"


def test_captions_and_readmes_do_not_make_a_folder_of_texts(tmp_path):
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    for name in ("a.txt", "README.md", "NOTES.txt"):
        (tmp_path / name).write_text("words")
    build_shards(str(tmp_path), tmp_path / "shards", val_fraction=0)
    assert ShardSet.open(tmp_path / "shards" / "train").manifest.kind == "images"


def test_what_is_no_utf8_is_left_out_and_named(folder, tmp_path):
    (folder / "en" / "latin.txt").write_bytes("café".encode("latin-1"))
    report = build_shards(str(folder), tmp_path / "shards")
    assert report.bad == [("en/latin", "no UTF-8: byte 3 is 0xe9")]
    assert set(report.sets["train"].classes) == {"en", "fr", "ja"}


def test_sample_is_the_same_each_time_and_its_hash_says_so(folder, tmp_path):
    build_shards(str(folder), tmp_path / "shards", val_fraction=0)
    home = tmp_path / "shards" / "train"
    found = []
    for fields in ({}, {}, {"sample_mb": 0.01}):
        sample = module(home, **fields).sample(seed=0)
        found.append((list(sample), sample.facts()["sha256"]))
    assert found[0] == found[1]
    assert found[0][1] != found[2][1]
    assert sum(map(len, found[2][0])) <= 10_000


def test_temperature_evens_languages_out(folder, tmp_path):
    build_shards(str(folder), tmp_path / "shards", val_fraction=0)
    shares = []
    for temperature in (1, 1e6):
        sample = module(tmp_path / "shards" / "train", sample_mb=0.006, temperature=temperature).sample(seed=0)
        list(sample)
        shares.append({name: one["bytes"] for name, one in sample.facts()["languages"].items()})
    assert shares[0]["en"] > 2 * shares[0]["fr"]
    assert shares[1]["en"] < 1.5 * shares[1]["fr"]


def test_the_draw_holds_no_more_than_its_budget_may_take(folder, tmp_path):
    """And takes what a draw over everything would: the first documents by hash that fit, for each language."""
    build_shards(str(folder), tmp_path / "shards", val_fraction=0)
    sample = module(tmp_path / "shards" / "train", sample_mb=0.004, temperature=1e9).sample(seed=3)
    everything = sorted(sample._candidates())
    wanted = []
    for language in ("en", "fr", "ja"):
        left = 4000 / 3
        for one in (one for one in everything if one.language == language):
            left -= one.size
            if left < 0:
                break
            wanted.append(one)
    assert sample._draw() == sorted(wanted)
    first = _First(4000)
    for one in everything:
        first.add(one)
    assert sum(size for *_, size, _ in (one for _, one in first._heap)) <= 4000 + max(one.size for one in everything)
    assert list(first.take(1e9)) == everything[: len(first._heap)]


def test_a_document_beyond_the_share_of_its_language_does_not_cost_the_others(folder, tmp_path):
    for i in range(3):  # whichever is drawn first
        (folder / "ja" / f"long{i}.txt").write_text(f"ja {i} " * 700)
    (folder / "xx").mkdir()
    (folder / "xx" / "0.txt").write_text("xx " * 1500)
    build_shards(str(folder), tmp_path / "shards", val_fraction=0)
    for sample_mb in (0.004, 0.008):  # less and more than the long ones have
        sample = module(tmp_path / "shards" / "train", sample_mb=sample_mb, temperature=1e9).sample(seed=0)
        assert sum(map(len, sample)) <= sample_mb * 1e6
        languages = sample.facts()["languages"]
        assert all(languages[name]["documents"] for name in ("en", "fr", "ja"))
        assert not languages["xx"]["documents"]
        (warning,) = (line for line in sample.told() if "WARNING" in line)
        assert "nothing of xx:" in warning


def test_what_a_language_lacks_goes_to_the_others():
    assert share_out({"en": 800, "fr": 100, "ja": 100}, 300, 1e9) == pytest.approx({"en": 100, "fr": 100, "ja": 100})
    assert share_out({"en": 800, "fr": 10}, 300, 1e9) == pytest.approx({"en": 290, "fr": 10})
    assert share_out({"en": 8, "fr": 10}, 300, 2) == {"en": 8, "fr": 10}


def test_a_sample_the_engine_cannot_count_is_refused():
    with pytest.raises(ValueError, match="32 bits"):
        datamodules.parse({"name": "texts", "shards": "x", "sample_mb": 5000})


def test_validation_gives_lists_with_languages(folder, tmp_path):
    build_shards(str(folder), tmp_path / "shards", val_fraction=0.2)
    batch = next(iter(module(tmp_path / "shards" / "train").val_dataloader()))
    assert isinstance(batch["x"][0], str)
    assert set(batch["language"]) <= {"en", "fr", "ja"}
    assert json.dumps(batch["parallel"])
