"""How far a long command is, for people: a bar in words, and no log of what experts look at."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator

_EXPERTS = ("unlearnable.engine", "unlearnable.methods")  # whose logs are for them
_WHOLE = 1000


@contextlib.contextmanager
def learning_bar(*, show: bool) -> Iterator[Callable[[float], None]]:
    """Shows a progress bar on a terminal for the share of the learning done, from 0 to 1."""
    from tqdm.auto import tqdm

    form = "{desc}: {percentage:3.0f}% |{bar}| {remaining} left"
    shown = None if show else True  # None: where standard error is a terminal
    with tqdm(total=_WHOLE, desc="learning", bar_format=form, disable=shown) as bar:

        def advance(share: float) -> None:
            bar.update(round(_WHOLE * share) - bar.n)

        yield advance
        advance(1.0)


@contextlib.contextmanager
def plain_words(*, verbose: bool) -> Iterator[None]:
    """Hides technical log lines, such as image passes and precisions, unless ``verbose``."""
    if verbose:
        yield
        return
    loggers = [logging.getLogger(name) for name in _EXPERTS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # The plan says what a fit is going to take.
            warnings.filterwarnings("ignore", r".* image passes of ")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
