"""Victims: networks trained on a (protected) dataset and tested on clean images, one protocol."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..data.cache import ImageStore, read_images
from ..data.raw import RawDataset
from ..engine.device import pick_device, pick_precision
from ..engine.models import build_model, check_model_name, check_network, reset_weights
from ..engine.progress import Progress
from ..engine.run import Run
from ..engine.train import Batch, augmented, count_correct, sgd, train
from ..protected.dataset import ProtectedDataset
from .countermeasures.base import Countermeasure
from .countermeasures.names import countermeasure as find_countermeasure

_TEST_BATCH = 500


@dataclass(frozen=True)
class Evaluation:
    """What victims reached. Accuracies are shares from 0 to 1, one per seed.

    Attributes:
        victim: Name of the network.
        epochs: Epochs of training.
        seeds: Seed of each victim.
        countermeasure: Name of what the victim did against the protection.
        parameters: Of the countermeasure.
        last: Clean-test accuracy after the last epoch.
        peak: The best clean-test accuracy of any epoch: what a victim that stops early gets; on
            ``peak_images`` of the test images where that was given.
        train: Accuracy on the training images after the last epoch: as they were given, or as a
            countermeasure replaced them once.
        curves: Clean-test accuracy after each epoch, a list per seed; on the images of the peak.
        losses: Mean training loss of each epoch, a list per seed.
    """

    victim: str
    epochs: int
    seeds: list[int]
    countermeasure: str = "none"
    parameters: dict[str, Any] = field(default_factory=dict)
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
        """Standard deviation over seeds (of the sample; 0 for one seed)."""
        values: list[float] = getattr(self, which)
        return torch.tensor(values, dtype=torch.float64).std().item() if len(values) > 1 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        def figure(which: str) -> str:
            spread = f" ± {100 * self.std(which):.1f}" if len(self.seeds) > 1 else ""
            return f"{100 * self.mean(which):.1f}{spread} %"

        epochs = "1 epoch" if self.epochs == 1 else f"{self.epochs} epochs"
        seeds = "1 seed" if len(self.seeds) == 1 else f"{len(self.seeds)} seeds"
        counter = "" if self.countermeasure == "none" else f", {self.countermeasure}"
        return (
            f"{self.victim}{counter}, {epochs}, {seeds}: clean-test accuracy "
            f"{figure('last')} last, {figure('peak')} peak; train {figure('train')}"
        )


def evaluate(
    train: Any,
    test: Any,
    victim: str | nn.Module = "resnet18",
    *,
    countermeasure: str | Countermeasure | None = None,
    epochs: int = 60,
    seeds: int | Iterable[int] = 3,
    batch_size: int = 128,
    peak_images: int | None = None,
    image_size: int | Sequence[int] | None = None,
    device: str | torch.device = "auto",
    precision: str = "auto",
    progress: bool = True,
) -> Evaluation:
    """Trains victims on one dataset and tests them on another, by the one protocol of this package.

    SGD with learning rate 0.1, momentum 0.9 and weight decay 5e-4, cosine schedule to zero, random
    crop (4 pixels of padding) and flip. Both datasets are read without their own transforms.

    Args:
        train: Dataset to learn from, protected or not.
        test: Dataset to be tested on: clean images, of the training set's classes.
        victim: Name of a network, or a module, which is copied and starts from fresh weights; it
            gives a logit for each class of the training set.
        countermeasure: What the victim does against the protection: a name such as ``"jpeg-10"``,
            or an object of :mod:`unlearnable.evaluation.countermeasures`.
        epochs: Passes over the training images.
        seeds: Number of victims (seeds 0, 1, …), or the seeds themselves.
        batch_size: Images of a step, rounded down to a multiple of 8, at least 8.
        peak_images: Number of test images, spread evenly over the set, that accuracy after each
            epoch is measured on, to save time; the last accuracy is on all of them.
        image_size: Size that images of both datasets are resized and cropped to, where they vary.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, …
        precision: Of network passes: ``"float32"``, ``"bf16"``, or ``"auto"`` by device.
        progress: Show bars, where standard error is a terminal.

    Raises:
        ValueError: An argument is out of range, the datasets do not belong together, the test set
            is protected, or the victim gives other than a logit for each class. All is checked
            before any training.
    """
    chosen = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if not chosen or min(epochs, batch_size, 1 if peak_images is None else peak_images) < 1:
        raise ValueError(
            f"expected at least one seed, epoch, image per batch and image for the peak, got "
            f"seeds={seeds}, epochs={epochs}, batch_size={batch_size}, peak_images={peak_images}"
        )
    if isinstance(victim, str):
        check_model_name(victim)
    counter = find_countermeasure(countermeasure)
    if isinstance(victim, str):
        counter.check_victim(victim)
    place = pick_device(device)
    refuse_protected(test)
    chosen_by_victim = counter.on_dataset(train)
    learned = read_images(chosen_by_victim, image_size, progress=progress)
    if chosen_by_victim is not train:  # which need not have an image of each class
        all_classes = int(RawDataset(train).labels.max()) + 1
        learned = learned._replace(num_classes=max(learned.num_classes, all_classes))
    tested = read_images(test, image_size, progress=progress)
    check_pair(learned, tested)
    num_classes = learned.num_classes
    if not isinstance(victim, str):
        check_network(victim, learned.images.shape[1:], num_classes, role="victim")
        counter.check_victim(victim, learned.images.shape[1:])
    name = victim if isinstance(victim, str) else type(victim).__name__
    learned = _replaced(learned, counter)
    if counter.test_images:
        tested = _replaced(tested, counter)
    result = Evaluation(name, epochs, chosen, counter.name, counter.parameters)
    for seed in chosen:
        run = Run(
            learned.images.to(place),
            learned.labels.to(place),
            num_classes,
            seed=seed,
            precision=pick_precision(precision, place),
            progress=Progress(show=progress, title=f"{name}, seed {seed}"),
        )
        try:
            curve, losses, last, on_train = _train_victim(
                run, victim, counter, tested, epochs, batch_size, peak_images
            )
        finally:
            run.close()
        result.curves.append(curve)
        result.losses.append(losses)
        result.last.append(last)
        result.peak.append(max(curve))
        result.train.append(on_train)
    return result


def refuse_protected(test: Any) -> None:
    """Raises ``ValueError`` where images to test on carry a perturbation."""
    if any(isinstance(leaf, ProtectedDataset) for leaf in RawDataset(test).originals):
        raise ValueError(
            "expected clean images to test on, got a ProtectedDataset; pass the dataset below it "
            "(its .base)"
        )


def check_pair(learned: ImageStore, tested: ImageStore) -> None:
    """Raises ``ValueError`` where images to learn from and to test on do not belong together."""
    shapes = [tuple(store.images.shape[1:]) for store in (learned, tested)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"expected test images of the training images' shape {shapes[0]}, got {shapes[1]}; "
            f"pass image_size= (--image-size)"
        )
    if learned.classes is not None and tested.classes not in (None, learned.classes):
        raise ValueError(
            f"expected the training images' classes {learned.classes} in the test set, got "
            f"{tested.classes}"
        )
    highest = int(tested.labels.max())
    if highest >= learned.num_classes:
        raise ValueError(
            f"expected test images of the {learned.num_classes} classes of the training images, "
            f"got labels up to {highest}"
        )


def _replaced(store: ImageStore, counter: Countermeasure) -> ImageStore:
    return store._replace(images=counter.on_images(store.images, store.labels))


def _train_victim(
    run: Run,
    victim: str | nn.Module,
    counter: Countermeasure,
    tested: ImageStore,
    epochs: int,
    batch_size: int,
    peak_images: int | None,
) -> tuple[list[float], list[float], float, float]:
    """Test accuracy and loss after each epoch; test and training accuracy after the last."""
    if isinstance(victim, str):
        channels = run.images.shape[1]
        model = build_model(victim, run.num_classes, channels, seed=run.weight_seed("victim"))
    else:
        model = copy.deepcopy(victim)
        reset_weights(model, seed=run.weight_seed("victim"))
    steps = run.batches_per_epoch(batch_size)
    counter.on_start(model, victim, run)
    optimizer = sgd(model, lr=counter.learning_rate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
    run.track(victim=model, optimizer=optimizer, scheduler=scheduler)
    images, labels = tested.images.to(run.device), tested.labels.to(run.device)
    count = len(labels) if peak_images is None else min(peak_images, len(labels))
    watched = torch.linspace(0, len(labels) - 1, count, dtype=torch.float64).long().to(run.device)

    def accuracy(images: Tensor, labels: Tensor) -> float:
        correct = torch.zeros((), dtype=torch.int64, device=run.device)
        with run.frozen(model):
            for x, y in zip(images.split(_TEST_BATCH), labels.split(_TEST_BATCH), strict=True):
                correct += count_correct(model, x, y)
        return correct.item() / len(images)

    crop_flip = augmented(run)
    for epoch in run.steps(epochs, "epochs"):

        def inputs(index: Tensor, done: float = epoch / epochs) -> Batch:
            batch = Batch(crop_flip(index), run.labels[index])
            return counter.on_step(counter.on_batch(batch, run, done), model, run)

        learned = train(
            run,
            model,
            optimizer,
            steps=steps,
            batch_size=batch_size,
            inputs=inputs,
            scheduler=scheduler,
        )
        run.log(loss=learned["loss"], accuracy=accuracy(images[watched], labels[watched]))
    curve = [record["accuracy"] for record in run.history]
    losses = [record["loss"] for record in run.history]
    every = torch.arange(len(run.labels), device=run.device)
    last = curve[-1] if count == len(labels) else accuracy(images, labels)
    return curve, losses, last, accuracy(run.images[every], run.labels)
