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
from .self_ensemble import check_checkpoints, train_checkpoints
from .spread_colours import spread_colours
from .swarm_colours import swarm_colours


@dataclass(repr=False, eq=False)
class ColourShift(Method):
    """Class-wise colour shifts, of which DUNE has some. (Wang et al., ICML 2026, arXiv:2605.01718)

    The colour of its class is added to every pixel of an image, and networks learn the tint instead
    of the picture. It needs no network and no rows per image, works for images of any size,
    including new ones of the same classes, and survives resizing, cropping and compression. It is
    as visible as a different white balance, and the mean of each class reveals it. Anyone who
    brings the channels of all images to one mean, or converts them to grey, removes it.

    Colours are random points on the surface of a cube, each as far as possible from those before.
    With ``search="swarm"`` they are found by particle swarms, as in DUNE: they make checkpoints of
    a network trained on clean images mistake the images of one class for another.

    Args:
        surrogate: For the swarms: name of a network or a module, which is copied and reinitialised.
        epsilon: Half the side of the cube, in [0, 1] units: the largest change of a value.
        norm: Only ``"Linf"``.
        search: ``"spread"``, for colours far from one another, or ``"swarm"``.
        luminance: Weight, from 0 to 1, that ``"spread"`` gives to differences in luminance rather
            than in colour.
        train_epochs: Epochs of the surrogate; this and all following parameters except ``seed``
            concern the swarms.
        checkpoints: Number of its states to use, equally spaced and including the last epoch's.
        shift: Images should be mistaken for the class this many indices further on, wrapping
            around; None means 3, or 1 if 3 leads back to the same class.
        particles: Particles per class.
        iterations: Moves of each particle.
        class_images: Largest number of images per class that are used.
        granularity: Only ``"class-wise"``.
        pretrained_surrogate: Keep the weights of a surrogate given as a module, or start from those
            of a named network (:func:`unlearnable.pretrained_network`).
        batch_size: Images per step, rounded down to a multiple of 8, at least 8.
        seed: Seed of the colours, weights, batches, augmentation and particles.

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
        check_checkpoints(self.checkpoints, self.train_epochs)

    def passes(self, num_images: int) -> int:
        """Image passes for ten classes, because the number of classes is not known beforehand."""
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
