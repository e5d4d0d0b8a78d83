"""Nothing leaves a run or cache folder through a link, and nothing in one is waited for."""

import os
import shutil
import signal
import socket
import stat
import threading
from pathlib import Path

import numpy as np
import pytest

from stabilitykit.base import files, locks
from stabilitykit.base.errors import StabilityKitError, UsageProblem
from stabilitykit.base.files import Folder, remove_leftovers, write_atomic
from stabilitykit.cli import run
from stabilitykit.evaluation.cache import TrajectoryCache, checked_root, content_key
from stabilitykit.reporting.page import write_figures, write_report
from stabilitykit.runs.export import export
from stabilitykit.runs.folder import RunFolder, load_run
from tests.core.report_runs import make_run

FILES = ("run.json", "measurements.csv", "report.html", ".lock", "cells/x.json", "images/d/0.png", "figures/a.svg")
FOLDERS = ("cells", "images", "figures")
COMMANDS = (
    ("evaluate", "-q", "--limit", "5", "--resume", "-o"),
    ("report",),
    ("verify", "--witnesses-only", "-q"),
    ("compare",),
    ("export",),
    ("export", "--format", "figures"),
)


def reopen(folder: Path) -> None:
    with RunFolder(folder).open(resume=True):
        pass


USES = (load_run, write_report, write_figures, lambda folder: export(folder, "csv"), reopen)


@pytest.fixture(autouse=True)
def _no_waiting():
    """A read of a pipe would hang for ever: it fails the test instead."""
    signal.alarm(60)
    yield
    signal.alarm(0)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("sample") / "run")


@pytest.fixture
def folder(sample, tmp_path):
    return Path(shutil.copytree(sample, tmp_path / "run"))


