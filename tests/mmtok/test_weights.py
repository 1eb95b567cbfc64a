import hashlib
import os
import pickle

import numpy as np
import pytest
from safetensors.numpy import load_file

from mmtok.weights import LAYERS, cache_dir, convert_lpips, lpips_path, unpickle_arrays


class Evil:
    def __reduce__(self):
        return os.system, ("touch owned",)


def fake_alexnet():
    generator = np.random.default_rng(0)

    def array(*shape):
        return generator.standard_normal(shape).astype(np.float32)

    tree = {"AlexNet_0": {f"Conv_{i}": {"kernel": array(3, 3, 2, 4), "bias": array(4)} for i in range(5)}}
    return tree | {f"NetLinLayer_{i}": {"Conv_0": {"kernel": array(1, 1, 4, 1)}} for i in range(5)}


def test_arrays_come_back_whole():
    tree = fake_alexnet()
    back = unpickle_arrays(pickle.dumps(tree))
    np.testing.assert_array_equal(back["AlexNet_0"]["Conv_3"]["kernel"], tree["AlexNet_0"]["Conv_3"]["kernel"])


@pytest.mark.parametrize("content", [
    Evil(), {"a": [Evil()]}, np.array([Evil()], dtype=object), print, np.save, pytest.raises, range(3), 1j,
])  # fmt: skip
def test_anything_but_arrays_is_refused_and_not_run(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pickle.UnpicklingError, match="is no array"):
        unpickle_arrays(pickle.dumps(content))
    assert not list(tmp_path.iterdir())


def test_kernels_are_laid_out_as_torch_wants_them(tmp_path):
    tree = fake_alexnet()
    data = pickle.dumps(tree)
    path = convert_lpips("alex", data, hashlib.sha256(data).hexdigest(), tmp_path / "w" / "a.safetensors")
    arrays = load_file(path)
    assert {f"features.{place}.weight" for place in LAYERS["alex"]} <= arrays.keys()
    np.testing.assert_array_equal(
        arrays["features.3.weight"], tree["AlexNet_0"]["Conv_1"]["kernel"].transpose(3, 2, 0, 1)
    )
    assert arrays["lin4.model.1.weight"].shape == (1, 4, 1, 1)
    assert [file.name for file in path.parent.iterdir()] == ["a.safetensors"]


def test_other_bytes_than_the_known_ones_are_not_even_read(tmp_path):
    with pytest.raises(ValueError, match="sha256"):
        convert_lpips("alex", pickle.dumps(Evil()), "0" * 64, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_the_cache_is_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("MMTOK_CACHE", str(tmp_path))
    assert lpips_path("vgg").is_relative_to(tmp_path)
    monkeypatch.delenv("MMTOK_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_dir() == tmp_path / "x" / "mmtok"
