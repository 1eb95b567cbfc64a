"""WordNet's nouns, from a small package of the real format."""

import csv
import io
import tarfile

import pytest

from datamodules.build import build_shards
from datamodules.build.wordnet import FILES, parse_synset
from datamodules.shards import ShardSet

LICENCE = "  1 This software and database is being provided to you  \n"
LINES = [
    "00001740 03 n 01 entity 0 001 ~ 00001930 n 0000 | that which is perceived  ",
    '00001930 05 n 02 dog 0 domestic_dog 0 002 @ 00001740 n 0000 #m 00001740 n 0000 | a barker; "a dog"  ',
    "00002000 06 n 01 robot_dog 0 002 @ 00001930 n 0000 @ 00001740 n 0000 | a machine that barks  ",
    "00002100 18 n 01 Rex 0 001 @i 00001930 n 0000 | a famous dog  ",
]


def package(path, content):
    def member(name, data):
        return f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)

    def tar(files):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return buffer.getvalue()

    control = tar({"./control": b"Package: wordnet-base\nVersion: 1:3.0-37\n"})
    data = tar({"./usr/share/wordnet/data.noun": content.encode()})
    parts = {"debian-binary": b"2.0\n", "control.tar.gz": control, "data.tar.gz": data}
    path.write_bytes(b"!<arch>\n" + b"".join(member(name, part) for name, part in parts.items()))


def test_glosses_are_items_and_the_tree_stands_beside_them(tmp_path):
    package(tmp_path / "wordnet-base_3.0_all.deb", LICENCE + "\n".join(LINES) + "\n")
    report = build_shards(str(tmp_path / "wordnet-base_3.0_all.deb"), tmp_path / "out", val_fraction=0)
    assert report.sets["train"].classes == ("noun.Tops", "noun.animal", "noun.artifact", "noun.person")
    shards = ShardSet.open(tmp_path / "out" / "train")
    texts = {sample.members["txt"].decode() for sample in (shards.read(0, i) for i in range(4))}
    assert 'a barker; "a dog"' in texts
    with (tmp_path / "out" / "hypernyms.csv").open(newline="") as file:
        assert [tuple(row.values()) for row in csv.DictReader(file)] == [
            ("dog.n.00001930", "entity.n.00001740", "kind"),
            ("robot_dog.n.00002000", "dog.n.00001930", "kind"),
            ("robot_dog.n.00002000", "entity.n.00001740", "kind"),
            ("Rex.n.00002100", "dog.n.00001930", "instance"),
        ]


def test_words_are_counted_in_hexadecimal():
    words = " ".join(f"w{i} 0" for i in range(16))
    one = parse_synset(f"00000001 04 n 10 {words} 001 @ 00000002 n 0000 | g".encode())
    assert one.hypernyms == (("00000002", "kind"),)
    assert len(FILES) == 26


def test_a_damaged_line_is_named(tmp_path):
    package(tmp_path / "wordnet-base_3.0_all.deb", LICENCE + LINES[0] + "\n00001930 05 n zz dog\n")
    with pytest.raises(ValueError, match=r"line 3 of usr/share/wordnet/data.noun .* is no synset"):
        build_shards(str(tmp_path / "wordnet-base_3.0_all.deb"), tmp_path / "out")
