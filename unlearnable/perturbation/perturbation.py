"""The artefact: what is done to which image, and with what promise; saved and loaded."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..data.cache import ImageStore
from ..data.image import Images, Pixels, ResizeCrop
from ..errors import ArtefactError, FormatVersionError
from ..hub.catalogue import CONFIG
from ..hub.locate import locate
from ..io.files import json_bytes
from ..io.json import as_json
from ..io.sharded_rows import JoinedRows
from . import serialization, summary
from .concat import concatenated
from .config import OF_THE_FILE
from .kinds.additive import Additive
from .kinds.base import Kind, RowRef
from .kinds.stack import parts_of, stacked
from .quantize import Levels, Result
from .resample import apply_full_size, check_full_size, prepare_full_size

if TYPE_CHECKING:
    from ..hub.client import Pushed


_IN_MEMORY = "the perturbation"


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
        tensors: dict[str, Any] = {"rows": rows}
        if config["granularity"] == "sample-wise":
            if keys is None or labels is None or thumbnails is None:
                raise ValueError("expected keys, labels and thumbnails with sample-wise rows")
            tensors |= {"keys": keys, "labels": labels, "thumbnails": thumbnails}
        tensors["checksums"] = np.array([zlib.crc32(row.tobytes()) for row in rows], np.uint32)
        self._take(tensors, config)

    @classmethod
    def of_kind(cls, tensors: Mapping[str, Any], config: Mapping[str, Any]) -> Perturbation:
        """A perturbation of the kind that the config names.

        Args:
            tensors: The kind's arrays by name; see docs/nouns.md.
            config: As :attr:`config`.

        Raises:
            ValueError: They do not belong together.
        """
        self = cls.__new__(cls)
        self._take(tensors, config)
        return self

    def _take(self, tensors: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        # Plain JSON from the start, so that what is saved is what is loaded.
        plain = {n: value for n, value in as_json(config).items() if n not in OF_THE_FILE}
        self._set(serialization.build(tensors, plain, _IN_MEMORY), None)

    def _set(self, kind: Kind, path: Path | None) -> None:
        self._kind = kind
        self._path = path
        self._shared: dict[str, Any] | None = None

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
        return Perturbation.of_kind(*stacked([*self.parts, *other.parts]))

    @staticmethod
    def concat(perturbations: Sequence[Perturbation]) -> Perturbation:
        """The rows of several perturbations as one, for their datasets one after the other.

        What :meth:`Method.extend <unlearnable.Method.extend>` learned for new images is joined to
        the rows of the first ones so. Rows are not copied: those of loaded perturbations stay in
        their files. Where the configs differ beyond what is compared, the new one says None.

        Args:
            perturbations: Of kind ``"additive"``, sample-wise, of one method and one budget, for
                images of one shape and the same classes.

        Returns:
            A perturbation in memory. Save and load it before it goes to spawned workers: else all
            rows are copied for them.

        Raises:
            ValueError: They do not belong together, or an image has rows in two of them.
        """
        parts = list(perturbations)
        if not parts:
            raise ValueError("expected at least one perturbation, got none")
        if len(parts) == 1:
            return parts[0]
        kinds = [part._kind for part in parts]
        return Perturbation.of_kind(*concatenated(kinds, [part.digest for part in parts]))

    # What it is

    @property
    def config(self) -> dict[str, Any]:
        """What is known about it, as in ``config.json``: see the class."""
        return self._kind.config

    @property
    def kind(self) -> str:
        """What is done: ``"additive"``, ``"pixel"``, ``"convolution"``, ``"procedural"``, …"""
        return str(self.config["kind"])

    @property
    def tensors(self) -> Mapping[str, Any]:
        """Arrays of the kind by name; memory-mapped when loaded from a folder.

        Rows that lie in several files or arrays are ``JoinedRows``, as :attr:`rows` says.
        """
        return self._kind.tensors

    @property
    def rows(self) -> Levels | JoinedRows:
        """int8 levels of 1/255, (N or K, C, H, W); of kind ``"additive"`` alone.

        An array; or, where rows lie in several shards or were concatenated, something that is read
        like one: its ``shape``, ``len()``, and rows by number, slice or array of numbers. It copies
        what is asked for; ``np.asarray(rows)`` asks for everything.
        """
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
    def fit_size(self) -> ResizeCrop | None:
        """Resize and crop that images go through before anything is applied, or None."""
        return self._kind.fit

    @property
    def parts(self) -> list[Kind]:
        """The kinds that are applied one after the other; but for a stack, one."""
        return parts_of(self._kind)

    @property
    def nbytes(self) -> int:
        """Size of all tensors."""
        return self._kind.nbytes

    @property
    def digest(self) -> str:
        """Fingerprint of tensors and config."""
        return serialization.digest_of(self.tensors, self.config)

    def __len__(self) -> int:
        return len(self._kind)

    def info(self) -> dict[str, Any]:
        """What a person wants to know: method, budget, images, size on disk, digest, strength."""
        return summary.info(self._kind, self.digest)

    def __repr__(self) -> str:
        return summary.line(self._kind)

    def _repr_html_(self) -> str:
        return summary.page(self._kind, self.digest)

    # What it does to an image

    def find(self, pixels: Pixels, label: int, index: int | None = None) -> RowRef:
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
    ) -> list[RowRef]:
        """:meth:`find` of each of (B, 1 or 3, H, W) images, at once."""
        return self._kind.find(images, labels, indices)

    def resembles(self, pixels: Pixels, row: int) -> bool:
        """Whether an image looks like the row's own at 4x4 pixels, whatever decoded it."""
        assert isinstance(self._kind, Additive)
        return self._kind.resembles(pixels, row)

    def prepare(self, pixels: Pixels, *, full_size: bool = False) -> Pixels:
        """The image before anything is applied: resized and cropped, and in colour if need be.

        Args:
            pixels: uint8, (1 or 3, H, W).
            full_size: Not resized and cropped.
        """
        return self.prepare_batch(pixels[None], full_size=full_size)[0]

    def prepare_batch(self, images: Images, *, full_size: bool = False) -> Images:
        """:meth:`prepare` of each of (B, 1 or 3, H, W) images, at once."""
        if full_size:
            return prepare_full_size(self._kind, images)
        return self._kind.prepare(images)

    def apply(self, pixels: Pixels, row: RowRef, *, full_size: bool = False) -> Pixels:
        """Perturbed uint8 pixels, (1 or 3, H, W).

        Args:
            pixels: uint8, of the perturbation's shape; a grey perturbation fits a colour image.
            row: From :meth:`find`.
            full_size: Enlarge what is done to ``pixels`` of any size: see docs/photos.md.

        Raises:
            ValueError: The image has another shape.
            ArtefactError: The row is damaged.
        """
        return self.apply_batch(pixels[None], [row], full_size=full_size)[0]

    def apply_batch(
        self, images: Images, rows: Sequence[RowRef], *, full_size: bool = False
    ) -> Images:
        """:meth:`apply` to each of (B, 1 or 3, H, W) images, at once."""
        if full_size:
            return apply_full_size(self._kind, images, rows)
        return self._kind.apply(images, rows)

    def check_full_size(self) -> None:
        """Raises ``ValueError`` if what it does cannot be enlarged."""
        check_full_size(self._kind)

    # Files

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        force: bool = False,
        max_shard_size: int = serialization.MAX_SHARD_SIZE,
    ) -> Path:
        """Writes ``config.json`` and ``perturbation.safetensors``, or shards of it and their index.

        Args:
            folder: Made if missing. Files are written beside their places and renamed; shards of
                an earlier save are removed.
            force: Write even into a folder that holds other things; they stay.
            max_shard_size: Bytes of rows in a file. The first one holds all other tensors besides.

        Returns:
            The folder.

        Raises:
            FileExistsError: The folder holds things that are not ours.
            OSError: The disk is full or read-only; what was there before is unharmed.
        """
        return serialization.save(folder, self._kind, force=force, max_shard_size=max_shard_size)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        endpoint: str | None = None,
    ) -> Perturbation:
        """Loads what was saved or pushed; rows stay on disk until they are read.

        All that is downloaded is checked against its checksums before it is used the first time.

        Args:
            name: A folder; else ``"owner/name"``, a dataset repository on the Hugging Face Hub;
                else a pre-made perturbation of :func:`unlearnable.list_pretrained`. The other
                arguments are for what is on the Hub.
            revision: Branch, tag or commit of the repository.
            token: To read private and gated repositories; the one that was logged in with unless
                given.
            cache_dir: Where downloads are kept, in place of the Hub client's own cache.
            local_files_only: Take what was downloaded before, without the network.
            force_download: Download again what was downloaded before.
            endpoint: Address of another Hub.

        Raises:
            FileNotFoundError: Nothing has that name.
            HubError: The Hub could not give it; the message says what to do.
            ArtefactError: A file is missing, damaged, edited, or of a later format.
        """
        source = locate(
            name,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            force_download=force_download,
            endpoint=endpoint,
        )
        try:
            self = cls._load(source.folder)
            if source.digest not in (None, self.digest):
                raise ArtefactError(
                    f"expected the digest {source.digest} that the catalogue states, got "
                    f"{self.digest} in {source.folder}"
                )
            if source.downloaded and not source.is_verified(self.digest):
                self.verify()
                source.note_verified(self.digest)
        except ArtefactError as error:
            if not source.downloaded or isinstance(error, FormatVersionError):
                raise
            raise ArtefactError(
                f"{error}; downloaded from {source.repo}: get it again with force_download=True "
                f"(--force-download), and if that does not help, tell its owner"
            ) from error
        return self

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = True,
        license: str | None = None,
        branch: str | None = None,
        create_pr: bool = False,
        token: str | bool | None = None,
        endpoint: str | None = None,
        commit_message: str | None = None,
    ) -> Pushed:
        """Uploads it with a card to a dataset repository on the Hugging Face Hub, as one commit.

        Private unless told otherwise: a published perturbation lets others take it off again.

        Args:
            repo_id: ``"owner/name"``; made if there is none.
            private: Make it private, and refuse to push into a repository that is public.
            license: For the card, such as ``"cc-by-4.0"``; None names none.
            branch: Push there instead of ``main``; made if there is none.
            create_pr: Propose it as a pull request.
            token: Of a user who may write there; the one that was logged in with unless given.
            endpoint: Address of another Hub.
            commit_message: A word on the change.

        Returns:
            ``repo_id``, ``commit`` and ``url``; the last commit if nothing has changed.

        Raises:
            ArtefactError: It is damaged.
            HubError: The Hub did not take it; the message says what to do.
        """
        from ..hub import client
        from .card import write_card

        self.verify()
        card = write_card(self.info(), self.config, repo_id, license=license)
        config = serialization.described(self.tensors, as_json(self.config))
        with tempfile.TemporaryDirectory() as scratch:
            # Tensors can be very large: those of a loaded one are sent from where they are.
            folder = self.folder or self.save_pretrained(scratch)
            files: dict[str, Path | bytes] = {
                name: folder / name for name in serialization.files_of(folder)
            }
            files |= {CONFIG: json_bytes(config), client.CARD: card.encode()}
            return client.upload(
                files,
                repo_id,
                private=private,
                branch=branch,
                create_pr=create_pr,
                token=token,
                endpoint=endpoint,
                commit_message=commit_message,
            )

    @property
    def folder(self) -> Path | None:
        """Where it was loaded from, or None."""
        return self._path

    @classmethod
    def _load(cls, folder: Path) -> Perturbation:
        self = cls.__new__(cls)
        self._set(serialization.load(folder), folder)
        return self

    def verify(self) -> None:
        """Reads every row and checks it against its checksum, and all else against the digest.

        Loading checks everything but the rows, each of which is checked whenever it is used: this
        finds what is damaged before that, and reads the whole artefact to do so.

        Raises:
            ArtefactError: Something is damaged; the first damaged rows are named.
        """
        serialization.verify_checksums(self._kind, self._path)

    def __getstate__(self) -> dict[str, Any]:
        # A loaded artefact travels to worker processes as its path; one in memory as torch tensors,
        # which torch's multiprocessing hands over through shared memory.
        if self._path is None and self._shared is None:
            # Kept: shared memory is gone with its tensor, and may be opened long after this.
            self._shared = {n: serialization.share(tensor) for n, tensor in self.tensors.items()}
        digest = None if self._path is None else self.digest
        state = {"config": self.config, "path": self._path, "digest": digest}
        dtypes = {name: tensor.dtype.str for name, tensor in self.tensors.items()}
        return state | {"tensors": self._shared, "dtypes": dtypes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        path, config = state["path"], state["config"]
        if path is None:
            dtypes = state["dtypes"]
            tensors = {
                n: serialization.unshare(shared, dtypes[n])
                for n, shared in state["tensors"].items()
            }
        else:
            tensors = serialization.read_tensors(path)
            if serialization.digest_of(tensors, config) != state["digest"]:
                raise ArtefactError(
                    f"expected {path} as it was when it was loaded, got another artefact there; "
                    f"load it anew"
                )
        self._set(serialization.build(tensors, config, str(path or _IN_MEMORY)), path)
