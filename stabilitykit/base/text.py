"""Text from anywhere (class, file, tensor, plugin names) made fit for a terminal and for a spreadsheet."""

from __future__ import annotations

import contextlib
import csv
import io
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

# C0, DEL and C1 control characters (escape sequences begin with one), line and paragraph separators, marks that turn
# the direction of writing, lone surrogates (bytes of file names that are no UTF-8).
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# The first words of a message that is one line, whatever names it holds.
_MESSAGE = re.compile(
    r"(?:[A-Za-z]+ )?(?:warning|error|failed|failure|clash|report|run folder|weights|waiting)\b[^\n]*:", re.IGNORECASE
)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*(?:e[+-]?\d+)?|\.\d+(?:e[+-]?\d+)?|inf|infinity|nan)", re.IGNORECASE)


def printable(text: str) -> str:
    r"""``text`` with control characters in the form ``\u001b`` (as in JSON); line ends stay."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def one_line(text: Any) -> str:
    r"""``text`` with control characters and line ends in the form ``\u000a``: a name that cannot break a line."""
    return printable(str(text)).replace("\n", "\\u000a")


# What the state at depth 0 is called where others have the name of the block passed last.
BEFORE = "before any block"


def place_text(number: Any, name: Any) -> str:
    """``7 (layer3.2)``: a depth or block by its number and its name; a name that is a number (``block 6``) is left
    out, for it says nothing new."""
    plain = not name or re.fullmatch(r"block \d+", str(name))
    return str(number) if plain else f"{number} ({name})"


class PrintableStream:
    """A text stream that writes :func:`printable` text; everything else is the stream's own.

    A message ("warning: ...", "error: ...") that is written in one piece stays on one line.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        body = text.removesuffix("\n")
        if "\n" in body and _MESSAGE.match(body):
            text = one_line(body) + text[len(body) :]
        self._stream.write(printable(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)


def raw_stream(stream: Any) -> Any:
    """The stream behind a :class:`PrintableStream`: for writers that see to control characters themselves."""
    return stream._stream if isinstance(stream, PrintableStream) else stream


@contextlib.contextmanager
def printable_streams() -> Iterator[None]:
    """In the body, ``sys.stdout`` and ``sys.stderr`` write printable text."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (s if s is None or isinstance(s, PrintableStream) else PrintableStream(s) for s in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def safe_cell(value: Any) -> Any:
    """A cell of a CSV file that no spreadsheet runs as a formula: text that would be one gets a ``'`` in front.

    Numbers, as numbers or as text ("-1.5", "+inf"), stay. Applied twice it changes nothing more.
    """
    if not isinstance(value, str):
        return repr(value) if isinstance(value, float) else "" if value is None else value
    text = one_line(value)
    return f"'{text}" if value[:1] in tuple("=+-@\t\r") and not _NUMBER.fullmatch(value) else text


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """CSV with a head line; floats with all their digits, None and absent values empty, text as :func:`safe_cell`."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n", restval="")
    writer.writeheader()
    for row in rows:
        writer.writerow({column: safe_cell(value) for column, value in row.items()})
    return stream.getvalue()
