"""One network trained epoch by epoch, each epoch kept on disk before the next begins."""

from __future__ import annotations

from typing import Any, cast

from pydantic import BaseModel

from kdsearch.method import EpochReport, Stack
from kdsearch.run_folder import TrialFolder


class Training:
    """A stack of one slot and the folder that it can go on from after any kill."""

    def __init__(
        self, stack: Stack, settings: BaseModel, *, seed: int, folder: TrialFolder
    ) -> None:
        """Begin at the folder's checkpoint, or anew where there is none."""
        self._stack = stack
        self._folder = folder
        self.epochs = int(cast("Any", settings).epochs)
        checkpoint = folder.checkpoint()
        state = None if checkpoint is None else checkpoint.state
        self.history: list[EpochReport] = [] if checkpoint is None else checkpoint.history
        stack.put_in(0, settings, seed=seed, state=state)

    @property
    def done(self) -> bool:
        """Whether the last epoch is trained."""
        return len(self.history) >= self.epochs

    def advance(self) -> EpochReport:
        """Train one epoch and keep it.

        Raises:
            TrialDiverged: A loss or score became NaN or infinite.
            OSError: The folder takes no more.
            Superseded: A newer driver owns the run.
        """
        report = self._stack.advance()[0]
        if isinstance(report, Exception):
            raise report
        improved = all(report.val_auc > earlier.val_auc for earlier in self.history)
        self._folder.write(
            report,
            self.history,
            self._stack.save(0),
            best=self._stack.weights(0) if improved else None,
        )
        self.history = [*self.history, report]
        return report
