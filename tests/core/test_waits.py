"""What people see while they wait, what a shell completes, and names of classes on the command line."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest

from stabilitykit.base.errors import UsageProblem
from stabilitykit.cli import progress, run
from stabilitykit.cli.class_names import read_class_names
from stabilitykit.cli.completion import complete
from stabilitykit.dynamics.dataset import Dataset
from stabilitykit.dynamics.renamed import Renamed


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(progress, "FIRST_SECONDS", 0.1)
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.5)


def until(capsys, text):
    """What stderr says, as soon as it says ``text``; after ten seconds whatever it says."""
    said, end = "", time.monotonic() + 10
    while text not in said and time.monotonic() < end:
        time.sleep(0.02)
        said += capsys.readouterr().err
    return said


def test_long_work_is_named_and_short_work_is_not(hasty, capsys):
    with progress.Announcer().running() as announcer:
        with announcer.waiting("short"):
            pass
        with announcer.waiting("long"):
            said = until(capsys, "long (")
    assert "long (" in said and "short" not in said


def test_quiet_is_quiet(hasty, capsys):
    with progress.Announcer().running() as announcer:
        announcer.quiet = True
        with announcer.waiting("long"):
            time.sleep(0.6)
        list(announcer.bar(range(3), "bar"))
    assert capsys.readouterr().err == ""


def test_outside_a_terminal_a_long_loop_says_how_far_it_is(hasty, capsys):
    with progress.Announcer().running() as announcer:
        for _ in announcer.bar(range(4), "images"):
            time.sleep(0.08)
    lines = capsys.readouterr().err.splitlines()
    assert lines and lines[0].startswith("images: ") and lines[0].endswith("/4") and len(lines) < 4


def test_plugin_code_is_named_by_the_task_it_runs_in(hasty, capsys):
    from stabilitykit.base.progress import displayed_by
    from stabilitykit.base.watch import task

    named = task("cell", "slug", "property slow of somebody 1.0")
    with progress.Announcer().running() as announcer, displayed_by(announcer), named:
        said = until(capsys, "somebody")
    assert "measuring property slow of somebody 1.0" in said


def test_compiling_is_named_once(monkeypatch, capsys):
    import numba

    from stabilitykit.search import jit

    monkeypatch.setattr(jit.NOTE, "noted", False)
    with progress.Announcer().running():
        numba.njit(lambda x: x + 1)(1)
        numba.njit(lambda x: x + 2)(1)
    assert capsys.readouterr().err.count("compiling the searches (numba") == 1


def completed(kind, typed):
    return [item.value for item in complete(kind)(None, None, typed)]


def test_names_options_and_values_are_completed():
    assert completed("dataset", "dig") == ["digits"]
    assert "digits:split=" in completed("dataset", "digits:")
    assert completed("dataset", "digits:split=t") == ["digits:split=train", "digits:split=test"]
    assert completed("dataset", "digits:split=test,ch") == ["digits:split=test,channels="]
    assert completed("model", "nothing:") == []
    assert {"expansivity", "shadowing"} <= set(completed("property", ""))


def test_completion_imports_no_torch():
    code = (
        "import sys; from stabilitykit.cli.completion import complete;"
        "assert complete('model')(None, None, 'res'); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "False"


def test_class_names_from_a_list_and_from_a_file(tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("\ufeffape\nbee, the\n\n", encoding="utf-8")
    assert read_class_names("ape, bee") == ["ape", "bee"]
    assert read_class_names(str(file)) == ["ape", "bee, the"]
    assert read_class_names(None) is None


@pytest.mark.parametrize(
    ("given", "said"),
    [("ape", "no file, and no list"), ("ape,,bee", "name 2 is empty"), ("ape,ape", "twice"), ("a" * 5000, "no file")],
)
def test_class_names_that_are_none(given, said):
    with pytest.raises(UsageProblem, match=said):
        read_class_names(given)


def test_class_names_are_refused_before_anything_heavy(capsys):
    assert run(["evaluate", "--class-names", "one"]) == 2
    assert "no file, and no list" in capsys.readouterr().err


class Two(Dataset):
    name = "two"
    labels = np.array([0, 1])
    class_names = ("0", "1")

    def __len__(self):
        return 2

    def images(self, indices):
        return [np.zeros((1, 2, 2), np.float32) for _ in indices]

    def fingerprint(self):
        return "two"


def test_a_renamed_dataset_is_the_dataset_under_other_names():
    renamed = Renamed(Two(), ["ape", "bee"])
    assert list(renamed.class_names) == ["ape", "bee"] and renamed.fingerprint() == "two" and len(renamed) == 2
    with pytest.raises(UsageProblem, match="3 class names were given, dataset two has 2"):
        Renamed(Two(), ["a", "b", "c"])


@pytest.mark.parametrize("given", ["0.485,0.456,0.406/0.229,0.224,0.225", "(0.485, 0.456, 0.406)/(0.229,0.224,0.225)"])
def test_normalise_takes_commas(given):
    from stabilitykit_adapters.statistics import STATISTICS, statistics

    assert statistics(given, None, None, "x") == STATISTICS["imagenet"]
