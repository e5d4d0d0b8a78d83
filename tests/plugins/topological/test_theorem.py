import itertools
import re
from dataclasses import replace

import pytest
from stabilitykit_topological import stabilitykit_properties
from stabilitykit_topological.contradictions import contradictions
from stabilitykit_topological.earlier_results import lipschitz_of
from stabilitykit_topological.table2 import Table2
from stabilitykit_topological.theorem import Topological, quotient

from stabilitykit import CellProblem, Kind, Measurement, PropertyResult, Table
from stabilitykit.testing.fixtures import tiny_context
from stabilitykit.testing.property import check_property


def measured(name, value, kind=Kind.ESTIMATE, **more):
    return Measurement(name, value, kind, 24, reference="test", **more)


def results(sh=2.0, sh_kind=Kind.ESTIMATE, lip=4.0, lip_kind=Kind.UPPER, probabilities=True):
    shadowing = [
        measured(name, sh, sh_kind, witness={"eps": 0.1, "delta": 0.2})
        for name in ("Sh_profile", "Sh_paper", "Sh_best")
    ]
    shadowing.append(measured("Sh_exact", sh / 4, Kind.EXACT, witness={"eps": 0.1, "delta": 0.05}))
    lipschitz = [measured("lipschitz", lip, lip_kind)]
    if probabilities:
        lipschitz.append(measured("lipschitz.probabilities", lip / 2, lip_kind))
    expansivity = [measured(f"expansive_constant.{name}", 0.01, Kind.UPPER) for name in ("min", "max", "mean")]
    return {
        "shadowing": PropertyResult(shadowing),
        "lipschitz": PropertyResult(lipschitz),
        "expansivity": PropertyResult(expansivity, {"t": Table(["a"], [[1]])}, [3, 4]),
    }


@pytest.mark.parametrize("sh_kind, lip_kind", list(itertools.product(Kind, Kind)))
def test_kinds_propagate(sh_kind, lip_kind):
    made = quotient("T_g", measured("Sh", 1.5, sh_kind), measured("lipschitz", 3.0, lip_kind), 10)
    assert made.value == 0.5 and made.note
    if Kind.ESTIMATE in (sh_kind, lip_kind):
        expected = Kind.ESTIMATE
    elif sh_kind == lip_kind == Kind.EXACT:
        expected = Kind.EXACT
    elif sh_kind in (Kind.LOWER, Kind.EXACT) and lip_kind in (Kind.UPPER, Kind.EXACT):
        expected = Kind.LOWER
    elif sh_kind in (Kind.UPPER, Kind.EXACT) and lip_kind in (Kind.LOWER, Kind.EXACT):
        expected = Kind.UPPER
    else:
        expected = Kind.ESTIMATE
    assert made.kind == expected


def test_the_unit_is_the_inverse_of_lips():
    lip = replace(measured("lipschitz", 3.0), unit="logit (l2) per l2 of the state")
    assert quotient("T_g", measured("Sh", 1.5), lip, 10).unit == "l2 of the state per logit (l2)"


def test_direction_is_said_when_there_is_no_certificate():
    made = quotient("T_g", measured("Sh", 1.0, Kind.LOWER), measured("lipschitz", 3.0, Kind.LOWER), 10)
    assert made.kind == Kind.ESTIMATE and "no certified upper bound" in made.note


@pytest.mark.parametrize(
    "sh, lip, reason",
    [
        (measured("Sh", None, note="every orbit is traced exactly"), measured("lipschitz", 1.0), "traced exactly"),
        (measured("Sh", 1.0), measured("lipschitz", None, note="refused"), "refused"),
        (measured("Sh", 1.0), None, "Lip.g. is undefined"),
        (None, measured("lipschitz", 1.0), "Sh is undefined"),
        (measured("Sh", 1.0), measured("lipschitz", 0.0, Kind.UPPER), "g is constant"),
    ],
)
def test_undefined_quotients_say_why(sh, lip, reason):
    made = quotient("T_g", sh, lip, 10)
    assert made.value is None
    assert re.search(reason, made.note)


def test_the_space_of_the_distances_decides_which_lip_divides():
    probabilities = Topological().evaluate(tiny_context(results=results()))
    assert probabilities["T_g.profile"].value == 2.0 / 2.0
    assert probabilities["T_g.paper"].value == 2.0 / 4.0
    assert probabilities["T_g.profile"].kind == Kind.ESTIMATE
    logits = Topological().evaluate(tiny_context(results=results(), space="logits"))
    assert logits["T_g.profile"].value == 2.0 / 4.0


