"""What decodes to no number is no signal: rounded to a picture it would be grey, and have a plausible error."""

from __future__ import annotations

from torch import Tensor


def require_finite(y: Tensor, who: str = "the tokenizer") -> Tensor:
    """The signals y, as they came.

    Args:
        y: what decoding gave, floats of any shape.
        who: decoded.

    Raises:
        ValueError: some are NaN or infinite.
    """
    if not bool(y.isfinite().all()):
        wrong = int((~y.isfinite()).sum())
        raise ValueError(
            f"{who}: decode gave values that are not finite, {wrong:,} of {y.numel():,}. Nothing can be measured of "
            "them: look at its weights, and at what it divides by."
        )
    return y
