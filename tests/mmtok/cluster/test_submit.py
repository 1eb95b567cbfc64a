"""`mmtok submit` finds what would fail, writes nothing when asked to, and hands the rest to sbatch."""

import json
import os
import shutil
from pathlib import Path

import pytest

from mmtok.cli import main
from mmtok.cluster.status import ask_queue
from mmtok.cluster.submit import split_array
from mmtok.config import load_config
from mmtok.resources import resource_root
from mmtok.schema import ConfigError

SETTINGS = ("data.batch_size=8", "data.workers=0", "trainer.accelerator=cpu", "trainer.precision=32")
SBATCH = """#!/bin/bash
cp "$2" "$NOTES"
echo 77
"""


@pytest.fixture
def submit(shards, tmp_path, monkeypatch):
    """submit(*words) -> exit status, in an empty folder with an sbatch that takes notes."""
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text(SBATCH)
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{sbatch.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("NOTES", str(tmp_path / "submitted"))

    def run(*words):
        return main(["submit", "image/demo", f"data.shards={shards}/train", *SETTINGS, *words])

    run.submitted = tmp_path / "submitted"
    return run


def test_a_dry_run_prints_the_script_and_writes_nothing(submit, capsys):
    assert submit("--cluster", "cpu", "--dry-run") == 0
    assert "#SBATCH --time=08:00:00" in capsys.readouterr().out
    assert list(Path.cwd().iterdir()) == []


def test_a_run_is_written_with_its_code_and_submitted(submit, capsys):
    assert submit("run_dir=mine", "cluster.nodes=2", "--cluster", "cpu") == 0
    run = Path.cwd() / "mine"
    assert "job 77" in capsys.readouterr().out
    assert submit.submitted.read_text() == (run / "submit.sbatch").read_text()
    assert (run / "job").read_text() == "77\n"
    config = load_config([str(run)]).config
    assert (config.run_dir, config.trainer.num_nodes, config.trainer.devices) == (str(run), 2, 1)
    assert (run / "code" / "mmtok" / "cli" / "train.py").is_file()
    assert (run / "code" / "datamodules" / "stream.py").is_file()
    assert main(["status", str(run), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["state"], found["step"], found["job"]) == ("submitted", 0, "77")


def test_an_array_has_a_run_directory_a_value(submit):
    assert submit("run_dir=sweep", "--cluster", "cpu", "--array", "quantizer.name=vq,fsq") == 0
    assert "#SBATCH --array=0-1" in submit.submitted.read_text()
    for number, name in enumerate(("vq", "fsq")):
        run = Path.cwd() / "sweep" / name
        assert (run / "job").read_text() == f"77_{number}\n"
        assert (
            load_config([str(run)]).config.quantizer
            == load_config(["image/demo"], [f"quantizer.name={name}"]).config.quantizer
        )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("trainer.devices=2",), "trainer.devices=2, trainer.num_nodes=1 do not match the cluster's 1 tasks"),
        (("cluster.tasks_per_node=3",), "data.batch_size=8 does not divide over 3 ranks"),
        (("data.shards=nowhere",), "no shard set at nowhere"),
        (("trainer.accelerator=gpu",), "trainer.accelerator=gpu on a cluster without GPUs"),
        (("cluster.gpus_per_node=4",), "would leave 4 GPUs of each node idle"),
        (("data.workers=8",), "need more than cluster.cpus_per_task=8 cores"),
        (("cluster.python=/nowhere/python",), "cluster.python=/nowhere/python is not there"),
        (("init_from=nowhere",), "init_from: there is no nowhere"),
        (("run_dir=/proc/mine",), "run_dir=/proc/mine cannot be written"),
        (("run_dir='my run'",), "has a space"),
        (("cluster.time=45000",), "is no time limit"),
    ],
)
def test_the_preflight_names_what_would_fail(submit, capsys, words, message):
    assert submit(*words, "--cluster", "cpu") == 2
    assert message in capsys.readouterr().err
    assert not submit.submitted.exists()


def test_a_tar_that_is_gone_or_cut_is_found_before_the_queue(submit, shards, tmp_path, capsys):
    home = shutil.copytree(shards, tmp_path / "home")
    (tar,) = (home / "train").glob("*.tar")
    tar.write_bytes(tar.read_bytes()[:-512])
    assert submit(f"data.shards={home}/train", "--cluster", "cpu") == 2
    assert "bytes, the manifest says" in capsys.readouterr().err
    tar.unlink()
    assert submit(f"data.shards={home}/train", "--cluster", "cpu") == 2
    assert f"{tar} is not there. Look at all: mmtok shards verify {home}/train" in capsys.readouterr().err


