"""The order in which layers run: encoder and decoder lists of layer indices, with and without depth recurrence."""

from dataclasses import dataclass

from fairway.config import RecurrenceConfig


@dataclass(frozen=True, kw_only=True)
class LayerSchedule:
    """One walk through the network. A layer may appear several times; its weights are the same in every pass."""

    encoder: tuple[int, ...]
    """Physical layers of the first half, in order; the output of each is kept for a skip."""
    decoder: tuple[int, ...]
    """Physical layers of the second half; step ``j`` uses skip slot ``j`` while kept outputs remain."""

    @property
    def applications(self) -> int:
        """Block applications of one forward pass."""
        return len(self.encoder) + len(self.decoder)

    def skips(self) -> tuple[tuple[int, int], ...]:
        """Pairs (decoder layer, encoder layer) per slot: the latest encoder output that is left goes to the next step."""
        return tuple(zip(self.decoder, reversed(self.encoder), strict=False))


def layer_schedule(layers: int, recurrence: RecurrenceConfig, *, recurrent: bool) -> LayerSchedule:
    """The walk ``0 .. first-1, (first .. last) x (extra_passes + 1), last+1 .. layers-1``, cut into halves.

    The encoder is the first ``floor(length / 2)`` entries. Without recurrence every layer runs once.

    Args:
        layers: Physical layers.
        recurrence: The looped segment and its extra passes.
        recurrent: Whether the extra passes run.

    Source: PR #1394.
    """
    order = list(range(layers))
    if recurrent and recurrence.extra_passes:
        segment = order[recurrence.first : recurrence.last + 1]
        order = order[: recurrence.first] + segment * (recurrence.extra_passes + 1) + order[recurrence.last + 1 :]
    half = len(order) // 2
    return LayerSchedule(encoder=tuple(order[:half]), decoder=tuple(order[half:]))


def skip_slots(layers: int, recurrence: RecurrenceConfig) -> int:
    """Rows of the skip parameters: the skips of the schedule with recurrence, even while it is off."""
    return len(layer_schedule(layers, recurrence, recurrent=True).skips())
