"""Projected gradient descent and ascent on a perturbation. (Madry et al., ICLR 2018, 1706.06083)"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .mask import Mask, protected
from .random import Draws


def _norms(delta: Tensor) -> Tensor:
    """L2 norm of each image's perturbation, (B, 1, 1, 1)."""
    return torch.linalg.vector_norm(delta, dim=(1, 2, 3), keepdim=True)


def project(delta: Tensor, images: Tensor, epsilon: float, norm: str = "Linf") -> Tensor:
    """Projects perturbations into the budget and then into the range of valid pixels.

    Args:
        delta: Perturbations in [0, 1] units, (B, C, H, W).
        images: Images that they are added to, in [0, 1], (B, C, H, W).
        epsilon: Radius of the budget in [0, 1] units.
        norm: ``"Linf"`` or ``"L2"``.
    """
    return into_budget(delta, epsilon, norm).add_(images).clamp_(0, 1).sub_(images)


def into_budget(delta: Tensor, epsilon: float, norm: str) -> Tensor:
    """Projects (B, C, H, W) into the budget, regardless of images; returns a new tensor."""
    if norm == "Linf":
        return delta.clamp(-epsilon, epsilon)
    return delta * (epsilon / _norms(delta).clamp_min(1e-12)).clamp_max(1)


def crossing(epsilon: float, step_size: float) -> int:
    """Number of steps needed to cross the budget; both lengths are in [0, 1] units."""
    return math.ceil(2 * epsilon / step_size - 1e-9)


def target_classes(labels: Tensor, shift: int, num_classes: int) -> Tensor:
    """The target class of each image: ``shift`` classes further on, modulo their number.

    Raises:
        ValueError: The target would be the image's own class.
    """
    if shift % num_classes == 0:
        raise ValueError(
            f"expected a shift that leads to another class, got {shift} for {num_classes} classes"
        )
    return (labels + shift) % num_classes


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
    shared: bool = False,
    mask: Mask | None = None,
) -> Tensor:
    """Lowers (or raises) a loss over the perturbations of a batch by projected gradient descent.

    Args:
        loss_fn: Function from perturbed images (B, C, H, W) to a scalar. A mean over images and a
            sum give the same steps.
        images: Float images in [0, 1], (B, C, H, W).
        delta: Starting point, which is projected first.
        epsilon: Radius of the budget, in [0, 1] units.
        step_size: Length of a step in the norm, in [0, 1] units.
        steps: Number of steps; 0 returns the projected start.
        norm: ``"Linf"`` (steps along the sign of the gradient) or ``"L2"`` (along its direction).
        maximize: Ascend instead of descend.
        shared: The perturbation is shared by several images. So it only has to stay within the
            budget, and is clipped to valid pixels only when the loss is computed: what one image
            has no room for, another one of its class may have.
        mask: Visibility mask of the images. The loss is then computed on images that show the
            masked perturbation, rounded to levels; budget and steps apply to the unmasked
            perturbation, so that each pixel has a box and a step in proportion to its weight. The
            perturbation only has to stay within the budget, as if it were ``shared``.

    Returns:
        The perturbation after the last step, (B, C, H, W), without gradient. It is within the
        budget and, unless ``shared`` or masked, within the range of valid pixels.
    """
    return projected_steps(
        lambda perturbed: gradient(loss_fn, perturbed),
        images,
        delta,
        epsilon=epsilon,
        step_size=step_size,
        steps=steps,
        norm=norm,
        maximize=maximize,
        shared=shared,
        mask=mask,
    )


