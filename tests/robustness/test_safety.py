"""Safe by default: no network unasked, no pickles, archives unpacked within bounds."""

import io
import json
import os
import pickle
import re
import subprocess
import sys
import zipfile

import pytest

GUARD = """
import json, socket, sys
attempts = []
def refuse(*arguments, **_):
    attempts.append(arguments)
    raise OSError("the network is guarded")
plain = socket.socket.connect
socket.socket.connect = lambda self, address: refuse(address) if self.family != socket.AF_UNIX else plain(self, address)
socket.getaddrinfo = socket.create_connection = socket.gethostbyname = refuse
from stabilitykit.cli import run
codes = [run(arguments) for arguments in json.loads(sys.argv[1])]
assert not attempts, attempts
print("CODES", codes)
"""


def test_nothing_touches_the_network_unasked(tmp_path):
    lines = [
        ["evaluate", "--limit", "20", "-q", "-o", "run", "--report"],
        ["evaluate", "-d", "mnist:root=nowhere", "-o", "refused"],
        ["evaluate", "-d", "cifar10:root=nowhere", "-o", "refused"],
        ["evaluate", "-m", "hf-hub:timm/resnet18.a1_in1k", "-o", "refused"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", GUARD, json.dumps(lines)], capture_output=True, text=True, cwd=tmp_path, timeout=300
    )
    assert done.returncode == 0 and "guarded" not in done.stderr, done.stderr
    assert "CODES [0, 2, 2, 2]" in done.stdout, done.stderr
    assert done.stderr.count("download") >= 3
    page = (tmp_path / "run" / "report.html").read_text()
    outside = r'<(?:script\s|iframe|link)|(?:src|href)\s*=\s*["\']?(?!data:|#)[^"\'> ]+|@import|url\((?!data:|#)'
    assert re.findall(outside, page) == []
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)  # the page's own, which asks for nothing
    assert not re.search(r"fetch|XMLHttp|WebSocket|sendBeacon|import\(|location|window\.open", script)


class _Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.bin", "w.ckpt", "w.tar", "w.th", "w.safetensors"])
def test_a_pickle_is_never_executed_and_is_named(cli, tmp_path, name):
    canary = tmp_path / "canary"
    (tmp_path / name).write_bytes(pickle.dumps({"state_dict": _Touch(canary)}))
    code, _, err = cli("evaluate", "-m", "resnet18", "--checkpoint", tmp_path / name, "-o", tmp_path / "run")
    assert code == 2 and not canary.exists()
    assert ("system" in err and "not executed" in err) or name.endswith(".safetensors")
    pickle.loads((tmp_path / name).read_bytes())
    assert canary.exists()  # the file is as dangerous as it is meant to be


def test_a_bomb_is_refused_by_its_declared_size(cli, tmp_path):
    """10 GiB of zeros in 10 MB: refused in a blink, before anything is unpacked."""
    import time

    import numpy as np

    path = tmp_path / "bomb.npz"
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (10737418240,), }"
    header += b" " * (63 - (10 + len(header)) % 64) + b"\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("X.npy", "w") as stream:
        stream.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
        stream.write(b"\0" * 20_000_000)
        np.lib.format.write_array(labels := io.BytesIO(), np.zeros(4, np.int64))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("y.npy", labels.getvalue())
    start = time.monotonic()
    code, _, err = cli("evaluate", "-d", f"npz:{path}", "-o", tmp_path / "run")
    assert code == 2 and "declares 10,737,418,240 bytes" in err and time.monotonic() - start < 20


def test_an_archive_cannot_write_outside(cli, tmp_path):
    path = tmp_path / "slip.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../evil.npy", b"x")
        archive.writestr("/tmp/evil-absolute.npy", b"x")
    before = set(tmp_path.parent.rglob("*"))
    assert cli("evaluate", "-d", f"npz:{path}", "-o", tmp_path / "run")[0] == 2
    assert not any("evil" in p.name for p in set(tmp_path.parent.rglob("*")) - before)


def test_paths_that_run_code_say_so(cli):
    code, out, _ = cli("models", "show", "module")
    assert code == 0 and "runs that code" in out
    code, out, _ = cli("audit", "--help")
    assert code == 0 and "runs that code" in out


def test_a_run_folder_of_a_stranger_runs_no_code_and_downloads_nothing(cli, tmp_path, monkeypatch):
    """verify and compare rebuild what a run names; a name that is code, or a download, needs --trust-run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("open('canary', 'w').close()\ndef build():\n    raise RuntimeError('built')\n")
    assert cli("evaluate", "--limit", 12, "-q", "--no-cache", "-o", "run")[0] == 0
    files, label = [tmp_path / "run" / "run.json", *(tmp_path / "run" / "cells").iterdir()], "resnet18-digits"
    for name in ("module:evil:build", "timm:resnet18,download=true"):
        for path in files:
            path.write_text(path.read_text().replace(f'"{label}"', f'"{name}"'))
        code, out, err = cli("verify", "run", "-q", "--format", "json")
        assert code in (1, 2) and "--trust-run" in out + err
        code, _, err = cli("compare", "run", "run", "--paired")
        assert code == 2 and "--trust-run" in err
        assert not (tmp_path / "canary").exists()
        label = name
    for path in files:
        path.write_text(path.read_text().replace(f'"{label}"', '"module:evil:build"'))
    cli("verify", "run", "-q", "--trust-run")
    assert (tmp_path / "canary").exists()  # the guard was what kept it from running


@pytest.mark.skipif(sys.platform != "linux", reason="file names that are no UTF-8")
def test_names_that_are_no_text_are_only_names(cli, tmp_path):
    import numpy as np
    from PIL import Image

    root = tmp_path / os.fsdecode(b"photos-\xff")
    for name in (b"a-\xfe", b"b"):
        (root / os.fsdecode(name)).mkdir(parents=True)
        for value in (0, 90, 200):
            Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(root / os.fsdecode(name) / f"{value}.png")
    given = (
        "evaluate",
        "-m",
        "resnet18-digits",
        "-d",
        f"imagefolder:{root},size=32",
        "--any-classes",
        "-q",
        "--no-cache",
        "-o",
        tmp_path / "run",
    )
    code, out, err = cli(*given, "--format", "json", "--report")
    assert code == 0 and json.loads(out)["cells"], err
    assert cli(*given, "--resume")[0] == 0 and len(list((tmp_path / "run" / "cells").iterdir())) == 1
