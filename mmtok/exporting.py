"""Whether a program is being exported: it runs where our operators, loops over chunks and autocast are not."""

from __future__ import annotations

import torch


def exporting() -> bool:
    """Whether `torch.export` is tracing, not strictly. `torch.compiler.is_exporting` is true in `torch.compile` too."""
    return torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling()
