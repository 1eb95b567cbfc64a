import pytest

from datamodules.queries import Query, read_queries
from mmtok.schema import ConfigError


def test_rows_are_read_whatever_the_order_of_the_columns(tmp_path):
    path = tmp_path / "queries.csv"
    path.write_text('item,query,split,note\na,"a tool, for that",train,\n\nb,what is b?,test,x\n')
    assert read_queries(path) == [Query("a tool, for that", "a", "train"), Query("what is b?", "b", "test")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("query,item\nx,y\n", "line 1: no column split"),
        ("query,item,split\nx,y,dev\n", "line 2: the split 'dev' is none of train, val, test"),
        ("query,item,split\n,y,test\n", "line 2: no query"),
        ("query,item,split\nx,,test\n", "line 2: no item"),
        ("query,item,split\nx,y\n", "line 2: 2 fields, and the header has 3"),
        ('query,item,split\n"x"y,y,test\n', "line 2: no CSV"),
        ("query,item,split\n", "holds no queries"),
        ("", "no column query"),
        ("query,item,split\n\xff,y,test\n", "is no UTF-8"),
    ],
)
def test_what_is_no_query_is_refused_with_its_line(text, said, tmp_path):
    path = tmp_path / "queries.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        read_queries(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="there is no file"):
        read_queries(tmp_path / "queries.csv")
