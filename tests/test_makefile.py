"""Targets of the Makefile that must not need what they are there to make."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_lock_makes_the_tool_it_needs_without_the_packages_of_an_older_lock(tmp_path):
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    said = subprocess.run(["make", "-n", "lock"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert said.index("-m venv .venv") < said.index("pip install --quiet --disable-pip-version-check uv")
    assert said.index("check uv") < said.index("uv pip compile pyproject.toml")
