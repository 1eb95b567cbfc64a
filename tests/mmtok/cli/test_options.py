"""Options that belong to some tasks or kinds only, and the tables of `mmtok evaluate` that they come from."""

import argparse

import pytest

from mmtok.cli.evaluate import tasks
from mmtok.cli.options import add_options, refuse_others
from mmtok.cli.subject import Kind, kinds

SHARED = {"--both": {"action": "store_true"}}
OWNERS = {"pictures": {**SHARED, "--size": {"type": int}}, "sounds": {**SHARED, "--most": {"type": int, "default": 3}}}


def parsed(*words):
    parser = argparse.ArgumentParser()
    add_options(parser, OWNERS)
    return parser.parse_args(words)


@pytest.mark.parametrize("words", [[], ["--both"], ["--size", "4"], ["--size", "4", "--both", "--most", "3"]])
def test_an_owner_takes_its_own_options_and_the_shared_ones(words):
    refuse_others(parsed(*words), OWNERS, "pictures", "runs/x is for pictures")


@pytest.mark.parametrize(("words", "name"), [(["--most", "4"], "--most is of sounds"), (["--most", "0"], "--most")])
def test_what_another_owner_takes_is_refused_by_name(words, name):
    with pytest.raises(ValueError, match=f"{name}.*runs/x is for pictures. Leave it out."):
        refuse_others(parsed(*words), OWNERS, "pictures", "runs/x is for pictures")


def test_one_option_has_one_meaning():
    with pytest.raises(AssertionError, match="--a means two things"):
        add_options(argparse.ArgumentParser(), {"x": {"--a": {"type": int}}, "y": {"--a": {"type": str}}})


@pytest.mark.parametrize("name", kinds())
def test_a_kind_has_all_that_is_asked_of_it(name):
    wanted = {name for name in vars(Kind) if not name.startswith("_")} | set(Kind.__annotations__)
    assert wanted <= set(vars(kinds()[name]))


@pytest.mark.parametrize("name", tasks())
def test_a_task_has_options_and_a_run(name):
    assert isinstance(tasks()[name].OPTIONS, dict)
    assert callable(tasks()[name].run)
