"""The example of training with a penalty, in small."""

from __future__ import annotations

import importlib.util
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "lipschitz_training.py"


def test_the_penalty_lowers_the_constant_of_a_net_that_learns(capsys):
    spec = importlib.util.spec_from_file_location("lipschitz_training", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rows = module.main(["--epochs", "6", "--seeds", "1", "--weights", "0", "0.03"])
    (_, plain), (_, penalised) = rows
    assert "| 0.03 | " in capsys.readouterr().out
    assert penalised[0, 1] < 0.6 * plain[0, 1]
    assert penalised[0, 0] > 80 and penalised[0, 0] > plain[0, 0] - 5
    assert penalised[0, 2] > plain[0, 2]
