"""Progress of long work on stderr: one line that is rewritten on a terminal, otherwise a line from time to time."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO, TypeVar

from resnet_tf.core.streams import write_or_drop
from resnet_tf.core.text import counted, printable

_LOGGER = logging.getLogger("resnet_tf")
_T = TypeVar("_T")

PATIENCE = 3.0  # seconds of work before the first report
_INTERVALS = {True: 0.2, False: 30.0}  # seconds between two reports, by whether the stream is a terminal
_TICK = 0.2  # seconds between two looks at the clock
_ERASE = "\r\x1b[K"  # of the current line of a terminal

# Progress of work in progress, the outermost first; only the last one reports.
_running: list["Progress"] = []


class Progress:
    """Report of work that may take long, as a context: nothing is printed in the first three seconds.

        with Progress("indexing 'photos/'", noun="file") as progress:
            for file in files:
                progress.done += 1

    A thread prints, so that work in native code, or without a count, shows the time that it takes. Progress is shown
    where messages of the package are, see `core.logs`.

    Attributes:
        done: amount that is done, to be assigned by the work.

    Args:
        task: description of the work, which starts a line.
        noun: name of the counted things; empty for work without a count.
        total: amount of all work; 0 if unknown.
        done: amount that was done before.
        describe: returns the text behind the task for an amount and the seconds that it took, in place of a count.
        transient: report on a terminal only, and erase the line at the end; for work that is repeated.
        always: report whatever the level of the log.
        stream: stderr by default.
        clock: returns the time in seconds.
    """

    def __init__(
        self,
        task: str,
        *,
        noun: str = "",
        total: int = 0,
        done: int = 0,
        describe: Callable[[int, float], str] | None = None,
        transient: bool = False,
        always: bool = False,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.done = done
        self._task, self._noun, self._total, self._first = printable(task), noun, total, done
        self._describe = describe or self._describe_count
        self._transient, self._always = transient, always
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty()
        self._clock = clock
        self._start = clock()
        self._next = self._start + PATIENCE
        self._is_shown = False
        self._ended = threading.Event()

    def __enter__(self) -> "Progress":
        self._thread = threading.Thread(target=self._report_until_ended, daemon=True)
        _running.append(self)
        self._thread.start()
        return self

    def __exit__(self, error_type: type[BaseException] | None, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        _running.remove(self)
        self.close(succeeded=error_type is None)

    def report(self) -> None:
        """Print a line, if it is time."""
        now = self._clock()
        if now < self._next or not self._is_enabled or (_running and _running[-1] is not self):
            return
        self._next = now + _INTERVALS[self._live]
        self._print(f"{self._task}: {self._describe(self.done, now - self._start)}", is_last=False)

    def close(self, *, succeeded: bool = True) -> None:
        """Print the last line, with the time that the work took; nothing for short work, and after an error."""
        seconds = self._clock() - self._start
        self._erase()
        if succeeded and seconds >= PATIENCE and self._is_enabled and not self._transient:
            count = f": {counted(self.done, self._noun)}" if self._noun else ""
            self._print(f"{self._task}{count} in {format_seconds(seconds)}", is_last=True)

    @property
    def _is_enabled(self) -> bool:
        shown = self._always or _LOGGER.isEnabledFor(logging.INFO)
        return shown and (self._live or not self._transient)

    def _report_until_ended(self) -> None:
        while not self._ended.wait(_TICK):
            self.report()

    def _describe_count(self, done: int, seconds: float) -> str:
        if not self._noun:
            return format_seconds(seconds)
        if not self._total:
            return counted(done, self._noun)
        taken = done - self._first
        left = f", {format_seconds(seconds / taken * (self._total - done))} left" if taken else ""
        return f"{done:,} of {counted(self._total, self._noun)} ({done / self._total:.0%}){left}"

    def _print(self, text: str, *, is_last: bool) -> None:
        self._is_shown = self._live and not is_last
        start, end = _ERASE if self._live else "", "" if self._is_shown else "\n"
        write_or_drop(self._stream, f"{start}{text}{end}")

    def _erase(self) -> None:
        if self._is_shown:
            self._is_shown = False
            write_or_drop(self._stream, _ERASE)


def tracked(items: Iterable[_T], task: str, *, noun: str, total: int = 0) -> Iterator[_T]:
    """Yield items, and report their number; see `Progress`."""
    with Progress(task, noun=noun, total=total) as progress:
        for item in items:
            yield item
            progress.done += 1


def erase() -> None:
    """Erase the line of any progress on a terminal, for other text; the progress prints it again."""
    for each in list(_running):
        each._erase()


def format_seconds(seconds: float) -> str:
    """Return a duration as minutes and seconds, with hours from one hour on.

    >>> format_seconds(75), format_seconds(3700)
    ('1:15', '1:01:40')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