def test_the_headline_is_a_lower_bound_from_exact_shadowing_and_a_certified_lip():
    result = Topological().evaluate(tiny_context(results=results()))
    headline = result.measurements[0]
    assert headline.name == "T_g.lower" and headline.value == (2.0 / 4) / 2.0 and headline.kind == Kind.LOWER
    assert "restricted to the sample, at eps = 0.1" in headline.note
    realised = Topological().evaluate(tiny_context(results=results(lip_kind=Kind.LOWER)))
    assert realised["T_g.lower"].kind != Kind.LOWER
    bracket = results()
    bracket["shadowing"].measurements[-1] = measured("Sh_exact", 0.25, Kind.LOWER, interval=(0.25, 0.5))
    undecided = Topological().evaluate(tiny_context(results=bracket))
    assert undecided["T_g.lower"].kind == Kind.LOWER and undecided["T_g.lower"].value == 0.125
    assert "at least 4 times" in undecided["T_g.profile"].note


def test_the_papers_reading_says_how_far_its_family_overstates():
    result = Topological().evaluate(tiny_context(results=results()))
    for name, sh in (("T_g.profile", "Sh_profile"), ("T_g.paper", "Sh_paper")):
        assert f"{sh} is 4 times Sh_exact" in result[name].note
    assert [m.name for m in result.measurements] == ["T_g.lower", "T_g.profile", "T_g.paper"]
    assert any("bounded" in note for note in result.notes)


def test_without_the_exact_value_there_is_no_bound():
    given = results()
    given["shadowing"].measurements.pop()
    result = Topological().evaluate(tiny_context(results=given))
    assert result["T_g.lower"].value is None and "exact=true" in result["T_g.lower"].note
    assert result["T_g.profile"].value == 1.0


def test_a_run_that_holds_the_former_quotient_is_recomputed():
    context = tiny_context(results=results())
    result = Topological().evaluate(context)
    assert "T_g.best" not in Topological().verify(context, result)
    result.measurements.append(measured("T_g.best", 1.0))
    assert Topological().verify(context, result)["T_g.best"] == 1.0


@pytest.mark.parametrize("direct, warned", [(0.1, True), (0.25, False), (5.0, False), (None, False)])
def test_a_lower_bound_above_what_was_measured_is_warned_of(direct, warned):
    theorem = Topological().evaluate(tiny_context(results=results()))
    found = contradictions(theorem, PropertyResult([measured("T_g.direct", direct)]))
    assert len(found) == warned
    if warned:  # an estimate claims nothing that could be contradicted
        assert found[0].startswith("T_g.lower = 0.25 ") and "0.1" in found[0]


def test_half_of_an_upper_bound_serves_where_probabilities_are_missing():
    upper = results(probabilities=False)["lipschitz"]
    assert lipschitz_of(upper, "probabilities").value == 2.0
    lower = results(probabilities=False, lip_kind=Kind.LOWER)["lipschitz"]
    assert lipschitz_of(lower, "probabilities") is None


def test_contracts():
    for build in (Topological, Table2):
        given = results()
        given["topological"] = Topological().evaluate(tiny_context(results=given))
        assert [c for c in check_property(build, results=given) if not c.ok] == []


def test_missing_needs_are_named():
    with pytest.raises(CellProblem, match="property shadowing"):
        Topological().evaluate(tiny_context())
    with pytest.raises(CellProblem, match="no column"):
        Table2().evaluate(tiny_context())


def test_table2_copies_numbers_with_their_kinds():
    given = results()
    given["topological"] = Topological().evaluate(tiny_context(results=given))
    result = Table2().evaluate(tiny_context(results=given))
    assert result["expansive_constant.min"].kind == Kind.UPPER
    assert result["Sh_paper"].value == 2.0 and result["lipschitz"].value == 4.0 and result["T_g.paper"].value == 0.5
    printed = [row for row in result.tables["table2"].rows if row[1] == "yes"]
    assert [row[0] for row in printed] == ["g-expansive", "g-shadowing", "Lip(g)", "topological g-stable"]
    assert printed[1][4:6] == [0.1, 0.2]


def test_table2_leaves_failed_columns_out_and_says_so():
    result = Table2().evaluate(tiny_context(results={"expansivity": results()["expansivity"]}))
    assert [m.name for m in result.measurements] == [f"expansive_constant.{k}" for k in ("min", "max", "mean")]
    assert any("Lip(g)" in note for note in result.notes)


def test_components_name_what_exists():
    for component in stabilitykit_properties():
        assert component.load()(**component.option_values({})).name == component.name
        assert tuple(getattr(component.load(), "needs", ())) == tuple(component.needs)
