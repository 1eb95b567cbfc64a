"""The command as a person meets it: verbs, mistakes, exit statuses."""

import errno
import importlib
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from datamodules.reader import Reader
from mmtok import __version__
from mmtok.cli import VERBS, describe, lost_worker, main, parse_arguments
from tests.conftest import SMALL

DESIGNED = {
    "config", "shards", "train", "evaluate", "encode", "decode", "doctor", "submit", "status", "wandb-sync", "import",
    "export", "verify", "tokenize", "pack", "vocab", "compare", "report",
}  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_of_the_table_explains_itself(verb, capsys):
    module = importlib.import_module(f"mmtok.cli.{verb.replace('-', '_')}")
    with pytest.raises(SystemExit) as done:
        main([verb, "--help"])
    assert done.value.code == 0
    shown = capsys.readouterr().out
    assert module.__doc__.splitlines()[0] in shown
    assert f"mmtok {verb}" in shown


def test_the_verbs_are_those_of_the_design():
    assert {*VERBS} == DESIGNED


def test_version_and_help_need_no_torch():
    code = "import sys, mmtok.cli as c\ntry: c.main(sys.argv[1:])\nfinally: assert 'torch' not in sys.modules"
    for word in ("--version", "--help"):
        done = subprocess.run([sys.executable, "-c", code, word], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert "mmtok" in done.stdout
    assert __version__


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian", "image/vqvae"], "there is no verb 'trian'. Did you mean train?"),
        (["config"], "give at least one recipe, for example image/vqvae"),
        (["config", "image/vqvea"], "there is no recipe 'image/vqvea'. Did you mean image/vqvae?"),
        (["config", "image/vqvae", "quantizer.codebok_size=3"], "Did you mean codebook_size?"),
        (["config", "image/vqvae", "--lr=3"], "unrecognized arguments"),
        (["train", "image/vqvae", "data.shards=nowhere/train"], "nowhere/train"),
        (["evaluate", "nowhere"], "there is no nowhere. Give a run directory or a checkpoint."),
        (["shards", "build"], "shards build needs a source and -o FOLDER, or --list"),
        (["shards", "info", "nowhere"], "nowhere"),
    ],
)
def test_a_mistake_is_one_line_without_a_traceback(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        status = main(words)
    except SystemExit as done:
        status = done.code
    assert status == 2
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "name", "expected"),
    [
        (
            "submit image/vqvae --cluster cpu optim.lr=1 --dry-run seed=2",
            "layers",
            ["image/vqvae", "optim.lr=1", "seed=2"],
        ),
        ("status a --json b c", "runs", [Path("a"), Path("b"), Path("c")]),
        ("encode run a.png -o out b.png", "files", ["a.png", "b.png"]),
    ],
)
def test_words_may_follow_the_options_of_a_verb(words, name, expected):
    assert [type(expected[0])(word) for word in vars(parse_arguments(words.split()))[name]] == expected


@pytest.mark.parametrize("words", ["submit image/vqvae --cluster cpu --dry optim.lr=1 --foo", "evaluate run b"])
def test_what_no_verb_knows_stays_an_error(words, capsys):
    with pytest.raises(SystemExit):
        main(words.split())
    assert "unrecognized arguments" in capsys.readouterr().err


def test_config_prints_what_reads_back_and_lists_what_ships(capsys):
    assert main(["config", "image/vqvae", "quantizer/10bit/fsq", "run_dir=x"]) == 0
    shown = capsys.readouterr()
    assert yaml.safe_load(shown.out)["quantizer"]["name"] == "fsq"
    assert "# dropped: quantizer.codebook_size" in shown.err
    assert main(["config", "--list"]) == 0
    assert "image/demo" in capsys.readouterr().out.splitlines()


def test_sources_by_name_are_listed(capsys):
    assert main(["shards", "build", "--list"]) == 0
    assert "debian:endless-sky" in capsys.readouterr().out


def test_a_set_is_described_and_verified(shards, capsys):
    assert main(["shards", "info", str(shards / "val")]) == 0
    assert "16" in capsys.readouterr().out
    assert main(["shards", "verify", str(shards / "val")]) == 0
    assert "nothing wrong" in capsys.readouterr().out


def test_the_same_command_finds_the_run_complete(run, tmp_path, capsys):
    assert main(["train", str(run)]) == 0
    assert "is complete at step 3. Raise trainer.max_steps to go on." in capsys.readouterr().out
    shorter = shutil.copytree(run, tmp_path / "shorter")
    assert main(["train", str(shorter), f"run_dir={shorter}", "trainer.max_steps=2"]) == 0
    assert "done: 3 steps" in capsys.readouterr().out
    assert main(["train", str(run), "optim.lr=1"]) == 2
    assert "holds another experiment, which differs in\n  optim.lr: 0.002 -> 1.0" in capsys.readouterr().err


def test_stopping_is_no_traceback(monkeypatch, capsys):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("mmtok.config.load_any", interrupted)
    assert main(["config", "image/vqvae"]) == 130
    assert "stopped" in capsys.readouterr().err


def test_a_worker_gone_before_its_batch_was_taken_over_is_no_traceback(monkeypatch, capsys):
    def ended(*args, **kwargs):
        raise EOFError  # as multiprocessing does, of the pipe that should have brought the batch's memory

    monkeypatch.setattr("mmtok.config.load_any", ended)
    assert main(["config", "image/vqvae"]) == 2
    assert "a loader process ended by somebody else, mostly the system for want of memory" in capsys.readouterr().err


def test_a_full_disk_is_told_where_the_file_is_not_known():
    full = OSError(errno.ENOSPC, "No space left on device")
    assert describe(full) == "No space left on device. Make room and give the same command again."


def test_an_error_of_a_loader_worker_is_told_without_its_traceback():
    text = "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File x\n"
    assert describe(ValueError(f"{text}some.module.ValueError: a picture: is cut.\n")) == "a picture: is cut."


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("DataLoader worker (pid 7) is killed by signal: Killed. ", r"want of memory.*lower data\.workers.*\(pid 7\)"),
        ("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out "
         "of shared memory.", "shared memory .*/dev/shm"),
        ("Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
         "RuntimeError: unable to write to file </torch_7_3_1>: No space left on device (28)", "shared memory"),
        ("DataLoader worker (pid(s) 7, 9) exited unexpectedly", r"data\.workers=0 shows how"),
        ("CUDA error: too much shared memory", None),
    ],
)  # fmt: skip
def test_the_death_of_a_loader_worker_is_explained(said, expected):
    told = lost_worker(said)
    if expected is None:
        assert told is None
    else:
        assert re.search(expected, told)
        assert "\n" not in told


def test_a_loader_worker_killed_for_want_of_memory_is_one_line(shards, tmp_path, capsys, monkeypatch):
    attempt = Reader.attempt

    def killed(self, slot, place):
        if slot == 9 and multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)  # as the system does
        return attempt(self, slot, place)

    words = ["train", "image/demo", "logger/quiet", f"data.shards={shards}/train", f"run_dir={tmp_path}/run", *SMALL]
    with monkeypatch.context() as patch:
        patch.setattr(Reader, "attempt", killed)
        assert main([*words, "data.workers=1", "checkpoint.every_steps=1"]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("mmtok: a loader process ended by somebody else, mostly the system for want of memory")
