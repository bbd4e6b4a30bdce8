"""Errors in one of many processes: one that left alone would leave the others waiting for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from compress.core.errors import CompressError
from compress.steps.distill._processes import Processes


class Trouble:
    """The first error of this process, kept until all of them hear of it; None while there is none."""

    def __init__(self) -> None:
        self.first: Exception | None = None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Go on behind the block, whatever is raised inside."""
        try:
            yield
        except Exception as error:  # of any kind: it is raised again by `share`
            self.first = self.first or error

    def share(self, processes: Processes) -> None:
        """Raise in every process if one of them is in trouble: its own error in each that has one, else the first's."""
        found = processes.of_all(self._told(processes.rank))
        if self.first is not None:
            raise self.first
        for error in found:
            if error is not None:
                raise error

    def _told(self, rank: int) -> CompressError | None:
        if self.first is None or isinstance(self.first, CompressError):
            return self.first
        return CompressError(f"{type(self.first).__name__}: {self.first}", f"process {rank}")
