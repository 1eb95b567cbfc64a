import pytest

from mmtok.training.callbacks.progress import duration, line, smooth

VALUES = {
    "loss": 0.4123,
    "psnr": 23.14,
    "usage/active": 0.97,
    "speed/samples_per_second": 412.3,
    "speed/data_wait": 0.012,
    "speed/wall_seconds": 0.1,
}


def test_the_line_reads_as_the_style_guide_has_it():
    text = line(12_400, 100_000, VALUES, pace=7_860 / 87_600)
    assert text == (
        "step 12,400/100,000 | loss 0.412 | psnr 23.1 | codes 97 % | 412 img/s | data wait 1 % | eta 2 h 11 min"
    )


def test_the_first_line_says_how_long_the_start_took():
    assert (
        line(1, 10, {"loss": 1.0, "speed/wall_seconds": 2.34}, pace=None)
        == "step 1/10 | loss 1 | first step after 2.3 s"
    )


def test_memory_is_shown_where_there_is_a_gpu():
    assert "| 3.5 GiB |" in line(2, 10, VALUES | {"speed/memory_gib": 3.5}, pace=1.0)


@pytest.mark.parametrize(("seconds", "text"), [
    (0.2, "0 s"), (12, "12 s"), (60, "1 min"), (200, "3 min 20 s"), (7860, "2 h 11 min"), (273_600, "3 d 4 h"),
])  # fmt: skip
def test_durations_have_two_units(seconds, text):
    assert duration(seconds) == text


def test_one_slow_window_moves_the_estimate_by_a_third():
    assert smooth(None, 2.0) == 2.0
    assert smooth(1.0, 2.0) == pytest.approx(1.3)
