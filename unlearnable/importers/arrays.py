"""Arrays in files of other programs. Shapes are checked before anything is read or made room for.

Nothing in these files is executed.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..data.image import Pixels, pixels_of
from ..errors import ArtefactError
from .pickles import read_pickled_array

Accept: TypeAlias = Callable[[tuple[int, ...]], None]  # raises ValueError for a wrong shape
_DTYPES = ("i1", "i2", "i4", "i8", "u1", "f2", "f4", "f8")
_LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # its magic number, pickled
_Header: TypeAlias = tuple[tuple[int, ...], bool, np.dtype[Any]]


def read_array(path: Path, accept: Accept) -> NDArray[Any]:
    """The one array of a ``.npy``, ``.npz``, torch or pickle file, told apart by their content.

    Integers or floats, perhaps memory-mapped; ``accept`` is called with their shape before they are
    read. Raises ``ArtefactError`` where the file is incomplete, holds something else, or asks for
    code to be run, ``ValueError`` where it holds several arrays, or values of another type.
    """
    with path.open("rb") as file:
        start = file.read(16)
    if not start:
        raise ArtefactError(f"expected an array in {path}, got an empty file")
    if start.startswith(b"\x93NUMPY"):
        return _read_npy(path, accept)
    if start.startswith(b"PK"):
        return _read_zip(path, accept)
    if start.startswith(_LEGACY_TORCH):
        return _read_torch(path, accept)
    raw = read_pickled_array(path)
    dtype = _dtype(raw.dtype, path)
    shape = raw.shape
    sound = isinstance(shape, tuple) and all(type(side) is int and side >= 0 for side in shape)
    is_bytes = isinstance(raw.data, (bytes, bytearray))
    if not sound or not is_bytes or len(raw.data) != math.prod(shape) * dtype.itemsize:
        raise ArtefactError(f"expected a complete array in {path}, got another shape")
    accept(shape)
    return np.frombuffer(raw.data, dtype).reshape(shape, order="F" if raw.fortran else "C")


def _dtype(found: Any, path: Path) -> np.dtype[Any]:
    code = found.str if isinstance(found, np.dtype) else found
    if code[:1] not in "<>|=" or code[1:] not in _DTYPES:
        raise ValueError(
            f"expected an array of integers or floats in {path}, got one of type {found!s:.80}; "
            f"object arrays are never read"
        )
    return np.dtype(code)


@contextmanager
def _expecting(what: str, path: Path) -> Iterator[None]:
    """Turns any error of reading a foreign file into an ``ArtefactError``."""
    try:
        yield
    except Exception as error:
        raise ArtefactError(
            f"expected {what} in {path}: {error or type(error).__name__}"
        ) from error


def _header(file: IO[bytes]) -> _Header:
    # The later versions are for records, and their header may claim 4 GB.
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("another version of its header")
    return np.lib.format.read_array_header_1_0(file)


def _read_npy(path: Path, accept: Accept) -> NDArray[Any]:
    with path.open("rb") as file, _expecting("numpy's .npy format", path):
        shape, _, found = _header(file)
        offset = file.tell()
    dtype = _dtype(found, path)
    accept(shape)
    if path.stat().st_size < offset + math.prod(shape) * dtype.itemsize:
        raise ArtefactError(f"expected a complete array of shape {shape} in {path}, got a part")
    return np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)


def _read_zip(path: Path, accept: Accept) -> NDArray[Any]:
    headers: dict[str, _Header] = {}
    with _expecting("an intact archive", path), zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        is_torch = any(Path(entry.filename).name == "data.pkl" for entry in entries)
        for entry in entries:
            if not is_torch and entry.filename.endswith(".npy"):
                with archive.open(entry) as file:
                    headers[entry.filename] = _header(file)
    if is_torch:
        stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        if not stored or sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ArtefactError(f"expected torch's own kind of archive in {path}, got another")
        return _read_torch(path, accept)
    name = _only([n for n, header in headers.items() if len(header[0]) > 2], list(headers), path)
    shape, _, found = headers[name]
    _dtype(found, path)
    accept(shape)
    with _expecting(f"a complete array {name}", path), np.load(path, allow_pickle=False) as arrays:
        return arrays[name]


def _only(chosen: list[str], names: list[str], path: Path) -> str:
    if len(chosen) != 1:
        several = f"{len(chosen)} among {', '.join(names)}" if names else "none"
        raise ValueError(
            f"expected one array of images or perturbations in {path}, got {several}; save "
            f"only that one with numpy.save"
        )
    return chosen[0]


def _read_torch(path: Path, accept: Accept) -> NDArray[Any]:
    with _expecting("a torch file of tensors and nothing else", path):
        found = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(found, (list, tuple)):
        found = dict(enumerate(found))
    if isinstance(found, dict):
        arrays = [n for n, t in found.items() if isinstance(t, Tensor) and t.ndim > 2]
        found = found[_only(arrays, [str(name) for name in found], path)]
    if not isinstance(found, Tensor) or found.layout != torch.strided or found.device.type != "cpu":
        raise ValueError(f"expected a plain tensor in {path}, got a {type(found).__name__}")
    accept(tuple(found.shape))
    try:
        array: NDArray[Any] = found.detach().numpy()
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"expected a plain tensor in {path}: {error}") from error
    _dtype(array.dtype, path)
    return array


def read_indexed_images(folder: Path, count: int, shape: tuple[int, ...]) -> Iterator[Pixels]:
    """The ``count`` images (C, H, W) of a folder of PNGs named by index, in the order of the index.

    It holds ``0.png``, ``1.png``, … or ``00000.png``, …, in class folders or not. Raises
    ``ValueError`` where one is missing, duplicated, of another size, or a JPEG, ``ArtefactError``
    where a file is not an image.
    """
    paths: dict[int, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in (".jpg", ".jpeg"):
            raise ValueError(
                f"expected lossless images in {folder}, got {path.name}; JPEG changes pixels by "
                f"more than perturbations do"
            )
        if path.suffix.lower() not in (".png", ".webp"):
            continue
        if not (path.stem.isascii() and path.stem.isdigit()) or len(path.stem) > 18:
            raise ValueError(f"expected images named by their index in {folder}, got {path.name}")
        other = paths.setdefault(int(path.stem), path)
        if other != path:
            raise ValueError(f"expected one image per index in {folder}, got {other} and {path}")
    missing = next((index for index in range(count) if index not in paths), None)
    if missing is not None or len(paths) != count:
        which = "" if missing is None else f" and none for image {missing}"
        raise ValueError(f"expected {count:,} images in {folder}, got {len(paths):,}{which}")
    return (_read_image(paths[index], shape) for index in range(count))


def _read_image(path: Path, shape: tuple[int, ...]) -> Pixels:
    expected = f"expected an image of {shape[2]}x{shape[1]} with {shape[0]} channels at {path}"
    try:
        with Image.open(path) as image:
            if image.size != (shape[2], shape[1]):
                raise ValueError(f"{expected}, got {image.width}x{image.height}")
            pixels = pixels_of(image)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ArtefactError(f"{expected}: {error}") from error
    if len(pixels) > shape[0]:
        raise ValueError(f"{expected}, got {len(pixels)} channels")
    return np.broadcast_to(pixels, shape)
