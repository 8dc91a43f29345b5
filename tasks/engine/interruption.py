"""Ctrl-C is not lost: where code swallows what it raises, the next progress raises it again.

A library that tries out, with a bare `except`, what it can import does so for seconds at the start
of a stage.
"""

import signal
from types import FrameType

_interrupted = False


def watch_for_ctrl_c() -> None:
    """Remember Ctrl-C from now on, unless it is ignored or somebody else handles it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def end_if_interrupted() -> None:
    """KeyboardInterrupt, if Ctrl-C was pressed and the process still runs."""
    if _interrupted:
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _interrupted
    _interrupted = True
    raise KeyboardInterrupt
