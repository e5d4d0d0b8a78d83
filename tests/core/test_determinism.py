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


SWITCHES = """
import os, random, numpy, torch
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
from stabilitykit.machine.determinism import make_deterministic

def drawn(seed):
    make_deterministic(seed)
    return random.random(), numpy.random.random(), float(torch.rand(1))

first, other, again = drawn(3), drawn(4), drawn(3)
assert first == again and all(a != b for a, b in zip(first, other))
drawn(2**63 - 1)
assert not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32
assert not torch.backends.cudnn.benchmark and os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
"""


def test_every_generator_is_seeded_and_nothing_is_rounded_for_speed():
    subprocess.run([sys.executable, "-c", SWITCHES], check=True, timeout=120)
