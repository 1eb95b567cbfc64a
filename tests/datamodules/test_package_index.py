"""The Debian package index: items, their texts and classes, queries and lists, from the lists that apt keeps."""

import csv
from collections import Counter

import pytest

from datamodules.build import apt, build_shards
from datamodules.build.package_index import dependencies, paragraphs, read_packages
from datamodules.shards import ShardSet
from datamodules.vectoritem import read_items


def record(name, number, depends="", section="games", version="1"):
    return (
        f"Package: {name}\nVersion: {version}\nSection: {section}\nDescription: short\n"
        f"Description-md5: {number}\n" + (f"Depends: {depends}\n" if depends else "")
    )


def description(number, synopsis, *lines):
    return f"Package: any\nDescription-md5: {number}\nDescription-en: {synopsis}\n" + "".join(f" {x}\n" for x in lines)


def lists(count=40):
    """Packages p0 .. of which each needs the first few; p1 has the text of p0, p2 has none."""
    packages = [
        record(f"p{i}", f"m{i}", ", ".join(f"p{j} (>= 1)" for j in range(min(i, 5) + 1)), ("games", "libs")[i % 2])
        for i in range(count)
    ]
    texts = [
        description(f"m{i}", f"thing number {i}", f"It plays tune {i % 4} of set {i % 3}.", ".", "Nothing more.")
        for i in range(count)
    ]
    texts[1] = description("m1", "other words", "It plays tune 0 of set 0.", ".", "Nothing more.")
    texts[2] = description("m2", "no text")
    return "\n".join(packages).encode(), "\n".join(texts).encode()


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with apt; `put` gives it lists, or none to what it knows before an update."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def put(packages, translations, after_update=False):
        files = {"Packages": packages, "Translations": translations}
        told = []
        for name, content in files.items():
            path = tmp_path / name
            path.write_bytes(content)
            language = "en" if name == "Translations" else "$(LANGUAGE)"
            architecture = "amd64" if name == "Packages" else "$(ARCHITECTURE)"
            told.append("\\t".join([str(path), name, "Debian sid 1", architecture, language]))
        lines = "\\n".join(told)
        wait = f"[ -e {tmp_path}/updated ] || exit 0" if after_update else ""
        script(
            folder / "apt-get", f'case "$*" in *update*) touch {tmp_path}/updated;; *) {wait}\nprintf "{lines}";; esac'
        )
        script(folder / "apt-config", "echo 'APT::Architecture \"amd64\";'")
        script(folder / "helper", 'cat "$2"')
        monkeypatch.setattr(apt, "HELPER", folder / "helper")
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    return put


def script(path, body):
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def build(tmp_path, **options):
    return build_shards("debian:packages", tmp_path / "out", cache=str(tmp_path / "cache"), **options)


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_items_have_a_text_of_their_own_and_a_class(machine, tmp_path):
    machine(*lists(6))
    report = build(tmp_path, val_fraction=0)
    assert report.samples == 4, "p0 stands for p1, which has its text, and p2 has none; p4 plays another tune than p0"
    shards = ShardSet.open(tmp_path / "out" / "train")
    assert shards.manifest.classes == ("games", "libs")
    assert shards.manifest.provenance["packages"] == 6
    assert shards.manifest.provenance["distinct_texts"] == 4
    texts = {sample.key: sample.members["txt"].decode() for sample in (shards.read(0, i) for i in range(4))}
    assert texts["p0"] == "It plays tune 0 of set 0.\n\nNothing more."
    assert "thing number" not in "".join(texts.values()), "the synopsis asks for the text, and must not stand in it"


def test_queries_name_one_item_each_and_are_split(machine, tmp_path):
    packages, translations = lists(40)
    machine(packages, translations.replace(b"thing number 7", b"Thing number 8"))
    build(tmp_path)
    asked = rows(tmp_path / "out" / "queries.csv")
    assert len({row["query"].casefold() for row in asked}) == len(asked)
    assert not {"p7", "p8"} & {row["item"] for row in asked}
    assert {row["split"] for row in asked} <= {"train", "val", "test"}


