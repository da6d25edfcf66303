"""What the bridge needs of a link: bytes out, bytes in, a file to wait for. Nothing here waits."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self


class Link(Protocol):
    """An open byte stream to the other end. `read` and `write` return at once."""

    name: str
    """What the user calls it: the port's path or URL."""

    bytes_per_second: float | None
    """Line rate of a real UART; None where the baud rate means nothing (pty, USB gadget, socket)."""

    def fileno(self) -> int:
        """The file to select on."""

    def read(self) -> bytes:
        """What has arrived, at most limits.READ_SIZE bytes; empty if nothing has. LinkError: the link is gone."""

    def write(self, data: bytes | memoryview) -> int:
        """Hand over as many bytes as the link takes now, and say how many. LinkError: the link is gone."""

    def set_baud(self, baud: int) -> None:
        """Go to another rate, after what was written has left. LinkError: this link has no such rate."""

    def close(self) -> None:
        """Give the port back. Closing twice is fine."""

    def __enter__(self) -> Self:
        """The link itself."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes."""
