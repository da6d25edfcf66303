"""What may be used in a `with` statement because it is closed at its end."""

from __future__ import annotations

import abc
from types import TracebackType
from typing import Self


class Closing(abc.ABC):
    """Has a `close`, which the end of a `with` block calls."""

    @abc.abstractmethod
    def close(self) -> None:
        """Give back what is held. Twice is fine."""

    def __enter__(self) -> Self:
        """The thing itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes."""
        self.close()
