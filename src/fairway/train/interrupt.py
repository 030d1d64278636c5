"""A clean stop on SIGTERM and SIGINT: finish the step, save the state, leave with exit code 130."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop and has saved its state; the command line turns it into exit code 130.

    Not an ``Exception``, like its parent, so that no handler for errors swallows it.
    """


class StopRequest:
    """Whether a signal asked the run to stop. A second signal of the same kind ends the process at once."""

    def __init__(self, around: "StopRequest | None" = None) -> None:
        """Listen inside a block; ``around`` is the request of the block around it, which is told too."""
        self.around, self.signal_name = around, ""

    def __bool__(self) -> bool:
        return bool(self.signal_name)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Note the signal and give the next one its default effect."""
        self.note(signal.Signals(number).name)
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    def note(self, name: str) -> None:
        """Remember that the signal called ``name`` came, here and in the blocks around."""
        self.signal_name = name
        if self.around is not None:
            self.around.note(name)


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn SIGTERM and SIGINT into a ``StopRequest`` inside the block; must run in the main thread."""
    around = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    request = StopRequest(around if isinstance(around, StopRequest) else None)
    kinds = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, request.handle) for number in kinds}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
