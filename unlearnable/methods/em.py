"""EM: min over surrogate and perturbation of the training loss. (Huang et al., 2101.04898)"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..engine.pgd import crossing, pgd
from ..engine.run import Run
from ..engine.train import sgd, to_float, train
from .base import Method
from .class_rows import class_rows, move_to_means


class EM(Method):
    """Error-minimising noise. (Huang et al., ICLR 2021, arXiv:2101.04898)

    Surrogate and perturbation minimise the same loss in turn, until the perturbed images are almost
    never misclassified: then there is little left to learn from them but the perturbation.

    Args:
        surrogate: Name of a network or a module, which is copied and starts from fresh weights.
        epsilon: Budget in [0, 1] units.
        norm: ``"Linf"`` or ``"L2"``.
        step_size: Length of a step of the perturbation.
        steps: Steps of each perturbation in a round; None is 20 sample-wise and 1 class-wise.
            Sample-wise, ``steps * step_size`` is above 0.5/255, half a pixel level, and for the
            norm L2 above that times the root of C * H * W; :meth:`extend` takes as many as lead
            across the budget, if that is more.
        round_steps: Surrogate steps in a round.
        stop_error: The fit ends at a round that leaves no more than this share of perturbed images
            misclassified.
        max_rounds: Rounds after which the fit ends anyway, with a warning.
        granularity: ``"sample-wise"``, or ``"class-wise"``: the mean of its images' steps.
        pretrained_surrogate: Keep the weights of a surrogate given as a module.
        batch_size: Images of a surrogate step and of a perturbation step, rounded down to a
            multiple of 8, at least 8.
        seed: Of weights and batches.

    The original searches class-wise noise on a fifth of the images; this class uses all of them.

    Example:
        >>> from unlearnable.datasets import Shapes
        >>> method = EM.preset("demo", max_rounds=1, stop_error=1.0)
        >>> method.fit(Shapes(size=64), progress=False).perturbation_
        Perturbation(EM, sample-wise, Linf 8/255, 64 images of 3x32x32)
    """

    presets = {  # noqa: RUF012
        "paper": {},
        "fast": {"steps": 10, "step_size": 1.6 / 255},
        "demo": {"surrogate": "tiny"},
    }

    def __init__(
        self,
        surrogate: str | nn.Module = "resnet18",
        *,
        epsilon: float = 8 / 255,
        norm: str = "Linf",
        step_size: float = 0.8 / 255,
        steps: int | None = None,
        round_steps: int = 10,
        stop_error: float = 0.01,
        max_rounds: int = 100,
        granularity: str = "sample-wise",
        pretrained_surrogate: bool = False,
        batch_size: int = 512,
        seed: int = 0,
    ) -> None:
        self.surrogate = surrogate
        self.epsilon = epsilon
        self.norm = norm
        self.step_size = step_size
        self.steps = steps
        self.round_steps = round_steps
        self.stop_error = stop_error
        self.max_rounds = max_rounds
        self.granularity = granularity
        self.pretrained_surrogate = pretrained_surrogate
        self.batch_size = batch_size
        self.seed = seed

    def _validate(self) -> None:
        super()._validate()
        if not 0 < self.stop_error <= 1:
            raise ValueError(f"expected stop_error above 0 and up to 1, got {self.stop_error}")
        if self.round_steps < 1:
            raise ValueError(f"expected round_steps >= 1, got {self.round_steps}")

    @property
    def _visit(self) -> tuple[int, float] | None:
        return (self._steps, self.step_size) if self.granularity == "sample-wise" else None

    @property
    def _steps(self) -> int:
        if self.steps is not None:
            return self.steps
        return 20 if self.granularity == "sample-wise" else 1

    def passes(self, num_images: int) -> int:
        """Image passes of ten rounds: how many it will be is not known before."""
        return 10 * (self.round_steps * self.batch_size + (self._steps + 1) * num_images)

    def _learn(self, run: Run) -> nn.Module:
        surrogate = self._build_surrogate(run)
        optimizer = sgd(surrogate)
        run.track(surrogate=surrogate, optimizer=optimizer)
        by_class = None if self.granularity == "sample-wise" else class_rows(run)

        def perturbed(index: Tensor) -> Tensor:
            delta = run.rows[index] if by_class is None else by_class[run.labels[index]]
            return (to_float(run.images[index]) + delta).clamp(0, 1)

        for number in run.steps(self.max_rounds, "rounds"):
            learned = train(
                run,
                surrogate,
                optimizer,
                steps=self.round_steps,
                batch_size=self.batch_size,
                inputs=perturbed,
                clip_norm=5.0,
            )
            for index in run.sweep(self.batch_size, title="perturbations"):
                if by_class is None:
                    start = run.rows[index]
                    run.rows[index] = self._descend(run, index, surrogate, start, self._steps)
                else:
                    self._class_step(run, index, surrogate, by_class)
            for index in run.sweep(self.batch_size, title="error"):
                with run.frozen(surrogate), torch.no_grad():
                    wrong = surrogate(perturbed(index)).argmax(1) != run.labels[index]
                run.tally("error", wrong.sum(), len(index))
            error = run.mean("error")
            run.log(step=number, **learned, error=error)
            run.stop(error <= self.stop_error)
        error = run.history[-1]["error"]
        if error > self.stop_error:
            warnings.warn(
                f"EM ended after max_rounds={self.max_rounds} with {error:.1%} of the perturbed "
                f"images misclassified, above stop_error={self.stop_error:.1%}: the protection may "
                f"be weak",
                stacklevel=3,
            )
        if by_class is not None:
            run.result("class-wise", rows=by_class)
        return surrogate

    def _perturb(self, run: Run, index: Tensor, surrogate: nn.Module | None) -> Tensor:
        if self.granularity == "class-wise" or surrogate is None:
            return super()._perturb(run, index, surrogate)
        # A fit's visits add up over its rounds; this is the only one that a new image gets.
        steps = max(self._steps, crossing(self.epsilon, self.step_size))
        return self._descend(run, index, surrogate, run.rows[index], steps)

    def _class_step(self, run: Run, index: Tensor, surrogate: nn.Module, by_class: Tensor) -> None:
        """Moves each class's row to the mean of its images' descended perturbations."""
        labels = run.labels[index]
        delta = self._descend(run, index, surrogate, by_class[labels], self._steps)
        move_to_means(run, by_class, labels, delta)

    def _descend(
        self, run: Run, index: Tensor, surrogate: nn.Module, start: Tensor, steps: int
    ) -> Tensor:
        labels = run.labels[index]
        with run.frozen(surrogate):
            return pgd(
                lambda images: F.cross_entropy(surrogate(images), labels, reduction="sum"),
                to_float(run.images[index]),
                start,
                epsilon=self.epsilon,
                step_size=self.step_size,
                steps=steps,
                norm=self.norm,
                shared=self.granularity == "class-wise",
            )
