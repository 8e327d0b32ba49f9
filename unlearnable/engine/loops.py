"""Nested loops that know where they are, and can be entered again in the middle."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .progress import Progress

_ACTED = (
    "expected draws, training steps, logs and tallies inside or after the innermost loops, got "
    "some before an inner loop, which a resumed run would repeat; move them"
)
_OTHERS = (
    "expected the loops in which the checkpoint was made, got others, because the algorithm has "
    "changed; delete the checkpoint to start again"
)


class _Loop:
    """A loop that is under way: its number among those of the same body, and its steps so far."""

    def __init__(self, ordinal: int, done: int) -> None:
        self.ordinal = ordinal
        self.done = done
        self.begun = 0  # loops that the present body has begun
        self.acted = False  # whether the present body has done what must not be done twice
        self.stopped = False


class Loops:
    """The loops of one run, outermost first.

    A position in nested loops is a path of (number of the loop in its body, steps done). After
    :meth:`resume`, loops that ended before the position give no steps, those on the path start
    after their last complete step, and later ones run as usual.

    Args:
        progress: Progress display.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._loops: list[_Loop] = []
        self._outside = _Loop(0, 0)
        self._target: list[list[int]] | None = None

    @property
    def depth(self) -> int:
        """Number of loops around the current position."""
        return len(self._loops)

    @property
    def path(self) -> list[list[int]]:
        """The current position; outside all loops, that of the next one."""
        if not self._loops:
            return [[self._outside.begun, 0]]
        return [[loop.ordinal, loop.done] for loop in self._loops]

    @property
    def begun(self) -> int:
        """Number of loops started in the current body."""
        return self._here.begun

    def skip(self, count: int) -> None:
        """Counts loops as started that will not be entered."""
        self._here.begun += count

    def resume(self, path: list[list[int]]) -> None:
        """Continues from a position; call it before the first loop."""
        self._target = path

    def act(self) -> None:
        """Records that the current body has done something; it may not start further loops."""
        self._here.acted = True

    def finish(self) -> None:
        """Raises ``RuntimeError`` after the last loop unless the resumed position was reached."""
        if self._target is not None and self._target != [[self._outside.begun, 0]]:
            raise RuntimeError(_OTHERS)
        self._target = None

    def stop(self) -> None:
        """Ends the innermost loop after its current step."""
        self._loops[-1].stopped = True

    def walk(
        self, count: int, title: str, passes: Callable[[], int], after: Callable[[int], None]
    ) -> Iterator[int]:
        """The steps of a loop, starting where it has to continue.

        Args:
            count: Total number of steps.
            title: Shown next to the progress bar.
            passes: Image passes so far, for the bar.
            after: Called after every step with the depth of the loop.
        """
        parent, depth = self._here, self.depth
        if parent.acted:
            raise RuntimeError(_ACTED)
        loop = _Loop(parent.begun, self._first_step(parent.begun, count))
        parent.begun += 1
        if self._target is not None and loop.done >= count:
            return  # it had ended before
        self._loops.append(loop)
        bar = self._progress.open(depth, title, count, loop.done)
        try:
            while loop.done < count:
                loop.begun, loop.acted = 0, False
                yield loop.done
                if self._target is not None:
                    raise RuntimeError(_OTHERS)
                loop.done = count if loop.stopped else loop.done + 1
                self._progress.advance(bar, passes())
                after(depth)
        finally:
            self._loops.pop()
            self._progress.shut(bar)

    @property
    def _here(self) -> _Loop:
        return self._loops[-1] if self._loops else self._outside

    def _first_step(self, ordinal: int, count: int) -> int:
        if self._target is None:
            return 0
        target, done = self._target[self.depth]
        if ordinal < target:
            return count
        if ordinal > target:
            raise RuntimeError(_OTHERS)
        if self.depth == len(self._target) - 1:
            self._target = None
        return done
