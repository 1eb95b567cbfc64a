"""One rank of two that train, are told to stop by signals to one of them, and go on. See test_preemption.py.

All in one pair of processes, because starting them is what takes the time.
"""

import json
import os
import signal
import sys
from pathlib import Path

from benchmarks.ddp import tree
from mmtok.config import parse_config
from mmtok.training.callbacks.preemption import Preempted
from mmtok.training.module import TokenizerModule
from mmtok.training.run import train

STEPS = 20
STOPS = ((7, 1, signal.SIGUSR1), (12, 0, signal.SIGTERM))
"""(update, rank, signal that it alone gets in the middle of that update)."""


def main(out: Path) -> None:
    plain = tree("vq", 2, out, STEPS) | {"run_dir": str(out / "straight")}
    plain["trainer"] |= {"agree_every": 5}
    plain["data"] |= {"workers": 1}
    train(parse_config(plain), say=lambda line: None)

    stops = list(STOPS)
    update = TokenizerModule._update

    def signalled(module: TokenizerModule, *args) -> None:
        if stops and (module.trainer.global_step, module.global_rank) == stops[0][:2]:
            os.kill(os.getpid(), stops[0][2])
        update(module, *args)

    TokenizerModule._update = signalled
    seen = []
    config = parse_config(plain | {"run_dir": str(out / "stopped")})
    for _ in STOPS:
        try:
            train(config, say=lambda line: None)
        except Preempted as stop:
            sentinel = out / "stopped" / "REQUEUE"
            seen.append([stop.step, stop.cause, int(sentinel.read_text())])
        stops.pop(0)
    train(config, say=lambda line: None)
    (out / f"seen-{os.environ.get('LOCAL_RANK', '0')}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
