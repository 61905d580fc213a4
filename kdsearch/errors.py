"""The errors that kdsearch raises on purpose; any other uncaught exception is a bug."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from kdsearch.texts import in_unit, redact


class UserError(Exception):
    """An error that the user can fix. The command lines print it in one line and exit with 2.

    The message names the file or key, the rule, what was found, and what to do about it. It
    holds no password: those of URLs and settings are replaced.
    """

    def __init__(self, message: str) -> None:
        super().__init__(redact(message))


class ConfigError(UserError):
    """A space file, a flag or a combination of both that cannot be run."""


class DataError(UserError):
    """Beats that cannot be read, cut, split or learned from. The message names the file."""


class RunError(UserError):
    """A run folder that cannot be created, resumed or read."""


@contextmanager
def speaking_of(unit: str) -> Iterator[None]:
    """Raise user errors with another word for beats."""
    try:
        yield
    except UserError as error:
        raise type(error)(in_unit(str(error), unit)) from None


class SearchFailed(Exception):
    """A search that ran but has no result: every trial failed. Exit status 1."""


class TrialDiverged(Exception):
    """A student's loss or score became NaN or infinite. Trying again would not help."""


class StorageFailed(BaseException):
    """The run folder cannot be written: a full disk, a quota, a read-only folder.

    Not an `Exception`, so that no code on the way takes it for a failed trial: the search ends,
    and the next resume continues everything unfinished.
    """


class Interrupted(BaseException):
    """A signal asked the search to end."""

    def __init__(self, signum: int) -> None:
        """Remember which signal it was."""
        super().__init__(signal.Signals(signum).name)
        self.signum = signum
