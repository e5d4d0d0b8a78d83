"""A model whose building changes the process is measured in the process that it changed: a fresh one would be, too."""

from __future__ import annotations

import sys

import pytest

import stabilitykit
from stabilitykit.base.watch import Watch, watched_by

CODE = """
import sys
sys.path.insert(0, {folder!r})
from torch import nn
def build():
    return nn.Sequential(nn.Flatten(), *(nn.Linear(192, 192) for _ in range(3)), nn.Linear(192, 3))
"""


class Gone(BaseException):
    """A worker that gave up."""


class Worker(Watch):
    def give_up(self, culprit, why, plugin=""):
        raise Gone(f"{culprit} changed {why}")


def test_a_module_that_changes_the_import_path_whenever_it_is_imported(tmp_path, monkeypatch):
    """The folder stands in the path already: putting it in front of the others changes their order."""
    names = ("changing_one", "changing_two")
    for name in names:
        (tmp_path / f"{name}.py").write_text(CODE.format(folder=str(tmp_path)))
    monkeypatch.chdir(tmp_path)
    models = [f"module:{name}:build,input=3x8x8,num_classes=3,resize=true" for name in names]

    def measured(models, finished):
        monkeypatch.setattr(sys, "path", [*(p for p in sys.path if p != str(tmp_path)), str(tmp_path)])
        for name in names:
            sys.modules.pop(name, None)
        with watched_by(Worker()):
            stabilitykit.evaluate(
                models,
                "digits",
                ["expansivity", "window"],
                readout="probe",
                limit=12,
                any_classes=True,
                cache=False,
                on_cell=finished.append,
            )

    finished: list = []
    with pytest.raises(Gone, match=r"building .*changing_one.* changed the import path"):
        measured(models, finished)
    assert [cell.ok for cell in finished] == [True, True]  # those of the first, before a fresh process is asked for
    measured(models[1], finished)  # alone: nothing is left that a fresh process could save
    assert [cell.ok for cell in finished] == [True] * 4
