"""Victims: networks trained on a (protected) dataset and tested on clean images."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..data.cache import ImageStore, read_images
from ..data.raw import RawDataset
from ..engine.estimate import Work
from ..engine.models import build_model, check_model_name, check_network
from ..engine.modes import usual_modes
from ..engine.progress import Progress
from ..engine.recipes import STANDARD, find_recipe
from ..engine.run import Run
from ..engine.train import Batch, count_correct, train
from ..protected.dataset import ProtectedDataset
from .countermeasures.base import Countermeasure, returned_batch, shown
from .countermeasures.names import countermeasure as find_countermeasure
from .pair import check_pair, refuse_protected, refuse_single_class
from .training import Training
from .work import work_of_victims

_TEST_BATCH = 500


@dataclass(frozen=True)
class Evaluation:
    """The accuracies of victims, as shares from 0 to 1, one per seed.

    Attributes:
        victim: Name of the network.
        epochs: Epochs of training.
        seeds: Seed of each victim.
        countermeasure: Name of the countermeasure that the victim used.
        parameters: Parameters of the countermeasure.
        recipe: Name of the training recipe.
        precisions: Precision of each victim's network passes, ``"float32"`` or ``"bf16"``.
        last: Clean-test accuracy after the last epoch.
        peak: The best clean-test accuracy of any epoch, as with early stopping; measured on
            ``peak_images`` test images if that was given, and at least ``last``.
        train: Accuracy on the training images after the last epoch, either as given or as replaced
            by a countermeasure before training.
        curves: Clean-test accuracy after each epoch, one list per seed, measured on
            ``peak_images`` test images if that was given.
        losses: Mean training loss of each epoch, one list per seed.
    """

    victim: str
    epochs: int
    seeds: list[int]
    countermeasure: str = "none"
    parameters: dict[str, Any] = field(default_factory=dict)
    recipe: str = "standard"
    precisions: list[str] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    peak: list[float] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    curves: list[list[float]] = field(default_factory=list)
    losses: list[list[float]] = field(default_factory=list)

    def mean(self, which: str = "last") -> float:
        """Mean over seeds of ``"last"``, ``"peak"`` or ``"train"``."""
        values: list[float] = getattr(self, which)
        return sum(values) / len(values)

    def std(self, which: str = "last") -> float:
        """Sample standard deviation over seeds; 0 for one seed."""
        values: list[float] = getattr(self, which)
        return torch.tensor(values, dtype=torch.float64).std().item() if len(values) > 1 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """All values, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        def figure(which: str) -> str:
            spread = f" ± {100 * self.std(which):.1f}" if len(self.seeds) > 1 else ""
            return f"{100 * self.mean(which):.1f}{spread} %"

        epochs = "1 epoch" if self.epochs == 1 else f"{self.epochs} epochs"
        seeds = "1 seed" if len(self.seeds) == 1 else f"{len(self.seeds)} seeds"
        counter = "" if self.countermeasure == "none" else f", {self.countermeasure}"
        recipe = "" if self.recipe == "standard" else f", recipe {self.recipe}"
        return (
            f"{self.victim}{counter}{recipe}, {epochs}, {seeds}: clean-test accuracy "
            f"{figure('last')} last, {figure('peak')} peak; train {figure('train')}"
        )