def test_lists_run_from_the_popular_to_the_rare_among_the_items(machine, tmp_path):
    machine(*lists(12))
    build(tmp_path)
    found = rows(tmp_path / "out" / "interactions.csv")
    lists_of = {}
    for row in found:
        lists_of.setdefault(row["user"], []).append(row["item"])
    assert lists_of["p11"] == ["p0", "p3", "p4", "p5"], "p1 and p2 are no items"
    assert [row["time"] for row in found if row["user"] == "p11"] == ["0", "1", "2", "3"]
    assert lists_of["p1"] == ["p0"], "who is no item may still be a user"
    popular = Counter(row["item"] for row in found)
    assert [popular[item] for item in lists_of["p11"]] == sorted(popular.values(), reverse=True)[:4]


def test_tables_name_only_items_of_the_sample(machine, tmp_path):
    machine(*lists(40))
    build(tmp_path, limit=9, seed=3, val_fraction=0, vectors="tfidf", dims=1)
    keys = {one.key for one in read_items(ShardSet.open(tmp_path / "out" / "train"))}
    assert 5 < len(keys) <= 9
    assert {row["item"] for row in rows(tmp_path / "out" / "queries.csv")} == keys
    assert {row["item"] for row in rows(tmp_path / "out" / "interactions.csv")} <= keys


def test_another_seed_takes_other_packages_and_moves_none_between_sets(machine, tmp_path):
    machine(*lists(40))
    sets = {}
    for seed in (0, 1):
        report = build_shards(
            "debian:packages", tmp_path / str(seed), cache=str(tmp_path / "cache"), limit=8, seed=seed, val_fraction=0.4
        )
        sets[seed] = {
            key: split
            for split in report.sets
            for key in (
                ShardSet.open(tmp_path / str(seed) / split).key(0, i) for i in range(report.sets[split].samples)
            )
        }
    assert set(sets[0]) != set(sets[1])
    both = set(sets[0]) & set(sets[1])
    assert {key: sets[0][key] for key in both} == {key: sets[1][key] for key in both}


def test_missing_descriptions_are_fetched_into_the_cache(machine, tmp_path):
    machine(*lists(8), after_update=True)
    assert build(tmp_path).samples


@pytest.mark.parametrize(
    ("content", "said"),
    [((b"", b""), "cannot be read.*apt-get update"), ((b"Version: 1\n", b"x\n"), "name no package.*apt-get update")],
)
def test_empty_lists_are_told(machine, tmp_path, content, said):
    machine(*content)
    with pytest.raises(ValueError, match=said):
        build(tmp_path)


def test_lists_that_cannot_be_fetched_are_told(machine, tmp_path):
    machine(*lists(8), after_update=True)
    script(tmp_path / "bin" / "apt-get", 'case "$*" in *update*) echo "E: no route to host" >&2; exit 100;; esac')
    with pytest.raises(ValueError, match=r"no route to host.*online.*Acquire::Languages=en update"):
        build(tmp_path)


def test_a_machine_without_apt_is_told_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="apt-get is not on this machine"):
        build(tmp_path)


def test_of_several_versions_one_is_taken():
    first, second = record("p", "m", "a", version="2").encode(), record("p", "m", "b", version="3").encode()
    found = read_packages([first, second], [description("m", "s", "text").encode()])
    assert found["p"].needs == ("a",)


def test_what_is_no_utf8_is_left_out_by_name(machine, tmp_path):
    packages, translations = lists(12)
    machine(packages, translations.replace(b"tune 1 of set 2", b"tune \xff"))
    assert dict(build(tmp_path).bad) == {"p5": "no UTF-8: byte 14 is 0xff"}


def test_descriptions_keep_paragraphs_and_lists():
    assert paragraphs(" One\n two.\n .\n Three:\n  * four\n  * five\n .\n Six.") == (
        "One two.\n\nThree:\n* four\n* five\n\nSix."
    )
    assert dependencies("libc6 (>= 2), a | b, python3:any, c [amd64], self", "self") == ("libc6", "a", "python3", "c")