def place(path: Path, kind: str, outside: Path) -> None:
    """Put a link, pipe, socket or device where ``path`` is or was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if kind == "link":
        path.symlink_to(outside)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as end:
            here = Path.cwd()
            os.chdir(path.parent)  # names of sockets are short
            try:
                end.bind(path.name)
            finally:
                os.chdir(here)
    else:
        try:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero: endless
        except PermissionError:
            pytest.skip("only root makes devices")


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_is_a_link_is_refused_and_what_it_leads_to_is_untouched(folder, tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    for victim in (".keep.tmp", ".report.html.x.tmp", "x.json", "a.svg"):
        (outside / victim).write_text("mine")
    before = content(outside)
    place(folder / name, "link", outside)
    for use in USES:
        with pytest.raises(UsageProblem, match=f"{name} is a link"):
            use(folder)
    assert content(outside) == before and sorted(os.listdir(outside)) == sorted(before)


@pytest.mark.parametrize("kind", ["link", "pipe", "socket", "device"])
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_none_is_refused_at_once(folder, tmp_path, name, kind):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    place(folder / name, kind, victim)
    before = sorted(os.listdir(folder))
    for use in USES:
        with pytest.raises(UsageProblem, match=f"{name} is a {kind}"):
            use(folder)
    assert victim.read_text() == "mine" and sorted(os.listdir(folder)) == before


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_says_so_in_one_line(folder, capsys, command):
    place(folder / "measurements.csv", "pipe", folder)
    assert run([*command, str(folder)]) == 2
    err = capsys.readouterr().err
    assert "measurements.csv is a pipe" in err and err.count("\n") == 1


def test_a_run_folder_may_be_a_link_itself(folder, tmp_path, capsys):
    (tmp_path / "link").symlink_to(folder)
    assert run(["report", str(tmp_path / "link")]) == 0
    assert (folder / "report.html").exists() and list((folder / "figures").iterdir())


def test_leftovers_of_a_killed_report_go_and_those_of_a_living_one_stay(folder, capsys):
    (folder / "figures").mkdir(exist_ok=True)
    dead = [folder / ".report.html.abc.tmp", folder / "figures" / ".old-figure.svg.abc.tmp"]
    for path in dead:
        path.write_text("half")
    living = folder / "figures" / ".a.svg.def.tmp"
    with open(living, "w") as stream:
        assert locks.try_lock(stream.fileno())
        assert run(["report", str(folder)]) == 0
        assert living.exists() and not any(path.exists() for path in dead)
    assert run(["report", str(folder)]) == 0
    assert not living.exists()


def test_the_temporary_file_of_a_writer_is_no_leftover_while_it_writes(tmp_path, monkeypatch):
    seen = []

    def interfere(_):
        remove_leftovers(tmp_path)
        seen.extend(os.listdir(tmp_path))

    monkeypatch.setattr(os, "fsync", interfere)
    write_atomic(tmp_path / "a", "x")
    assert len(seen) >= 1 and seen[0].endswith(".tmp") and (tmp_path / "a").read_text() == "x"


def test_without_locks_no_leftover_is_taken_for_dead(tmp_path, monkeypatch):
    (tmp_path / ".a.x.tmp").write_text("perhaps alive")
    monkeypatch.setattr(files, "try_lock", lambda descriptor: None)
    remove_leftovers(tmp_path)
    assert (tmp_path / ".a.x.tmp").exists()


def test_a_link_in_the_place_of_a_file_is_replaced_not_followed(tmp_path):
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    write_atomic(tmp_path / "link", "new")
    assert (tmp_path / "victim").read_text() == "mine" and (tmp_path / "link").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageProblem, match="is a pipe"):
        write_atomic(tmp_path / "pipe", "new")
    with pytest.raises(UsageProblem, match="is a device"):
        write_atomic(Path("/dev/null"), "new")


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "/etc", "a\0b"])
def test_a_name_leads_nowhere_else(tmp_path, name):
    with pytest.raises(UsageProblem, match="names no file"):
        Folder(tmp_path).path("cells", name)


def test_every_step_below_the_root_is_looked_at(tmp_path):
    (tmp_path / "outside" / "b").mkdir(parents=True)
    (tmp_path / "outside" / "b" / "c").write_text("mine")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a").symlink_to(tmp_path / "outside")
    folder = Folder(tmp_path / "root")
    for act in (
        lambda: folder.read("a", "b", "c"),
        lambda: folder.write("a", "b", "c", data="x"),
        lambda: folder.remove("a", "b", "c"),
        lambda: folder.make("a", "b", "d"),
        lambda: folder.names("a", "b"),
        lambda: folder.holds("a", "b", "c"),
        lambda: folder.remove_leftovers("a", "b"),
        lambda: folder.check("a"),
    ):
        with pytest.raises(UsageProblem, match="a is a link"):
            act()
    assert content(tmp_path / "outside") == {"b/c": b"mine"}


SHAPE = (2, 4, 3)


def fill(out, start, on_batch):
    out[:] = 1.0


@pytest.mark.parametrize("kind", ["link", "pipe", "socket", "device"])
@pytest.mark.parametrize("name", ["logits.npy", "record.json", "progress.json", "lock", ".logits.npy.x.tmp", "", ".."])
def test_foreign_things_in_a_cache_are_refused(tmp_path, name, kind):
    cache, key = TrajectoryCache(tmp_path / "cache"), content_key({"x": 1})
    cache.get({"x": 1}, SHAPE, fill)
    victim = tmp_path / "victim"
    victim.write_text("mine")
    path = Path(os.path.normpath(tmp_path / "cache" / "trajectories" / key[:2] / key / name))
    place(path, kind, victim)
    with pytest.raises(UsageProblem, match=f"is a {kind}"):
        cache.get({"x": 1}, SHAPE, fill)
    with pytest.raises(UsageProblem, match=f"is a {kind}"):
        checked_root(tmp_path / "cache")
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("errno", [38, 37, 95, 22])  # ENOSYS, ENOLCK, EOPNOTSUPP, EINVAL
def test_without_locks_nobody_is_given_a_half_filled_array(tmp_path, monkeypatch, errno):
    """A is filling when B begins, and B when A ends: each gets its own whole array, and the next one a hit."""
    import fcntl

    def no_locks(*_):
        raise OSError(errno, "no locks here")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    cache = TrajectoryCache(tmp_path)
    a_in, b_in, a_done = threading.Event(), threading.Event(), threading.Event()

    def fill_a(out, start, on_batch):
        a_in.set()
        assert b_in.wait(20) and start == 0
        out[:] = 1.0

    def fill_b(out, start, on_batch):
        b_in.set()
        assert a_done.wait(20) and start == 0
        out[:] = 1.0

    got = {}

    def b():
        a_in.wait(20)
        got["b"] = cache.get({"x": 1}, SHAPE, fill_b)[0]

    thread = threading.Thread(target=b)
    thread.start()
    try:
        got["a"] = np.array(cache.get({"x": 1}, SHAPE, fill_a)[0])
    finally:
        a_done.set()
        thread.join()
    assert (got["a"] == 1.0).all() and (got["b"] == 1.0).all()
    array, info = cache.get({"x": 1}, SHAPE, fill_a)
    assert info["hit"] and (array == 1.0).all()


def test_locks_keep_two_processes_apart(tmp_path, capsys):
    """With locks the second one waits, says so, and reads what the first one made."""
    cache, inside, release = TrajectoryCache(tmp_path), threading.Event(), threading.Event()

    def slow(out, start, on_batch):
        inside.set()
        assert release.wait(20)
        out[:] = 2.0

    first = threading.Thread(target=lambda: cache.get({"x": 1}, SHAPE, slow))
    first.start()
    assert inside.wait(20)
    threading.Timer(0.2, release.set).start()
    array, info = cache.get({"x": 1}, SHAPE, fill)
    first.join()
    assert info["hit"] and (array == 2.0).all() and "waiting" in capsys.readouterr().err


def test_a_lock_that_is_a_link_or_a_pipe_is_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(StabilityKitError), locks.lock(tmp_path / name, wait=False, what="it"):
            pass
    assert not (tmp_path / "victim").exists()