@usual_modes()
def evaluate(
    train: Any,
    test: Any,
    victim: str | nn.Module = "resnet18",
    *,
    countermeasure: str | Countermeasure | None = None,
    recipe: str = "standard",
    epochs: int | None = None,
    seeds: int | Iterable[int] = 3,
    batch_size: int | None = None,
    peak_images: int | None = None,
    image_size: int | Sequence[int] | None = None,
    device: str | torch.device = "auto",
    precision: str = "auto",
    progress: bool = True,
) -> Evaluation:
    """Trains victims on one dataset and tests them on another, following this package's protocol.

    The standard recipe is SGD with learning rate 0.1, momentum 0.9 and weight decay 5e-4, a cosine
    schedule to zero, random crops (4 pixels of padding) and flips, for 60 epochs in batches of 128.
    The fast recipe follows the fastest public CIFAR-10 trainers: 12 epochs in batches of 1,000, a
    triangular schedule, label smoothing, crops by 2 pixels, alternating flips and a slow copy of
    the weights (Lookahead). It is meant for the network ``"resnet9"``; others get a lower rate.
    Both datasets are read without their own transforms.

    Args:
        train: Training dataset, protected or not.
        test: Test dataset: clean images of the training set's classes.
        victim: Name of a network, or a module, which is copied and reinitialised. It must output
            one logit for each class of the training set.
        countermeasure: What the victim does to undo the protection: a name such as ``"jpeg-10"`` or
            ``"channel-normalization+jpeg-10"``, or an object of
            :mod:`unlearnable.evaluation.countermeasures`.
        recipe: ``"standard"`` or ``"fast"``.
        epochs: Passes over the training images; None uses the recipe's number.
        seeds: Number of victims (seeds 0, 1, …), or the seeds themselves.
        batch_size: Images per step, rounded down to a multiple of 8, at least 8; None uses the
            recipe's number.
        peak_images: Number of test images, spread evenly over the set, on which accuracy is
            measured after each epoch, to save time. The last accuracy is measured on all images.
        image_size: Size to which images of both datasets are resized and cropped if their sizes
            vary.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, …
        precision: Precision of network passes: ``"float32"``, ``"bf16"``, or ``"auto"``, which uses
            bf16 if that is faster on this machine and the gradients agree.
        progress: Show progress bars if standard error is a terminal.

    The expected time and memory are logged before the first victim trains.

    Warns:
        UserWarning: It is expected to take over an hour, or more memory than is available.

    Raises:
        ValueError: An argument is out of range, the datasets do not match, all training images are
            of one class, the test set is protected, or the victim does not output one logit for
            each class. All of this is checked before training.
        FloatingPointError: The loss or a logit is no longer finite: the training diverged.
    """
    training = Training.checked(
        find_recipe(recipe), epochs, seeds, batch_size, peak_images, device, precision
    )
    counter = find_countermeasure(countermeasure)
    if not isinstance(victim, str | nn.Module):
        raise ValueError(f"expected the name of a network or a torch module, got {victim!r}")
    if isinstance(victim, str):
        check_model_name(victim)
        counter.check_victim(victim)
    refuse_protected(test)
    raw = RawDataset(train)
    refuse_single_class(raw.stated_labels() or [], raw.classes)
    chosen = counter.on_dataset(train)
    learned = read_images(chosen, image_size, progress=progress)
    if counter.takes_pairs:
        clean = read_images(_originals(chosen, counter), image_size, progress=progress)
        learned = with_pairs(learned, clean, counter, training.device)
    if chosen is not train:  # which need not have an image of each class
        all_classes = int(raw.labels.max()) + 1
        learned = learned._replace(num_classes=max(learned.num_classes, all_classes))
    present = learned.labels if chosen is train else raw.labels
    refuse_single_class(present.tolist(), raw.classes)
    tested = read_images(test, image_size, progress=progress)
    tested = check_pair(learned, tested)
    if not isinstance(victim, str):
        counter.check_victim(victim, learned.images.shape[1:])
    check_victim(victim, learned)
    work = work_of_victims(learned, tested, victim, counter, training)
    return train_victims(learned, tested, victim, counter, training, work=work, progress=progress)


def train_victims(
    train: ImageStore,
    test: ImageStore,
    victim: str | nn.Module,
    countermeasure: Countermeasure,
    training: Training,
    *,
    work: Work | None = None,
    progress: bool = False,
) -> Evaluation:
    """:func:`evaluate` for images that have already been read and checked; they are not modified.

    If ``work`` is given, the expected cost is logged before the first victim trains.
    """
    name = victim if isinstance(victim, str) else type(victim).__name__
    train = _replaced(train, countermeasure)
    if countermeasure.test_images:
        images = countermeasure.on_test_images(test.images.clone(), test.labels.clone())
        test = _with_images(test, images, countermeasure)
    result = Evaluation(
        name,
        training.epochs,
        training.seeds,
        countermeasure.name,
        countermeasure.parameters,
        training.recipe.name,
    )
    place, precision = training.device, training.precision
    images, labels = train.images.to(place), train.labels.to(place)
    for seed in training.seeds:
        bars = Progress(show=progress, title=f"{name}, seed {seed}")
        run = Run(
            images,
            labels,
            train.num_classes,
            seed=seed,
            precision=precision,
            work=work,
            progress=bars,
        )
        work = None  # it was said
        with contextlib.closing(run):
            _train_victim(run, victim, countermeasure, test, training, result)
    return result


def _originals(dataset: Any, counter: Countermeasure) -> ProtectedDataset:
    if not isinstance(dataset, ProtectedDataset):
        raise ValueError(
            f"expected a ProtectedDataset, which has clean images, for {counter.name}, got "
            f"{type(dataset).__name__}"
        )
    return dataset.with_fraction(0)


def with_pairs(
    protected: ImageStore, clean: ImageStore, counter: Countermeasure, device: torch.device
) -> ImageStore:
    """Applies a countermeasure that uses pairs of protected images and originals."""
    images = counter.on_pairs(protected.images, clean.images, protected.labels, device)
    return _with_images(protected, images, counter)


