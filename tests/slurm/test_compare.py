"""A comparison whose cells are tasks of an array on real daemons.

make test-slurm
"""

import json

import pytest

from mmtok.cli import main
from tests.slurm.lab import wait

pytestmark = pytest.mark.slurm


def test_the_cells_of_a_comparison_run_as_an_array_and_are_gathered(lab, submit, place, capsys):
    folder = place / "compared"
    words = ["compare", str(place / "recipe.yaml"), "data.workers=0", "-o", str(folder), "--measures", "cost"]
    over = ["--over", "quantizer.name=vq,fsq", "--ask", "cost.rounds=1"]
    assert main([*words, *over, "--slurm", str(place / "one_task.yaml")]) == 0
    cells = [folder / "cells" / name / "seed-0" for name in ("name=vq", "name=fsq")]

    def told():
        return "\n".join(path.read_text()[-2000:] for path in sorted(folder.rglob("*.out")))

    wait(lambda: all((cell / "measures" / "cost.json").is_file() for cell in cells), 400, "both cells", told)
    assert main(["compare", str(folder)]) == 0
    assert {row["arm"] for row in json.loads((folder / "results.json").read_text())["rows"]} == {"name=vq", "name=fsq"}
    assert "step_seconds" in capsys.readouterr().out
