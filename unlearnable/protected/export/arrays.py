"""Arrays of whole datasets: one ``.npz``, and the files of CIFAR-10."""

from __future__ import annotations

import math
import pickle
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.raw import RawDataset
from ..manifest import Exported

_CIFAR_BATCHES, _CIFAR_CLASSES, _CIFAR_SHAPE = 5, 10, (3, 32, 32)
_PROTOCOL = 2  # that of CIFAR-10's own files


def write_npz(raw: RawDataset, images: Iterable[Exported], folder: Path) -> dict[str, Any]:
    """Writes ``images.npz``: images (uint8, NHWC), labels (int64) and classes (if named)."""
    shape: tuple[int, ...] | None = None
    with zipfile.ZipFile(folder / "images.npz", "w") as archive:
        _add(archive, "labels", raw.labels)
        if raw.classes is not None:
            _add(archive, "classes", np.array(raw.classes, np.str_))
        with archive.open(_entry("images"), "w", force_zip64=True) as file:
            for exported in images:
                image = exported.pixels.transpose(1, 2, 0)
                if shape is None:
                    shape = image.shape
                    header = {"descr": "|u1", "fortran_order": False, "shape": (len(raw), *shape)}
                    np.lib.format.write_array_header_1_0(file, header)
                if image.shape != shape:
                    raise ValueError(
                        f"expected images of one shape for an array, got {shape} for image 0 and "
                        f"{image.shape} for image {exported.index} (height, width, channels); use "
                        f'"png" for images of any size'
                    )
                file.write(image.tobytes())
    return {}


def _entry(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(f"{name}.npy")  # of 1980, so that bytes do not depend on the day


def _add(archive: zipfile.ZipFile, name: str, array: NDArray[Any]) -> None:
    with archive.open(_entry(name), "w") as file:
        np.lib.format.write_array(file, array, allow_pickle=False)


def check_cifar(classes: int, shape: tuple[int, ...], index: int = 0) -> None:
    """Checks that CIFAR-10's files can hold this number of classes and image shape (C, H, W)."""
    if classes > _CIFAR_CLASSES:
        raise ValueError(
            f"expected at most {_CIFAR_CLASSES} classes for CIFAR-10 files, got {classes}; use "
            f'"npz" for more'
        )
    if shape != _CIFAR_SHAPE:
        channels, height, width = shape
        raise ValueError(
            f"expected 32x32 RGB images for CIFAR-10 files, got {width}x{height} with {channels} "
            f'channel{"s" if channels > 1 else ""} for image {index}; use "npz" for other shapes'
        )


def write_cifar(raw: RawDataset, images: Iterable[Exported], folder: Path) -> dict[str, Any]:
    """Writes five training batches and the class names as CIFAR-10's own pickles."""
    classes = raw.num_classes
    folder /= "cifar-10-batches-py"
    folder.mkdir()
    data = np.empty((len(raw), math.prod(_CIFAR_SHAPE)), np.uint8)
    for image in images:
        check_cifar(classes, image.pixels.shape, image.index)
        data[image.index] = image.pixels.reshape(-1)
    digits = len(str(len(raw) - 1))
    for number, part in enumerate(np.array_split(np.arange(len(raw)), _CIFAR_BATCHES), 1):
        batch = {
            "batch_label": f"training batch {number} of {_CIFAR_BATCHES}",
            "data": data[part],
            "labels": raw.labels[part].tolist(),
            "filenames": [f"{index:0{digits}d}.png" for index in part.tolist()],
        }
        (folder / f"data_batch_{number}").write_bytes(pickle.dumps(batch, _PROTOCOL))
    names = raw.classes or [str(index) for index in range(classes)]
    meta = {"label_names": names, "num_vis": math.prod(_CIFAR_SHAPE)}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, _PROTOCOL))
    return {}
