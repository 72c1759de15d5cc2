"""Number of steps per call, chosen so that a stop signal takes effect within seconds."""

_SECONDS = 2.0  # target duration of a call


class Pace:
    """Number of steps per call, chosen by the duration of a step.

    Args:
        most: largest number of steps.

    Attributes:
        step_seconds: duration of a step in the last call, without compilation; before the second call, its target.
    """

    def __init__(self, most: int):
        self._most = most
        self._calls, self._first = 0, (0, 0.0)
        self.step_seconds = _SECONDS

    @property
    def count(self) -> int:
        """Steps of the next call; the first call, which compiles, has one."""
        return max(1, min(self._most, int(_SECONDS / self.step_seconds)))

    def note(self, count: int, seconds: float) -> None:
        """Record the duration of a call of `count` steps."""
        self._calls += 1
        if self._calls > 1:
            self.step_seconds = max(seconds / count, 1e-6)
        else:
            self._first = count, seconds

    @property
    def compile_seconds(self) -> float | None:
        """Duration of the first call beyond that of its steps; None until a second call shows it."""
        if self._calls < 2:
            return None
        count, seconds = self._first
        return max(seconds - count * self.step_seconds, 0.0)
