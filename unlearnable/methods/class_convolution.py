"""ClassConvolution: a random blur per class, published as CUDA. (Sadasivan et al., 2303.04278)"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..engine.numbers import integer
from ..engine.run import Run
from .base import Method
from .parameters import Untrained, checked, choice, positive


def _odd(name: str, value: Any, norm: str) -> int:
    value = integer(name, value)
    if value < 3 or value % 2 == 0:
        raise ValueError(f"expected {name} to be odd, 3 or more, got {value}")
    return value


@dataclass(kw_only=True, repr=False, eq=False)
class ClassConvolution(Untrained, Method):
    """Class-wise convolutions, published as CUDA. (Sadasivan et al., CVPR 2023, arXiv:2303.04278)

    Each class has a small random kernel with weights between 0 and ``blur``, except one, which is
    1. All channels of its images are convolved with it, and a network learns to recognise the
    kernels. There is no budget, and nothing is trained.

    Args:
        kernel_size: Side of the kernels; the paper uses 3 for 32x32 images and 9 for ImageNet.
        blur: Largest of the other weights; the paper uses 0.3, and 0.06 for ImageNet.
        normalize: ``"max"``, as published, divides by the image's largest value, so that every
            image reaches 255 and dark images become brighter. ``"sum"`` divides by the sum of the
            kernel, which preserves brightness.
        granularity: Only ``"class-wise"``.
        seed: Seed of the kernels.

    Example:
        >>> from unlearnable.datasets import Shapes
        >>> ClassConvolution().fit(Shapes(size=20), progress=False).perturbation_
        Perturbation(ClassConvolution, class-wise, 3x3 kernels, 10 classes of 3x32x32)
    """

    kind = "convolution"
    granularities = ("class-wise",)

    kernel_size: int = checked(3, _odd)
    blur: float = positive(0.3, most=1)
    normalize: str = choice("max", ("max", "sum"))
    granularity: str = "class-wise"
    seed: int = 0

    def _learn(self, run: Run) -> None:
        size = self.kernel_size
        if size > 2 * min(run.images.shape[2:]) - 1:
            raise ValueError(
                f"expected kernels that fit into an image of {tuple(run.images.shape[2:])}, got "
                f"kernel_size={size}; pass image_size={size // 2 + 1} or more (--image-size)"
            )
        draws = run.global_rng("kernels")
        kernels = draws.uniform((run.num_classes, size * size), 0, self.blur)
        full = draws.integers((run.num_classes, 1), 0, size * size)
        kernels = kernels.scatter(1, full, 1.0).view(run.num_classes, size, size)
        run.result("convolution", kernels=kernels, normalize=self.normalize)
