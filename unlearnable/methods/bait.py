"""BAIT: rows that bind any image to a class, in spite of pretrained weights. (2603.04731)"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from torch import nn

from ..engine.models import LITE0
from ..engine.run import Run
from ..engine.sampler import images_per_batch, images_per_epoch
from .base import Method
from .bound_generator import search_generator
from .bound_rows import search_rows
from .parameters import choice, count, flag, length, positive

_STAGES = 3


@dataclass(repr=False, eq=False)
class BAIT(Method):
    """Perturbations bound to wrong classes. (Li et al., ICLR 2026, arXiv:2603.04731)

    They target victims that start from pretrained weights: such a victim already knows what images
    show and needs no shortcut. So a class's row is searched on images of all other classes:
    whatever a pretrained surrogate sees in them, the row should make it see the class. In the paper
    a generator produces a perturbation for every image; a class's row is the mean over its images.
    The wrong classes are first those that the surrogate finds most likely, then random ones, then
    the least likely. Without the generator, which is our variant, rows are moved directly along the
    sign of their gradient, the wrong classes are random, and each round has a surrogate that starts
    anew, because the first steps decide what a victim looks at.

    Args:
        surrogate: Name of a network, or a module, which is copied.
        epsilon: Budget in [0, 1] units (Linf).
        search: ``"generator"`` as in the paper, or ``"rows"`` without one.
        rounds: Rounds in all three stages together. A round consists of a look-ahead of one
            surrogate step, an epoch of the generator, and the surrogate's own steps; with
            ``search="rows"``, of the surrogate's steps and those of the search.
        round_steps: Surrogate steps in a round; with ``search="rows"`` one in the first round, one
            more in each, and after this number one again.
        learning_rate: Learning rate of the surrogate.
        steps: Search steps in a round, of ``search="rows"``.
        step_size: Length of its steps, which falls linearly to 0 over the rounds.
        generator_rate: Learning rate of the generator (Adam).
        generator_width: Channels of the generator at full size, a multiple of 4.
        generator_blocks: Residual blocks of the generator.
        granularity: ``"class-wise"``; the method has no other.
        pretrained_surrogate: Start from the pretrained weights of a named network
            (:func:`unlearnable.pretrained_network`), with a new last layer, or keep those of a
            module. Otherwise start from fresh weights.
        batch_size: Images per step, rounded down to a multiple of 8, at least 8.
        seed: Seed of weights, batches and wrong classes.

    The generator is convolutional, with 8 residual blocks at a quarter of the size; its width and
    its GroupNorm are our choice. The preset ``"demo"`` only shows how the method runs, on a small
    network without pretrained weights; ``"paper"`` and ``"fast"`` need the extra ``pretrained``.

    Example:
        >>> from unlearnable.datasets import Shapes
        >>> method = BAIT.preset("demo", rounds=3)
        >>> method.fit(Shapes(size=64), progress=False).perturbation_
        Perturbation(BAIT, class-wise, Linf 8/255, 10 classes of 3x32x32)
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "fast": {
            "search": "rows",
            "rounds": 40,
            "round_steps": 20,
            "learning_rate": 0.01,
            "batch_size": 32,
        },
        "demo": {
            "surrogate": "tiny",
            "pretrained_surrogate": False,
            "rounds": 9,
            "round_steps": 10,
            "batch_size": 128,
            "generator_width": 8,
            "generator_blocks": 2,
        },
    }
    granularities = ("class-wise",)
    later = ("search", "steps", "step_size")
    norm = "Linf"

    surrogate: str | nn.Module = LITE0
    _: KW_ONLY
    epsilon: float = 8 / 255
    search: str = choice("generator", ("generator", "rows"))
    rounds: int = count(90)
    round_steps: int = count(1)
    learning_rate: float = positive(0.1)
    steps: int = count(50)
    step_size: float = length(0.5 / 255)
    generator_rate: float = positive(0.001)
    generator_width: int = count(32, least=4)
    generator_blocks: int = count(8)
    granularity: str = "class-wise"
    pretrained_surrogate: bool = flag(True)
    batch_size: int = 512
    seed: int = 0

    def _validate(self) -> None:
        super()._validate()
        if self.generator_width % 4:
            raise ValueError(
                f"expected generator_width to be a multiple of 4, got {self.generator_width}"
            )

    def passes(self, num_images: int) -> int:
        """Image passes, including those through the generator."""
        a_batch = images_per_batch(num_images, self.batch_size)
        if self.search == "rows":
            learned = sum(1 + number % self.round_steps for number in range(self.rounds))
            return a_batch * (learned + self.rounds * self.steps)
        seen = images_per_epoch(num_images, self.batch_size)
        return self.rounds * ((1 + self.round_steps) * a_batch + 4 * seen + num_images)

    def _learn(self, run: Run) -> nn.Module:
        if self.search == "generator":
            surrogate, rows = search_generator(
                run,
                self._build_surrogate(run),
                epsilon=self.epsilon,
                rounds=self.rounds,
                round_steps=self.round_steps,
                learning_rate=self.learning_rate,
                generator_rate=self.generator_rate,
                width=self.generator_width,
                blocks=self.generator_blocks,
                batch_size=self.batch_size,
            )
        else:
            surrogate, rows = search_rows(
                run,
                lambda name: self._build_surrogate(run, name=name),
                epsilon=self.epsilon,
                rounds=self.rounds,
                round_steps=self.round_steps,
                steps=self.steps,
                step_size=self.step_size,
                learning_rate=self.learning_rate,
                batch_size=self.batch_size,
            )
        run.result("class-wise", rows=rows)
        return surrogate
