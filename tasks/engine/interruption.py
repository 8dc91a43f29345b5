"""Ctrl-C is not lost: where code swallows what it raises, the next progress raises it again.

A library that tries out, with a bare `except`, what it can import does so for seconds at the start
of a stage. Python itself prints and forgets what is raised while it clears up an object; there,
SIGTERM is not lost either.
"""

import signal
import sys
from types import FrameType

_lost: BaseException | None = None


def watch_for_ctrl_c() -> None:
    """Remember Ctrl-C from now on, unless it is ignored or somebody else handles it."""
    sys.unraisablehook = _forget_no_end
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def end_if_interrupted() -> None:
    """Raise what was to end the process, Ctrl-C or SIGTERM, if it still runs."""
    if _lost is not None:
        raise _lost


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _lost
    _lost = KeyboardInterrupt()
    raise _lost


def _forget_no_end(told: "sys.UnraisableHookArgs") -> None:
    """Python's hook for what is raised where nobody can catch it, such as in `__del__`."""
    global _lost
    if told.exc_value is None or isinstance(told.exc_value, Exception):
        sys.__unraisablehook__(told)
    else:  # Ctrl-C, or what Prefect raises at SIGTERM
        _lost = told.exc_value.with_traceback(None)
