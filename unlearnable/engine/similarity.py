"""How alike images look, as tensors: PSNR and SSIM. (Wang et al., IEEE TIP 13(4), 2004)"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_WINDOW = 7  # pixels, uniform
_C1, _C2 = 0.01**2, 0.03**2


def psnr(images: Tensor, others: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each float image in [0, 1], (B, C, H, W) -> (B,)."""
    return -10 * (others - images).square().flatten(1).mean(1).log10()


def ssim(images: Tensor, others: Tensor) -> Tensor:
    """Mean structural similarity of each float image in [0, 1], (B, C, H, W) -> (B,).

    The mean is over channels and all windows of 7x7 pixels, or less for smaller images.
    """
    with torch.autocast(images.device.type, enabled=False):
        a, b = images.float(), others.float()
        window = min(_WINDOW, *a.shape[2:])

        def mean(values: Tensor) -> Tensor:
            return F.avg_pool2d(values, window, stride=1)

        mean_a, mean_b = mean(a), mean(b)
        product, squares = mean_a * mean_b, mean_a**2 + mean_b**2
        covariance, variances = mean(a * b) - product, mean(a**2 + b**2) - squares
        alike = (2 * product + _C1) / (squares + _C1) * (2 * covariance + _C2) / (variances + _C2)
        return alike.flatten(1).mean(1)
