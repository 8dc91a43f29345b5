"""Errors a user can mend: the command line prints them in one line, without a traceback."""


class UserError(Exception):
    """Bad input, configuration or state; the message says where and what to do."""


class BadInputError(UserError):
    """A source file is wrong; the message names the file, the row and the field."""


class LeakageError(UserError):
    """A prompt or a model fit saw something from at or after its cut-off."""


class NoSignalError(UserError):
    """A reward or an oracle that would be noise; the message carries the figures."""


NO_SIGNAL = (
    "the recommender does not tell a user's own reasonings from those of other users, so rewards "
    "would be noise"
)
"""How the signal guard's refusal begins; a sweep's page tells by it which runs that ended."""


def install(extra: str) -> str:
    """How to get an optional part of recalign; for messages."""
    return f'install the extra: pip install -e ".[{extra}]" --constraint constraints.txt'
