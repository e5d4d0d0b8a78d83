"""torch and torchvision built for different versions are refused with the cure, without importing torchvision."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stabilitykit.base.errors import UsageProblem
from stabilitykit.machine.device import check_torch_pair

LIBRARY = "_C_stable.so"


def torchvision_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A torchvision of the test's own, found before the installed one."""
    package = folder / "torchvision"
    package.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    (package / "__init__.py").write_text("")
    return package


@pytest.mark.parametrize("library", ["_C_stable.so", "_C.so"])
def test_library_that_does_not_load_is_refused(tmp_path, monkeypatch, library):
    (torchvision_in(tmp_path, monkeypatch) / library).write_bytes(b"built for another torch")
    with pytest.raises(UsageProblem, match=r"do not work together .*; install the pair"):
        check_torch_pair()


def test_without_a_library_torchvision_is_imported(tmp_path, monkeypatch):
    package = torchvision_in(tmp_path, monkeypatch)
    (package / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    with pytest.raises(UsageProblem, match=r"nms does not exist.*; install the pair"):
        check_torch_pair()


def test_absent_torchvision_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(UsageProblem, match="install the pair"):
        check_torch_pair()


def test_installed_pair_is_checked_without_importing_torchvision_and_imports_afterwards():
    pytest.importorskip("torchvision")
    code = (
        "import sys; from stabilitykit.machine.device import check_torch_pair; check_torch_pair()\n"
        "assert 'torchvision' not in sys.modules\n"
        "import torch, torchvision\n"
        "assert torchvision.ops.nms(torch.rand(3, 4), torch.rand(3), 0.5).dtype == torch.int64"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
