"""ClassConvolution: a random blur per class, published as CUDA. (Sadasivan et al., 2303.04278)"""

from __future__ import annotations

import torch

from ..engine.run import Run
from .base import Method


class ClassConvolution(Method):
    """Class-wise convolutions, published as CUDA. (Sadasivan et al., CVPR 2023, arXiv:2303.04278)

    Each class has a small random kernel: weights between 0 and ``blur``, and one of them 1. All
    channels of its images are convolved with it, and a network learns to tell the kernels. There is
    no budget, and nothing is trained.

    Args:
        kernel_size: Side of the kernels; the paper has 3 for 32x32 images and 9 for ImageNet.
        blur: Largest of the other weights; the paper has 0.3, and 0.06 for ImageNet.
        normalize: ``"max"``, as published, divides by the image's largest value, so that every
            image then reaches 255 and dark ones get brighter. ``"sum"`` divides by the sum of the
            kernel, which keeps the brightness.
        granularity: ``"class-wise"`` alone.
        seed: Of the kernels.

    Example:
        >>> from unlearnable.datasets import Shapes
        >>> ClassConvolution().fit(Shapes(size=20), progress=False).perturbation_
        Perturbation(ClassConvolution, class-wise, 3x3 kernels, 10 classes of 3x32x32)
    """

    presets = {"paper": {}, "fast": {}, "demo": {}}  # noqa: RUF012
    kind = "convolution"
    granularities = ("class-wise",)

    def __init__(
        self,
        *,
        kernel_size: int = 3,
        blur: float = 0.3,
        normalize: str = "max",
        granularity: str = "class-wise",
        seed: int = 0,
    ) -> None:
        self.kernel_size = kernel_size
        self.blur = blur
        self.normalize = normalize
        self.granularity = granularity
        self.seed = seed

    def _validate(self) -> None:
        super()._validate()
        size = self.kernel_size
        if isinstance(size, bool) or not isinstance(size, int) or size % 2 == 0 or size < 3:
            raise ValueError(f"expected kernel_size to be odd, 3 or more, got {size}")
        if not 0 < self.blur <= 1:
            raise ValueError(f"expected blur above 0 and up to 1, got {self.blur}")
        if self.normalize not in ("max", "sum"):
            raise ValueError(f'expected normalize "max" or "sum", got {self.normalize!r}')

    def passes(self, num_images: int) -> int:
        return 0

    def _learn(self, run: Run) -> None:
        size = self.kernel_size
        if size > 2 * min(run.images.shape[2:]) - 1:
            raise ValueError(
                f"expected kernels that an image of {tuple(run.images.shape[2:])} can fill, got "
                f"kernel_size={size}"
            )
        draws = run.global_rng("kernels")
        kernels = draws.uniform((run.num_classes, size * size), 0, self.blur)
        full = draws.integers((run.num_classes, 1), 0, size * size)
        kernels.scatter_(1, full, torch.ones_like(kernels))
        run.result(
            "convolution",
            kernels=kernels.view(run.num_classes, size, size),
            normalize=self.normalize,
        )
