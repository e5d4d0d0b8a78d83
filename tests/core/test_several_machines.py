"""Two groups of processes over loopback, as on two machines: the answer of one process; a lost one ends in one line."""

import os
import subprocess
import sys
import time

import pytest

from tests.core.test_distributed import ROOT, TIMEOUT, free_port, results

pytestmark = pytest.mark.slow
# From the loss of a process to the end of the others: their next collective, and torchrun's own wait.
ENDED_WITHIN = 60


def group(rank, port, arguments, folder, **environment):
    """One machine's torchrun, of two, with one process."""
    launcher = ["--nnodes", "2", "--node-rank", str(rank), "--nproc-per-node", "1"]
    launcher += ["--master-addr", "127.0.0.1", "--master-port", str(port)]
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *launcher, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment},
    )


def ends(groups):
    return [(*process.communicate(timeout=TIMEOUT), process.returncode) for process in groups]


def test_two_machines_give_the_answer_of_one(tmp_path):
    evaluate = ["-m", "stabilitykit", "evaluate", "-p", "expansivity", "--limit", "64", "--batch-size", "16"]
    evaluate += ["--quiet", "--no-cache", "-o"]
    subprocess.run([sys.executable, *evaluate, "alone"], cwd=tmp_path, check=True, capture_output=True, timeout=TIMEOUT)
    port = free_port()
    two = ends([group(r, port, [*evaluate, "both"], tmp_path, STABILITYKIT_DISTRIBUTED_TRAFFIC="1") for r in range(2)])
    for number, (_, errors, code) in enumerate(two):
        assert code == 0, errors[-2000:]
        # Half of 64 trajectories of 9 depths and 10 classes in float32, and the answers of the searches.
        told = next(line for line in errors.splitlines() if f"rank {number} of 2: sent" in line)
        sent = int(told.split("sent ")[1].split()[0])
        assert 32 * 9 * 10 * 4 <= sent <= 32 * 9 * 10 * 4 + 50_000, told
        if sys.platform == "linux":  # its own images at least: 32 of the data set's
            assert int(told.split("read ")[1].split()[0]) > 0, told
    assert results(tmp_path / "both") == results(tmp_path / "alone")


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_machine_ends_in_one_line(tmp_path, lost):
    (tmp_path / "run.py").write_text(
        "import os, sys, signal, time\nfrom stabilitykit.machine.distributed import join_world\n"
        "from stabilitykit.base.errors import StabilityKitError\n"
        "world = join_world('cpu')\nworld.all_gather(1)\n"
        f"if world.rank == {lost}:\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "try:\n    world.all_gather(2)\n"
        "except StabilityKitError as error:\n    print('said:', error, file=sys.stderr)\n    sys.exit(1)\n"
    )
    port, started = free_port(), time.monotonic()
    two = [group(r, port, ["run.py"], tmp_path) for r in range(2)]
    two[lost].communicate(timeout=TIMEOUT)
    alone = time.monotonic()
    _, errors, code = ends(two)[1 - lost]
    assert code != 0
    assert time.monotonic() - alone < ENDED_WITHIN, f"{time.monotonic() - started:.0f} s in all"
    said = [line for line in errors.splitlines() if "said:" in line]
    assert len(said) == 1 and "another process of this run died" in said[0] and "--resume" in said[0]
