"""Sources that a bundle carries: flat, complete, and with nothing that may be absent where they are loaded."""

import ast
import importlib
import re
import sys

import pytest
import torch

from mmtok.export.bundle import write_bundle
from mmtok.export.provenance import Provenance
from mmtok.export.sources import SAFE, flatten, imports_of
from mmtok.export.verify import verify
from mmtok.tokenizers import build_tokenizer

MODEL = "mmtok.export.hub.modeling_mmtok"
CONV = {"name": "conv2d", "channels": 8, "multipliers": [1, 2], "blocks": 1, "groups": 4}
PLUGIN = '''
"""A quantizer of somebody else, in a package of two files."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mmtok.quantizers import Quantized, Quantizer, QuantizerConfig, register_quantizer
from mmtok.quantizers import base as quantizer_base
from .signs import sign

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class OneBitConfig(QuantizerConfig):
    scale: float = 1.0


@register_quantizer("{name}", OneBitConfig)
class OneBit(Quantizer):
    def __init__(self, config: quantizer_base.QuantizerConfig) -> None:
        super().__init__()
        self.config = config
        self.codebook_sizes = (2,)

    def quantize(self, z, context):
        ids = sign(z.mean(-1)).long()[:, None]
        return Quantized(self.dequantize(ids, context), ids, {{}}, {{}})

    def dequantize(self, ids, context):
        return (ids[:, 0, :, None] * 2.0 - 1).expand(-1, -1, self.config.dim) * self.config.scale

    def code_table(self):
        return torch.tensor([[-1.0], [1.0]])

    def show(self):
        from PIL import Image

        return Image
'''
SIGNS = '"""Signs."""\n\n\ndef sign(x):\n    return x > 0\n'


def image(quantizer="vq"):
    torch.manual_seed(0)
    return build_tokenizer({"name": "image", "image_size": 16, "dim": 8, "encoder": CONV}, quantizer).eval()


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Makes a package with a quantizer of a given name, and imports it."""

    def make(name, text=PLUGIN):
        package = tmp_path / "plugins" / name
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "one_bit.py").write_text(text.format(name=name))
        (package / "signs.py").write_text(SIGNS)
        monkeypatch.syspath_prepend(str(package.parent))
        importlib.import_module(f"{name}.one_bit")
        return f"{name}.one_bit"

    yield make
    for name in [name for name in sys.modules if name.startswith("flat_plugin")]:
        sys.modules.pop(name)


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_files_find_each_other_and_need_nothing_else(kind):
    audio = {"name": "audio", "sample_rate": 8000, "dim": 16, "encoder": {"name": "seanet", "channels": 4}}
    tokenizer = image() if kind == "image" else build_tokenizer(audio, "rq")
    files = flatten(tokenizer, [MODEL, f"mmtok.export.hub.processing_{kind}"])
    followed = set()
    for name, text in files.items():
        ast.parse(text)
        # As transformers finds the files it brings.
        found = re.findall(r"^\s*from\s+\.(\S+)\s+import", text, flags=re.MULTILINE)
        assert {f"{other}.py" for other in found} <= files.keys(), name
        followed |= set(found) if name == "mmtok_parts.py" else set()
        for item in imports_of(text):
            for module in item.modules:
                # Of a repository, transformers asks for each that stands outside a try, wherever it stands.
                assert module.startswith(".") or item.guarded or module.split(".")[0] in SAFE, f"{name}: {module}"
    hub = {"mmtok_parts.py", "modeling_mmtok.py", "configuration_mmtok.py", f"processing_{kind}.py"}
    assert {f"{other}.py" for other in followed} == files.keys() - hub


def test_only_what_is_in_use_is_carried():
    names = flatten(image("fsq"), [MODEL]).keys()
    assert "mmtok_quantizers_fsq.py" in names
    assert not names & {"mmtok_quantizers_vq.py", "mmtok_networks_seanet.py", "mmtok_tokenizers_audio.py"}


def test_operators_of_a_bundle_do_not_replace_those_of_mmtok():
    # torch keeps operators by name: a second definition would take the place of the first, in compiled graphs too.
    text = flatten(image(), [MODEL])["mmtok_quantizers_search.py"]
    own = re.findall(r'custom_op\("(\w+)::nearest_code"', text)
    assert len(own) == 1
    assert own != ["mmtok"]
    assert f"torch.ops.{own[0]}.nearest_code" in text


def test_a_plugin_is_carried_too(plugin):
    plugin("flat_plugin_a")
    tokenizer = image({"name": "flat_plugin_a"})
    files = flatten(tokenizer, [MODEL])
    text = files["flat_plugin_a_one_bit.py"]
    assert "from .mmtok_quantizers_base import Quantizer\n" in text  # past the package, which imports all there is
    assert "from . import mmtok_quantizers_base as quantizer_base\n" in text
    assert "from .flat_plugin_a_signs import sign\n" in text


@pytest.mark.slow
def test_a_bundle_with_a_plugin_works_where_the_plugin_is_absent(plugin, tmp_path):
    pytest.importorskip("transformers")
    made = Provenance(plugins=(plugin("flat_plugin_d"),))
    assert verify(write_bundle(image({"name": "flat_plugin_d"}), tmp_path / "bundle", provenance=made)) == []


def test_a_plugin_that_needs_a_package_is_refused_by_its_line(plugin):
    plugin("flat_plugin_b", PLUGIN.replace("import torch\n", "import torch\nimport PIL\n", 1))
    with pytest.raises(ValueError, match=r"flat_plugin_b\.one_bit, line 8, imports PIL, which may be absent"):
        flatten(image({"name": "flat_plugin_b"}), [MODEL])


def test_a_name_that_only_a_package_has_is_refused(plugin):
    changed = PLUGIN.replace("import Quantized, ", "import build_quantizer, Quantized, ")
    plugin("flat_plugin_c", changed)
    with pytest.raises(ValueError, match=r"imports build_quantizer from mmtok\.quantizers"):
        flatten(image({"name": "flat_plugin_c"}), [MODEL])
