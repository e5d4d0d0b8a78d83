"""The list of mutants of `benchmarks/mutations.py` fits the code, and its runner tells killed from survived."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

ASKED = """
import sys
sys.path.insert(0, ".")
from benchmarks.mutants import MUTANTS
from benchmarks.mutations import problems
print(len(MUTANTS), sum(bool(m.equivalent) for m in MUTANTS))
print("\\n".join(problems(MUTANTS)))
"""


def test_every_mutant_changes_one_place_and_names_tests_that_are_there():
    done = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    count, wrong = done.stdout.split("\n", 1)
    total, equivalent = map(int, count.split())
    assert not wrong.strip(), wrong
    assert total >= 80 and equivalent < total / 10
