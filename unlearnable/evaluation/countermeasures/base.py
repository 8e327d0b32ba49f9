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
    """One way of training that might undo a protection.

    A subclass overrides the one hook that belongs to the place where it acts; the others leave
    things as they are. The hooks (``on_…``) are called in the order in which they stand here.
    Subclasses are frozen dataclasses, whose fields are the parameters.

    Attributes:
        test_images: Whether the test images are treated by :meth:`on_test_images`.
        learning_rate: What the victim's optimiser starts with.
        needs_clean_images: Whether the trainer has to have clean images of the protected dataset.
            An audit then trains on protected images only, and leaves the result out of the worst
            case: it says what clean images are worth, not what protected ones are.
        knows_method: Whether it is aimed at one kind of perturbation by who knows that it was used:
            an audit's worst case of those who know the method counts it, that of the others not.
        takes_pairs: Whether :meth:`on_pairs` is to be called.
        several_draws: Whether :meth:`on_batch` may return several draws of an image.
        needs_one_draw: Whether :meth:`on_batch` or :meth:`on_step` takes one draw of each image
            only, so that it cannot come after one that returns several.
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
        """As :func:`countermeasure` takes it, such as ``"jpeg-10"``."""

    @property
    @abstractmethod
    def description(self) -> str:
        """The victim in plain words, for reports: ``"a victim that …"``."""

    @property
    def parameters(self) -> dict[str, Any]:
        """All parameters, for JSON."""
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
            victim: Name, or a module, which stays as it is.
            shape: Of the images, (C, H, W), with a module; names are checked before any image is
                read.

        Raises:
            ValueError: The victim cannot do this.
        """

    def for_timing(self, few: int, count: int) -> Countermeasure:
        """What an audit trains with on a few images, to estimate how long this takes on all.

        With ``few`` images it has to take ``few / count`` of the time that this takes with
        ``count``. The default is this itself, which is right where work grows with the number of
        images. :meth:`on_dataset` is not timed.

        Args:
            few: Images that are timed.
            count: All images, as many or more.
        """
        return self

    def on_dataset(self, dataset: Any) -> Any:
        """The dataset that the victim has instead of the one it was given.

        An audit calls it with a :class:`~unlearnable.ProtectedDataset`. Where it returns that
        dataset, a ``Subset`` of it, or its ``with_fraction(…)``, no image is decoded again.
        """
        return dataset

    def on_pairs(
        self, images: Tensor, clean: Tensor, labels: Tensor, device: torch.device
    ) -> Tensor:
        """What the victim makes of all images once, given clean originals of them.

        Only where :attr:`takes_pairs`, and of a :class:`~unlearnable.ProtectedDataset`. It is not
        timed.

        Args:
            images: As :meth:`on_dataset` chose them: uint8, (N, C, H, W), on the CPU.
            clean: The same without their perturbation.
            labels: int64, (N,), on the CPU.
            device: Where networks train.

        Returns:
            uint8, of the same shape, on the CPU; those given stay as they are.
        """
        return images

    def on_images(self, images: Tensor, labels: Tensor) -> Tensor:
        """What the victim makes of all images once, before it trains.

        Args:
            images: uint8, (N, C, H, W), on the CPU; a copy that may be changed.
            labels: int64, (N,), on the CPU.

        Returns:
            uint8, of the same shape.
        """
        return images

    def build_victim(
        self, victim: str | nn.Module, num_classes: int, channels: int, *, seed: int
    ) -> nn.Module:
        """The fresh network that is trained: another one than the victim that was asked for, where
        the countermeasure brings its own.

        Args:
            victim: Name, or the caller's module, which stays as it is.
            num_classes: Number of logits.
            channels: Of the images.
            seed: Of the weights.
        """
        if isinstance(victim, str):
            return build_model(victim, num_classes, channels, seed=seed)
        model = copy.deepcopy(victim)
        reset_weights(model, seed=seed)
        return model

    def on_test_images(self, images: Tensor, labels: Tensor) -> Tensor:
        """What becomes of the test images where :attr:`test_images` says so.

        By default :meth:`on_images`, which then must not make use of the labels.
        """
        return self.on_images(images, labels)

    def on_start(self, model: nn.Module, victim: str | nn.Module, run: Run) -> None:  # noqa: B027
        """Changes the fresh weights that the victim starts from, in place.

        Args:
            model: The network that is going to be trained.
            victim: What it was built from: a name, or the caller's module, which stays as it is.
            run: Of the victim.
        """

    def on_epoch(self, model: nn.Module, run: Run) -> None:  # noqa: B027
        """Called before each epoch; may switch the learning of weights off and on, in place.

        Args:
            model: The network in training.
            run: Of the victim; its ``history`` has a record of each epoch, with its mean training
                ``"loss"``.
        """

    def on_batch(self, batch: Batch, run: Run, done: float) -> Batch:
        """What the victim makes of each batch after the protocol's crop and flip.

        Args:
            batch: Float images in [0, 1], (B, C, H, W), and int64 labels, (B,).
            run: Of the victim; its :meth:`~unlearnable.engine.run.Run.rng` gives all randomness.
            done: Share of the epochs that are over, from 0 to below 1.

        Returns:
            Images (B, C, H, W), or several draws of each next to one another, (B * draws, …), of
            which the one with the largest loss counts; and labels, or class probabilities (B, K).
        """
        return batch

    def on_step(self, batch: Batch, model: nn.Module, run: Run) -> Batch:
        """What the victim makes of a batch, given the network that is going to learn from it.

        Args:
            batch: As :meth:`on_batch` returned it.
            model: The network in training.
            run: Of the victim.
        """
        return batch

    @property
    def passes(self) -> float:
        """Image passes for each image that is learned from, for estimates of time."""
        return 1

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class NoCountermeasure(Countermeasure):
    """Training by the protocol: crop and flip, nothing else."""

    name = "none"
    description = "a victim that just trains"
