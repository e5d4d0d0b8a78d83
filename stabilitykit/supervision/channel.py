"""Messages between supervisor and worker: frames of a kind and bytes, JSON inside; nothing is unpickled."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from typing import Any

_HEADER = struct.Struct("!cQ")
JSON, OUTPUT = b"J", b"O"
# A worker that claims a larger message has lost its mind; reading on would exhaust the memory of the supervisor.
LARGEST = 1 << 30


class Closed(Exception):
    """The other side is gone."""


class Channel:
    """One end of a connected pair of sockets."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._received = bytearray()
        self._one_at_a_time = threading.Lock()

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """(the supervisor's end, the worker's end); neither passes through an exec."""
        ours, theirs = socket.socketpair()
        return cls(ours), cls(theirs)

    def fileno(self) -> int:
        return self._end.fileno()

    def patience(self, seconds: float) -> None:
        """Give up, with Closed, sending what the other side does not read within ``seconds``."""
        self._end.settimeout(seconds)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._end.close()

    def send(self, message: Any) -> None:
        """Plain data; Closed when nobody listens any more."""
        self.send_frame(JSON, json.dumps(message).encode("utf-8", "surrogatepass"))

    def send_frame(self, kind: bytes, data: bytes) -> None:
        try:
            with self._one_at_a_time:
                self._end.sendall(_HEADER.pack(kind, len(data)) + data)
        except OSError as error:
            raise Closed from error

    def receive(self) -> Any:
        """The next message, waited for; Closed when the other side is gone."""
        while True:
            for kind, data in self.frames():
                if kind == JSON:
                    return json.loads(data)
            self.fill()

    def fill(self) -> None:
        """Read what is there; Closed at the end of the connection."""
        try:
            data = self._end.recv(1 << 20)
        except OSError as error:
            raise Closed from error
        if not data:
            raise Closed
        self._received += data

    def frames(self) -> Any:
        """Whole frames received so far, as (kind, bytes)."""
        while len(self._received) >= _HEADER.size:
            kind, size = _HEADER.unpack_from(self._received)
            if size > LARGEST:
                raise Closed
            end = _HEADER.size + size
            if len(self._received) < end:
                return
            data = bytes(self._received[_HEADER.size : end])
            del self._received[:end]
            yield kind, data
