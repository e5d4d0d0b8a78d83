"""Hostile input ends in one line and an exit code; hypothesis chooses, benchmarks/fuzz.py runs thousands on demand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.fuzz import fuzz, try_input
from benchmarks.fuzz_bench import Bench
from benchmarks.fuzz_inputs import FAMILIES
from stabilitykit.cli import run
from stabilitykit.runs.folder import load_run


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    import os

    before, cache = os.getcwd(), os.environ.get("STABILITYKIT_CACHE", "")
    yield Bench(tmp_path_factory.mktemp("fuzz"))
    os.chdir(before)
    os.environ["STABILITYKIT_CACHE"] = cache
    del os.environ["STABILITYKIT_CANARY"]


@pytest.mark.parametrize("family", FAMILIES)
def test_family(bench, family):
    tally = fuzz([family], 10, 2026, bench)[family]
    assert not tally.broken, "\n".join(tally.broken)
    assert sum(tally.codes.values()) == 10


NUMBERS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True, width=64),
    st.sampled_from([0.0, -0.0, 1.0, 5e-324, 1e-308, 1e308, -1e308, float("nan"), float("inf")]),
)


@st.composite
def recordings(draw):
    """values (T+1, N, K) of any floats and labels of any layout: one class, missing classes, one image per class."""
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 3)))
    common = draw(st.booleans())  # mostly ordinary numbers with one odd one among them
    values = np.array(
        [
            [[draw(st.floats(-3, 3)) if common else draw(NUMBERS) for _ in range(shape[2])] for _ in range(shape[1])]
            for _ in range(shape[0])
        ]
    )
    if common and draw(st.booleans()):
        values.flat[draw(st.integers(0, values.size - 1))] = draw(NUMBERS)
    labels = np.array(draw(st.lists(st.integers(-1, 5), min_size=shape[1], max_size=shape[1])))
    return values, labels


@settings(max_examples=12, deadline=None)
@given(recordings(), st.sampled_from(["expansivity", "shadowing"]), st.sampled_from(["logits", "probabilities"]))
def test_any_trajectory_gives_a_number_that_stands_or_a_reason(bench, recording, name, space):
    values, labels = recording
    folder = bench.fresh()
    np.savez(folder / "t.npz", values=values, labels=labels)
    outcome = try_input(
        [
            "evaluate",
            "-t",
            str(folder / "t.npz"),
            "-p",
            name,
            "--space",
            space,
            "-q",
            "--no-cache",
            "-o",
            str(folder / "run"),
        ],
        bench,
        must_fail=not np.isfinite(values).all(),
    )
    assert not outcome.broken, outcome.broken + outcome.text
    if outcome.code == 0:
        for cell in load_run(folder / "run")[1]:
            for m in cell.result.measurements:
                assert m.value is None or not np.isnan(m.value)
                assert m.recheck is None or m.recheck <= 1e-9 * max(abs(m.value), 1e-300), m


def test_the_harness_notices_executed_code(bench, monkeypatch):
    """A fuzzer that cannot fail proves nothing: a canary, a traceback and an odd exit code are seen."""
    import stabilitykit.cli

    bench.canary.write_text("")
    assert "EXECUTED" in try_input(["models", "list"], bench).broken
    assert not try_input(["models", "list"], bench).broken
    monkeypatch.setattr(stabilitykit.cli, "run", lambda arguments: 7)
    assert "exit code 7" in try_input(["models", "list"], bench).broken
    monkeypatch.setattr(stabilitykit.cli, "run", lambda arguments: 1 // 0)
    assert "ZeroDivisionError" in try_input(["models", "list"], bench).broken
    monkeypatch.setattr(stabilitykit.cli, "run", lambda arguments: 0)
    assert "exit 0" in try_input(["models", "list"], bench, must_fail=True).broken


def test_unexpected_errors_are_one_line(monkeypatch, capsys):
    """What nobody foresaw is called a bug in one line, with the way to see more."""
    import stabilitykit.plugins.registry

    def surprise(*_, **__):
        raise KeyError("surprise")

    monkeypatch.setattr(stabilitykit.plugins.registry.Registry, "load", surprise)
    assert run(["models", "list"]) == 1
    assert "internal error: KeyError" in capsys.readouterr().err
    monkeypatch.setenv("STABILITYKIT_DEBUG", "1")
    with pytest.raises(KeyError):
        run(["models", "list"])
