"""The checkpoints of one ordinary training run as an ensemble. (Chen et al., 2211.12005)"""

from __future__ import annotations

import copy
from collections.abc import Callable

from torch import Tensor, nn

from ..engine.models import Ensemble
from ..engine.run import Run
from ..engine.train import augmented, sgd, tenfold_decay, train_surrogate


def check_checkpoints(checkpoints: int, train_epochs: int) -> None:
    """Raises ``ValueError`` if there are fewer epochs than checkpoints."""
    if train_epochs < checkpoints:
        raise ValueError(
            f"expected at most as many checkpoints as epochs, got {checkpoints} with "
            f"train_epochs={train_epochs}"
        )


def train_checkpoints(
    run: Run,
    surrogate: nn.Module,
    ensemble: Ensemble,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float = 0.1,
    before: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """Trains a surrogate on clean images and fills an ensemble with intermediate states.

    Args:
        run: Provides images and labels, tracks the surrogate and places the ensemble.
        surrogate: A network that is not tracked yet.
        ensemble: Copies of it, at most one per epoch, for equally spaced states including the last.
        epochs: Epochs of training; the learning rate drops tenfold after 5/8 and 3/4 of them.
        batch_size: Images per step.
        learning_rate: Initial learning rate.
        before: Function applied to images before crop and flip, as in
            :func:`~..engine.train.augmented`.
    """
    size = len(ensemble)
    chosen = [(k + 1) * epochs // size for k in range(size)]

    def keep(epoch: int) -> None:
        if epoch in chosen:
            run.cached(f"epoch-{epoch}", lambda: copy.deepcopy(surrogate.state_dict()))

    train_surrogate(
        run,
        surrogate,
        sgd(surrogate, lr=learning_rate),
        tenfold_decay(75 / 120, 90 / 120),
        epochs=epochs,
        batch_size=batch_size,
        inputs=augmented(run, before=before),
        after=keep,
    )
    run.place(ensemble)
    for member, epoch in zip(ensemble.members, chosen, strict=True):
        member.load_state_dict(run.cached(f"epoch-{epoch}", dict))
