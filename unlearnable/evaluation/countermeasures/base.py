"""What a victim may do against a perturbation, and the places where it may do it."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...engine.models import build_model, reset_weights
from ...engine.numbers import integer, number
from ...engine.run import Run
from ...engine.train import Batch


class Countermeasure(ABC):
    """A way of training that might undo a protection.

    A subclass overrides the one hook for the stage at which it acts; the other hooks change
    nothing. The hooks (``on_…``) are called in the order in which they are defined here. Subclasses
    are frozen dataclasses whose fields are the parameters.

    Attributes:
        test_images: Whether :meth:`on_test_images` is applied to the test images.
        learning_rate: Initial learning rate of the victim's optimiser.
        needs_clean_images: Whether the trainer needs clean images of the protected dataset. An
            audit then trains only on protected images and excludes the result from the worst case,
            because it shows what clean images are worth rather than protected ones.
        trains: Whether the victim is trained in epochs. If not, :meth:`on_start` does all the
            learning, and the victim is tested once.
        knows_method: Whether it targets one kind of perturbation, used by a trainer who knows that
            kind. An audit counts it in the worst case of those who know the method, and not in that
            of others.
        takes_pairs: Whether :meth:`on_pairs` is called.
        several_draws: Whether :meth:`on_batch` may return several draws of an image.
        needs_one_draw: Whether :meth:`on_batch` or :meth:`on_step` accepts only one draw of each
            image, so that it cannot follow a countermeasure that returns several.

    Example:
        >>> @dataclass(frozen=True)
        ... class Noise(Countermeasure):
        ...     level: int = 8
        ...     name = "noise"
        ...     description = "a victim that adds noise to each image in every batch"
        ...
        ...     def on_batch(self, batch, run, done):
        ...         noise = run.rng("noise").normal(tuple(batch.images.shape))
        ...         return batch._replace(images=batch.images + self.level / 255 * noise)
        >>> from unlearnable import evaluate
        >>> from unlearnable.datasets import Shapes
        >>> sets = Shapes(size=20), Shapes(size=20, train=False)
        >>> found = evaluate(*sets, "tiny", countermeasure=Noise(), epochs=1, seeds=1)
        >>> found.countermeasure, found.parameters
        ('noise', {'level': 8})
    """

    test_images: bool = False
    learning_rate: float = 0.1
    needs_clean_images: bool = False
    trains: bool = True
    knows_method: bool = False
    takes_pairs: bool = False
    several_draws: bool = False
    needs_one_draw: bool = False

    @property
    @abstractmethod
    def name(self) -> str:
        """The name that :func:`countermeasure` accepts, such as ``"jpeg-10"``."""

    @property
    @abstractmethod
    def description(self) -> str:
        """The victim in plain words, for reports, as in ``"a victim that …"``."""

    @property
    def parameters(self) -> dict[str, Any]:
        """All parameters, as JSON values."""
        if not is_dataclass(self):
            return {}
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def _integers(self, **least: int | None) -> None:
        """Makes these fields plain integers of at least that, from a ``__post_init__``."""
        for name, bound in least.items():
            object.__setattr__(self, name, integer(name, getattr(self, name), least=bound))

    def _numbers(self, *names: str) -> None:
        """Makes these fields plain numbers; an ``int`` stays one, and is shown as such."""
        for name in names:
            value = getattr(self, name)
            found = number(name, value)
            object.__setattr__(self, name, value if type(value) is int else found)

    def check_victim(  # noqa: B027
        self, victim: str | nn.Module, shape: Sequence[int] | None = None
    ) -> None:
        """Called before anything is trained.

        Args:
            victim: Name, or a module, which is not modified.
            shape: Shape (C, H, W) of the images, given for modules; names are checked before any
                image is read.

        Raises:
            ValueError: The victim does not support this countermeasure.
        """

    def for_timing(self, few: int, count: int) -> Countermeasure:
        """The countermeasure that an audit times on a few images, to estimate the time for all.

        With ``few`` images it must take ``few / count`` of the time that this one takes with
        ``count``. By default it is this countermeasure itself, which is right if work grows with
        the number of images. :meth:`on_dataset` is not timed.

        Args:
            few: Number of images that are timed.
            count: Number of all images, at least ``few``.
        """
        return self

    def on_dataset(self, dataset: Any) -> Any:
        """The dataset that the victim uses instead of the given one.

        An audit calls it with a :class:`~unlearnable.ProtectedDataset`. If it returns that dataset,
        a ``Subset`` of it, or its ``with_fraction(…)``, no image is decoded again.
        """
        return dataset

    def on_pairs(
        self, images: Tensor, clean: Tensor, labels: Tensor, device: torch.device
    ) -> Tensor:
        """Processes all images once, given their clean originals.

        Called only if :attr:`takes_pairs`, and for a :class:`~unlearnable.ProtectedDataset`. It is
        not timed.

        Args:
            images: The images chosen by :meth:`on_dataset`: uint8, (N, C, H, W), on the CPU.
            clean: The same images without their perturbation.
            labels: int64, (N,), on the CPU.
            device: Device on which networks train.

        Returns:
            New images, uint8 of the same shape, on the CPU. The inputs are not modified.
        """
        return images

    def on_images(self, images: Tensor, labels: Tensor) -> Tensor:
        """Processes all images once, before training.

        Args:
            images: uint8, (N, C, H, W), on the CPU; a copy that may be changed.
            labels: int64, (N,), on the CPU.

        Returns:
            uint8, same shape.
        """
        return images

    def build_victim(
        self, victim: str | nn.Module, num_classes: int, channels: int, *, seed: int
    ) -> nn.Module:
        """The fresh network to train, which may be the countermeasure's own instead of the victim.

        Args:
            victim: Name, or the caller's module, which is not modified.
            num_classes: Number of logits.
            channels: Number of image channels.
            seed: Seed of the weights.
        """
        if isinstance(victim, str):
            return build_model(victim, num_classes, channels, seed=seed)
        model = copy.deepcopy(victim)
        reset_weights(model, seed=seed, role="victim")
        return model

    def on_test_images(self, images: Tensor, labels: Tensor) -> Tensor:
        """Processes the test images if :attr:`test_images` is true.

        By default this is :meth:`on_images`, which then must not use the labels.
        """
        return self.on_images(images, labels)

    def on_start(self, model: nn.Module, victim: str | nn.Module, run: Run) -> None:  # noqa: B027
        """Changes the victim's initial weights in place.

        Args:
            model: The network to train.
            victim: What it was built from: a name, or the caller's module, which is not modified.
            run: The victim's run.
        """

    def on_epoch(self, model: nn.Module, run: Run) -> None:  # noqa: B027
        """Called before each epoch; may switch the learning of weights off and on, in place.

        Args:
            model: The network in training.
            run: The victim's run, whose ``history`` has a record of each finished epoch, with its
                mean training ``"loss"``.
        """

    def on_batch(self, batch: Batch, run: Run, done: float) -> Batch:
        """Processes each batch after the protocol's crop and flip.

        Args:
            batch: Float images in [0, 1], (B, C, H, W), and int64 labels, (B,).
            run: The victim's run, whose :meth:`~unlearnable.engine.run.Run.rng` is the only source
                of randomness.
            done: Share of the epochs completed, from 0 to below 1.

        Returns:
            Images (B, C, H, W), or several adjacent draws of each, (B * draws, …), of which the one
            with the largest loss counts; and labels, or class probabilities (B, K). A plain pair
            will do.
        """
        return batch

    def on_step(self, batch: Batch, model: nn.Module, run: Run) -> Batch:
        """Processes a batch, given the network that will learn from it.

        Args:
            batch: The batch returned by :meth:`on_batch`.
            model: The network in training.
            run: The victim's run.
        """
        return batch

    @property
    def passes(self) -> float:
        """Image passes per training image, used to estimate time."""
        return 1

    def __str__(self) -> str:
        return self.name


def shown(value: Any) -> str:
    """What a hook returned, for error messages."""
    if isinstance(value, Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__} of {', '.join(map(shown, value)) or 'nothing'}"
    return "None" if value is None else type(value).__name__


def returned_batch(found: Any, counter: Countermeasure) -> Batch:
    """What a hook made of a batch; a plain pair of images and targets will do.

    Raises:
        ValueError: It is something else.
    """
    match found:
        case (Tensor(ndim=4) as images, Tensor(ndim=1 | 2) as targets) if len(targets):
            if len(images) % len(targets) == 0:
                return Batch(images, targets)
    raise ValueError(
        f"expected {counter.name} to give a batch (images, targets), or several draws of each "
        f"image, got {shown(found)}"
    )


@dataclass(frozen=True)
class NoCountermeasure(Countermeasure):
    """Training by the protocol: only crop and flip."""

    name = "none"
    description = "a victim that simply trains"
