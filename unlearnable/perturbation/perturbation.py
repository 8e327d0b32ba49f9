"""The artefact: what is done to which image, and with what promise; saved and loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..data.image import Pixels
from ..engine.lazy import from_above
from ..hub.catalogue import computed
from ..io.json import as_json
from . import serialization, sharing
from .concat import concatenated
from .config import OF_THE_FILE, check_config
from .fitted import fitted, of_rows
from .kinds.base import Kind
from .kinds.shift import Shift
from .kinds.stack import stacked
from .quantize import Levels, Result
from .saved import SavedKind
from .visibility import with_mask

if TYPE_CHECKING:
    from ..data.cache import ImageStore


class Perturbation(SavedKind):
    """A perturbation: what is done to the pixels of which images.

    Created by :meth:`Method.fit <unlearnable.Method.fit>` and :meth:`from_pretrained`. This
    constructor creates the most common kind, rows of int8 pixel levels, keyed by image content or
    by class; :meth:`of_kind` creates any kind.

    Args:
        rows: int8 levels of 1/255: (N, C, H, W) sample-wise, (K, C, H, W) class-wise.
        config: Their description, as in ``config.json``; see :attr:`config`.
        keys: uint64 key of each row's image, (N,); like the next two, ignored for class-wise rows.
        labels: int64 class index of each row's image, (N,).
        thumbnails: uint8 4x4 picture of each row's image, (N, 3, 4, 4).

    Attributes:
        config: ``method``, ``parameters``, ``kind`` (``"additive"``, ``"pixel"``,
            ``"convolution"``, ``"procedural"``, ``"shift"`` or ``"stack"``), ``settings`` of the
            kind, ``parts`` (the configs of a stack; ``on_top`` is true in those that a method
            learned on top of its rows), ``granularity``, ``epsilon`` (in [0, 1] units, None without
            a budget), ``norm``, ``image_shape`` (C, H, W), ``classes`` (names or None),
            ``num_classes``, ``source`` (name, images and digest of the dataset), ``preprocessing``
            (size to which images are resized and cropped, or None), ``seed``, ``threads``,
            ``device`` and ``precision`` (of the fit; absent in artefacts of earlier releases; None
            if the parts of a stack differ), ``visibility`` (level and mask; absent if rows are
            added unmasked), ``versions``, ``history``, ``strength`` (measured, or None).
    """

    def __init__(
        self,
        rows: Levels,
        config: Mapping[str, Any],
        *,
        keys: NDArray[np.uint64] | None = None,
        labels: NDArray[np.int64] | None = None,
        thumbnails: Pixels | None = None,
    ) -> None:
        check_config({"kind": "additive", **config})
        rows = np.asarray(rows) if isinstance(rows, list) or hasattr(rows, "numpy") else rows
        tensors = of_rows(rows, config, keys, labels, thumbnails)
        self._take(tensors, config)

    @classmethod
    def of_kind(cls, tensors: Mapping[str, Any], config: Mapping[str, Any]) -> Perturbation:
        """Creates a perturbation of the kind named in the config.

        Args:
            tensors: The kind's arrays by name; see docs/explanation/concepts.md.
            config: See :attr:`config`.

        Raises:
            ValueError: Tensors and config do not match.
        """
        self = cls.__new__(cls)
        self._take(tensors, config)
        return self

    def _take(self, tensors: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        # Plain JSON from the start, so that what is saved is what is loaded.
        plain = {n: value for n, value in as_json(config).items() if n not in OF_THE_FILE}
        self._set(serialization.build(tensors, plain))

    def _set(self, kind: Kind, path: Path | None = None) -> None:
        self._kind = kind
        self._path = path
        self._shared: sharing.Shared | None = None

    @classmethod
    def from_fit(
        cls,
        result: Result,
        images: ImageStore,
        config: Mapping[str, Any],
        on_top: Sequence[Result] = (),
    ) -> Perturbation:
        """Creates what was just learned on ``images``, which complete the config.

        Class-wise parts learned ``on_top`` of the result turn it into a stack of one method.
        """
        return cls.of_kind(*fitted(result, images, config, on_top))

    def below(self, parts: Sequence[Kind]) -> Perturbation:
        """Stacks parts on top of this perturbation; returns itself if there are none."""
        return Perturbation.of_kind(*stacked([*self.parts, *parts])) if parts else self

    def then(self, other: Perturbation) -> Perturbation:
        """Puts ``other`` on top of this perturbation.

        The result is found by the clean image. If ``other`` has rows per image, it may have been
        fitted on clean images or on the output of this perturbation
        (``q.fit(p_method.protect(dataset))``).

        Args:
            other: A perturbation for images of the same shape and classes; may itself be a stack.

        Returns:
            A perturbation of kind ``"stack"``.

        Raises:
            ValueError: Image shape, number of classes or class names differ.
        """
        check_perturbation(other)
        return self.below(other.parts)

    def with_visibility(self, visibility: str | None) -> Perturbation:
        """Returns the same rows with another visibility mask; see docs/how-to/photos.md.

        A perturbation learned for one visibility may protect less at another, so the measured
        ``strength`` is dropped. A colour shift in a stack does not change.

        Args:
            visibility: ``"low"``, ``"medium"``, ``"high"``; ``"full"`` and None mean no mask.

        Raises:
            ValueError: It overwrites pixels or convolves, so it has no rows.
        """
        rows = [part for part in self.parts if part.has_rows or part.name != Shift.name]
        masked = rows or self.parts  # of which one without rows is refused
        configs = [
            with_mask(part.config, visibility) if part in masked else part.config
            for part in self.parts
        ]
        if configs == [part.config for part in self.parts]:
            return self
        changed = [
            Perturbation.of_kind(part.tensors, config | {"strength": None})
            for part, config in zip(self.parts, configs, strict=True)
        ]
        if len(changed) == 1:
            return changed[0]
        return Perturbation.of_kind(*stacked([part._kind for part in changed]))

    @staticmethod
    def concat(perturbations: Sequence[Perturbation]) -> Perturbation:
        """Concatenates the rows of several perturbations, for their concatenated datasets.

        Use it to join what :meth:`Method.extend <unlearnable.Method.extend>` learned for new images
        to the first rows. Rows are not copied: those of loaded perturbations stay in their files.
        Config values that differ become None.

        Args:
            perturbations: Sample-wise perturbations of kind ``"additive"``, of one method and
                budget, for images of one shape and the same classes; or stacks of such rows with
                the same parts for any image on top.

        Returns:
            A perturbation in memory. Save and load it before passing it to spawned workers, because
            otherwise all rows are copied for each of them.

        Raises:
            ValueError: They do not match, or an image has rows in two of them.
        """
        parts = [perturbations] if isinstance(perturbations, Perturbation) else list(perturbations)
        if not parts:
            raise ValueError("expected at least one perturbation, got none")
        for part in parts:
            check_perturbation(part)
        if len(parts) == 1:
            return parts[0]
        kinds = [part._kind for part in parts]
        return Perturbation.of_kind(*concatenated(kinds, [part.digest for part in parts]))

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        dataset: Any = None,
        device: Any = "auto",
        progress: bool = True,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        endpoint: str | None = None,
    ) -> Perturbation:
        """Loads a perturbation; rows stay on disk until they are read.

        Downloads are verified against their checksums before first use. Pre-made perturbations with
        a row per image are computed for your images by a network that is part of the package; the
        rows are cached next to the Hub client's cache, and what was interrupted is continued.

        Args:
            name: A folder; otherwise ``"owner/name"``, a dataset repository on the Hugging Face
                Hub; otherwise a pre-made perturbation from :func:`unlearnable.list_pretrained`.
            dataset: The images to protect, with labels, if rows have to be computed. They may be
                some of the images that it was made for, or new ones of its classes and size.
                Without names of classes, labels are taken for the numbers of its classes.
                Otherwise unused.
            device: Device on which rows are computed, as in :meth:`Method.fit`.
            progress: Show a progress bar meanwhile. The other arguments are for the Hub.
            revision: Branch, tag or commit of the repository.
            token: Token for private and gated repositories; by default the stored login.
            cache_dir: Folder for downloads, instead of the Hub client's cache.
            local_files_only: Use only what was downloaded before, without network access.
            force_download: Download again even if it is in the cache.
            endpoint: URL of another Hub.

        Raises:
            FileNotFoundError: Nothing has this name.
            ValueError: Rows have to be computed, but the dataset is missing or has other classes or
                another size.
            HubError: The Hub could not deliver it; the message says what to do.
            ArtefactError: A file is missing, damaged, edited, or in a later format.
        """
        entry = None if dataset is None or revision is not None else computed(name)
        if entry is not None:
            compute = from_above("methods.premade", "rows_for")
            options = {"device": device, "progress": progress, "cache_dir": cache_dir}
            rows: Perturbation = compute(entry, dataset, **options)
            return rows
        kind, folder = serialization.fetch(
            name,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            force_download=force_download,
            endpoint=endpoint,
        )
        self = cls.__new__(cls)
        self._set(kind, folder)
        return self

    def __getstate__(self) -> dict[str, Any]:
        # A loaded artefact travels to worker processes as its path; one in memory as torch tensors.
        if self._path is not None:
            return {"config": self.config, "path": self._path, "digest": self.digest}
        if self._shared is None:
            # Kept: shared memory is gone with its tensor, and may be opened long after this.
            self._shared = sharing.share(self.tensors)
        return {"config": self.config, "path": None, "tensors": self._shared}

    def __setstate__(self, state: dict[str, Any]) -> None:
        config, path = state["config"], state["path"]
        if path is None:
            self._set(serialization.build(sharing.unshare(state["tensors"]), config))
        else:
            self._set(sharing.load_again(path, config, state["digest"]), path)


def check_perturbation(found: Any) -> None:
    """Raises ``TypeError`` for anything but a perturbation, such as the path of one or a method."""
    if not isinstance(found, Perturbation):
        raise TypeError(
            f"expected a Perturbation, got {type(found).__name__} {found!r:.60}; load a saved one "
            f"with Perturbation.from_pretrained(…), or pass the perturbation_ of a fitted method"
        )
