import csv

import pytest
import torch

from mmtok.training.logs import LogConfig, MetricsFile, ScalarBuffer


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_scalars_are_means_over_the_window_and_the_buffer_empties():
    buffer = ScalarBuffer()
    for value in (1.0, 2.0, 6.0):
        buffer.add({"loss": torch.tensor(value), "lr": 0.1})
    assert buffer.flush() == pytest.approx({"loss": 3.0, "lr": 0.1})
    assert buffer.flush() == {}


def test_scalars_are_weighted_by_the_samples_behind_them():
    buffer = ScalarBuffer()
    buffer.add({"psnr": torch.tensor(10.0), "host": 10.0}, weight=3)
    buffer.add({"psnr": torch.tensor(20.0), "host": 20.0}, weight=1)
    assert buffer.flush() == pytest.approx({"psnr": 12.5, "host": 12.5})


def test_a_weight_may_be_known_on_the_device_alone():
    buffer = ScalarBuffer()
    for value, items in ((10.0, 3.0), (0.0, 0.0), (20.0, 1.0)):
        buffer.add({"si_sdr": torch.tensor(value)}, weight=torch.tensor(items))
    resumed = ScalarBuffer()
    resumed.add_state(buffer.state_dict())
    resumed.add({"si_sdr": torch.tensor(50.0)}, weight=torch.tensor(1.0))
    assert buffer.flush() == pytest.approx({"si_sdr": 12.5})
    assert resumed.flush() == pytest.approx({"si_sdr": 20.0})
    buffer.add({"si_sdr": torch.tensor(0.0)}, weight=torch.tensor(0.0))
    assert buffer.flush() == {}  # a window of silence has no SI-SDR


def test_a_name_may_come_alone_and_in_company():
    buffer = ScalarBuffer()
    buffer.add({"a": torch.tensor(1.0), "b": torch.tensor(5.0)})
    buffer.add({"a": torch.tensor(3.0)})
    assert buffer.flush() == pytest.approx({"a": 2.0, "b": 5.0})


def test_adding_reads_nothing_from_the_device():
    """platform.md trap 24: a tensor without storage would raise if anything were read from it."""
    buffer = ScalarBuffer()
    for _ in range(3):
        buffer.add({"loss": torch.empty((), device="meta"), "norm": torch.empty((), device="meta")}, weight=2)
        buffer.add({"si_sdr": torch.empty((), device="meta")}, weight=torch.empty((), device="meta"))


def test_ranks_cost_one_collective_whatever_is_logged(monkeypatch):
    """platform.md trap 24. The other rank counts twice as many samples, of a higher loss."""
    mine, other = ScalarBuffer(), ScalarBuffer()
    mine.add({"loss": torch.tensor(1.0), "psnr": torch.tensor(20.0), "lr": 0.5})
    other.add({"loss": torch.tensor(4.0), "psnr": torch.tensor(26.0), "lr": 0.5}, weight=2)
    packed = []
    monkeypatch.setattr(torch.distributed, "all_reduce", packed.append)
    with pytest.raises(AssertionError):  # the stand-in added nothing
        other.flush(world=2)
    calls = []

    def all_reduce(tensor):
        calls.append(tensor)
        tensor += packed[0]

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    assert mine.flush(world=2) == pytest.approx({"loss": 3.0, "psnr": 24.0, "lr": 0.5})
    assert len(calls) == 1


def test_ranks_that_log_different_names_are_found_out(monkeypatch):
    buffer = ScalarBuffer()
    buffer.add({"loss": torch.tensor(1.0)})
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: tensor.add_(tensor + 1))
    with pytest.raises(AssertionError, match="different scalars"):
        buffer.flush(world=2)


def test_metrics_are_appended_across_restarts(tmp_path):
    path = tmp_path / "metrics.csv"
    MetricsFile(path).write(10, {"loss": 0.5})
    MetricsFile(path).write(20, {"loss": 0.25})
    assert rows(path) == [{"step": "10", "loss": "0.5"}, {"step": "20", "loss": "0.25"}]


def test_columns_grow_and_values_of_a_step_share_a_row(tmp_path):
    path = tmp_path / "metrics.csv"
    file = MetricsFile(path)
    file.write(10, {"loss": 0.5})
    file.write(20, {"loss": 0.25})
    file.write(20, {"val/psnr": 21.5})
    file.write(20, {"loss": 0.125})
    file.write(30, {"loss": 0.0625})
    assert rows(path) == [
        {"step": "10", "loss": "0.5", "val/psnr": ""},
        {"step": "20", "loss": "0.125", "val/psnr": "21.5"},
        {"step": "30", "loss": "0.0625", "val/psnr": ""},
    ]


def test_rows_after_the_restored_step_are_cut(tmp_path):
    path = tmp_path / "metrics.csv"
    file = MetricsFile(path)
    for step in (10, 20, 30, 40):
        file.write(step, {"loss": float(step)})
    resumed = MetricsFile(path)
    resumed.cut(25)
    resumed.write(30, {"loss": 1.0})
    assert [(row["step"], row["loss"]) for row in rows(path)] == [("10", "10"), ("20", "20"), ("30", "1")]


@pytest.mark.parametrize("torn", ["30,0.1", "30,", "3", "30,0.1,\0\0\0", "garbage\n", "\0\0\0\n", "30,1,2,3\n"])
def test_a_torn_last_line_is_dropped(tmp_path, torn):
    path = tmp_path / "metrics.csv"
    path.write_text(f"step,loss,psnr\n10,1,2\n20,3,4\n{torn}")
    MetricsFile(path).write(30, {"loss": 5.0, "psnr": 6.0})
    assert [list(row.values()) for row in rows(path)] == [["10", "1", "2"], ["20", "3", "4"], ["30", "5", "6"]]


@pytest.mark.parametrize("content", ["", "st", "step,lo", "\0\0"])
def test_a_file_torn_in_its_header_starts_over(tmp_path, content):
    path = tmp_path / "metrics.csv"
    path.write_text(content)
    MetricsFile(path).write(1, {"loss": 2.0})
    assert rows(path) == [{"step": "1", "loss": "2"}]


def test_not_a_number_is_written_as_such(tmp_path):
    MetricsFile(tmp_path / "m.csv").write(1, {"loss": float("nan"), "gap": float("inf")})
    assert rows(tmp_path / "m.csv") == [{"step": "1", "loss": "nan", "gap": "inf"}]


@pytest.mark.parametrize("field", ["every_steps", "usage_every_steps", "media_items", "media_keep"])
def test_intervals_of_nothing_are_refused(field):
    with pytest.raises(ValueError, match=field):
        LogConfig(**{field: 0})
