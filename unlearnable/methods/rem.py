"""REM: min θ, min δu, E t, max δa of the loss at t(x + δu) + δa. (Fu et al., 2203.14533)"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..engine.mask import protected
from ..engine.pgd import crossing, pgd, random_start
from ..engine.run import Run
from ..engine.sampler import batches_for, images_per_batch
from ..engine.train import adversary, sgd, to_float, train
from .expectation import Expectation, transformations
from .parameters import budget, count, flag, length, positive

_BLOCK = 50  # surrogate steps between two records
_FAST: dict[str, Any] = {
    "surrogate": "resnet9",
    "steps": 2,
    "step_size": 4 / 255,
    "robust_steps": 1,
    "robust_step_size": 4 / 255,
    "eot_samples": 1,
    "search_images": 5000,
    "visits": 30.0,
    "final_steps": 8,
    "final_step_size": 2 / 255,
    "warm_start": True,
}
# The tiny surrogate does not become robust to 4/255 in so few steps, and rows made against that
# adversary keep more of the real classes.
_DEMO = _FAST | {
    "surrogate": "tiny",
    "robust_epsilon": 2 / 255,
    "robust_step_size": 2 / 255,
    "search_images": None,
    "visits": 12.8,
    "final_steps": 5,
    "final_step_size": None,
}


@dataclass(repr=False, eq=False)
class REM(Expectation):
    """Robust error-minimising noise. (Fu et al., ICLR 2022, arXiv:2203.14533)

    The perturbation minimises the loss after a random crop and flip and an adversary of radius
    ``robust_epsilon``, which raises it, in order to mislead victims that train adversarially, too.

    Args:
        surrogate: Name of a network or a module, which is copied and starts from fresh weights.
        epsilon: Budget of the perturbation, in [0, 1] units (the paper's ρu).
        norm: Norm of both budgets, ``"Linf"`` or ``"L2"``.
        step_size: Length of a perturbation step.
        steps: Perturbation steps per visit, at least 1.
        robust_epsilon: Budget of the adversary (the paper's ρa); 0 means no adversary.
        robust_step_size: Length of a step of the adversary.
        robust_steps: Steps of the adversary.
        eot_samples: Number of random crops and flips over which each step's gradient is averaged.
        augment: Transformations drawn anew for each image in each step, as name -> probability:
            ``"crop-flip"`` (1 if absent) and before it one of ``"resize"``, ``"jpeg"``,
            ``"grayscale"``, ``"blur"``, ``"spectral"``, ``"normalize"`` and ``"jitter"``, or a
            combination such as ``"grayscale+jpeg"``. The perturbation then withstands them, but is
            mostly weaker without them. The surrogate is also trained on such draws. None means only
            crops and flips. (EOT: Athalye et al., ICML 2018, arXiv:1707.07397)
        search_images: Largest number of images on which the surrogate is trained, rounded down to a
            multiple of 8; None means all. The others are visited only in the last sweep, which is
            enough once the surrogate has learned what its own perturbations look like.
        visits: How often the surrogate's training visits each of these images. The papers' 5,000
            steps of 128 images visit each CIFAR-10 image 12.8 times.
        train_steps: Total number of surrogate steps; overrides ``visits``, from which None derives
            it. The learning rate drops tenfold at 40 % and 80 % of the steps.
        final_steps: Steps in the last sweep over all images and in :meth:`extend`; None means
            ``steps``. 0, which requires ``warm_start`` and no ``search_images``, keeps the rows
            from training. If rows start at zero, as in :meth:`extend` with ``warm_start`` and for
            images left out of training, as many steps are taken as are needed to cross the budget,
            if that is more.
        final_step_size: Length of these steps; None means ``step_size``.
        warm_start: Start from the image's last perturbation instead of a random one, so that very
            few steps are enough. Then ``steps * step_size`` must exceed 0.5/255, half a pixel
            level, and for L2 that times the square root of C * H * W. For L2 without it, that
            product, also of the last sweep, must be at least half of ``epsilon``: the default
            lengths are for Linf.
        granularity: ``"sample-wise"``; the method has no other.
        pretrained_surrogate: Keep the weights of a surrogate given as a module, or start from those
            of a named network (:func:`unlearnable.pretrained_network`).
        batch_size: Images per step, rounded down to a multiple of 8, at least 8.
        seed: Seed of weights, batches, starts and augmentation.

    Example:
        >>> from unlearnable.datasets import Shapes
        >>> method = REM.preset("demo", train_steps=2)
        >>> method.fit(Shapes(size=64), progress=False).perturbation_
        Perturbation(REM, sample-wise, Linf 8/255, 64 images of 3x32x32)
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {}, "fast": _FAST, "demo": _DEMO}
    granularities = ("sample-wise",)
    masked = True
    crops = 1.0

    surrogate: str | nn.Module = "resnet18"
    _: KW_ONLY
    epsilon: float = 8 / 255
    norm: str = "Linf"
    step_size: float = length(1.6 / 255)
    steps: int = count(10)
    robust_epsilon: float = budget(4 / 255)
    robust_step_size: float = length(0.8 / 255)
    robust_steps: int = count(10, least=0)
    eot_samples: int = count(5)
    augment: Mapping[str, float] | None = transformations()
    search_images: int | None = count(None, least=8)
    visits: float = positive(12.8)
    train_steps: int | None = count(None, least=0)
    final_steps: int | None = count(None, least=0)
    final_step_size: float | None = length(None)
    warm_start: bool = flag(False)
    granularity: str = "sample-wise"
    pretrained_surrogate: bool = False
    batch_size: int = 128
    seed: int = 0

    def _validate(self) -> None:
        super()._validate()
        if self.final_steps == 0 and not self.warm_start:
            raise ValueError(
                "expected final_steps >= 1 without warm_start=True, got 0: the last sweep would "
                "replace what was learned with random starts"
            )
        if self.final_steps == 0 and self.search_images is not None:
            raise ValueError(
                "expected final_steps >= 1 with search_images, got 0: the other images would have "
                "no perturbation"
            )

    @property
    def _visit(self) -> tuple[int, float] | None:
        return (self.steps, self.step_size) if self.warm_start else None

    def _check_moves(self, shape: Sequence[int] | None = None) -> None:
        super()._check_moves(shape)
        if self.warm_start or self.norm == "Linf":
            return
        last = "final_step_size" if self.final_step_size else "step_size"
        for steps, name in ((self.steps, "step_size"), (self._final_steps, last)):
            step_size = getattr(self, name)
            if steps * step_size < self.epsilon / 2:
                raise ValueError(
                    f"expected steps that reach at least half of epsilon={self.epsilon:g} with the "
                    f"norm L2, got {steps} * {step_size:.3g}: rows start at random without "
                    f"warm_start=True, and would stay almost as random; pass a larger {name}="
                )

    @property
    def _final_steps(self) -> int:
        return self.steps if self.final_steps is None else self.final_steps

    @property
    def _search_passes(self) -> int:
        """Image passes of one step's gradient, for each EOT sample."""
        return 1 + (self.robust_steps if self.robust_epsilon else 0)

    def _updates(self, num_images: int) -> int:
        """Surrogate steps."""
        if self.train_steps is not None:
            return self.train_steps
        return batches_for(self.visits, num_images, self.batch_size, self.search_images)

    def passes(self, num_images: int) -> int:
        adversary = self.robust_steps if self.robust_epsilon else 0
        search = self.eot_samples * self._search_passes
        a_step = self.steps * search + adversary + 1
        final = num_images * self._sweep_steps(num_images) * search
        batch = images_per_batch(num_images, self.batch_size, self.search_images)
        return self._updates(num_images) * batch * a_step + final

    def _learn(self, run: Run) -> nn.Module:
        surrogate = self._build_surrogate(run)
        optimizer = sgd(surrogate)
        updates = self._updates(len(run.images))
        decay = max(1, round(0.4 * updates))
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, decay, gamma=0.1)
        run.track(surrogate=surrogate, optimizer=optimizer, scheduler=scheduler)

        def hardest(index: Tensor) -> Tensor:
            run.rows[index] = self._search(run, index, surrogate, self.steps)
            shown = protected(to_float(run.images[index]), run.rows[index], run.mask(index))
            seen = self._seen(run, shown, "train")
            return seen + self._adversary(run, surrogate, seen, run.labels[index])

        for block in run.steps(-(-updates // _BLOCK), f"blocks of {_BLOCK} steps"):
            done = block * _BLOCK
            steps = min(_BLOCK, updates - done)
            learned = train(
                run,
                surrogate,
                optimizer,
                steps=steps,
                batch_size=self.batch_size,
                inputs=hardest,
                scheduler=scheduler,
                among=self.search_images,
            )
            run.log(step=done + steps, **learned)
        # Early rows were made for a surrogate that is long gone: every image is visited once more.
        steps = self._sweep_steps(len(run.images))
        for index in run.sweep(self.batch_size, title="last sweep"):
            run.rows[index] = self._last_search(run, index, surrogate, steps)
        return surrogate

    def _perturb(self, run: Run, index: Tensor, surrogate: nn.Module) -> Tensor:
        return self._last_search(run, index, surrogate, self._steps_of_new)

    @property
    def _steps_of_new(self) -> int:
        """Steps for an image that no step of the training visited."""
        steps = self._final_steps or self.steps
        if self.warm_start:  # a fit's visits add up; this is the only one that a new image gets
            steps = max(steps, crossing(self.epsilon, self.final_step_size or self.step_size))
        return steps

    def _sweep_steps(self, num_images: int) -> int:
        """Steps of the last sweep."""
        left_out = self.search_images is not None and self.search_images < num_images
        return self._steps_of_new if left_out else self._final_steps

    def _last_search(self, run: Run, index: Tensor, surrogate: nn.Module, steps: int) -> Tensor:
        return self._search(run, index, surrogate, steps, self.final_step_size)

    def _search(
        self,
        run: Run,
        index: Tensor,
        surrogate: nn.Module,
        steps: int,
        step_size: float | None = None,
    ) -> Tensor:
        """Perturbations that minimise the loss over augmentation and disturbance, (B, C, H, W)."""
        images = to_float(run.images[index])
        labels = run.labels[index].repeat_interleave(self.eot_samples)
        if self.warm_start:
            start = run.rows[index]
        else:
            start = random_start(images, self.epsilon, run.rng("start"), self.norm)

        def loss(perturbed: Tensor) -> Tensor:
            copies = perturbed.repeat_interleave(self.eot_samples, dim=0)
            seen = self._seen(run, copies, "search")
            disturbed = self._disturbed(run, surrogate, seen, labels)
            del seen  # of which the gradient needs nothing
            return F.cross_entropy(network(disturbed), labels, reduction="sum")

        with run.frozen(surrogate) as network:
            return pgd(
                loss,
                images,
                start,
                epsilon=self.epsilon,
                step_size=step_size or self.step_size,
                steps=steps,
                norm=self.norm,
                mask=run.mask(index),
            )

    def _adversary(self, run: Run, surrogate: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Error-maximising change of images as they are seen, (B, C, H, W)."""
        return adversary(
            run,
            surrogate,
            images,
            labels,
            epsilon=self.robust_epsilon,
            step_size=self.robust_step_size,
            steps=self.robust_steps,
            norm=self.norm,
        )

    def _disturbed(self, run: Run, surrogate: nn.Module, seen: Tensor, labels: Tensor) -> Tensor:
        """Images with their disturbance, (B, C, H, W)."""
        # Straight through: the gradient is taken at the disturbed image and belongs to `seen`. In
        # place, since at the size of photos each copy of all crops takes hundreds of megabytes.
        return self._disturbance(run, surrogate, seen.detach(), labels).add_(seen)

    def _disturbance(
        self, run: Run, surrogate: nn.Module, images: Tensor, labels: Tensor
    ) -> Tensor:
        """What the perturbation has to withstand, (B, C, H, W): here the worst."""
        return self._adversary(run, surrogate, images, labels)
