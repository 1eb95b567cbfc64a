"""One implementation of a codec in a process of its own, which is told when to encode and when to decode.

Run by `benchmarks.audio`, for published packages with the Python of their environment, where mmtok is not. It takes a
line a request on its input, "encode" or "decode", and answers each with the seconds it took. Weights are random: the
same for mmtok and transformers, the packages' own for them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch

Coder = tuple[Callable[[torch.Tensor], Any], Callable[[Any], torch.Tensor], str]


def ours(codec: str, form: str) -> Coder:
    """mmtok in one of its forms, or the model of transformers with the same weights."""
    from benchmarks.copies import copied
    from mmtok.networks.weight_norm import fold_weight_norm

    pair = copied(codec)
    if form == "transformers":
        return pair.encode, pair.decode, f"transformers {version('transformers')}"
    forms = {
        "as loaded": lambda: pair.ours,
        "folded": lambda: fold_weight_norm(pair.ours),
        "optimize()": pair.ours.optimize,
        "optimize(compile=True)": lambda: pair.ours.optimize(compile=True),
    }
    tokenizer = forms[form.removeprefix("mmtok ")]()
    return tokenizer.encode, tokenizer.decode, "mmtok"


def encodec_24k() -> Coder:
    """All 32 levels, 24 kb/s."""
    from encodec import EncodecModel

    model = EncodecModel.encodec_model_24khz(pretrained=False).eval()
    model.set_target_bandwidth(24.0)
    return model.encode, model.decode, f"encodec {version('encodec')}"


def dac_16k() -> Coder:
    """All 12 levels, 6 kb/s."""
    from dac import DAC

    model = DAC(encoder_rates=[2, 4, 5, 8], decoder_rates=[8, 5, 4, 2], n_codebooks=12, sample_rate=16000).eval()

    def decode(ids: torch.Tensor) -> torch.Tensor:
        return model.decode(model.quantizer.from_codes(ids)[0])

    return lambda x: model.encode(x)[1], decode, f"descript-audio-codec {version('descript-audio-codec')}"


def main() -> None:
    side, codec, samples, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(threads)
    # Of one thread: the seconds it had a core, which are the clock's where nothing else runs, and do not count waits.
    clock = time.process_time if threads == 1 else time.perf_counter
    torch.manual_seed(0)
    with torch.inference_mode():
        packages = {"encodec": encodec_24k, "descript-audio-codec": dac_16k}
        encode, decode, name = packages[side]() if side in packages else ours(codec, side)
        x = (0.3 * torch.randn(1, 1, samples)).clamp(-1, 1)
        codes = encode(x)
        decode(codes)
        print(json.dumps({"name": name, "torch": torch.__version__}), flush=True)
        for line in sys.stdin:
            began = clock()
            if line.strip() == "encode":
                encode(x)
            else:
                decode(codes)
            print(json.dumps(clock() - began), flush=True)


if __name__ == "__main__":
    main()
