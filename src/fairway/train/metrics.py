"""``metrics.jsonl``: one line per event, flushed as it happens; cut back to the saved state when a run resumes."""

import json
import os
from pathlib import Path
from typing import Any


class Metrics:
    """Append events to a file of JSON lines; writes nothing on ranks that do not lead."""

    def __init__(self, path: Path, *, leads: bool = True, keep: int = 0) -> None:
        """Open the file.

        Args:
            path: The file, created with its folder.
            leads: Whether this rank writes.
            keep: Bytes of an earlier process to keep; what lies beyond happened after the state that is resumed.
        """
        self._file = None
        if leads:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab"):
                os.truncate(path, min(keep, path.stat().st_size))
            self._file = path.open("ab")

    def event(self, name: str, /, **values: Any) -> None:
        """Write one event."""
        if self._file is not None:
            self._file.write(json.dumps({"event": name, **values}).encode() + b"\n")
            self._file.flush()

    def position(self) -> int:
        """Bytes written so far, earlier processes included."""
        return self._file.tell() if self._file is not None else 0

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()
