"""Files are old or new, never half; a locked folder is refused; errors name the path."""

import multiprocessing
import os

import pytest

from stabilitykit.base.errors import StabilityKitError, UsageProblem
from stabilitykit.base.files import open_plain, read_json, write_atomic, write_json
from stabilitykit.base.locks import lock


def test_replaces_and_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"x": 1})
    write_json(path, {"x": float("inf")})
    assert read_json(path) == {"x": "inf"}
    assert os.listdir(path.parent) == ["a.json"]


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StabilityKitError, match=r"a\.json.*No space left"):
        write_json(path, {"x": 2})
    monkeypatch.undo()
    assert read_json(path) == {"x": 1} and os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_bad_json_is_one_clear_error(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(UsageProblem, match="cannot read"):
        read_json(path)


def _hold(path, ready, release):
    with lock(path, wait=False, what="it"):
        ready.set()
        release.wait(20)


def test_a_second_process_is_refused_and_a_dead_one_lets_go(tmp_path):
    path = tmp_path / "lock"
    method = multiprocessing.get_context("spawn")
    ready, release = method.Event(), method.Event()
    process = method.Process(target=_hold, args=(path, ready, release))
    process.start()
    try:
        assert ready.wait(30)
        with pytest.raises(UsageProblem, match="the folder is in use"), lock(path, wait=False, what="the folder"):
            pass
    finally:
        process.kill()
        process.join()
    with lock(path, wait=False, what="the folder") as held:
        assert held


def test_atomic_write_into_a_file_as_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StabilityKitError, match="cannot write"):
        write_atomic(tmp_path / "file" / "a", "b")


def test_a_link_put_in_the_place_of_a_file_meanwhile_is_not_followed(tmp_path):
    """Between the look at a path and its opening: the opening itself refuses."""
    (tmp_path / "file").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    for write in (False, True):
        with open_plain(tmp_path / "file", write=write) as stream:
            assert stream.read() == b"precious"
        with pytest.raises(OSError):
            open_plain(tmp_path / "link", write=write)
        with pytest.raises(UsageProblem, match="pipe"):
            open_plain(tmp_path / "pipe", write=write)
        with pytest.raises((OSError, UsageProblem)):
            open_plain(tmp_path, write=write)