def projected_steps(
    gradient_fn: Callable[[Tensor], Tensor],
    images: Tensor,
    delta: Tensor,
    *,
    epsilon: float,
    step_size: float,
    steps: int,
    norm: str = "Linf",
    maximize: bool = False,
    shared: bool = False,
    mask: Mask | None = None,
) -> Tensor:
    """Like :func:`pgd`, along a direction that is not simply the gradient of a loss.

    ``gradient_fn`` takes the perturbed images (B, C, H, W) and returns the direction to step
    against, of the same shape; all other arguments are those of :func:`pgd`.
    """
    signed_step = step_size if maximize else -step_size

    def nearest(delta: Tensor) -> Tensor:
        if shared or mask is not None:
            return into_budget(delta, epsilon, norm)
        return project(delta, images, epsilon, norm)

    delta = nearest(delta.detach())
    slope = torch.zeros(())
    if norm != "Linf" or shared or mask is not None:
        for _ in range(steps):
            slope = gradient_fn(protected(images, delta, mask))
            slope = slope if mask is None else mask.pull(slope)
            linf = norm == "Linf"
            direction = slope.sign() if linf else slope / _norms(slope).clamp_min(1e-12)
            delta = nearest(delta + signed_step * direction)
        return _unless_broken(delta, slope)
    # The box around each image, inside the valid pixels, once: three operations a step then do.
    low, high = (images - epsilon).clamp_min(0), (images + epsilon).clamp_max(1)
    perturbed = images + delta
    for _ in range(steps):
        slope = gradient_fn(perturbed)
        perturbed = perturbed.add(slope.sign(), alpha=signed_step).clamp_(low, high)
    return _unless_broken(perturbed - images, slope)


def _unless_broken(delta: Tensor, slope: Tensor) -> Tensor:
    """A perturbation, or NaN where the last gradient was, whose sign is 0 as if it were known."""
    return delta.masked_fill(slope.isnan(), math.nan) if slope.ndim else delta  # in its own layout


def variance_reduced(
    slope_fn: Callable[[int, Tensor], Tensor],
    size: int,
    drawn: Sequence[int],
    images: Tensor,
    perturbed: Tensor,
    *,
    epsilon: float,
    step_size: float,
    norm: str = "Linf",
    mask: Mask | None = None,
) -> Tensor:
    """The direction for ``size`` losses at once: a sum of gradients along an inner path.

    Each gradient is that of a single loss, corrected by the gradient of this loss at the start of
    the path, so that its expectation is the gradient of the mean loss. (SVRG: Johnson & Zhang,
    NeurIPS 2013)

    Args:
        slope_fn: Function from the number of a loss and perturbed images to its gradient.
        size: Number of losses.
        drawn: The numbers of the losses to use, one per inner step.
        images: Float images in [0, 1], (B, C, H, W).
        perturbed: The start of the path, (B, C, H, W).
        epsilon: Radius of the budget.
        step_size: Length of an inner step.
        norm: ``"Linf"`` or ``"L2"``.
        mask: Mask of the images, as in :func:`pgd`.
    """
    slopes = [slope_fn(k, perturbed) for k in range(size)]
    mean = torch.stack(slopes).mean(0)
    total = torch.zeros_like(images)
    left = iter(drawn)

    def direction(moved: Tensor) -> Tensor:
        k = next(left)
        total.add_(slope_fn(k, moved) - slopes[k] + mean)
        return total

    shown = perturbed - images
    projected_steps(
        direction,
        images,
        shown if mask is None else shown / mask.weights,
        epsilon=epsilon,
        step_size=step_size,
        steps=len(drawn),
        norm=norm,
        mask=mask,
    )
    return total


def gradient(loss_fn: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """The gradient of a scalar loss at ``images``, of their shape."""
    leaf = images.detach().requires_grad_()
    (slope,) = torch.autograd.grad(loss_fn(leaf), leaf)
    return slope


def random_start(images: Tensor, epsilon: float, draws: Draws, norm: str = "Linf") -> Tensor:
    """A uniformly random point in the budget around ``images``, not yet clipped to valid pixels."""
    if norm == "Linf":
        return draws.uniform(images.shape, -epsilon, epsilon)
    direction = draws.normal(images.shape)
    dimensions = images.shape[1:].numel()
    radius = draws.uniform((len(images), 1, 1, 1), 0, 1) ** (1 / dimensions)
    return epsilon * radius * direction / _norms(direction).clamp_min(1e-12)
