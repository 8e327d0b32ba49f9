"""What every protection method shares: the subclass proposes rows, this class guarantees them."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, final

import torch
from torch import Tensor, nn

from .._version import __version__
from ..data.cache import ImageStore
from ..engine.modes import usual_modes
from ..engine.run import Run
from ..perturbation.perturbation import Perturbation
from ..perturbation.quantize import Result
from ..perturbation.visibility import check_visibility, with_mask
from ..protected.dataset import ProtectedDataset
from ..protected.exported import refuse_exports
from .checkpoint_folder import checked_every, checked_folder
from .extension import ExtensionOptions, extension
from .fit_session import FitOptions, FitSession
from .learned import Learned
from .masks import warn_if_hidden
from .one_class import check_classes, refuse_one_class
from .results import on_top_of, result_of
from .row_buffer import warn_if_unseen, warn_if_zero

Self = TypeVar("Self", bound="Method")


class Method(Learned, ABC):
    """A protection method: its parameters and, after :meth:`fit`, what was learned.

    A subclass is a dataclass of its parameters. It implements ``_learn`` using
    :class:`~unlearnable.engine.run.Run` and, if it has a surrogate, ``_perturb``. This class
    validates, seeds, rounds, clips to the budget, checks that every image was covered, and records
    the origin of the result.

    Attributes:
        kind: Kind of the perturbation: ``"additive"`` for rows; ``"stack"`` for rows with what
            ``_learn`` passes to ``run.on_top``; or the kind passed to ``run.result``.
        below: With kind ``"stack"``, the kind of what lies below all that is passed to
            ``run.on_top``.
        seeded: Whether the result depends on ``seed``.
        least_classes: Number of classes that the method needs: 1 if it does not tell classes apart.
        perturbation_: The :class:`Perturbation`, after ``fit``.
        surrogate_: The trained surrogate in evaluation mode, or None if there is none.
        history_: Records of the fit, a list of dicts.
    """

    @abstractmethod
    def _learn(self, run: Run) -> nn.Module | None:
        """The algorithm: writes ``run.rows`` or ``run.result``; returns the surrogate if any."""

    def _perturb(self, run: Run, index: Tensor, surrogate: Any) -> Tensor:
        """Final perturbations of a batch, float (B, C, H, W), from what ``_learn`` returned."""
        raise ValueError(
            f"expected a method that can make rows for new images, got {type(self).__name__}, "
            f"which does not define _perturb"
        )

    @final
    @usual_modes()
    def fit(
        self: Self,
        dataset: Any,
        *,
        device: str | torch.device = "auto",
        precision: str = "auto",
        image_size: int | Sequence[int] | None = None,
        visibility: str | None = None,
        checkpoint: str | Path | None = None,
        checkpoint_every: float = 300.0,
        keep_checkpoint: bool = False,
        store: str | Path | None = None,
        resident: bool | None = None,
        compile: bool = False,
        profile: bool = False,
        progress: bool | Callable[[float], None] = True,
        callback: Callable[[dict[str, Any]], None] | None = None,
    ) -> Self:
        """Learns a perturbation for every image of a dataset.

        Under ``torchrun`` (or in any process group), all processes make the same call and share the
        work; each ends with the complete result. Any number of processes, on any number of machines
        with a shared file system, may start or continue a fit; more than 8 processes round the
        batch size to a multiple of their number.

        Args:
            dataset: A map-style dataset of (image, label) pairs; its transforms are not applied,
                and it is not modified.
            device: ``"auto"``, ``"cpu"``, ``"cuda"``, …
            precision: Precision of network passes: ``"float32"``, ``"bf16"``, or ``"auto"``, which
                uses bf16 if that is faster on this machine and the gradients agree.
            image_size: Side, or (height, width), to which images are resized and cropped; required
                if their sizes vary.
            visibility: ``"low"``, ``"medium"`` or ``"high"``: a mask limits the change of each
                pixel to a part of ``epsilon``, less in smooth areas and more in texture, and the
                perturbation is learned under this mask. None or ``"full"``: up to ``epsilon``
                everywhere.
            checkpoint: Folder for the state of an unfinished fit. The same call continues from it
                and gives the same bytes as an uninterrupted fit; the folder is removed at the end.
                Ctrl-C saves the state first.
            checkpoint_every: Seconds between checkpoints; 0 means after every step, ``inf`` never.
            keep_checkpoint: Keep the finished state in the folder; until it is deleted, the same
                call finishes immediately.
            store: Folder for the decoded images, which are kept for later fits. Without it, they
                are held in memory or, if large, in a temporary folder.
            resident: Hold images and rows on the device instead of streaming them; None decides by
                size.
            compile: Compile the surrogate; worthwhile on a GPU if the fit takes many minutes.
            profile: Record where the time goes in ``seconds_``.
            progress: Show progress bars if standard error is a terminal, or a function to call with
                the share of the work done, from 0 to 1, after each step.
            callback: Called with every record of ``history_`` as it is added.

        Returns:
            The method itself, with ``perturbation_``, ``surrogate_`` and ``history_``.

        Warns:
            UserWarning: It will take long, or at least half of the rows became zero and protect
                nothing.

        Raises:
            ValueError: A parameter, label or image size is invalid, all images are of one class or
                come from an export, or the checkpoint or store belongs to something else.
            TypeError: The dataset does not return raw images.
            ImportError: The surrogate's pretrained weights are not installed.
            OSError: A disk is full; the last checkpoint is intact.
            KeyboardInterrupt: Ctrl-C was pressed; with ``checkpoint``, the work so far is kept. The
                message says how to continue.
        """
        self._validate()
        self._check_moves()
        self._check_weights()
        level = check_visibility(visibility)
        if level is not None and not self.masked:
            raise ValueError(
                f"expected no visibility with {type(self).__name__}, got {visibility!r}; its "
                f"result cannot be learned under a visibility mask, so omit it (--visibility full)"
            )
        every = checked_every(checkpoint_every)
        refuse_exports(dataset)
        self.check_clusters(dataset)
        self._check_surrogate()
        if callback is not None and not callable(callback):
            raise TypeError(f"expected a function as the callback, got {callback!r:.60}")
        if not isinstance(progress, bool) and not callable(progress):
            raise TypeError(f"expected progress to be a bool or a function, got {progress!r:.60}")
        checkpoint = checked_folder(checkpoint)
        for name in [*Learned.__annotations__, "seconds_"]:
            vars(self).pop(name, None)
        options = FitOptions(
            image_size=image_size,
            visibility=level,
            device=device,
            precision=precision,
            compile=compile,
            checkpoint=checkpoint,
            checkpoint_every=every,
            keep_checkpoint=keep_checkpoint,
            store=store,
            resident=resident,
            profile=profile,
            progress=progress,
            callback=callback,
        )
        start = time.perf_counter()
        refuse_one_class(type(self), dataset)
        with FitSession(self, dataset, options) as session:
            images = session.images
            check_classes(type(self), images.labels.tolist(), images.classes)
            surrogate = self._learn(session.run)
            session.end()
            result, on_top = result_of(self, session), on_top_of(self, session)
            self._warn_if_zero(result, images)
            config = with_mask(self._config(session), level)
            made = Perturbation.from_fit(result, images, config, on_top)
            if level is not None:
                warn_if_hidden(type(self).__name__, made, images)
            perturbation = session.keep(made)
        # Set together and last: a fit that fails leaves nothing that looks fitted.
        if profile:
            self.seconds_ = session.run.seconds(time.perf_counter() - start)
        self.surrogate_ = None if surrogate is None else surrogate.cpu().eval()
        self.history_ = session.run.history
        self.perturbation_ = perturbation
        return self

    def _config(self, session: FitSession) -> dict[str, Any]:
        """Where the perturbation comes from."""
        run, (epsilon, norm) = session.run, session.budget
        return {
            **self._identity,
            "granularity": self.granularity,
            "epsilon": epsilon,
            "norm": norm,
            "seed": self.seed,
            "threads": torch.get_num_threads(),
            "device": run.device.type,
            "precision": run.precision,
            "precision_reason": run.precision_reason,
            "versions": {"unlearnable": __version__, "torch": torch.__version__},
            "history": {
                "passes": run.all_passes(),
                "last": run.history[-1] if run.history else None,
            },
        }

    def _warn_if_zero(self, result: Result, images: ImageStore) -> None:
        if result.kind == "additive":
            rows = result.tensors["rows"]
            if self._has_rows:
                warn_if_zero(type(self).__name__, rows)
                return
            # Classes without images have no row to learn.
            present = images.labels.unique().numpy()
            warn_if_zero(type(self).__name__, rows[present])
            warn_if_unseen(type(self).__name__, rows, present.tolist(), images.classes)

    @final
    def protect(
        self,
        dataset: Any,
        *,
        fraction: float = 1.0,
        seed: int = 0,
        align: str = "content",
        full_size: bool = False,
    ) -> ProtectedDataset:
        """Returns the dataset with its perturbation, to publish or to train a victim on.

        Args:
            dataset: As in :class:`ProtectedDataset`, like the other arguments.
            fraction: Share of images to protect.
            seed: Seed of the choice of these images.
            align: ``"content"`` or ``"index"``.
            full_size: Keep photos at their own size.

        Raises:
            NotFittedError: ``fit`` was not called.
            UnknownImageError: The dataset contains images that were not fitted.
        """
        learned = self.perturbation_
        return ProtectedDataset(
            dataset, learned, fraction=fraction, seed=seed, align=align, full_size=full_size
        )

    @final
    @usual_modes()
    def extend(
        self,
        dataset: Any,
        *,
        device: str | torch.device = "auto",
        precision: str = "auto",
        checkpoint: str | Path | None = None,
        checkpoint_every: float = 300.0,
        keep_checkpoint: bool = False,
        progress: bool = True,
    ) -> Perturbation:
        """Makes a perturbation for new images of the fitted classes, with the fitted surrogate.

        Args:
            dataset: New images, resized and cropped like those of ``fit``.
            device: As in :meth:`fit`.
            precision: As in :meth:`fit`.
            checkpoint: Folder for the rows made so far; the same call continues from them, as in
                :meth:`fit`. Processes do not share this work, so each needs a folder of its own.
            checkpoint_every: As in :meth:`fit`.
            keep_checkpoint: As in :meth:`fit`.
            progress: Show progress bars.

        Returns:
            Rows for the new images only; the method's own perturbation does not change.

        Raises:
            NotFittedError: ``fit`` was not called.
            ValueError: The method has no rows per image, the images or classes do not match, or
                the checkpoint belongs to something else.
            OSError: A disk is full; the last checkpoint is intact.
        """
        fitted = self.perturbation_
        if not fitted.keyed:
            raise ValueError(
                f"{type(self).__name__} with granularity={self.granularity!r} needs no extension, "
                f"because it already covers new images of known classes; apply it with "
                f"protect(new_images)"
            )
        self._validate()
        self.check_unchanged(fitted)
        refuse_exports(dataset)
        self.check_clusters(dataset, fitted)
        options = ExtensionOptions(
            device=device,
            precision=precision,
            checkpoint=checked_folder(checkpoint),
            checkpoint_every=checked_every(checkpoint_every),
            keep_checkpoint=keep_checkpoint,
            progress=progress,
        )
        made, result, images = extension(self, self._perturb, dataset, options)
        self._warn_if_zero(result, images)
        return made
