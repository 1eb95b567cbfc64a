"""Teachers whose weights come from a folder of transformers: small ones with random weights."""

import io

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from mmtok.schema import ConfigError
from mmtok.teachers import open_teacher

transformers = pytest.importorskip("transformers")
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def picture(side=40):
    file = io.BytesIO()
    noise = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    return "png", file.getvalue()


def sound(samples=4000, gain=0.1):
    file = io.BytesIO()
    wave = gain * np.random.default_rng(0).standard_normal(samples)
    soundfile.write(file, wave, 16000, format="WAV", subtype="FLOAT")
    return "wav", file.getvalue()


def saved(model, folder, processor=None):
    torch.manual_seed(0)
    model.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    return folder


@pytest.fixture
def dinov2(tmp_path):
    config = transformers.Dinov2Config(
        **{key: SMALL[key] for key in SMALL if key != "intermediate_size"}, image_size=28
    )
    size = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
    return saved(transformers.Dinov2Model(config), tmp_path / "dino", transformers.BitImageProcessor(**size))


@pytest.fixture
def siglip(tmp_path):
    vision = SMALL | {"image_size": 32, "patch_size": 8}
    config = transformers.SiglipConfig(text_config=SMALL | {"vocab_size": 32}, vision_config=vision)
    size = {"height": 32, "width": 32}
    return saved(transformers.SiglipModel(config), tmp_path / "siglip", transformers.SiglipImageProcessor(size=size))


def wavlm(folder, normalise):
    config = transformers.WavLMConfig(**SMALL, num_conv_pos_embedding_groups=2, conv_dim=(8,) * 7)
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=normalise)
    return saved(transformers.WavLMModel(config), folder, extractor)


@pytest.mark.parametrize("name", ["dinov2", "siglip"])
def test_pictures_are_seen_as_their_own_processor_shows_them(request, name):
    folder = request.getfixturevalue(name)
    teacher = open_teacher(f"{name}:{folder}")
    found = teacher.features([picture(40), picture(56)])
    assert [one.shape for one in found] == [(16,), (16,)]
    shown = Image.open(io.BytesIO(picture(56)[1]))
    inputs = transformers.AutoImageProcessor.from_pretrained(folder)(images=shown, return_tensors="pt")
    with torch.inference_mode():
        model = transformers.AutoModel.from_pretrained(folder).eval()
        own = model(**inputs).pooler_output if name == "dinov2" else model.vision_model(**inputs).pooler_output
    torch.testing.assert_close(torch.from_numpy(found[1]), own[0])
    assert teacher.about()["about"]


def test_sounds_have_fifty_frames_a_second_the_last_begun_one_too(tmp_path):
    teacher = open_teacher(f"wavlm:{wavlm(tmp_path / 'wavlm', False)}")
    assert teacher.about()["rate"] == 50
    assert [one.shape for one in teacher.features([sound(3200), sound(3201)])] == [(16, 10), (16, 11)]


@pytest.mark.parametrize("normalise", [False, True])
def test_loudness_is_taken_out_where_the_model_learned_without(tmp_path, normalise):
    teacher = open_teacher(f"wavlm:{wavlm(tmp_path / 'wavlm', normalise)}")
    soft, loud = teacher.features([sound(gain=0.01), sound(gain=0.5)])
    assert np.allclose(soft, loud, atol=1e-3) == normalise


@pytest.mark.parametrize("name", ["dinov2", "siglip", "wavlm"])
def test_a_folder_without_a_model_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="holds no model that transformers reads"):
        open_teacher(f"{name}:{tmp_path}")


def test_a_model_of_another_kind_is_refused_by_name(dinov2, siglip):
    for name, folder, kind in (("siglip", dinov2, "dinov2"), ("dinov2", siglip, "siglip"), ("wavlm", dinov2, "dinov2")):
        with pytest.raises(ConfigError, match=f"holds a model of '{kind}', and teacher '{name}' is one of"):
            open_teacher(f"{name}:{folder}")


def test_a_damaged_preprocessor_is_named(tmp_path):
    folder = wavlm(tmp_path / "wavlm", True)
    (folder / "preprocessor_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"preprocessor_config\.json is no valid JSON"):
        open_teacher(f"wavlm:{folder}")
