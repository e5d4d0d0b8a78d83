"""Plugin code leaves the process as it found it, and cannot end it."""

import os
import signal
import sys
import time
import warnings

import numpy as np
import pytest
import torch

from stabilitykit.machine.determinism import make_deterministic
from stabilitykit.supervision.shield import shielded
from stabilitykit.supervision.stops import StoppedItself, time_limit


def process():
    return (
        os.getcwd(),
        dict(os.environ),
        list(sys.path),
        sys.getrecursionlimit(),
        np.geterr(),
        list(warnings.filters),
        signal.getsignal(signal.SIGINT),
        signal.getsignal(signal.SIGTERM),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_grad_enabled(),
        torch.get_num_threads(),
        sys.stdout,
        sys.stderr,
        os.umask(os.umask(0o022)),
        os._exit,
    )


def test_the_process_is_put_back():
    make_deterministic(3)
    before = process()
    with shielded(3):
        os.chdir("/")
        os.environ["PATH"] = "nowhere"
        os.environ["STABILITYKIT_CACHE"] = "elsewhere"
        sys.path.clear()
        sys.setrecursionlimit(500)
        np.seterr(all="raise")
        warnings.simplefilter("error")
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        torch.set_default_dtype(torch.float16)
        torch.set_default_device("meta")
        torch.set_grad_enabled(False)
        torch.set_num_threads(torch.get_num_threads() + 1)
        os.umask(0o777)
        sys.stdout = sys.stderr = None
    assert process() == before


@pytest.mark.parametrize("stop, error", [(KeyboardInterrupt, StoppedItself), (lambda: os._exit(0), SystemExit)])
def test_a_plugin_cannot_stop_the_run(stop, error):
    def body():
        with shielded():
            made = stop()
            raise made

    with pytest.raises(error):
        body()


def test_a_signal_is_obeyed():
    with pytest.raises(KeyboardInterrupt), shielded():
        signal.raise_signal(signal.SIGINT)


def test_a_child_may_end_itself():
    with shielded():
        child = os.fork()
        if child == 0:
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_time_limit_passes_handlers_of_exceptions():
    class Over(BaseException):
        pass

    start = time.monotonic()
    with pytest.raises(Over), time_limit(0.1, Over, "it"), shielded():
        while True:
            try:
                time.sleep(5)
            except Exception:
                continue
    assert time.monotonic() - start < 4
