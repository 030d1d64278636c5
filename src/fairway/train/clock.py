"""A clock with named phases; each phase says whether it counts against the budget."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Phase:
    """Accumulated time of one phase."""

    seconds: float = 0.0
    counted: bool = True


@dataclass
class Clock:
    """Time by phase. Phases do not overlap: entering one inside another pauses the outer one."""

    now: Callable[[], float] = time.perf_counter
    """Source of time in seconds; tests put their own here."""
    settle: Callable[[], None] = lambda: None
    """Called before every reading at a border of phases, to wait for queued device work."""
    phases: dict[str, Phase] = field(default_factory=dict)
    _running: list[str] = field(default_factory=list)
    _since: float = 0.0

    @contextmanager
    def phase(self, name: str, *, counted: bool) -> Iterator[None]:
        """Charge the time of the block to ``name``.

        Args:
            name: One word, such as ``train`` or ``hessian``.
            counted: Whether the phase counts against its budget; a phase keeps the answer of its first use.
        """
        self._charge()
        self.phases.setdefault(name, Phase(counted=counted))
        self._running.append(name)
        try:
            yield
        finally:
            self._charge()
            self._running.pop()

    def _charge(self) -> None:
        self.settle()
        moment = self.now()
        if self._running:
            self.phases[self._running[-1]].seconds += moment - self._since
        self._since = moment

    def seconds(self, name: str) -> float:
        """Time charged to ``name`` so far, the running stretch included; does not wait for the device."""
        phase = self.phases.get(name)
        done = phase.seconds if phase else 0.0
        running = bool(self._running) and self._running[-1] == name
        return done + (self.now() - self._since if running else 0.0)

    def total(self, *, counted_only: bool) -> float:
        """Sum over phases."""
        return sum((phase.seconds for phase in self.phases.values() if phase.counted or not counted_only), start=0.0)

    def forget(self, *names: str) -> None:
        """Drop phases of a stage that is about to be done again."""
        for name in names:
            self.phases.pop(name, None)

    def to_dict(self) -> dict[str, dict[str, float | bool]]:
        """Phase -> seconds and whether counted."""
        return {name: {"seconds": phase.seconds, "counted": phase.counted} for name, phase in self.phases.items()}

    def restore(self, content: dict[str, dict[str, float | bool]]) -> None:
        """Continue from the phases of an earlier process."""
        for name, item in content.items():
            self.phases[name] = Phase(float(item["seconds"]), bool(item["counted"]))
