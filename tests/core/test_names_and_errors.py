"""One line of an error, near misses, targets by name, and running code that may raise anything."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stabilitykit.base.errors import CellProblem, DataProblem, catching, describe
from stabilitykit.base.names import did_you_mean, imported


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no text either")


@given(st.text(st.characters(codec=None)), st.integers(1, 50))
def test_an_error_is_one_line_that_can_be_written(text, longest):
    for error in (ValueError(text), DataProblem(text)):
        line = describe(error, longest)
        assert len(line.splitlines()) <= 1 and 0 < len(line) <= longest
        line.encode()


def test_only_messages_for_users_stand_alone():
    assert describe(CellProblem("no pair of\nclasses")) == "no pair of classes"
    assert describe(KeyError("a")) == "KeyError: 'a'"
    assert describe(CellProblem("")) == "CellProblem"
    assert describe(Mute()) == "Mute"


def test_whatever_is_raised_is_caught_but_an_interruption():
    for error in (ValueError("x"), SystemExit(3), GeneratorExit(), type("Own", (BaseException,), {})()):
        with catching() as caught:
            raise error
        assert caught.error is error
    with catching() as caught:
        pass
    assert caught.error is None
    with pytest.raises(KeyboardInterrupt), catching():
        raise KeyboardInterrupt


def test_near_misses_are_offered_and_nothing_else():
    assert did_you_mean("resnet81", ["resnet18", "vgg"]) == " (did you mean resnet18?)"
    assert did_you_mean("zzz", ["resnet18"]) == ""
    assert did_you_mean("zzz", ["resnet18"], "see the list") == " (see the list)"


def test_targets_are_imported_with_dots():
    assert imported("sys:version_info.major") == sys.version_info.major
    with pytest.raises(AttributeError):
        imported("sys:nothing")
    with pytest.raises(ModuleNotFoundError):
        imported("no_such_module_at_all:x")
