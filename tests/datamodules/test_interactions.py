import csv
import gzip
import json

import pytest

from datamodules.interactions import Interactions, read_interactions
from mmtok.schema import ConfigError

WANTED = Interactions(("u2", "u1"), (("i9", "i1"), ("i3", "i9", "i2")))
EVENTS = [("u2", "i1", 50), ("u1", "i9", 20), ("u1", "i2", 30), ("u2", "i9", 40), ("u1", "i3", 10)]


@pytest.fixture(autouse=True)
def usual_cells():
    """The longest cell that `csv` takes is one setting a process, and builds of tables raise it."""
    before = csv.field_size_limit(131_072)
    yield
    csv.field_size_limit(before)


def review(user, item, time, write=json.dumps):
    return write({"reviewerID": user, "asin": item, "reviewText": 'it\'s "fine"', "unixReviewTime": time})


def python(value):
    return repr(value | {"helpful": [0, 0], "verified": True})


FILES = {
    "reviews_Beauty_5.json": "\n".join(review(*event) for event in EVENTS),
    "reviews_Python_5.json": "\n".join(
        review(*event, write=python if i % 2 else json.dumps) for i, event in enumerate(EVENTS)
    ),
    "ratings.dat": "".join(f"{user}::{item}::5::{time}\n" for user, item, time in EVENTS),
    "ratings.csv": "userId,movieId,rating,timestamp\r\n"
    + "".join(f"{user},{item},3.5,{time}\r\n" for user, item, time in EVENTS),
    "u.data": "".join(f"{user}\t{item}\t4\t{time}\n" for user, item, time in EVENTS),
    "interactions.csv": "user,item,time\n" + "".join(f'{user},"{item}",{time}\n' for user, item, time in EVENTS),
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_sequences_in_order_of_time(name, packed, tmp_path):
    path = tmp_path / (name + ".gz" * packed)
    path.write_bytes(gzip.compress(FILES[name].encode()) if packed else FILES[name].encode())
    assert read_interactions(path) == WANTED


def test_equal_times_keep_the_order_of_the_file(tmp_path):
    path = tmp_path / "interactions.csv"
    path.write_text("user,item,time\nu,z,1\nu,a,1\nu,m,1\nu,b,0\n")
    assert read_interactions(path).sequences == (("b", "z", "a", "m"),)


def test_lines_that_are_programs_are_refused_and_not_run(tmp_path):
    path = tmp_path / "reviews_Bad_5.json"
    target = tmp_path / "ran"
    path.write_text(review("u", "i", 1) + f"\n{{'reviewerID': open({str(target)!r}, 'w')}}\n")
    with pytest.raises(ConfigError, match="line 2: neither JSON nor a Python dict"):
        read_interactions(path)
    assert not target.exists()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("reviews_5.json", '{"asin": "x", "unixReviewTime": 3}', "line 1: no reviewerID"),
        ("reviews_5.json", "[1, 2]", "line 1: a review is a dict, this is list"),
        ("reviews_5.json", "[" * 100_000, "line 1: neither JSON nor"),
        ("ratings.dat", "1::2::3::4\n1::2::3\n", "line 2: 3 fields between '::'"),
        ("ratings.csv", "user,thing\n1,2\n", "the header is 'user,thing'. It needs user,item,time or"),
        ("ratings.csv", "", "the header is ''"),
        ("interactions.csv", "user,item,time\na,b,1\na,b\n", "line 3: 2 fields, and the header has 3"),
        ("interactions.csv", "user,item,time\n\na,b,nan\n", "line 3: the time 'nan' is no number"),
        ("interactions.csv", "user,item,time\na,,1\n", "line 2: no item"),
        ("interactions.csv", 'user,item,time\na,"b"c,1\n', "line 2: no CSV"),
        ("interactions.csv", '"user"x,item,time\n', "line 1: no CSV"),
        ("interactions.csv", f"user,item,time\n{'x' * 200_000},b,1\n", "line 2: no CSV"),
        ("interactions.csv", "user,item,time\n", "holds no interactions"),
        ("u.data", "\xff\t1\t2\t3", "line 1: this is no UTF-8"),
        ("u.parquet", "", "of no format known for interactions: reviews_"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_file_and_line(name, text, said, tmp_path):
    path = tmp_path / name
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r".*") as caught:
        read_interactions(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_cut_gzip_and_a_missing_file_are_named(tmp_path):
    path = tmp_path / "ratings.dat.gz"
    path.write_bytes(gzip.compress(FILES["ratings.dat"].encode() * 1000)[:-20])
    with pytest.raises(ConfigError, match="cut short"):
        read_interactions(path)
    with pytest.raises(ConfigError, match="there is no file"):
        read_interactions(tmp_path / "ratings.csv")


def test_the_core_is_what_stays_when_the_rare_is_taken_out_again_and_again():
    # d occurs once; without it user 3 has one item left, and without user 3 so does c.
    data = Interactions(("1", "2", "3"), (("a", "b"), ("a", "b", "c"), ("c", "d")))
    assert data.core(2) == Interactions(("1", "2"), (("a", "b"), ("a", "b")))
    assert data.core(1) == data
    assert data.core(3) == Interactions((), ())


def test_items_are_taken_out_with_the_users_who_had_nothing_else():
    data = Interactions(("1", "2"), (("a", "b"), ("a",)))
    assert data.without({"a"}) == Interactions(("1",), (("b",),))
    assert data.at_least(2).users == ("1",)
    assert data.items() == {"a", "b"}
