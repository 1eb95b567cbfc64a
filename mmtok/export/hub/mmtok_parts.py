"""All that can be built. A bundle has a file of this name that imports what its tokenizer needs, and no more."""

import mmtok.networks
import mmtok.quantizers
import mmtok.tokenizers  # noqa: F401, these packages register their names
from mmtok.tokenizers.exported import build_exported

__all__ = ["build_exported"]
