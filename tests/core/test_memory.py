"""Small files that unpack to more than memory holds are refused before anything is allocated."""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from stabilitykit import DataProblem
from stabilitykit.base import memory


def bomb(path: Path, shape: tuple[int, ...]) -> None:
    """An honest .npz of zeros: the archive says and holds what the header declares, at a thousandth of the size."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("X.npy", "w", force_zip64=True) as member:
            member.write(header.getvalue())
            block, left = bytes(1 << 22), int(np.prod(shape))
            while left:
                member.write(block[: min(left, len(block))])
                left -= min(left, len(block))
        labels = io.BytesIO()
        np.save(labels, np.arange(shape[0]) % 2)
        archive.writestr("y.npy", labels.getvalue())


def test_a_bomb_is_asked_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stabilitykit_vision.npz import npz

    monkeypatch.setattr(memory, "SUSPICIOUS_BYTES", 2**24)
    monkeypatch.setattr(np.lib.format, "read_array", lambda *_, **__: pytest.fail("unpacked"))
    bomb(tmp_path / "bomb.npz", (2**13, 64, 64))
    with pytest.raises(DataProblem, match=r"unpacks to 0\.03 GiB .*times as much.*max_gib="):
        npz(str(tmp_path / "bomb.npz"))


def test_more_than_memory_holds_is_refused_even_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stabilitykit_vision.npz import npz

    monkeypatch.setattr(memory, "available_memory", lambda: 2**24)
    bomb(tmp_path / "bomb.npz", (2**13, 64, 64))
    with pytest.raises(DataProblem, match="memory available"):
        npz(str(tmp_path / "bomb.npz"), max_gib=8)


def test_recordings_are_checked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stabilitykit_recorded.reading import read_recording

    monkeypatch.setattr(memory, "available_memory", lambda: 2**20)
    np.savez_compressed(tmp_path / "r.npz", values=np.zeros((2, 2**16, 2)), labels=np.zeros(2**16, int))
    with pytest.raises(DataProblem, match="memory available"):
        read_recording(str(tmp_path / "r.npz"))


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_available_memory_is_known_here() -> None:
    found = memory.available_memory()
    assert found is not None and 2**20 < found < 2**50
