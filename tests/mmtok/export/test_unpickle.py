"""Checkpoints are read without running what they name: tensors, containers, and stubs that do nothing."""

import builtins
import collections
import copyreg
import io
import os
import pickle
import struct
import sys
import zipfile

import pytest
import torch

from mmtok.export import unpickle
from mmtok.export.unpickle import Stub, read_checkpoint


class Evil:
    """What an attacker writes: anything that is called, with anything."""

    def __init__(self, function, *arguments, state=None):
        self.made = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.made


class Callback:
    """Stands for what Lightning keeps: classes as keys, objects with a state."""

    def __init__(self):
        self.best = 3


def archive(path, payload, **entries):
    """A checkpoint whose data.pkl is given, byte by byte."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", payload)
        for name, data in entries.items():
            file.writestr(f"archive/{name}", data)
    return path


def test_tensors_come_back_and_everything_else_is_inert(tmp_path):
    linear = torch.nn.Linear(3, 2)
    whole = torch.arange(24.0).view(4, 6)
    state = collections.OrderedDict(
        linear.state_dict(), turned=whole.T, part=whole[1:, 2:5], half=whole.half(), brain=whole.bfloat16(),
        count=torch.tensor(7), none=torch.empty(0, 3), parameter=linear.weight, flag=torch.tensor([True, False]),
    )  # fmt: skip
    state._metadata = {"": {"version": 1}}
    content = {"state_dict": state, "callbacks": {Callback: Callback()}, "epoch": 3, "names": ["a", {"b"}, (1, None)]}
    torch.save(content, tmp_path / "a.ckpt")
    found = read_checkpoint(tmp_path / "a.ckpt")
    tensors = found.tensors(found.content["state_dict"])
    assert tensors.keys() == state.keys()
    for name, value in tensors.items():
        assert value.dtype == state[name].dtype
        assert torch.equal(value, state[name])
    assert (found.content["epoch"], found.content["names"][0]) == (3, "a")
    ((key, value),) = found.content["callbacks"].items()
    assert issubclass(key, Stub)
    assert isinstance(value, Stub)
    assert not vars(value)


def test_what_is_not_asked_for_is_not_read(tmp_path):
    torch.save({"a": torch.ones(2), "loss.b": torch.ones(3)}, tmp_path / "a.ckpt")
    found = read_checkpoint(tmp_path / "a.ckpt")
    assert list(found.tensors(found.content, ("loss.",))) == ["a"]


@pytest.mark.parametrize("protocol", range(2, 6))
def test_a_malicious_pickle_runs_nothing(protocol, tmp_path, monkeypatch):
    touched = tmp_path / "touched"
    before = set(sys.modules)
    attacks = [
        Evil(os.system, f"touch {touched}"),
        Evil(builtins.exec, f"open({str(touched)!r}, 'w')"),
        Evil(builtins.eval, f"open({str(touched)!r}, 'w')"),
        Evil(builtins.__import__, "antigravity"),
        Evil(getattr, Callback, "mro"),
        Evil(torch.load, str(touched)),
        Evil(torch.hub.load, "a/b", "c"),
        Evil(copyreg._reconstructor, Callback, object, None),
        Evil(Callback, state={"__class__": os.system}),
        {Evil(pickle.loads, b"cos\nsystem\n."): 1},
    ]
    payload = pickle.dumps(attacks, protocol=protocol)
    # An INST and an OBJ, opcodes of old that call as well.
    old = b"(S'touch " + str(touched).encode() + b"'\nios\nsystem\n."
    monkeypatch.setattr(os, "system", lambda _: touched.touch())
    for name, data in (("new", payload), ("old", old)):
        content = read_checkpoint(archive(tmp_path / name, data)).content
        for item in content if isinstance(content, list) else [content]:
            assert isinstance(next(iter(item)) if isinstance(item, dict) else item, Stub)
    assert not touched.exists()
    assert "antigravity" not in set(sys.modules) - before


@pytest.mark.parametrize("name", [b"ctorch\nFloatStorage\n", b"ctorch._utils\n_rebuild_tensor_v2\n"])
@pytest.mark.parametrize(
    "state", [b"}X\x05\x00\x00\x00dtypeX\x01\x00\x00\x00as", b"N}X\x05\x00\x00\x00dtypeK\x01s\x86"]
)
def test_what_a_pickle_is_given_it_cannot_change(name, state, tmp_path):
    makers = dict(unpickle._MAKERS)
    with pytest.raises(ValueError, match="is damaged"):
        read_checkpoint(archive(tmp_path / "a", b"\x80\x02" + name + state + b"b."))
    assert makers == unpickle._MAKERS
    torch.save({"a": torch.ones(2)}, tmp_path / "b")
    found = read_checkpoint(tmp_path / "b")
    assert torch.equal(found.tensors(found.content)["a"], torch.ones(2))


STORAGE = object()


def tensor_pickle(key="0", offset=0, shape=(2,), strides=(1,)):
    class Writer(pickle.Pickler):
        def persistent_id(self, item):
            return ("storage", torch.FloatStorage, key, "cpu", 2) if item is STORAGE else None

    file = io.BytesIO()
    Writer(file, 2).dump({"a": Evil(torch._utils._rebuild_tensor_v2, STORAGE, offset, shape, strides, False, {})})
    return file.getvalue()


@pytest.mark.parametrize(
    ("fields", "data"),
    [({"shape": (3,)}, 8), ({"shape": (2,), "strides": (5,)}, 8), ({"offset": 1}, 8), ({"key": "1"}, 8), ({}, 0),
     ({"shape": (10**12,), "strides": (0,)}, 8), ({"offset": -1}, 8), ({"shape": "ab"}, 8),
     ({"key": "../../etc/passwd"}, 8)],
    ids=str,
)  # fmt: skip
def test_a_tensor_that_its_storage_does_not_hold_is_refused(fields, data, tmp_path):
    path = archive(tmp_path / "a", tensor_pickle(**fields), **{"data/0": struct.pack("2f", 1, 2)[:data]})

    def read():
        found = read_checkpoint(path)
        return found.tensors(found.content)

    with pytest.raises(ValueError, match="is damaged, or no checkpoint"):
        read()


def test_files_of_other_kinds_say_what_they_are(tmp_path):
    old, noise, packed, big = (tmp_path / name for name in ("old", "noise", "packed", "big"))
    torch.save({"a": torch.ones(1)}, old, _use_new_zipfile_serialization=False)
    noise.write_bytes(b"x" * 100)
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", pickle.dumps({}))
    archive(big, pickle.dumps({}), byteorder=b"big")
    for path, says in ((old, "before 1.6. Save it again where"), (noise, "no checkpoint of PyTorch"),
                       (packed, "is compressed"), (big, "big-endian"), (tmp_path / "none", "there is no")):  # fmt: skip
        with pytest.raises(ValueError, match=says):
            read_checkpoint(path)