def test_data_must_be_seen_in_the_container_and_is_looked_for_outside(submit, shards, capsys):
    words = ["cluster.container.kind=pyxis", "cluster.container.image=x#y", "--cluster", "cpu", "--dry-run"]
    assert submit(*words) == 2
    assert f"{shards}/train is not seen in the container. Add it: cluster.container.mounts=[{shards}:{shards}]" in (
        capsys.readouterr().err
    )
    assert submit(f"cluster.container.mounts=[{shards}]", *words) == 0
    assert submit(f"cluster.container.mounts=[{shards}:/data:ro]", "data.shards=/data/train", *words) == 0
    assert submit(f"cluster.container.mounts=[{shards}:/data]", "data.shards=/data/nowhere", *words) == 2
    assert f"no shard set at {shards}/nowhere" in capsys.readouterr().err


def test_a_set_without_one_to_validate_on_is_found_before_the_queue(submit, shards, tmp_path, capsys):
    alone = tmp_path / "alone" / "train"
    shutil.copytree(shards / "train", alone)
    assert submit(f"data.shards={alone}", "--cluster", "cpu") == 2
    assert f"no set 'val' or 'test' stands beside {alone}" in capsys.readouterr().err
    assert submit(f"data.shards={alone}", f"data.val_shards={shards}/val", "--cluster", "cpu", "--dry-run") == 0


def test_a_folder_that_sbatch_would_read_otherwise_is_refused_to_work_in(submit, tmp_path, monkeypatch, capsys):
    odd = tmp_path / "my work"
    odd.mkdir()
    monkeypatch.chdir(odd)
    assert submit(f"run_dir={tmp_path}/run", "--cluster", "cpu") == 2
    assert f"{odd} has a space" in capsys.readouterr().err


def test_the_name_of_a_job_is_one_word(submit, tmp_path, capsys):
    recipe = tmp_path / "my recipe.yaml"
    shutil.copy(Path(resource_root("configs")) / "image" / "demo.yaml", recipe)
    words = [str(recipe), *SETTINGS, f"run_dir={tmp_path}/run", "--cluster", "cpu", "--dry-run"]
    main(["submit", *words])
    assert "#SBATCH --job-name=mmtok-my_recipe\n" in capsys.readouterr().out


def test_each_task_of_an_array_is_asked_for_by_itself(tmp_path, monkeypatch):
    squeue = tmp_path / "squeue"
    # What SLURM 22.05 answers.
    squeue.write_text(
        '#!/bin/bash\nif [[ " $* " == *" --array "* ]]; then echo "7_0 RUNNING None"; echo "7_1 PENDING Resources"\n'
        'else echo "7_0 RUNNING None"; echo "7_[1] PENDING Resources"; fi\n'
    )
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert ask_queue(["7_0", "7_1"]) == {"7_0": "RUNNING", "7_1": "PENDING Resources"}


def test_a_folder_of_another_experiment_is_refused(submit, run, capsys):
    assert submit(f"run_dir={run}", "--cluster", "cpu") == 2
    assert "holds another experiment" in capsys.readouterr().err


def test_a_run_in_use_is_refused(submit, capsys):
    from mmtok.training.lease import holding

    with holding(Path.cwd() / "mine", first=True):
        assert submit("run_dir=mine", "--cluster", "cpu") == 2
    assert "is in use by" in capsys.readouterr().err


def test_status_reads_a_run_that_was_trained(run, capsys):
    assert main(["status", str(run), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["state"], found["step"], found["max_steps"], found["restarts"]) == ("complete", 3, 3, 0)
    assert found["checkpoint"] == "step-3.ckpt"
    assert found["samples_per_second"] > 0
    assert main(["status", str(run)]) == 0
    assert "3/3" in capsys.readouterr().out


def test_status_shows_what_is_a_run_beside_what_is_none(run, tmp_path, capsys):
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "config.yaml").write_text("trainer: [")
    assert main(["status", str(run.parent), str(run), str(damaged)]) == 2
    said = capsys.readouterr()
    assert "3/3" in said.out
    assert f"{run.parent} is no run" in said.err
    assert f"{damaged / 'config.yaml'} cannot be read as a run's configuration" in said.err


def test_status_knows_a_run_by_what_it_would_continue_from(run, tmp_path, capsys):
    kept = shutil.copytree(run, tmp_path / "kept")
    (kept / "checkpoints" / "last.ckpt").unlink()
    cut = shutil.copytree(run, tmp_path / "cut")
    for file in (cut / "checkpoints").iterdir():
        file.write_bytes(b"")
    assert main(["status", str(kept), str(cut), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["state"], one["checkpoint"]) for one in found] == [("complete", "step-3.ckpt"), ("new", None)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("k=a,b", ("k", ["a", "b"])), ("q.levels=[8,8],[5,5,5]", ("q.levels", ["[8,8]", "[5,5,5]"]))],
)
def test_commas_in_brackets_belong_to_a_value(text, expected):
    assert split_array(text) == expected


@pytest.mark.parametrize("text", ["k=a", "k", "=a,b"])
def test_an_array_of_one_is_refused(text):
    with pytest.raises(ConfigError, match="write KEY=a,b,c"):
        split_array(text)
