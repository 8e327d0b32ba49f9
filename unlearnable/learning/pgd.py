"""Projected gradient descent and ascent on a perturbation. (Madry et al., ICLR 2018, 1706.06083)"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .draws import Draws

NORMS = ("Linf", "L2")


def _norms(delta: Tensor) -> Tensor:
    """L2 norm of each image's perturbation, (B, 1, 1, 1)."""
    return torch.linalg.vector_norm(delta, dim=(1, 2, 3), keepdim=True)


def project(delta: Tensor, images: Tensor, epsilon: float, norm: str = "Linf") -> Tensor:
    """The nearest perturbation inside the budget, then inside the valid pixels.

    Args:
        delta: Perturbations in [0, 1] units, (B, C, H, W).
        images: What they are added to, in [0, 1], (B, C, H, W).
        epsilon: Radius of the budget in [0, 1] units.
        norm: ``"Linf"`` or ``"L2"``.
    """
    if norm == "Linf":
        delta = delta.clamp(-epsilon, epsilon)
    else:
        delta = delta * (epsilon / _norms(delta).clamp_min(1e-12)).clamp_max(1)
    return (images + delta).clamp(0, 1) - images


def pgd(
    loss_fn: Callable[[Tensor], Tensor],
    images: Tensor,
    delta: Tensor,
    *,
    epsilon: float,
    step_size: float,
    steps: int,
    norm: str = "Linf",
    maximize: bool = False,
) -> Tensor:
    """Lowers (or raises) a loss over perturbations of a batch, step by projected step.

    Args:
        loss_fn: Takes the perturbed images (B, C, H, W) and returns a scalar. A mean over images
            and a sum give the same steps.
        images: Float images in [0, 1], (B, C, H, W).
        delta: Where to start; projected first.
        epsilon: Radius of the budget, in [0, 1] units.
        step_size: Length of a step in the norm, in [0, 1] units.
        steps: Number of steps; 0 gives the projected start.
        norm: ``"Linf"`` (steps along the sign of the gradient) or ``"L2"`` (along its direction).
        maximize: Ascend instead of descend.

    Returns:
        The perturbation after the last step, inside budget and valid pixels, without gradient.
    """
    signed_step = step_size if maximize else -step_size
    delta = project(delta.detach(), images, epsilon, norm)
    if norm != "Linf":
        for _ in range(steps):
            gradient = _gradient(loss_fn, images + delta)
            direction = gradient / _norms(gradient).clamp_min(1e-12)
            delta = project(delta + signed_step * direction, images, epsilon, norm)
        return delta
    # The box around each image, inside the valid pixels, once: three operations a step then do.
    low, high = (images - epsilon).clamp_min(0), (images + epsilon).clamp_max(1)
    perturbed = images + delta
    for _ in range(steps):
        gradient = _gradient(loss_fn, perturbed)
        perturbed = perturbed.add(gradient.sign_(), alpha=signed_step).clamp_(low, high)
    return perturbed - images


def _gradient(loss_fn: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    leaf = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss_fn(leaf), leaf)
    return gradient


def random_start(images: Tensor, epsilon: float, draws: Draws, norm: str = "Linf") -> Tensor:
    """A uniform point of the budget around ``images``, not yet inside the valid pixels."""
    if norm == "Linf":
        return draws.uniform(images.shape, -epsilon, epsilon)
    direction = draws.normal(images.shape)
    dimensions = images.shape[1:].numel()
    radius = draws.uniform((len(images), 1, 1, 1), 0, 1) ** (1 / dimensions)
    return epsilon * radius * direction / _norms(direction).clamp_min(1e-12)
