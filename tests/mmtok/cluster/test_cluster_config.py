"""A cluster is one YAML; what YAML and SLURM would read differently from a person is refused."""

import pytest

from mmtok.cluster.config import ClusterConfig, cluster_names, load_cluster, seconds
from mmtok.schema import ConfigError


@pytest.mark.parametrize("name", cluster_names())
def test_every_cluster_that_ships_is_complete(name):
    assert load_cluster(name).world >= 1


def test_times_and_accounts_survive_yaml(tmp_path):  # platform.md 1: 12:30:00 -> 45000 and 0123 -> 83
    path = tmp_path / "mine.yaml"
    path.write_text("time: 12:30:00\naccount: 0123\nqos: no\n")
    cluster = load_cluster(str(path), ["nodes=3"])
    assert (cluster.time, cluster.account, cluster.qos, cluster.nodes) == ("12:30:00", "0123", "no", 3)
    assert load_cluster(str(path), ["time=06:00:00", "account=0042"]).account == "0042"


@pytest.mark.parametrize(
    ("time", "expected"), [("12:30:00", 45000), ("1-00", 86400), ("2-03:30", 185400), ("0-00:10:05", 605)]
)
def test_a_limit_is_read_as_slurm_does(time, expected):
    assert seconds(time) == expected


@pytest.mark.parametrize("time", ["45000", "12:30", "1d", ""])
def test_a_limit_that_slurm_reads_otherwise_is_refused(time):
    with pytest.raises(ConfigError, match=r"is no time limit\. Write HH:MM:SS"):
        ClusterConfig(time=time)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["time=720"], "cluster.time='720' is no time limit"),
        (["time=25:61:00"], "cluster.time='25:61:00' is no time limit"),
        (["nodse=2"], "nodse is no field of cluster. Did you mean nodes?"),
        (["time=00:04:00"], "signal_lead=300 s is no less than cluster.time"),
        (["container.kind=pyxis"], "needs cluster.container.image"),
        (["sbatch=[exclusive]"], "must be written as --option=value"),
        (["env.A-B=1"], "is no name of a variable"),
    ],
)
def test_a_mistake_is_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        load_cluster("gpu", settings)


def test_an_unknown_cluster_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r"no cluster 'gqu'\. Did you mean gpu\?"):
        load_cluster("gqu")
