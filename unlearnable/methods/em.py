"""EM: min over surrogate and perturbation of the training loss. (Huang et al., 2101.04898)"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..engine.mask import protected
from ..engine.pgd import crossing, pgd
from ..engine.run import Run
from ..engine.sampler import images_among, images_per_batch
from ..engine.train import sgd, to_float, train
from .class_rows import ClassRows
from .expectation import Expectation, transformations
from .parameters import count, length, positive


@dataclass(repr=False, eq=False)
class EM(Expectation):
    """Error-minimising noise. (Huang et al., ICLR 2021, arXiv:2101.04898)

    Surrogate and perturbation take turns in minimising the same loss until the perturbed images are
    almost never misclassified. Then there is little left to learn from them but the perturbation.

    Args:
        surrogate: Name of a network or a module, which is copied and starts from fresh weights.
        epsilon: Budget in [0, 1] units.
        norm: ``"Linf"`` or ``"L2"``.
        step_size: Length of a perturbation step.
        steps: Steps per perturbation in a round; None means 20 sample-wise and 1 class-wise.
            Sample-wise, ``steps * step_size`` must exceed 0.5/255, half a pixel level, and for L2
            that times the square root of C * H * W. :meth:`extend` takes as many steps as are
            needed to cross the budget, if that is more.
        round_steps: Surrogate steps in a round.
        augment: Transformations drawn anew for each image in each step, as name -> probability:
            ``"crop-flip"`` (0 if absent) and before it one of ``"resize"``, ``"jpeg"``,
            ``"grayscale"``, ``"blur"``, ``"spectral"``, ``"normalize"`` and ``"jitter"``, or a
            combination such as ``"grayscale+jpeg"``. The perturbation then withstands them, but is
            mostly weaker without them. The surrogate is also trained, and its errors are counted,
            on such draws. None means no transformations.
        search_images: Largest number of images used in the rounds, rounded down to a multiple of 8;
            None means all. At the end each image is visited as :meth:`extend` visits new ones;
            class-wise that is not needed.
        stop_error: The fit ends after a round in which at most this share of the perturbed images
            is misclassified.
        max_rounds: Rounds after which the fit ends anyway, with a warning.
        granularity: ``"sample-wise"``, or ``"class-wise"``, where a row takes the mean step of its
            images.
        pretrained_surrogate: Keep the weights of a surrogate given as a module, or start from those
            of a named network (:func:`unlearnable.pretrained_network`).
        batch_size: Images per surrogate step and per perturbation step, rounded down to a
            multiple of 8, at least 8.
        seed: Seed of weights and batches.

    The original searches class-wise noise on a fifth of the images; this class uses all of them
    unless ``search_images`` says otherwise.

    Example:
        >>> from unlearnable.datasets import Shapes
        >>> method = EM.preset("demo", max_rounds=1, stop_error=1.0)
        >>> method.fit(Shapes(size=64), progress=False).perturbation_
        Perturbation(EM, sample-wise, Linf 8/255, 64 images of 3x32x32)
    """

    presets = {  # noqa: RUF012
        "paper": {},
        "fast": {
            "surrogate": "resnet9",
            "search_images": 2000,
            "steps": 10,
            "step_size": 1.6 / 255,
        },
        "demo": {"surrogate": "tiny"},
    }

    masked = True

    surrogate: str | nn.Module = "resnet18"
    _: KW_ONLY
    epsilon: float = 8 / 255
    norm: str = "Linf"
    step_size: float = length(0.8 / 255)
    steps: int | None = count(None, least=0)
    round_steps: int = count(10)
    augment: Mapping[str, float] | None = transformations()
    search_images: int | None = count(None, least=8)
    stop_error: float = positive(0.01, most=1)
    max_rounds: int = count(100)
    granularity: str = "sample-wise"
    pretrained_surrogate: bool = False
    batch_size: int = 512
    seed: int = 0

    @property
    def _visit(self) -> tuple[int, float] | None:
        return (self._steps, self.step_size) if self._has_rows else None

    @property
    def _steps(self) -> int:
        usual = 20 if self._has_rows else 1
        return usual if self.steps is None else self.steps

    def passes(self, num_images: int) -> int:
        """Image passes of ten rounds, because the number of rounds is not known beforehand."""
        searched = images_among(num_images, self.search_images)
        batch = images_per_batch(num_images, self.batch_size, self.search_images)
        rounds = 10 * (self.round_steps * batch + (self._steps + 1) * searched)
        visited_at_last = num_images if self._has_rows and searched < num_images else 0
        return rounds + self._last_steps * visited_at_last

    def _learn(self, run: Run) -> nn.Module:
        surrogate = self._build_surrogate(run)
        optimizer = sgd(surrogate)
        run.track(surrogate=surrogate, optimizer=optimizer)
        rows, among = run.rows if self._has_rows else ClassRows(run), self.search_images

        def seen(index: Tensor, purpose: str = "train") -> Tensor:
            shown = protected(to_float(run.images[index]), rows[index], run.mask(index))
            return self._seen(run, shown, purpose)

        for number in run.steps(self.max_rounds, "rounds"):
            learned = train(
                run,
                surrogate,
                optimizer,
                steps=self.round_steps,
                batch_size=self.batch_size,
                inputs=seen,
                clip_norm=5.0,
                among=among,
            )
            for index in run.sweep(self.batch_size, title="perturbations", among=among):
                rows[index] = self._descend(run, index, surrogate, rows[index], self._steps)
            for index in run.sweep(self.batch_size, title="error", among=among):
                with run.frozen(surrogate) as network, torch.no_grad():
                    wrong = network(seen(index, "error")).argmax(1) != run.labels[index]
                run.tally("error", wrong.sum(), len(index))
            error = run.mean("error")
            run.log(step=number, **learned, error=error)
            run.stop(error <= self.stop_error)
        error = run.history[-1]["error"]
        if error > self.stop_error:
            warnings.warn(
                f"EM ended after max_rounds={self.max_rounds} with {error:.1%} of the perturbed "
                f"images misclassified, above stop_error={self.stop_error:.1%}: the protection "
                f"may be weak, so raise max_rounds or change the settings",
                stacklevel=3,
            )
        if isinstance(rows, ClassRows):
            run.result("class-wise", rows=rows.by_class)
        elif among is not None and among < len(run.images):
            for index in run.sweep(self.batch_size, title="last sweep"):
                rows[index] = self._perturb(run, index, surrogate)
        return surrogate

    @property
    def _last_steps(self) -> int:
        """A fit's visits add up over its rounds; this is for the only one that a new image gets."""
        return max(self._steps, crossing(self.epsilon, self.step_size))

    def _perturb(self, run: Run, index: Tensor, surrogate: nn.Module) -> Tensor:
        return self._descend(run, index, surrogate, run.rows[index], self._last_steps)

    def _descend(
        self, run: Run, index: Tensor, surrogate: nn.Module, start: Tensor, steps: int
    ) -> Tensor:
        labels = run.labels[index]

        def loss(perturbed: Tensor) -> Tensor:
            seen = self._seen(run, perturbed, "search")
            return F.cross_entropy(network(seen), labels, reduction="sum")

        with run.frozen(surrogate) as network:
            return pgd(
                loss,
                to_float(run.images[index]),
                start,
                epsilon=self.epsilon,
                step_size=self.step_size,
                steps=steps,
                norm=self.norm,
                shared=not self._has_rows,
                mask=run.mask(index),
            )
