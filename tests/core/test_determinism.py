"""Deterministic algorithms are asked for without importing torch's compiler, which learns of it when it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

ASKED = """
import sys, torch
{before}
from stabilitykit.machine.determinism import make_deterministic
make_deterministic(3)
assert torch.are_deterministic_algorithms_enabled() and torch.is_deterministic_algorithms_warn_only_enabled()
assert {loaded} == ("torch._dynamo" in sys.modules)
import torch._inductor.config
assert torch._inductor.config.deterministic
"""


@pytest.mark.parametrize("before, loaded", [("", False), ("import torch._inductor.config", True)])
def test_compiler_is_told_and_not_imported(before, loaded):
    subprocess.run([sys.executable, "-c", ASKED.format(before=before, loaded=loaded)], check=True, timeout=120)
