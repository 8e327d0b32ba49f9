"""What a protected dataset does with its images: exporting, converting and uploading them."""

from __future__ import annotations

import json
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..data.batches import RawBatch
from ..data.export_marker import MARKER
from ..data.image import Images
from ..data.photo import PhotoReader
from ..io.files import json_bytes
from ..perturbation.perturbation import Perturbation
from .export import export_images
from .export.card import write_images_card
from .export.channels import check_channels
from .export.huggingface import import_datasets, to_hf_dataset
from .export.images import ImagesToExport
from .export.journal import Resumed
from .manifest import Exported, Manifest
from .metrics import Distortion, spread
from .view import View

if TYPE_CHECKING:
    from ..hub.client import Pushed


class PublishedView(View):
    """The part of :class:`ProtectedDataset` that writes its images."""

    perturbation: Perturbation
    fraction: float
    align: str
    full_size: bool
    _from_arrays: bool  # whether the dataset gives arrays or tensors, not pictures
    _changes: dict[int, Distortion]  # of images by index, as an export measured them

    @property
    @abstractmethod
    def chosen(self) -> NDArray[np.bool_]: ...

    @abstractmethod
    def paired_batches(
        self, indices: Sequence[int], *, reader: PhotoReader | None = None
    ) -> Iterator[tuple[RawBatch, Images, Images]]: ...

    def export(
        self,
        folder: str | Path,
        format: str = "png",
        *,
        force: bool = False,
        quality: int | str | None = None,
        metadata: bool = False,
        gps: bool = False,
        mapping: str | Path | None = None,
        resume: bool = False,
        measure: int = 0,
        progress: bool | Callable[[float], None] = True,
    ) -> Path:
        """Writes the protected images, before transforms; lossless unless a quality is given.

        Args:
            folder: Destination; at the end either everything is moved there or nothing.
            format: ``"png"`` or ``"webp"`` (lossless): class folders that ``ImageFolder`` reads
                (with ``allow_empty=True`` if a class has no images; a warning says so). ``"npz"``:
                arrays in ``images.npz``. ``"cifar"``: CIFAR-10's own files, for 32x32 RGB images of
                at most 10 classes. ``"webdataset"``: tar shards. ``"parquet"``: files for
                ``datasets.load_dataset``; needs the extra ``hf``. With a ``quality``, also
                ``"jpeg"``. Image files keep the names of the dataset's own files, if it lists
                files.
            force: Write even if the folder exists: files of an earlier export, as listed in its
                ``unlearnable.json``, are replaced; all others are kept.
            quality: Quality of ``"jpeg"`` or lossy ``"webp"``, from 1 to 100; ``"original"`` writes
                JPEG at the quality of each photo's own file. Part of the change is lost:
                ``unlearnable.json`` says how much is left, and the budget applies to the pixels
                before compression.
            metadata: Keep EXIF data (author, camera, times and exposure) and modification times of
                files. By default nothing is kept. Colours are always sRGB.
            gps: Keep the location, too.
            mapping: CSV file that records which original became which file; do not publish it.
            resume: If both images and copies are files, and this package opens the images itself:
                keep finished copies in a hidden folder next to the destination if the export is
                interrupted or killed, and reuse those left by an earlier run of the same export.
            measure: Number of images whose change is measured while they are written, so that
                :meth:`change` of as many images need not read them again.
            progress: Show a progress bar, or a function to call with the share of images written.

        Returns:
            The folder.

        Raises:
            ValueError: The format is unknown, is lossy but has no quality, cannot hold these
                images, or does not accept this quality; the mapping would be published; or the
                dataset's loader returns photos in BGR.
            FileExistsError: The folder is not empty or is a symbolic link.
            ImportError: A package that the format needs is not installed.
            RuntimeError: With ``resume``, another process is writing the same export.
        """
        self._check_channels()
        reader = PhotoReader(exif=metadata, gps=gps)
        compared = spread(range(len(self)), measure) if measure else []
        images = ImagesToExport(self._raw, self.chosen, reader, compared)
        written = export_images(
            self._raw,
            lambda indices: images.of(self.paired_batches(indices, reader=reader)),
            folder,
            format,
            manifest=Manifest(self.perturbation, metadata=metadata, gps=gps),
            described={"fraction": self.fraction, "full_size": self.full_size},
            chosen=self.chosen,
            quality=quality,
            mapping=mapping,
            resume=Resumed(self.chosen, self.align, images.changes) if resume else None,
            force=force,
            progress=progress,
        )
        self._changes = self._changes | images.changes
        return written

    def _check_channels(self) -> None:
        if self._from_arrays:  # pictures know the order of their channels
            check_channels(self._raw)

    def _check_table(self) -> None:
        """Refuses early what a table of images and labels cannot hold."""
        if not self._raw.labelled:
            raise ValueError(
                "expected images with labels for a table of images and labels, got label=None; use "
                'export(folder, "png"), or say where the labels are: from_items(dataset, label=…)'
            )
        self._check_channels()

    def _exported(self, reader: PhotoReader) -> Iterator[Exported]:
        batches = self.paired_batches(range(len(self)), reader=reader)
        return ImagesToExport(self._raw, self.chosen, reader).of(batches)

    def to_hf_dataset(self) -> Any:
        """The protected images, before transforms, as a Hugging Face ``datasets.Dataset``.

        Its columns are ``image``, encoded as lossless PNG, and ``label``, with the class names. It
        is held in memory; to write it to disk instead, use ``export(folder, "parquet")``.

        Raises:
            ValueError: The images have no labels, or the dataset's loader returns photos in BGR.
            ImportError: The extra ``hf`` is not installed.
        """
        self._check_table()
        return to_hf_dataset(self._raw, self._exported(PhotoReader(exif=False, gps=False)))

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
        progress: bool = True,
    ) -> Pushed:
        """Uploads the protected images to a dataset repository on the Hub, in one commit.

        The upload is the export ``"parquet"`` with a card, readable by
        ``datasets.load_dataset(repo_id)``; it is written to a temporary folder first. The
        perturbation is never uploaded with it, and a repository that contains one, or other images
        that may be the clean ones, is refused. Private by default.

        Args:
            repo_id: ``"owner/name"``; created if it does not exist.
            private: Make the repository private, and refuse to push to a public one. An existing
                private one stays so.
            license: Licence named in the card, such as ``"cc-by-4.0"``, or None.
            branch: Branch to push to instead of ``main``; created if it does not exist.
            create_pr: Open a pull request instead of pushing.
            token: Token with write permission; by default the stored login.
            endpoint: URL of another Hub.
            commit_message: Message of the commit.
            progress: Show a progress bar while the images are written.

        Returns:
            ``repo_id``, ``commit`` and ``url``; the last commit if nothing changed.

        Raises:
            HubError: The Hub did not accept it; the message says what to do.
            ImportError: The extra ``hf`` is not installed.
            ValueError: None of the images is protected; otherwise as :meth:`to_hf_dataset`.
        """
        from ..hub import client

        import_datasets()
        self._check_table()
        if not self.chosen.any():
            raise ValueError(
                "expected protected images, got only clean ones (fraction=0); do not upload them, "
                "because the repository's history would keep them next to protected ones pushed "
                "later"
            )
        with tempfile.TemporaryDirectory() as scratch:

            def files() -> dict[str, Path | bytes]:
                folder = self.export(Path(scratch) / "images", "parquet", progress=progress)
                described: dict[str, Any] = json.loads(
                    (folder / MARKER).read_text(encoding="utf-8")
                )
                config = self.perturbation.config
                card = write_images_card(
                    described, config, folder, repo_id=repo_id, license=license
                )
                # By it an owner of all originals could check guesses of the seed.
                del described["perturbation_id"]
                data = sorted((folder / "data").iterdir())
                return {
                    client.CARD: card.encode(),
                    MARKER: json_bytes(described),
                    **{f"data/{path.name}": path for path in data},
                }

            return client.upload(
                files,
                client.IMAGES,
                repo_id,
                private=private,
                branch=branch,
                create_pr=create_pr,
                token=token,
                endpoint=endpoint,
                commit_message=commit_message,
            )
