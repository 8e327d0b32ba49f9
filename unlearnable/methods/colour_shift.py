"""ColourShift: a colour per class on every pixel, far from the others' or learned for networks."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from torch import nn

from ..engine.models import Ensemble
from ..engine.run import Run
from ..engine.sampler import images_per_epoch
from .base import Method
from .parameters import any_integer, choice, count, proportion
from .self_ensemble import train_checkpoints
from .spread_colours import spread_colours
from .swarm_colours import swarm_colours


@dataclass(repr=False, eq=False)
class ColourShift(Method):
    """Class-wise colour shifts, of which DUNE has some. (Wang et al., ICML 2026, arXiv:2605.01718)

    The colour of its class is added to every pixel of an image, and networks learn the tint instead
    of the picture. It needs no network and no row per image, fits images of any size, new ones of
    the same classes among them, and outlasts what resizes, crops or compresses. It is as visible as
    another white balance, and gives itself away by the mean of each class; whoever brings the
    channels of all images to one mean, or makes them grey, removes it.

    Colours are random points of the surface of a cube, each as far as possible from those before.
    Or (``search="swarm"``) they are found by particle swarms, as DUNE's are: with them, checkpoints
    of a network that was trained on clean images take the images of a class for those of another.

    Args:
        surrogate: Name of a network or a module for the swarms, copied and with fresh weights.
        epsilon: Half a side of the cube, in [0, 1] units: the most that a value changes.
        norm: ``"Linf"`` only.
        search: ``"spread"``, far from one another, or ``"swarm"``.
        luminance: How much the former counts differences in luminance instead of those in colour,
            from 0 to 1.
        train_epochs: Epochs of the surrogate; this and all below but the last is for the swarms.
        checkpoints: How many of its states are used, equally spaced, the last epoch's among them.
        shift: The class that images are to be taken for is this many classes on, and round again;
            None is 3, and 1 where 3 leads nowhere.
        particles: Of each class's swarm.
        iterations: Moves of each particle.
        class_images: How many images of a class are looked at, where there are more.
        granularity: ``"class-wise"`` only.
        pretrained_surrogate: Keep the weights of a surrogate given as a module.
        batch_size: Images of a step, rounded down to a multiple of 8, at least 8.
        seed: Of the colours; of weights, batches, augmentation and particles.

    Example:
        >>> from unlearnable.datasets import Shapes
        >>> ColourShift().fit(Shapes(size=20), progress=False).perturbation_
        Perturbation(ColourShift, class-wise, Linf 25/255, 10 classes of 3x32x32)
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "fast": {"surrogate": "resnet9", "train_epochs": 10, "class_images": 200},
        "demo": {"surrogate": "tiny", "train_epochs": 15, "class_images": 100},
    }
    kind = "shift"
    granularities = ("class-wise",)
    least_classes = 1

    surrogate: str | nn.Module = "resnet18"
    _: KW_ONLY
    epsilon: float = 25 / 255
    norm: str = choice("Linf", ("Linf",))
    search: str = choice("spread", ("spread", "swarm"))
    luminance: float = proportion(0.0)
    train_epochs: int = count(120)
    checkpoints: int = count(5)
    shift: int | None = any_integer(None)
    particles: int = count(10)
    iterations: int = count(10)
    class_images: int = count(1000)
    granularity: str = "class-wise"
    pretrained_surrogate: bool = False
    batch_size: int = 128
    seed: int = 0

    def _validate(self) -> None:
        super()._validate()
        if self.train_epochs < self.checkpoints:
            raise ValueError(
                f"expected no more checkpoints than epochs, got {self.checkpoints} of "
                f"train_epochs={self.train_epochs}"
            )

    def passes(self, num_images: int) -> int:
        """Image passes where there are ten classes; how many there are is not known beforehand."""
        if self.search == "spread":
            return 0
        seen = images_per_epoch(num_images, self.batch_size)
        judged = min(num_images, 10 * self.class_images)
        looks = self.particles * self.iterations * self.checkpoints
        return self.train_epochs * seen + looks * judged

    def _learn(self, run: Run) -> None:
        channels = run.images.shape[1]
        if self.search == "spread":
            draws = run.global_rng("colours")
            spread = (run.num_classes, channels, self.epsilon, self.luminance)
            run.result("shift", colours=spread_colours(draws, *spread))
            return
        surrogate = self._build_surrogate(run)
        ensemble = Ensemble(surrogate, self.checkpoints).to(run.device)
        train_checkpoints(
            run, surrogate, ensemble, epochs=self.train_epochs, batch_size=self.batch_size
        )
        colours = swarm_colours(
            run,
            ensemble,
            epsilon=self.epsilon,
            shift=self.shift,
            particles=self.particles,
            iterations=self.iterations,
            class_images=self.class_images,
            batch_size=self.batch_size,
        )
        run.result("shift", colours=colours)
