"""Batches prepared ahead of time by one worker thread, in the same order."""

import threading
from collections import deque
from types import TracebackType
from typing import Any

from fairway.base.errors import DataError
from fairway.data.batches import Batch, Loader


class Prefetcher:
    """Wrap a loader so that up to ``depth`` batches are ready before they are asked for.

    The order of batches is the loader's. `state` is that of the last batch handed out, not of the last one prepared, so a
    run resumed from it repeats and skips nothing. An error in the worker is raised by the call that would have got the
    batch. Use it as a context manager, or call `close`.

    Args:
        loader: The loader; it belongs to the worker from here on.
        depth: Batches prepared ahead, at least 1.

    Raises:
        DataError: ``depth`` is below 1.
    """

    def __init__(self, loader: Loader, depth: int = 2) -> None:
        if depth < 1:
            raise DataError(f"prefetch depth {depth} must be at least 1; use the loader itself for none")
        self._loader, self._depth = loader, depth
        self._start(loader.state())

    def _start(self, state: dict[str, Any]) -> None:
        self._state = state
        self._ready: deque[tuple[Batch, dict[str, Any]]] = deque()
        self._error: Exception | None = None
        self._stopping = False
        self._changed = threading.Condition()
        self._worker = threading.Thread(target=self._work, name="fairway-prefetch", daemon=True)
        self._worker.start()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or len(self._ready) < self._depth)
                if self._stopping:
                    return
            try:
                item = self._loader.next_batch(), self._loader.state()
            except Exception as error:
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._ready.append(item)
                self._changed.notify_all()

    def next_batch(self) -> Batch:
        """Inputs and targets of the next micro-batch; waits only if the worker is behind.

        Raises:
            Exception: what the loader raised for this batch.
        """
        with self._changed:
            self._changed.wait_for(lambda: bool(self._ready) or self._error is not None or self._stopping)
            if self._ready:
                batch, self._state = self._ready.popleft()
                self._changed.notify_all()
                return batch
            if self._error is not None:
                raise self._error
        raise DataError("the prefetcher is closed; make a new one")

    def state(self) -> dict[str, Any]:
        """State of the loader right after the last batch handed out."""
        return self._state

    def restore(self, state: dict[str, Any]) -> None:
        """Throw prepared batches away and continue exactly where ``state`` was taken."""
        self.close()
        self._loader.restore(state)
        self._start(state)

    def close(self) -> None:
        """Stop the worker and forget prepared batches; may be called twice."""
        with self._changed:
            self._stopping = True
            self._ready.clear()
            self._changed.notify_all()
        self._worker.join()

    def __enter__(self) -> "Prefetcher":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
