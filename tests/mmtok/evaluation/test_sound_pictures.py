import numpy as np
import torch

from mmtok.evaluation.sound_pictures import BANDS, HEIGHT, WAVE, interleaved, sound_sheet, spectrogram


def tone(hertz, rate, seconds=0.5):
    return 0.5 * torch.sin(2 * torch.pi * hertz * torch.arange(int(seconds * rate)) / rate)[None]


def test_a_tone_stands_in_one_band_and_higher_ones_in_higher_bands():
    bands = [int(spectrogram(tone(hertz, 16000), 16000).mean(1).argmax()) for hertz in (200, 1000, 4000)]
    assert bands == sorted(set(bands))
    assert spectrogram(torch.zeros(1, 3), 16000).shape[0] == BANDS  # shorter than a window


def test_clips_keep_one_scale_of_time_and_rows_one_of_loudness():
    clips = [tone(500, 16000), tone(500, 16000, 0.25)]
    sheet = sound_sheet({"input": clips, "reconstruction": [0 * clip for clip in clips]}, 16000, captions=["a", "b"])
    pixels = np.asarray(sheet).astype(int)
    assert sheet.height > 2 * (WAVE + HEIGHT)
    spectra = pixels[WAVE + 10 : WAVE + HEIGHT, 120:340]
    assert spectra.sum(-1).max() > 500  # the loudest of the inputs is light
    silent = pixels[2 * WAVE + HEIGHT + 30 : 2 * (WAVE + HEIGHT), 150:300]
    assert silent.sum(-1).max() < 20  # and silence dark


def test_players_get_samples_first():
    assert interleaved(torch.full((2, 5), 3.0)).shape == (5, 2)
    assert interleaved(torch.full((1, 5), 3.0)).max() == 1
