"""What a training shows while it runs: speed, loss, time left."""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from stabilitykit.base.text import printable_streams

if TYPE_CHECKING:
    from stabilitykit.training.training import Epoch

LOG_SECONDS = 15.0
RECENT = 50
"""Steps that a speed is the mean of."""


class TrainingProgress:
    """Progress on stderr: a bar with loss, accuracy, speed and time left on a terminal, a line now and then elsewhere.

    Arguments:
        epochs: of the whole training.
        images: of one epoch.
    """

    def __init__(self, epochs: int, images: int) -> None:
        self.epochs, self.images, self._last, self._bar = epochs, images, time.monotonic(), None
        self._ends: deque[float] = deque(maxlen=RECENT)
        self._task: Any = None
        if sys.stderr.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            from stabilitykit.reporting.console import Console

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("loss {task.fields[loss]:.4f}  accuracy {task.fields[accuracy]:.4f}  {task.fields[pace]}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            # What is printed meanwhile goes through the bar, which would obey escape sequences.
            self._streams = printable_streams()
            self._streams.__enter__()

    def batch(self, epoch: int, step: int, steps: int, loss: float, accuracy: float) -> None:
        """After every step: mean loss and accuracy of the epoch so far."""
        self._ends.append(time.monotonic())
        text, pace = f"epoch {epoch}/{self.epochs}", self._pace(epoch, step, steps)
        if self._bar is not None:
            if self._task is None:
                self._task = self._bar.add_task(text, total=steps, loss=loss, accuracy=accuracy, pace=pace)
            self._bar.update(
                self._task, description=text, completed=step, total=steps, loss=loss, accuracy=accuracy, pace=pace
            )
        elif time.monotonic() - self._last >= LOG_SECONDS:
            self._last = time.monotonic()
            shown = f"{text} step {step}/{steps}: loss {loss:.4f} accuracy {accuracy:.4f} {pace}"
            print(shown.rstrip(), file=sys.stderr, flush=True)

    def _pace(self, epoch: int, step: int, steps: int) -> str:
        """Images per second and the time left of the whole training, at the speed of the last steps."""
        if len(self._ends) < 2:
            return ""
        seconds = (self._ends[-1] - self._ends[0]) / (len(self._ends) - 1)
        left = seconds * (steps * (self.epochs - epoch) + steps - step)
        return f"{self.images / steps / max(seconds, 1e-9):,.0f} images/s, {duration(left)} left"

    def epoch(self, record: Epoch, seconds: float) -> None:
        """After every epoch, its checkpoint being on disk."""
        self._ends.clear()  # what is watched between two epochs is no step
        text = f"epoch {record.number}/{self.epochs}: loss {record.loss:.4f} accuracy {record.accuracy:.4f}"
        if record.validation_loss is not None:
            text += f" | validation loss {record.validation_loss:.4f} accuracy {record.validation_accuracy:.4f}"
        left = duration(seconds * (self.epochs - record.number))
        text += f" | {seconds:.1f} s, {self.images / max(seconds, 1e-9):,.0f} images/s, {left} left"
        if self._bar is not None:
            self._bar.console.print(text, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._streams.__exit__(None, None, None)
            self._bar.stop()


def duration(seconds: float) -> str:
    """As a person says it: ``40 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
