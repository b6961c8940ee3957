"""Ctrl-C and its relatives: the current step is finished and saved before the run ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Which signal asked the run to stop (0: none)."""

    signal = 0


@contextmanager
def caught() -> Iterator[Stop]:
    """Note SIGINT, SIGTERM and SIGHUP instead of dying from them; a second SIGINT leaves at once. Handlers are restored afterwards.

    Signals can only be caught in the main thread: elsewhere (a notebook's worker) nothing is installed.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    over: list[bool] = []  # something, once the block has been left

    def note(number: int, frame: FrameType | None) -> None:
        if stop.signal and number == signal.SIGINT and not over:
            raise KeyboardInterrupt  # the last checkpoint is complete, and whatever is half-written lies in its private folder
        stop.signal = stop.signal or number

    names = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP

    before = {number: signal.signal(number, note) for name in names if (number := getattr(signal, name, None)) is not None}
    try:
        yield stop
    finally:
        # Python runs a handler some time after its signal came, and complains where it was taken away meanwhile. While signals are blocked,
        # none comes, and those that came before are handled at the first call of signal.signal.
        over.append(True)
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_BLOCK, before)
        for number, handler in before.items():
            signal.signal(number, handler)
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, before)
