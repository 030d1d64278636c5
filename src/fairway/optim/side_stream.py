"""A second queue of a GPU for small work beside large work; on a CPU the work runs at once."""

import contextlib
from collections.abc import Iterator

import torch


class SideStream:
    """Runs what is launched inside `beside` next to what the main stream gets meanwhile; `join` waits for it."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @contextlib.contextmanager
    def beside(self) -> Iterator[None]:
        """Launch on the side stream, after everything that the main stream has been given so far."""
        if self.stream is None:
            yield
            return
        self.stream.wait_stream(torch.cuda.current_stream(self.stream.device))
        with torch.cuda.stream(self.stream):
            yield

    def join(self) -> None:
        """Let the main stream wait for the side stream: memory that both have used is safe to release afterwards."""
        if self.stream is not None:
            torch.cuda.current_stream(self.stream.device).wait_stream(self.stream)
