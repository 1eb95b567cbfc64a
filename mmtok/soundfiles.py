"""What the first bytes of a sound file promise; for what reads sounds for training, and for use."""

from __future__ import annotations

from typing import Literal

HEAD = 8
"""Bytes of a file that `cut_short` looks at."""


def cut_short(head: bytes, size: int) -> str:
    """What is wrong with the length of a WAV or AIFF; nothing where it has as many bytes as its header says.

    libsndfile takes one that was cut for a shorter sound, without a word.

    Args:
        head: the first `HEAD` bytes of the file.
        size: bytes of all of it.
    """
    order: dict[bytes, Literal["little", "big"]] = {b"RIFF": "little", b"FORM": "big"}
    if len(head) < HEAD or head[:4] not in order:
        return ""
    promised = int.from_bytes(head[4:HEAD], order[head[:4]]) + HEAD
    # Writers that could not seek back leave a number of 2 GiB and more; a missing byte of padding is common.
    return f"cut short: {size:,} of {promised:,} bytes are there" if size + 1 < promised < 1 << 31 else ""