def _with_images(store: ImageStore, images: Any, counter: Countermeasure) -> ImageStore:
    """A store with what a countermeasure made of its images; refuses what are none."""
    shape = tuple(store.images.shape)
    if not isinstance(images, Tensor) or images.dtype != torch.uint8 or images.shape != shape:
        raise ValueError(
            f"expected {counter.name} to give uint8 images of shape {shape}, got {shown(images)}"
        )
    return store._replace(images=images)


def check_victim(victim: str | nn.Module, learned: ImageStore) -> None:
    """Raises ``ValueError`` unless a victim outputs one logit for each class of the images."""
    shape = tuple(learned.images.shape[1:])
    if isinstance(victim, str):
        victim = build_model(victim, learned.num_classes, shape[0])
    check_network(victim, shape, learned.num_classes, role="victim")


def _replaced(store: ImageStore, counter: Countermeasure) -> ImageStore:
    if type(counter).on_images is Countermeasure.on_images:  # saves a copy of all images
        return store
    images = counter.on_images(store.images.clone(), store.labels.clone())
    return _with_images(store, images, counter)


def _train_victim(
    run: Run,
    victim: str | nn.Module,
    counter: Countermeasure,
    tested: ImageStore,
    training: Training,
    result: Evaluation,
) -> None:
    """Trains and tests one victim, and adds its figures to ``result``."""
    channels, seed = run.images.shape[1], run.weight_seed("victim")
    model = counter.build_victim(victim, run.num_classes, channels, seed=seed)
    recipe, epochs, size = training.recipe, training.epochs, training.batch_size
    steps = run.batches_per_epoch(size)
    run.settle_precision(model)
    counter.on_start(model, victim, run)
    optimizer = recipe.optimizer(model, counter.learning_rate / Countermeasure.learning_rate)
    run.track(victim=model, optimizer=optimizer)
    scheduler = recipe.scheduler(optimizer, model, epochs * steps)
    run.track(scheduler=scheduler)
    images, labels = tested.images.to(run.device), tested.labels.to(run.device)
    count = min(training.peak_images or len(labels), len(labels))
    watched = torch.linspace(0, len(labels) - 1, count, dtype=torch.float64).long().to(run.device)

    def finite(value: float, what: str) -> float:
        if math.isfinite(value):
            return value
        raise FloatingPointError(  # its accuracy would look like strong protection
            f"expected {what}, got {value} in epoch {min(len(run.history) + 1, epochs)} of "
            f"{epochs}: the training of {result.victim} (countermeasure {counter.name}, seed "
            f"{run.seed}) diverged with recipe={recipe.name!r}"
            + ("; use 'standard', for any network" if recipe.name != STANDARD.name else "")
        )

    def accuracy(images: Tensor, labels: Tensor) -> float:
        correct = torch.zeros((), device=run.device)
        with run.frozen(model) as network:
            for x, y in zip(images.split(_TEST_BATCH), labels.split(_TEST_BATCH), strict=True):
                correct += count_correct(network, x, y)
        return finite(correct.item(), "finite logits") / len(images)

    for epoch in run.steps(epochs if counter.trains else 0, "epochs"):
        counter.on_epoch(model, run)
        crop_flip = recipe.inputs(run, epoch)

        def inputs(
            index: Tensor,
            done: float = epoch / epochs,
            crop_flip: Callable[[Tensor], Tensor] = crop_flip,
        ) -> Batch:
            batch = Batch(crop_flip(index), run.labels[index])
            batch = returned_batch(counter.on_batch(batch, run, done), counter)
            return returned_batch(counter.on_step(batch, model, run), counter)

        learned = train(
            run,
            model,
            optimizer,
            steps=steps,
            batch_size=size,
            inputs=inputs,
            scheduler=scheduler,
            label_smoothing=recipe.label_smoothing,
        )
        loss = finite(learned["loss"], "a finite loss")
        run.log(loss=loss, accuracy=accuracy(images[watched], labels[watched]))
    curve = [record["accuracy"] for record in run.history]
    curve = curve or [accuracy(images[watched], labels[watched])]
    every = torch.arange(len(run.labels), device=run.device)
    result.precisions.append(run.precision)
    result.curves.append(curve)
    result.losses.append([record["loss"] for record in run.history])
    result.last.append(curve[-1] if count == len(labels) else accuracy(images, labels))
    result.peak.append(max(*curve, result.last[-1]))
    result.train.append(accuracy(run.images[every], run.labels))
