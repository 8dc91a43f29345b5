"""Errors a user can mend: the command line prints them in one line, without a traceback."""

import errno


class UserError(Exception):
    """Bad input, configuration or state; the message says where and what to do."""


class BadInputError(UserError):
    """A source file is wrong; the message names the file, the row and the field."""


class LeakageError(UserError):
    """A prompt or a model fit saw something from at or after its cut-off."""


class FailedRoundError(UserError):
    """Texts with nothing to learn from, or a training that made the policy worse.

    The rounds before such a one can still be judged.
    """


class NoSignalError(UserError):
    """A reward or an oracle that would be noise; the message carries the figures."""


OUT_OF_REACH = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTCONN,
    errno.EHOSTDOWN,
}  # fmt: skip
"""What a disk, or the machine that a folder lies on, refuses: numbers of an OSError."""

NO_SIGNAL = (
    "the recommender does not tell a user's own reasonings from those of other users, so rewards "
    "would be noise"
)
"""How the signal guard's refusal begins; a sweep's page tells by it which runs that ended."""


def install(extra: str) -> str:
    """How to get an optional part of recalign; for messages."""
    return f'install the extra: pip install -e ".[{extra}]" --constraint constraints.txt'
