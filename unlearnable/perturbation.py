"""The artefact: which whole pixel levels are added to which image, and with what promise.

This is the one place that applies perturbations to pixels.
"""

from __future__ import annotations

import hashlib
import html
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .data import Fit, Pixels, image_key, thumbnail, to_pil
from .errors import ArtefactError, UnknownImageError
from .output import claim_folder, write_json
from .pictures import html_image
from .rows import Levels
from .store import ImageStore
from .tensorfile import map_tensors, write_tensors

FORMAT = "unlearnable-perturbation"
FORMAT_VERSION = 1
GRANULARITIES = ("sample-wise", "class-wise")

CONFIG = "config.json"
_TENSORS = "perturbation.safetensors"
_THUMBNAIL_TOLERANCE = 12  # levels: other JPEG decoders stay within 4, other photos do not


def format_epsilon(epsilon: float) -> str:
    """As the literature writes budgets: ``8/255``, or ``0.5/255`` for broken levels."""
    return f"{round(epsilon * 255, 4):g}/255"


class Perturbation:
    """A learned perturbation: rows of int8 pixel levels, keyed by image content or by class.

    Made by :meth:`Method.fit <unlearnable.Method.fit>` and :meth:`from_pretrained`.

    Args:
        rows: int8 levels of 1/255: (N, C, H, W) sample-wise, (K, C, H, W) class-wise.
        config: What is known about them, as in ``config.json``: see :attr:`config`.
        keys: uint64 key of each row's image, (N,); sample-wise only, as are the next two.
        labels: int64 class index of each row's image, (N,).
        thumbnails: uint8 4x4 picture of each row's image, (N, 3, 4, 4).

    Attributes:
        config: ``method``, ``parameters``, ``kind`` (``"additive"``), ``granularity``, ``epsilon``
            (in [0, 1] units), ``norm``, ``image_shape`` (C, H, W), ``classes`` (names or None),
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
        # Plain JSON from the start, so that what is saved is what is loaded.
        self.config = json.loads(json.dumps(dict(config), default=_plain))
        tensors: dict[str, NDArray[Any]] = {"rows": rows}
        if self.granularity == "sample-wise":
            if keys is None or labels is None or thumbnails is None:
                raise ValueError("expected keys, labels and thumbnails with sample-wise rows")
            tensors |= {"keys": keys, "labels": labels, "thumbnails": thumbnails}
        elif len(rows) != self.config["num_classes"]:
            raise ValueError(
                f"expected a row for each of {self.config['num_classes']} classes, got {len(rows)}"
            )
        tensors["checksums"] = np.array([zlib.crc32(row.tobytes()) for row in rows], np.uint32)
        self._set(tensors, path=None)

    def _set(self, tensors: Mapping[str, NDArray[Any]], path: Path | None) -> None:
        self._tensors = dict(tensors)
        self._path = path
        self._order: NDArray[np.int64] | None = None
        self._shared: dict[str, Tensor] | None = None

    @classmethod
    def from_fit(cls, rows: Levels, images: ImageStore, config: Mapping[str, Any]) -> Perturbation:
        """Rows just learned on ``images``, with the images' own part of the config filled in."""
        config = dict(config) | {
            "kind": "additive",
            "image_shape": list(rows.shape[1:]),
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
        if config["granularity"] == "class-wise":
            return cls(rows, config)
        return cls(
            rows,
            config,
            keys=images.keys,
            labels=images.labels.cpu().numpy(),
            thumbnails=images.thumbnails,
        )

    # What it is

    @property
    def rows(self) -> Levels:
        """int8 levels of 1/255, (N or K, C, H, W); memory-mapped when loaded from a folder."""
        return self._tensors["rows"]

    @property
    def keys(self) -> NDArray[np.uint64] | None:
        """Key of each row's image, or None where rows belong to classes."""
        return self._tensors.get("keys")

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """Class index of each row's image, or None where rows belong to classes."""
        return self._tensors.get("labels")

    @property
    def granularity(self) -> str:
        """``"sample-wise"`` or ``"class-wise"``."""
        return str(self.config["granularity"])

    @property
    def fit_size(self) -> Fit | None:
        """Resize and crop that images go through before rows are added, or None."""
        preprocessing = self.config["preprocessing"]
        return None if preprocessing is None else Fit(*preprocessing["fit"])

    @property
    def digest(self) -> str:
        """Fingerprint of rows, keys, labels, thumbnails and config."""
        digest = hashlib.blake2b(digest_size=16)
        for name in ("checksums", "keys", "labels", "thumbnails"):
            if name in self._tensors:
                digest.update(np.ascontiguousarray(self._tensors[name]).tobytes())
        digest.update(json.dumps(self.config, sort_keys=True).encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.rows)

    def info(self) -> dict[str, Any]:
        """What a person wants to know: method, budget, images, size on disk, digest, strength."""
        source = self.config["source"]
        return {
            "method": self.config["method"],
            "granularity": self.granularity,
            "epsilon": format_epsilon(self.config["epsilon"]),
            "norm": self.config["norm"],
            "rows": len(self),
            "image_shape": self.config["image_shape"],
            "classes": self.config["num_classes"],
            "dataset": f"{source['name']} ({source['images']:,} images)",
            "bytes": sum(tensor.nbytes for tensor in self._tensors.values()),
            "digest": self.digest,
            "strength": self.config["strength"] or "not measured",
        }

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.config["image_shape"]))
        unit = "images" if self.granularity == "sample-wise" else "classes"
        return (
            f"Perturbation({self.config['method']}, {self.granularity}, {self.config['norm']} "
            f"{format_epsilon(self.config['epsilon'])}, {len(self):,} {unit} of {shape})"
        )

    def _repr_html_(self) -> str:
        shown = np.stack([self._row(index) for index in range(min(8, len(self)))])
        strip = np.clip(128 + 8 * shown.astype(np.int16), 0, 255).astype(np.uint8)
        picture = to_pil(np.concatenate(list(strip), axis=2))
        scale = max(1, 64 // strip.shape[2])
        size = (picture.width * scale, picture.height * scale)
        shown_picture = picture.resize(size, Image.Resampling.NEAREST)
        table = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>"
            for name, value in self.info().items()
        )
        return (
            html_image(shown_picture, "first rows, amplified 8 times") + f"<table>{table}</table>"
        )

    # What it does to an image

    def find(self, pixels: Pixels, label: int, index: int | None = None) -> int:
        """The row of an image.

        Args:
            pixels: uint8, (1 or 3, H, W), before any resize.
            label: Class index; decides alone for class-wise rows, and between duplicates.
            index: Place in the dataset; tried first, so that the usual case needs no search.

        Raises:
            UnknownImageError: No row belongs to the image.
        """
        if self.granularity == "class-wise":
            if not 0 <= label < len(self):
                raise UnknownImageError(
                    f"expected a class index below {len(self)}, got {label}: the perturbation has "
                    f"no row for it"
                )
            return int(label)
        keys, labels = self._tensors["keys"], self._tensors["labels"]
        key = np.uint64(image_key(pixels))
        if index is not None and index < len(keys) and keys[index] == key:
            return index
        if self._order is None:
            self._order = np.argsort(keys, kind="stable")
        lo = np.searchsorted(keys, key, "left", sorter=self._order)
        hi = np.searchsorted(keys, key, "right", sorter=self._order)
        candidates = self._order[lo:hi]
        if not len(candidates):
            raise UnknownImageError(
                f"expected an image that {self.config['method']} was fitted on "
                f"({self.config['source']['name']}, {len(self):,} images), got another one"
                + (f" at index {index}" if index is not None else "")
                + "; use method.extend(dataset) to learn rows for new images"
            )
        same_label = candidates[labels[candidates] == label]
        return int(same_label[0] if len(same_label) else candidates[0])

    def resembles(self, pixels: Pixels, row: int) -> bool:
        """Whether an image looks like the row's own at 4x4 pixels, whatever decoded it."""
        own = self._tensors["thumbnails"][row].astype(np.int16)
        return bool(np.abs(own - thumbnail(pixels)).max() <= _THUMBNAIL_TOLERANCE)

    def apply(self, pixels: Pixels, row: int) -> Pixels:
        """Adds a row to uint8 pixels (1 or 3, H, W) and clips to 0…255.

        Raises:
            ValueError: The image's shape is not the row's; a grey row fits a colour image.
            ArtefactError: The row is damaged.
        """
        levels = self._row(row)
        if pixels.shape[1:] != levels.shape[1:] or len(pixels) < len(levels):
            raise ValueError(
                f"expected an image of shape {tuple(levels.shape)} (channels, height, width) as "
                f"the perturbation's rows, got {tuple(pixels.shape)}"
            )
        return np.clip(pixels.astype(np.int16) + levels, 0, 255).astype(np.uint8)

    def _row(self, index: int) -> Levels:
        row = np.asarray(self.rows[index])
        if zlib.crc32(row.tobytes()) != self._tensors["checksums"][index]:
            raise ArtefactError(
                f"expected row {index} to match its checksum, got other bytes: "
                f"{self._path or 'the perturbation'} was damaged or edited; get it anew"
            )
        return row

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
        tensors = {name: np.ascontiguousarray(t) for name, t in self._tensors.items()}
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
        self.config = _read_config(folder / CONFIG)
        expected = self.config.pop("digest", None)
        self._set(map_tensors(folder / _TENSORS), folder)
        missing = {"rows", "checksums"} - set(self._tensors)
        if self.config.get("granularity") == "sample-wise":
            missing |= {"keys", "labels", "thumbnails"} - set(self._tensors)
        if missing:
            raise ArtefactError(f"expected {sorted(missing)} in {folder / _TENSORS}, found none")
        lengths = {len(tensor) for tensor in self._tensors.values()}
        if len(lengths) != 1 or self.rows.dtype != np.int8 or self.rows.ndim != 4:
            raise ArtefactError(f"expected int8 rows and as many keys in {folder / _TENSORS}")
        if self.digest != expected:
            raise ArtefactError(
                f"expected the digest {expected} that {folder / CONFIG} states, got "
                f"{self.digest}: a file was edited or belongs to another perturbation"
            )
        return self

    def __getstate__(self) -> dict[str, Any]:
        # A loaded artefact travels to worker processes as its path; one in memory as torch tensors,
        # which torch's multiprocessing hands over through shared memory.
        if self._path is None and self._shared is None:
            viewed = {n: t.view(np.int64) if n == "keys" else t for n, t in self._tensors.items()}
            viewed["checksums"] = self._tensors["checksums"].view(np.int32)
            # Kept: shared memory is gone with its tensor, and may be opened long after this.
            self._shared = {name: torch.from_numpy(tensor) for name, tensor in viewed.items()}
        digest = None if self._path is None else self.digest
        state = {"config": self.config, "path": self._path, "digest": digest}
        return state | {"tensors": self._shared}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.config = state["config"]
        if state["path"] is not None:
            self._set(map_tensors(state["path"] / _TENSORS), state["path"])
            if self.digest != state["digest"]:
                raise ArtefactError(
                    f"expected {state['path']} as it was when it was loaded, got another artefact "
                    f"there; load it anew"
                )
            return
        tensors = {name: tensor.numpy() for name, tensor in state["tensors"].items()}
        if "keys" in tensors:
            tensors["keys"] = tensors["keys"].view(np.uint64)
        tensors["checksums"] = tensors["checksums"].view(np.uint32)
        self._set(tensors, None)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"expected a config of plain values, got a {type(value).__name__}: {value!r}")


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ArtefactError(f"expected {path.name} in {path.parent}, found none")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtefactError(f"expected JSON in {path}: {error}") from error
    if not isinstance(config, dict) or config.pop("format", None) != FORMAT:
        raise ArtefactError(f'expected "format": "{FORMAT}" in {path}, found another kind of file')
    version = config.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise ArtefactError(
            f"expected format version {FORMAT_VERSION} in {path}, got {version}; "
            f"a newer release of unlearnable may read it: pip install -U unlearnable"
        )
    return config
