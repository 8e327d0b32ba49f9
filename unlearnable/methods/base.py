"""What every protection method shares: the subclass proposes rows, this class guarantees them."""

from __future__ import annotations

import copy
import hashlib
import json
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar, final

import safetensors.torch
import torch
from torch import Tensor, nn

from .._version import __version__
from ..data.cache import ImageStore, read_images
from ..engine.device import pick_device, pick_precision
from ..engine.models import build_model, is_model_name, reset_weights
from ..engine.progress import Progress
from ..engine.run import Run
from ..errors import ArtefactError, NotFittedError
from ..io.files import locked, write_json
from ..perturbation.perturbation import Perturbation
from ..perturbation.quantize import Levels, Result, encode
from ..protected.dataset import ProtectedDataset
from .fit_session import FitOptions, Fitting
from .parameters import Parameters
from .row_buffer import RowBuffer

Self = TypeVar("Self", bound="Method")
_METHOD = "method.json"
_SURROGATE = "surrogate.safetensors"
_CHUNK = 256  # rows that are read at once
_LONG = 3600  # seconds of estimated work that nobody should start unawares


class Method(Parameters, ABC):
    """A protection method: parameters, and after :meth:`fit` what was learned.

    A subclass stores its parameters verbatim in ``__init__``, writes ``_learn`` against
    :class:`~unlearnable.engine.run.Run`, and where it has a surrogate ``_perturb``. This class
    validates, seeds, rounds, clips to the budget, checks that every image was covered, and records
    where the result comes from.

    Attributes:
        kind: Of the perturbation: ``"additive"`` rows, or what ``_learn`` hands to ``run.result``.
        perturbation_: The :class:`Perturbation`, after ``fit``.
        surrogate_: The trained surrogate in evaluation mode, or None for methods without one.
        history_: Records of the fit, a list of dicts.
    """

    kind: ClassVar[str] = "additive"

    batch_size: int

    perturbation_: Perturbation
    surrogate_: nn.Module | None
    history_: list[dict[str, Any]]

    # What a subclass writes

    @abstractmethod
    def _learn(self, run: Run) -> nn.Module | None:
        """The algorithm: writes ``run.rows`` or ``run.result``; returns the surrogate if any."""

    def _perturb(self, run: Run, index: Tensor, surrogate: nn.Module | None) -> Tensor:
        """Final perturbations of a batch, float (B, C, H, W), from a fitted surrogate."""
        raise ValueError(
            f"{type(self).__name__} with granularity={self.granularity!r} cannot be extended: "
            f"class-wise rows cover new images of known classes already"
        )

    def _budget(self, shape: Sequence[int]) -> tuple[float | None, str | None]:
        """Epsilon and norm that the result keeps, for images of a shape (C, H, W).

        Raises:
            ValueError: Such images round the budget to nothing.
        """
        return getattr(self, "epsilon", None), getattr(self, "norm", None)

    def _check_shape(self, shape: Sequence[int]) -> None:
        self._check_moves(shape)
        self._budget(shape)

    def _empty_surrogate(self, config: dict[str, Any]) -> nn.Module:
        """A network like the fitted surrogate, for :meth:`from_pretrained` to fill with weights.

        A method whose surrogate is not given by the parameter ``surrogate`` writes its own.

        Args:
            config: Of the perturbation; holds ``num_classes`` and ``image_shape``, (C, H, W).
        """
        surrogate: str | nn.Module = getattr(self, "surrogate")  # noqa: B009
        if isinstance(surrogate, nn.Module):
            return copy.deepcopy(surrogate)
        if not is_model_name(surrogate):
            raise ValueError(
                f"expected surrogate= with a module to load the weights into: the method "
                f"was fitted with a {surrogate} of the caller's own"
            )
        return build_model(surrogate, config["num_classes"], config["image_shape"][0])

    def passes(self, num_images: int) -> int | None:
        """Image passes (through the surrogate, forward and backward) of a fit; None if unknown."""
        return None

    # Fitting

    @final
    def fit(
        self: Self,
        dataset: Any,
        *,
        device: str | torch.device = "auto",
        precision: str = "auto",
        image_size: int | Sequence[int] | None = None,
        checkpoint: str | Path | None = None,
        checkpoint_every: float = 300.0,
        keep_checkpoint: bool = False,
        store: str | Path | None = None,
        resident: bool | None = None,
        compile: bool = False,
        profile: bool = False,
        progress: bool = True,
        callback: Callable[[dict[str, Any]], None] | None = None,
    ) -> Self:
        """Learns a perturbation of every image of a dataset.

        Under ``torchrun`` (or in any process group) all processes call it alike and share the work;
        each ends with the whole result. Their number has to divide 8.

        Args:
            dataset: A map-style dataset of (image, label) pairs; its transforms are not applied,
                and it is not changed.
            device: ``"auto"``, ``"cpu"``, ``"cuda"``, …
            precision: Of network passes: ``"float32"``, ``"bf16"``, or ``"auto"`` by device.
            image_size: Side, or (height, width), that images are resized and cropped to; needed
                where their sizes vary.
            checkpoint: Folder that keeps the state of an unfinished fit. The same call goes on from
                it, to the same bytes as a fit that was never stopped; it is removed at the end.
                Ctrl-C saves first.
            checkpoint_every: Seconds between checkpoints; 0 is after every step.
            keep_checkpoint: Leave the finished state in the folder: until it is deleted, the same
                call comes to its end at once.
            store: Folder for the decoded images, which stay there for later fits. Without it, they
                are in memory, or in a temporary folder where they are large.
            resident: Hold images and rows on the device, or stream them; None decides by size.
            compile: Compile the surrogate; pays on a GPU where the fit takes many minutes.
            profile: Keep where the time went in ``seconds_``.
            progress: Show bars, where standard error is a terminal.
            callback: Called with every record of ``history_`` as it is made.

        Returns:
            The method itself, with ``perturbation_``, ``surrogate_`` and ``history_``.

        Warns:
            UserWarning: It will take long, or half of the rows or more became zero, which protect
                nothing.

        Raises:
            ValueError: A parameter, label or image size is not as expected, or the checkpoint or
                the store belongs to something else.
            TypeError: The dataset does not give raw images.
            OSError: A disk is full; the last checkpoint is whole.
            KeyboardInterrupt: Ctrl-C; with ``checkpoint``, the work so far is kept.
        """
        self._validate()
        self._check_moves()
        if checkpoint_every < 0:
            raise ValueError(f"expected checkpoint_every >= 0 seconds, got {checkpoint_every}")
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)
        options = FitOptions(
            device=device,
            precision=precision,
            compile=compile,
            checkpoint=checkpoint,
            checkpoint_every=checkpoint_every,
            keep_checkpoint=keep_checkpoint,
            store=store,
            resident=resident,
            profile=profile,
            progress=progress,
            callback=callback,
        )
        identity = {"method": type(self).__name__, "parameters": self._json_params()}
        surrogate_digest = {"surrogate": _fingerprint_of(getattr(self, "surrogate", None))}
        start = time.perf_counter()
        with Fitting(
            dataset,
            image_size,
            options,
            title=type(self).__name__,
            rows=(self.epsilon, self.norm) if self._has_rows else None,
            seed=self.seed,
            identity=identity | surrogate_digest,
            check_shape=self._check_shape,
            on_rate=self._warn_if_long,
        ) as fitting:
            run = fitting.run
            surrogate = self._learn(run)
            run.finish()
            if keep_checkpoint and checkpoint is not None:
                run.save()
            epsilon, norm = self._budget(run.images.shape[1:])
            config = {
                **identity,
                "granularity": self.granularity,
                "epsilon": epsilon,
                "norm": norm,
                "seed": self.seed,
                "threads": torch.get_num_threads(),
                "versions": {"unlearnable": __version__, "torch": torch.__version__},
                "history": {
                    "passes": run.all_passes(),
                    "last": run.history[-1] if run.history else None,
                },
            }
            if self._has_rows:
                result = Result("additive", {"rows": fitting.levels()}, {})
            else:
                (kind, parts), *_ = run.results.items()
                result = encode(kind, parts, epsilon, norm)
            self._warn_if_zero(result, fitting.images)
            made = Perturbation.from_fit(result, fitting.images, config)
            perturbation = fitting.finish(made)
        # Set together and last: a fit that fails leaves nothing that looks fitted.
        if profile:
            self.seconds_ = run.seconds(time.perf_counter() - start)
        self.surrogate_ = None if surrogate is None else surrogate.cpu().eval()
        self.history_ = run.history
        self.perturbation_ = perturbation
        return self

    def _warn_if_long(self, rate: float, num_images: int) -> None:
        total = self.passes(num_images)
        if total is not None and total / rate > _LONG:
            warnings.warn(self._long_message(total, rate, num_images), stacklevel=4)

    def _warn_if_zero(self, result: Result, images: ImageStore) -> None:
        if result.kind != "additive":
            return
        rows = result.tensors["rows"]
        if not self._has_rows:  # classes without images have no row to learn
            rows = rows[images.labels.unique().numpy()]
        zero = _zero_rows(rows)
        if 2 * zero >= len(rows):
            warnings.warn(
                f"{type(self).__name__} made {zero:,} of {len(rows):,} rows all zero: their images "
                f"stay as they are, and nothing protects them; let it take more or longer steps",
                stacklevel=3,
            )

    def _long_message(self, total: int, rate: float, num_images: int) -> str:
        message = (
            f"{type(self).__name__} will take about {_duration(total / rate)} here "
            f"({total:,} image passes at {rate:,.0f} a second)."
        )
        for name in self.presets:
            other = type(self).preset(name)
            passes = other.passes(num_images)
            if passes is not None and passes < total / 2:
                message += f' The preset "{name}" needs {passes:,} passes'
                surrogate = getattr(other, "surrogate", None)
                if surrogate == getattr(self, "surrogate", None):
                    message += f", about {_duration(passes / rate)}."
                else:
                    message += f" of the smaller network {surrogate!r}."
        if not torch.cuda.is_available():
            message += ' A GPU (device="cuda") does many times more passes a second.'
        return message

    @property
    def _has_rows(self) -> bool:
        """Whether it writes ``run.rows``: a row for each image."""
        return self.kind == "additive" and self.granularity == "sample-wise"

    def _build_surrogate(self, run: Run, *, name: str = "surrogate") -> nn.Module:
        """The surrogate of ``self.surrogate``: fresh weights, or a copy of the caller's module."""
        surrogate: str | nn.Module = getattr(self, "surrogate")  # noqa: B009
        if isinstance(surrogate, str):
            channels = run.images.shape[1]
            return build_model(surrogate, run.num_classes, channels, seed=run.weight_seed(name))
        model = copy.deepcopy(surrogate)
        if not getattr(self, "pretrained_surrogate", False):
            reset_weights(model, seed=run.weight_seed(name))
        return model

    def _restore_surrogate(self, network: nn.Module, state: dict[str, Tensor]) -> nn.Module:
        """A module for the saved ``state`` of ``surrogate_``, from a network as it is built."""
        return network

    # What a fitted method does

    def _fitted(self) -> Perturbation:
        if not hasattr(self, "perturbation_"):
            raise NotFittedError(
                f"this {type(self).__name__} is not fitted yet: call fit(dataset) first, or load a "
                f"perturbation with Perturbation.from_pretrained"
            )
        return self.perturbation_

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
        """The dataset with its perturbation: what to publish, or to train a victim on.

        Args:
            dataset: As for :class:`ProtectedDataset`, as are the others.
            fraction: Share of images to protect.
            seed: Of that choice.
            align: ``"content"`` or ``"index"``.
            full_size: Leave photos as large as they are.

        Raises:
            NotFittedError: ``fit`` was not called.
            UnknownImageError: The dataset holds other images than those that were fitted.
        """
        perturbation = self._fitted()
        return ProtectedDataset(
            dataset, perturbation, fraction=fraction, seed=seed, align=align, full_size=full_size
        )

    @final
    def extend(
        self,
        dataset: Any,
        *,
        device: str | torch.device = "auto",
        precision: str = "auto",
        progress: bool = True,
    ) -> Perturbation:
        """A perturbation of new images of the same classes, from the fitted surrogate.

        Args:
            dataset: New images, resized and cropped as those of ``fit`` were.
            device: As for :meth:`fit`, as are the others.
            precision: Of network passes.
            progress: Show bars.

        Returns:
            Rows for the new images alone; the method's own perturbation stays as it is.

        Raises:
            NotFittedError: ``fit`` was not called.
            ValueError: The method has no rows per image, or the images or classes do not fit.
        """
        fitted = self._fitted()
        if not fitted.keyed:
            raise ValueError(
                f"{type(self).__name__} with granularity={self.granularity!r} needs no extension: "
                f"its rows cover new images of known classes already; "
                f"protect(new_images) applies it"
            )
        images = read_images(dataset, fitted.fit_size, progress=progress)
        config = fitted.config
        if list(images.images.shape[1:]) != config["image_shape"]:
            raise ValueError(
                f"expected images of shape {tuple(config['image_shape'])}, got "
                f"{tuple(images.images.shape[1:])}"
            )
        known = config["classes"]
        if known is not None and images.classes is not None and known != images.classes:
            raise ValueError(f"expected the classes {known}, got {images.classes}")
        if images.num_classes > config["num_classes"]:
            raise ValueError(f"expected {config['num_classes']} classes, got {images.num_classes}")
        place = pick_device(device)
        rows = RowBuffer(tuple(images.images.shape), self.epsilon, self.norm, place)
        run = Run(
            images.images.to(place),
            images.labels.to(place),
            config["num_classes"],
            rows=rows,
            # New images get draws of their own, not those of the first fitted ones.
            seed=(self.seed, images.digest),
            precision=pick_precision(precision, place),
            progress=Progress(show=progress, title=type(self).__name__),
        )
        surrogate = copy.deepcopy(self.surrogate_)
        try:
            if surrogate is not None:
                run.track(surrogate=surrogate)
            for index in run.sweep(self.batch_size, title="extend"):
                run.rows[index] = self._perturb(run, index, surrogate)
        finally:
            run.close()
        images = images._replace(classes=known, num_classes=config["num_classes"])
        result = Result("additive", {"rows": rows.levels()}, {})
        self._warn_if_zero(result, images)
        return Perturbation.from_fit(result, images, config)

    # Files

    def save_pretrained(self, folder: str | Path, *, force: bool = False) -> Path:
        """Writes the perturbation and beside it the method and its surrogate, to extend later.

        Args:
            folder: As for :meth:`Perturbation.save_pretrained`, which reads the same folder.
            force: Write into a folder that holds other things.

        Raises:
            NotFittedError: ``fit`` was not called.
        """
        folder = self._fitted().save_pretrained(folder, force=force)
        description = {
            "method": type(self).__name__,
            "parameters": self._json_params(),
            "digest": self.perturbation_.digest,
            "history": self.history_,
        }
        with locked(folder, wait=True):
            (folder / _SURROGATE).unlink(missing_ok=True)
            if self.surrogate_ is not None:
                weights = {n: t.contiguous() for n, t in self.surrogate_.state_dict().items()}
                partial = folder / f".{_SURROGATE}.partial"
                try:
                    partial.unlink(missing_ok=True)  # a link would be followed
                    safetensors.torch.save_file(weights, partial)
                    partial.replace(folder / _SURROGATE)
                finally:
                    partial.unlink(missing_ok=True)
            write_json(folder / _METHOD, description)
        return folder

    @classmethod
    def from_pretrained(
        cls: type[Self], folder: str | Path, *, surrogate: nn.Module | None = None
    ) -> Self:
        """Loads a fitted method.

        Args:
            folder: What :meth:`save_pretrained` wrote.
            surrogate: A module of the same structure, where the method was fitted with one.

        Raises:
            ArtefactError: The folder holds another method, or a damaged one.
        """
        folder = Path(folder)
        perturbation = Perturbation.from_pretrained(folder)
        try:
            saved = json.loads((folder / _METHOD).read_text(encoding="utf-8"))
            found, params, history = saved["method"], saved["parameters"], saved["history"]
            digest = saved["digest"]
        except (OSError, ValueError, KeyError) as error:
            raise ArtefactError(
                f"expected a fitted method in {folder}, found no readable {_METHOD}; "
                f"Perturbation.from_pretrained reads the perturbation alone"
            ) from error
        if found != cls.__name__:
            raise ArtefactError(f"expected a fitted {cls.__name__} in {folder}, found {found}")
        if digest != perturbation.digest:
            raise ArtefactError(
                f"expected the method of the perturbation in {folder}, got one of another "
                f"perturbation that was saved there before; Perturbation.from_pretrained reads "
                f"the perturbation alone"
            )
        try:
            self = cls(**(params | ({} if surrogate is None else {"surrogate": surrogate})))
        except TypeError as error:
            raise ArtefactError(f"{folder / _METHOD} has unknown parameters: {error}") from error
        self.surrogate_ = None
        if (folder / _SURROGATE).exists():
            model = self._empty_surrogate(perturbation.config)
            try:
                state = safetensors.torch.load_file(folder / _SURROGATE)
                model = self._restore_surrogate(model, state)
                model.load_state_dict(state)
            except (RuntimeError, safetensors.SafetensorError) as error:
                raise ArtefactError(f"could not read {folder / _SURROGATE}: {error}") from error
            self.surrogate_ = model.eval()
        self.history_ = history
        self.perturbation_ = perturbation
        return self


def _zero_rows(rows: Levels) -> int:
    """How many rows are all zero; or 0, without reading on, once it is less than half of them."""
    moved = 0
    for start in range(0, len(rows), _CHUNK):
        moved += int(rows[start : start + _CHUNK].any(axis=(1, 2, 3)).sum())
        if 2 * moved > len(rows):
            return 0
    return len(rows) - moved


def _fingerprint_of(surrogate: Any) -> str | None:
    """A fingerprint of a caller's network: names, shapes and values of what it holds."""
    if not isinstance(surrogate, nn.Module):
        return None
    digest = hashlib.blake2b(digest_size=16)
    for name, value in surrogate.state_dict().items():
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"
