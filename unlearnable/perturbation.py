"""The artefact: what is done to which image, and with what promise; saved and loaded."""

from __future__ import annotations

import hashlib
import html
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .arrays import Images
from .batches import Pixels, to_pil
from .config import FORMAT, FORMAT_VERSION, check_config, read_config
from .data import Fit
from .errors import ArtefactError
from .kinds import Additive, Kind, Row
from .output import claim_folder, write_json
from .pictures import html_image
from .rows import Levels, Result
from .stack import KINDS, parts_of, stacked
from .store import ImageStore
from .tensorfile import map_tensors, write_tensors

CONFIG = "config.json"
_TENSORS = "perturbation.safetensors"
_ROW_TENSORS = ("checksums", "keys", "labels", "thumbnails")
_SIGNED = {np.dtype(np.uint64): np.int64, np.dtype(np.uint32): np.int32}  # what torch can share
_SHOWN = 1 << 20  # pixels of an image above which none are shown


def format_epsilon(epsilon: float, norm: str = "Linf") -> str:
    """As the literature writes budgets: ``8/255``, ``0.5/255`` for broken levels, ``1`` for L2."""
    return f"{round(epsilon * 255, 4):g}/255" if norm == "Linf" else f"{epsilon:.4g}"


class Perturbation:
    """A perturbation: what is done to the pixels of which image.

    Made by :meth:`Method.fit <unlearnable.Method.fit>` and :meth:`from_pretrained`. This
    constructor makes the most common kind, rows of int8 pixel levels, keyed by image content or by
    class; :meth:`of_kind` makes any.

    Args:
        rows: int8 levels of 1/255: (N, C, H, W) sample-wise, (K, C, H, W) class-wise.
        config: What is known about them, as in ``config.json``: see :attr:`config`.
        keys: uint64 key of each row's image, (N,); sample-wise only, as are the next two.
        labels: int64 class index of each row's image, (N,).
        thumbnails: uint8 4x4 picture of each row's image, (N, 3, 4, 4).

    Attributes:
        config: ``method``, ``parameters``, ``kind`` (``"additive"``, ``"pixel"``,
            ``"convolution"``, ``"procedural"`` or ``"stack"``), ``settings`` of the kind,
            ``parts`` (configs, of a stack), ``granularity``, ``epsilon`` (in [0, 1] units, None
            without a budget), ``norm``, ``image_shape`` (C, H, W), ``classes`` (names or None),
            ``num_classes``, ``source`` (name, images and digest of the dataset), ``preprocessing``
            (size that images are resized and cropped to, or None), ``seed``, ``threads``,
            ``versions``, ``history``, ``strength`` (measured, or None).
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
        if rows.dtype != np.int8 or rows.ndim != 4:
            raise ValueError(
                f"expected int8 rows of shape (N, C, H, W), got {rows.dtype} {rows.shape}"
            )
        tensors: dict[str, NDArray[Any]] = {"rows": rows}
        if config["granularity"] == "sample-wise":
            if keys is None or labels is None or thumbnails is None:
                raise ValueError("expected keys, labels and thumbnails with sample-wise rows")
            tensors |= {"keys": keys, "labels": labels, "thumbnails": thumbnails}
        tensors["checksums"] = np.array([zlib.crc32(row.tobytes()) for row in rows], np.uint32)
        self._set(tensors, config, path=None)

    @classmethod
    def of_kind(
        cls, tensors: Mapping[str, NDArray[Any]], config: Mapping[str, Any]
    ) -> Perturbation:
        """A perturbation of the kind that the config names.

        Args:
            tensors: The kind's arrays by name; see docs/nouns.md.
            config: As :attr:`config`.

        Raises:
            ValueError: They do not belong together.
        """
        self = cls.__new__(cls)
        self._set(tensors, config, path=None)
        return self

    def _set(
        self, tensors: Mapping[str, NDArray[Any]], config: Mapping[str, Any], path: Path | None
    ) -> None:
        # Plain JSON from the start, so that what is saved is what is loaded.
        self.config: dict[str, Any] = json.loads(json.dumps(dict(config), default=_plain))
        check_config(self.config)
        missing = KINDS[self.config["kind"]].names(self.config) - set(tensors)
        if missing:
            raise ValueError(f"expected tensors {sorted(missing)}, found none")
        self._path = path
        where = str(path or "the perturbation")
        self._kind: Kind = KINDS[self.config["kind"]](dict(tensors), self.config, where)
        self._shared: dict[str, Tensor] | None = None

    @classmethod
    def from_fit(
        cls, result: Result, images: ImageStore, config: Mapping[str, Any]
    ) -> Perturbation:
        """What was just learned on ``images``, with their own part of the config filled in."""
        config = dict(config) | {
            "kind": result.kind,
            "image_shape": list(images.images.shape[1:]),
            "classes": images.classes,
            "num_classes": images.num_classes,
            "source": {
                "name": images.name,
                "images": len(images.images),
                "digest": images.digest,
            },
            "preprocessing": None if images.fit is None else {"fit": list(images.fit)},
            "strength": None,
        }
        if result.settings:
            config["settings"] = result.settings
        if result.kind != "additive":
            return cls.of_kind(result.tensors, config)
        if config["granularity"] == "class-wise":
            return cls(result.tensors["rows"], config)
        return cls(
            result.tensors["rows"],
            config,
            keys=images.keys,
            labels=images.labels.cpu().numpy(),
            thumbnails=images.thumbnails,
        )

    def then(self, other: Perturbation) -> Perturbation:
        """This perturbation and ``other`` on top of it, as one.

        The result is found by the clean image. What ``other`` keeps per image may have been fitted
        on clean images, or on what this perturbation gives (``q.fit(p_method.protect(dataset))``).

        Args:
            other: For images of the same shape and classes; itself a stack at will.

        Returns:
            A perturbation of kind ``"stack"``.

        Raises:
            ValueError: The two are not for the same images.
        """
        for name in ("image_shape", "num_classes", "classes"):
            mine, its = self.config[name], other.config[name]
            if mine != its and None not in (mine, its):
                raise ValueError(f"expected {name} {mine} as below, got {its}")
        return Perturbation.of_kind(*stacked([*parts_of(self._kind), *parts_of(other._kind)]))

    # What it is

    @property
    def kind(self) -> str:
        """What is done: ``"additive"``, ``"pixel"``, ``"convolution"``, ``"procedural"``, …"""
        return str(self.config["kind"])

    @property
    def tensors(self) -> Mapping[str, NDArray[Any]]:
        """Arrays of the kind by name; memory-mapped when loaded from a folder."""
        return self._kind.tensors

    @property
    def rows(self) -> Levels:
        """int8 levels of 1/255, (N or K, C, H, W); of kind ``"additive"`` alone."""
        if self.kind != "additive":
            raise AttributeError(
                f'a perturbation of kind "{self.kind}" has no rows; its tensors are '
                f"{sorted(self.tensors)}"
            )
        return self.tensors["rows"]

    @property
    def keys(self) -> NDArray[np.uint64] | None:
        """Key of each row's image, or None where there is no row per image."""
        return self.tensors.get("keys")

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """Class index of each row's image, or None where there is no row per image."""
        return self.tensors.get("labels")

    @property
    def granularity(self) -> str:
        """``"sample-wise"`` or ``"class-wise"``: what differs from image to image of a class."""
        return str(self.config["granularity"])

    @property
    def keyed(self) -> bool:
        """Whether it is for the images it was fitted on, and no others."""
        return self._kind.keyed

    @property
    def by_class(self) -> bool:
        """Whether what is done to an image follows from its class."""
        return self._kind.by_class

    @property
    def fit_size(self) -> Fit | None:
        """Resize and crop that images go through before anything is applied, or None."""
        return self._kind.fit

    @property
    def nbytes(self) -> int:
        """Size of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def digest(self) -> str:
        """Fingerprint of tensors and config."""
        return _digest(self.tensors, self.config)

    def __len__(self) -> int:
        return len(self._kind)

    def info(self) -> dict[str, Any]:
        """What a person wants to know: method, budget, images, size on disk, digest, strength."""
        source, epsilon, norm = (self.config[n] for n in ("source", "epsilon", "norm"))
        told = {
            "method": self.config["method"],
            "granularity": self.granularity,
            "epsilon": None if epsilon is None else format_epsilon(epsilon, norm),
            "norm": norm,
            "rows": len(self),
            "image_shape": self.config["image_shape"],
            "classes": self.config["num_classes"],
            "dataset": f"{source['name']} ({source['images']:,} images)",
            "bytes": self.nbytes,
            "digest": self.digest,
            "strength": self.config.get("strength") or "not measured",
        }
        if self.kind == "additive":
            return told
        del told["rows"]
        told = {"method": told.pop("method"), "kind": self.kind} | told
        if self.kind == "stack":
            told["parts"] = [_extent(part) for part in self._kind.parts]  # type: ignore[attr-defined]
        else:
            told["extent"] = self._kind.describe()
        return told

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.config["image_shape"]))
        unit = "images" if self.keyed else "classes"
        return f"Perturbation({_extent(self._kind)}, {len(self):,} {unit} of {shape})"

    def _repr_html_(self) -> str:
        table = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>"
            for name, value in self.info().items()
        )
        picture = ""
        if np.prod(self.config["image_shape"][1:]) <= _SHOWN:
            picture = html_image(self._picture(), "what it changes, amplified 8 times")
        return f"{picture}<table>{table}</table>"

    def _picture(self) -> Image.Image:
        canvas = self._kind.canvas()
        examples = [self._kind.example(index) for index in range(min(8, len(self)))]
        shown = self._kind.apply(np.stack([canvas] * len(examples)), examples).astype(np.int16)
        strip = np.clip(128 + 8 * (shown - canvas), 0, 255).astype(np.uint8)
        picture = to_pil(np.concatenate(list(strip), axis=2))
        scale = max(1, 64 // strip.shape[2])
        size = (picture.width * scale, picture.height * scale)
        return picture.resize(size, Image.Resampling.NEAREST)

    # What it does to an image

    def find(self, pixels: Pixels, label: int, index: int | None = None) -> Row:
        """What belongs to an image: for rows, the number of its row.

        Args:
            pixels: uint8, (1 or 3, H, W), before any resize.
            label: Class index; decides alone for class-wise rows, and between duplicates.
            index: Place in the dataset; tried first, so that the usual case needs no search.

        Raises:
            UnknownImageError: Nothing belongs to the image.
        """
        indices = None if index is None or index < 0 else [index]
        return self._kind.find(pixels[None], [label], indices)[0]

    def find_batch(
        self, images: Images, labels: Sequence[int], indices: Sequence[int] | None = None
    ) -> list[Row]:
        """:meth:`find` of each of (B, 1 or 3, H, W) images, at once."""
        return self._kind.find(images, labels, indices)

    def resembles(self, pixels: Pixels, row: int) -> bool:
        """Whether an image looks like the row's own at 4x4 pixels, whatever decoded it."""
        assert isinstance(self._kind, Additive)
        return self._kind.resembles(pixels, row)

    def prepare(self, pixels: Pixels) -> Pixels:
        """The image before anything is applied: resized and cropped, and in colour if need be."""
        return self._kind.prepare(pixels[None])[0]

    def prepare_batch(self, images: Images) -> Images:
        """:meth:`prepare` of each of (B, 1 or 3, H, W) images, at once."""
        return self._kind.prepare(images)

    def apply(self, pixels: Pixels, row: Row) -> Pixels:
        """Perturbed uint8 pixels, (1 or 3, H, W).

        Args:
            pixels: uint8, of the perturbation's shape; a grey perturbation fits a colour image.
            row: From :meth:`find`.

        Raises:
            ValueError: The image has another shape.
            ArtefactError: The row is damaged.
        """
        return self._kind.apply(pixels[None], [row])[0]

    def apply_batch(self, images: Images, rows: Sequence[Row]) -> Images:
        """:meth:`apply` to each of (B, 1 or 3, H, W) images, at once."""
        return self._kind.apply(images, rows)

    # Files

    def save_pretrained(self, folder: str | Path, *, force: bool = False) -> Path:
        """Writes ``config.json`` and ``perturbation.safetensors``.

        Args:
            folder: Made if missing. Each file is written beside its place and renamed.
            force: Write even into a folder that holds other things; they stay.

        Returns:
            The folder.

        Raises:
            FileExistsError: The folder holds things that are not ours.
            OSError: The disk is full or read-only; what was there before is unharmed.
        """
        folder = claim_folder(folder, CONFIG, force=force)
        tensors = {name: np.ascontiguousarray(t) for name, t in self.tensors.items()}
        described = {"format": FORMAT, "format_version": FORMAT_VERSION}
        described |= self.config | {"digest": self.digest}
        target, partial = folder / _TENSORS, folder / f".{_TENSORS}.partial"
        before = folder / f".{_TENSORS}.before"
        replaced = placed = False
        try:
            write_tensors(partial, tensors, FORMAT)
            if target.exists():
                target.replace(before)
                replaced = True
            partial.replace(target)
            placed = True
            write_json(folder / CONFIG, described)
        except BaseException:
            if replaced:  # the two files go together
                before.replace(target)
            elif placed:
                target.unlink()
            raise
        finally:
            partial.unlink(missing_ok=True)
            before.unlink(missing_ok=True)
        return folder

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Perturbation:
        """Loads what :meth:`save_pretrained` wrote; rows stay on disk until they are read.

        Raises:
            FileNotFoundError: There is no such folder.
            ArtefactError: A file is missing, damaged, edited, or of a later format.
        """
        folder = Path(folder).absolute()
        if not folder.is_dir():
            raise FileNotFoundError(f"expected a folder with a saved perturbation, got {folder}")
        self = cls.__new__(cls)
        config = read_config(folder / CONFIG)
        expected = config.pop("digest", None)
        tensors = map_tensors(folder / _TENSORS)
        problem: Exception | None = None
        try:
            self._set(tensors, config, folder)
        except ArtefactError:
            raise
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
            problem = error
        found = _digest(tensors, config)
        # The more telling of the two: what is missing, else that something was changed.
        if found != expected and not (problem and "found none" in str(problem)):
            raise ArtefactError(
                f"expected the digest {expected} that {folder / CONFIG} states, got {found}: a "
                f"file was edited or belongs to another perturbation"
            )
        if problem is not None:
            kind = "" if isinstance(problem, ValueError) else f"{type(problem).__name__} "
            raise ArtefactError(f"expected a sound perturbation in {folder}: {kind}{problem}")
        return self

    def __getstate__(self) -> dict[str, Any]:
        # A loaded artefact travels to worker processes as its path; one in memory as torch tensors,
        # which torch's multiprocessing hands over through shared memory.
        if self._path is None and self._shared is None:
            # Kept: shared memory is gone with its tensor, and may be opened long after this.
            self._shared = {
                name: torch.from_numpy(t.view(_SIGNED.get(t.dtype, t.dtype)))
                for name, t in self.tensors.items()
            }
        digest = None if self._path is None else self.digest
        state = {"config": self.config, "path": self._path, "digest": digest}
        dtypes = {name: tensor.dtype.str for name, tensor in self.tensors.items()}
        return state | {"tensors": self._shared, "dtypes": dtypes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        path = state["path"]
        if path is None:
            dtypes = state["dtypes"]
            tensors = {n: t.numpy().view(dtypes[n]) for n, t in state["tensors"].items()}
            self._set(tensors, state["config"], None)
            return
        tensors = map_tensors(path / _TENSORS)
        if _digest(tensors, state["config"]) != state["digest"]:
            raise ArtefactError(
                f"expected {path} as it was when it was loaded, got another artefact there; load "
                f"it anew"
            )
        self._set(tensors, state["config"], path)


def _digest(tensors: Mapping[str, NDArray[Any]], config: Mapping[str, Any]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        if name.rpartition(".")[2] == "rows":
            continue  # by its checksums
        tensor = np.ascontiguousarray(tensors[name])
        if name not in _ROW_TENSORS:
            digest.update(f"{name} {tensor.dtype.str} {tensor.shape}".encode())
        digest.update(tensor.tobytes())
    digest.update(json.dumps(config, sort_keys=True).encode())
    return digest.hexdigest()


def _extent(kind: Kind) -> str:
    """Method, granularity and budget; in place of a budget, what there is."""
    config = kind.config
    extent = kind.describe()
    if config["epsilon"] is not None:
        extent = f"{config['norm']} {format_epsilon(config['epsilon'], config['norm'])}"
    return f"{config['method']}, {config['granularity']}, {extent}"


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"expected a config of plain values, got a {type(value).__name__}: {value!r}")
