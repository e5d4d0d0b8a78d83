"""The reference table: its shape, and the place of a value in it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stabilitykit.base.results import Kind
from stabilitykit.reporting.reference import Reference, markdown, place_of, reference_table


def row(value, network="a", n=10, readout="head", constant="c", kind=Kind.EXACT):
    return Reference(network, "", "data", n, readout, "probabilities", constant, value, kind, "unit")


def place(table, value, kind=Kind.EXACT):
    return place_of("c", value, kind, n=10, readout="head", space="probabilities", table=table)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=8), st.integers(0, 20))
def test_neighbours_are_the_nearest_on_either_side(values, value):
    found = place([row(float(v)) for v in values], float(value))
    smaller, larger = [v for v in values if v < value], [v for v in values if v > value]
    assert (found.below and found.below.value) == (max(smaller) if smaller else None)
    assert (found.above and found.above.value) == (min(larger) if larger else None)
    assert found.count == len(values)


def test_only_comparable_rows_count():
    others = [row(1.0, n=11), row(1.0, readout="probe"), row(1.0, constant="d")]
    assert place(others, 2.0) is None
    bounds = [row(1.0, kind=Kind.UPPER), row(3.0, kind=Kind.LOWER)]
    assert place(bounds, 2.0, Kind.LOWER).below is None and place(bounds, 2.0, Kind.LOWER).above.value == 3.0
    assert place(bounds, 2.0, Kind.UPPER).above is None and place(bounds, 2.0).count == 2


def test_the_sentence():
    both = place([row(1.0, "low"), row(3.0, "high")], 2.0).sentence
    assert both == "Of 2 reference networks with N = 10 and head readouts: above low (data, 1), below high (data, 3)."
    assert place([row(2.0)], 2.0).sentence.endswith("readouts: equal to all.")


def test_the_table_that_ships():
    table = reference_table()
    keys = [(r.network, r.n, r.constant) for r in table]
    assert len(set(keys)) == len(keys)
    assert {"resnet18-digits", "resnet18 untrained", "ResNet-20"} <= {r.network for r in table}
    assert all(r.value >= 0 and r.n > 0 and r.unit and r.readout == "head" for r in table)
    exact = {(r.network, r.n): r.value for r in table if r.constant == "Sh_exact"}
    for r in table:
        if r.constant == "Sh_profile":
            assert r.value >= exact[r.network, r.n] * (1 - 1e-12)  # a family is a part of all orbits


def test_the_documentation_shows_the_table_that_ships():
    """When this fails: put the table of benchmarks/results/reference.md into docs/numbers.md."""
    text = (Path(__file__).parents[2] / "docs" / "numbers.md").read_text(encoding="utf-8")
    assert markdown(reference_table()) in text


@pytest.fixture(scope="module")
def embedded():
    import stabilitykit

    run = stabilitykit.evaluate("resnet18-digits", "digits", ["expansivity:nearest=never,curve=0"])
    return [m for cell in run.cells for m in cell.result.measurements]


def test_the_embedded_row_is_what_a_run_gives(embedded):
    rows = {r.constant: r for r in reference_table() if r.network == "resnet18-digits"}
    compared = [m for m in embedded if m.name in rows]
    assert len(compared) == 8
    for m in compared:
        assert (rows[m.name].n, rows[m.name].kind) == (m.n, m.kind)
        assert rows[m.name].value == pytest.approx(m.value, rel=1e-3)
