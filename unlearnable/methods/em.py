"""EM: min over surrogate and perturbation of the training loss. (Huang et al., 2101.04898)"""

from __future__ import annotations

import warnings
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..engine.pgd import crossing, pgd
from ..engine.run import Run
from ..engine.train import sgd, to_float, train
from .base import Method
from .class_rows import ClassRows
from .parameters import count, length, positive


@dataclass(repr=False, eq=False)
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

    surrogate: str | nn.Module = "resnet18"
    _: KW_ONLY
    epsilon: float = 8 / 255
    norm: str = "Linf"
    step_size: float = length(0.8 / 255)
    steps: int | None = count(None, least=0)
    round_steps: int = count(10)
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
        """Image passes of ten rounds; how many rounds it will take is not known beforehand."""
        return 10 * (self.round_steps * self.batch_size + (self._steps + 1) * num_images)

    def _learn(self, run: Run) -> nn.Module:
        surrogate = self._build_surrogate(run)
        optimizer = sgd(surrogate)
        run.track(surrogate=surrogate, optimizer=optimizer)
        rows = run.rows if self._has_rows else ClassRows(run)

        def perturbed(index: Tensor) -> Tensor:
            return (to_float(run.images[index]) + rows[index]).clamp(0, 1)

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
                rows[index] = self._descend(run, index, surrogate, rows[index], self._steps)
            for index in run.sweep(self.batch_size, title="error"):
                with run.frozen(surrogate) as network, torch.no_grad():
                    wrong = network(perturbed(index)).argmax(1) != run.labels[index]
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
        if isinstance(rows, ClassRows):
            run.result("class-wise", rows=rows.by_class)
        return surrogate

    def _perturb(self, run: Run, index: Tensor, surrogate: nn.Module) -> Tensor:
        # A fit's visits add up over its rounds; this is the only one that a new image gets.
        steps = max(self._steps, crossing(self.epsilon, self.step_size))
        return self._descend(run, index, surrogate, run.rows[index], steps)

    def _descend(
        self, run: Run, index: Tensor, surrogate: nn.Module, start: Tensor, steps: int
    ) -> Tensor:
        labels = run.labels[index]
        with run.frozen(surrogate) as network:
            return pgd(
                lambda images: F.cross_entropy(network(images), labels, reduction="sum"),
                to_float(run.images[index]),
                start,
                epsilon=self.epsilon,
                step_size=self.step_size,
                steps=steps,
                norm=self.norm,
                shared=not self._has_rows,
            )
