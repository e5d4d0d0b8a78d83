"""Options are parsed and checked; specs are read the way people type them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stabilitykit import Component, Option, PluginProblem, UsageProblem
from stabilitykit.plugins.component import words_of
from stabilitykit.plugins.loading import PluginHost
from stabilitykit.plugins.registry import Registry

COMPONENT = Component(
    "model",
    "net",
    "collections:OrderedDict",
    "a net",
    options=(
        Option("name", "str", None),
        Option("width", "int", 4, minimum=1, maximum=99),
        Option("rate", "float", 0.5),
        Option("flag", "bool", False),
        Option("depths", "ints", (2, 2)),
        Option("mode", "str", "a", choices=("a", "b")),
        Option("formats", "str", "bf16", words=("bf16", "fp16", "int8")),
    ),
    primary="name",
    distribution="dist-one",
    version="1.0",
)


def registry(*components):
    return Registry(PluginHost(components=list(components)))


@pytest.mark.parametrize(
    "text, expected",
    [
        ("net", {}),
        ("net:vit", {"name": "vit"}),
        ("net:pkg.mod:build", {"name": "pkg.mod:build"}),
        ("net:vit,width=7", {"name": "vit", "width": 7}),
        ("net:width=7,flag=yes", {"width": 7, "flag": True}),
        ("net:depths=3-4-6-3,mode=b", {"depths": (3, 4, 6, 3), "mode": "b"}),
        ("net:/a,b/c d,rate=1e-3", {"name": "/a,b/c d", "rate": 1e-3}),
        ("dist-one:net:vit,flag=off", {"name": "vit", "flag": False}),
    ],
)
def test_specs(text, expected):
    spec = registry(COMPONENT).resolve("model", text)
    defaults = {o.name: o.default for o in COMPONENT.options}
    assert spec.options == defaults | expected


@pytest.mark.parametrize(
    "text, message",
    [
        ("nett", "did you mean net"),
        ("zzz", "models list"),
        ("net:widht=3", "did you mean width"),
        ("net:width=x", "expects int"),
        ("net:width=0", "lies in"),
        ("net:width=2.5", "expects int"),
        ("net:flag=maybe", "expects bool"),
        ("net:mode=c", "one of a, b"),
        ("net:rate=nan", "NaN"),
    ],
)
def test_bad_specs_say_what_to_do(text, message):
    with pytest.raises(UsageProblem, match=message):
        registry(COMPONENT).resolve("model", text)


def test_clash_names_both_and_can_be_settled():
    other = Component("model", "net", "json:loads", "another", distribution="dist-two", version="2.0")
    both = registry(COMPONENT, other)
    with pytest.raises(PluginProblem, match=r"dist-one 1\.0 and dist-two 2\.0.*dist-two:net"):
        both.resolve("model", "net")
    assert both.resolve("model", "dist-two:net").component.target == "json:loads"
    assert both.clashes() == [("model", "net", ["dist-one 1.0", "dist-two 2.0"])]


def test_mapping_form():
    spec = registry(COMPONENT).resolve("model", {"name": "net", "options": {"name": "a,b=c", "width": 3}})
    assert spec.options["name"] == "a,b=c" and spec.options["width"] == 3
    with pytest.raises(UsageProblem):
        registry(COMPONENT).resolve("model", {"nam": "net"})


def test_required_option():
    need = Component("dataset", "d", "json:loads", "", options=(Option("path", "path", required=True),), primary="path")
    with pytest.raises(UsageProblem, match="path is required"):
        registry(need).resolve("dataset", "d")


@given(st.text(max_size=40))
def test_any_text_is_a_spec_or_one_clear_error(text):
    try:
        registry(COMPONENT).resolve("model", text)
    except UsageProblem as error:
        assert str(error)


@given(
    st.sampled_from(COMPONENT.options),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.lists(st.integers(), max_size=3),
)
def test_any_value_parses_or_is_refused(option, value):
    try:
        option.parse(value, "owner")
    except UsageProblem as error:
        assert "owner" in str(error)


def test_broken_target_names_the_distribution():
    broken = Component("model", "x", "stabilitykit_no_such_module:thing", "", distribution="culprit", version="9")
    with pytest.raises(PluginProblem, match="culprit 9"):
        broken.load()


@given(st.lists(st.sampled_from(["bf16", "fp16", "int8"]), min_size=1, max_size=6), st.sampled_from(["+", " ", " + "]))
def test_lists_of_words_are_read_once_each_in_their_order(words, between):
    found = words_of(between.join(words), ("bf16", "fp16", "int8"), "net")
    assert found == list(dict.fromkeys(words))
    assert COMPONENT.option_values({"formats": between.join(words)})["formats"] == between.join(words)


@pytest.mark.parametrize(
    "text, message",
    [
        ("bf16+int9", r"model net: option formats: unknown 'int9' \(did you mean int8"),
        ("+", "model net: option formats: one or more of bf16, fp16, int8"),
    ],
)
def test_words_that_are_none_of_a_list_are_refused_before_anything_runs(text, message):
    with pytest.raises(UsageProblem, match=message):
        COMPONENT.option_values({"formats": text})
