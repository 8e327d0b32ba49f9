"""Arrays in files of other programs. Shapes are checked before room is made for them.

Nothing in these files is executed.
"""

from __future__ import annotations

import math
import pickle
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file

from ..data.image import Pixels, pixels_of
from ..errors import ArtefactError
from ..io.files import check_no_pointer
from .gather import are_of_one_image, gather, joining, one_type, only, ordered_values
from .pickles import DTYPES, read_pickle, read_pickled
from .places import Places

_LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # its magic number, pickled
_INFLATED = 100  # rows of few levels take a tenth of their size
_Header: TypeAlias = tuple[tuple[int, ...], bool, np.dtype[Any]]


def read_array(path: Path, places: Places, most: int) -> NDArray[Any]:
    """Reads the only array of a ``.npy``, ``.npz``, torch, safetensors or pickle file.

    They are told apart by their content.

    Lists and dicts of at most ``most`` arrays are joined by :func:`gather`. The result has integers
    or floats and may be memory-mapped; ``places`` accept its shape before it is read.
    Raises ``ArtefactError`` if the file is incomplete, contains something else, or would run code;
    ``ValueError`` if it contains several arrays or values of another type.
    """
    with path.open("rb") as file:
        start = file.read(16)
    check_no_pointer(path)
    if not start:
        raise ArtefactError(f"expected an array in {path}, got an empty file")
    if start.startswith(b"\x93NUMPY"):
        return _read_npy(path, places, most)
    if start.startswith(b"PK"):
        return _read_zip(path, places, most)
    if start.startswith(_LEGACY_TORCH):
        return _read_torch(path, places, most)
    if start[8:9] == b"{":
        with _expecting("an intact safetensors file", path):
            found = load_file(path)
        array = gather(found, places, path)
        _dtype(array.dtype, path)
        return array
    return gather(read_pickle(path, most), places, path)


def _dtype(found: Any, path: Path) -> np.dtype[Any]:
    code = found.str if isinstance(found, np.dtype) else found
    if code[:1] not in "<>|=" or code[1:] not in DTYPES:
        raise ValueError(
            f"expected an array of integers or floats in {path}, got one of type {found!s:.80}"
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
        raise ValueError("its header has an unknown version")
    return np.lib.format.read_array_header_1_0(file)


def _read_npy(path: Path, places: Places, most: int) -> NDArray[Any]:
    with path.open("rb") as file, _expecting("numpy's .npy format", path):
        shape, _, found = _header(file)
        offset = file.tell()
    if found.hasobject:  # what follows is a pickle
        return gather(read_pickle(path, most, offset), places, path)
    dtype = _dtype(found, path)
    places.accept(shape)
    if path.stat().st_size < offset + math.prod(shape) * dtype.itemsize:
        raise ArtefactError(
            f"expected a complete array of shape {shape} in {path}, got part of one"
        )
    return np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)


def _read_zip(path: Path, places: Places, most: int) -> NDArray[Any]:
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
            raise ArtefactError(
                f"expected an archive in torch's format in {path}, got another one; save it "
                f"again with torch.save"
            )
        return _read_torch(path, places, most)
    if len(headers) > 1 and {len(shape) for shape, _, _ in headers.values()} in ({2}, {3}, {4}):
        members = ordered_values(
            {name.removesuffix(".npy"): name for name in headers}, places, path
        )
        if members is not None:  # of numpy.savez(file, *arrays) or numpy.savez(file, **arrays)
            described = [(name, *headers[name][::2]) for name in members.arrays]
            return _read_members(path, described, members.by, places)
    fitting = [name for name, (shape, _, _) in headers.items() if len(shape) > 2]
    if len(fitting) == len(headers) > 1 and are_of_one_image([h[0] for h in headers.values()]):
        raise places.unknown([name.removesuffix(".npy") for name in headers], path)
    # A dict or list of arrays is an array of objects, without dimensions or with one.
    fitting = fitting or [name for name, (_, _, found) in headers.items() if found.hasobject]
    name = only(fitting, list(headers), path)
    shape, _, found = headers[name]
    if found.hasobject:
        packed = next(entry for entry in entries if entry.filename == name)
        if packed.file_size > _INFLATED * path.stat().st_size:
            raise ArtefactError(
                f"expected an archive that unpacks to at most {_INFLATED} times its size in "
                f"{path}, got {packed.file_size:,} bytes; save the array with numpy.save"
            )
        with zipfile.ZipFile(path) as archive, archive.open(name) as file:
            _header(file)
            return gather(read_pickled(file, path, most), places, path)
    _dtype(found, path)
    places.accept(shape)
    labels = [other for other, (_, _, kind) in headers.items() if kind.kind in "iu"]
    with _expecting(f"complete arrays {name}", path), np.load(path, allow_pickle=False) as arrays:
        beside = [arrays[other] for other in labels if places.may_be_labels(headers[other][0])]
        array: NDArray[Any] = arrays[name]
    places.check_labels(beside, path)
    return array


def _read_members(
    path: Path, members: list[tuple[str, tuple[int, ...], Any]], by: str, places: Places
) -> NDArray[Any]:
    """Arrays of an archive as one, by their names, shapes and types."""
    one_type([str(_dtype(found, path)) for _, _, found in members], path)
    join = joining(by, [shape for _, shape, _ in members], places, path)
    with _expecting("complete arrays", path), np.load(path, allow_pickle=False) as arrays:
        return join([arrays[name] for name, _, _ in members])


def _read_torch(path: Path, places: Places, most: int) -> NDArray[Any]:
    with _expecting("a torch file that contains only tensors", path):
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:  # numpy's arrays in torch's archive, perhaps
            other = re.search(r"GLOBAL (\S+) was not an allowed global", str(error))
            if other is not None and not other[1].startswith("numpy"):
                raise ValueError(
                    f"it names {other[1]:.160}; none of its code was run. If you trust the file, "
                    f"load it yourself and save the array with numpy.save"
                ) from error
            if not zipfile.is_zipfile(path):
                raise
            with zipfile.ZipFile(path) as archive:
                name = next(n for n in archive.namelist() if Path(n).name == "data.pkl")
                with archive.open(name) as file:
                    found = read_pickled(file, path, most)
    array = gather(found, places, path)
    _dtype(array.dtype, path)
    return array


def read_image_files(
    folder: Path, count: int, shape: tuple[int, ...], places: Places
) -> Iterator[Pixels]:
    """Reads ``count`` images (C, H, W) from a folder of PNGs named by index or as the dataset's.

    It contains ``0.png``, ``1.png``, … or ``00000.png``, …, with or without class folders; or
    names that :meth:`Places.files` knows. Raises ``ValueError`` if one is missing, duplicated, of
    another size, or a JPEG; ``ArtefactError`` if a file is not an image.
    """
    found: list[Path] = []
    for path in sorted(folder.rglob("*")):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue  # such as what macOS writes beside each file
        if path.suffix.lower() in (".jpg", ".jpeg"):
            raise ValueError(
                f"expected lossless images in {folder}, got {path.name}; JPEG changes pixels more "
                f"than perturbations do, so pass the PNG files"
            )
        if path.suffix.lower() in (".png", ".webp"):
            found.append(path)
    order = _order(found, folder, places)
    if order is not None:
        return (_read_image(found[place], shape) for place in order)
    paths: dict[int, Path] = {}
    for path in found:
        if not _is_index(path):
            raise ValueError(
                f"expected images named by their index in {folder}, or as the files of the "
                f"dataset, got {path.name}"
            )
        other = paths.setdefault(int(path.stem), path)
        if other != path:
            raise ValueError(f"expected one image per index in {folder}, got {other} and {path}")
    missing = next((index for index in range(count) if index not in paths), None)
    if missing is not None or len(paths) != count:
        which = "" if missing is None else f" and none for image {missing}"
        raise ValueError(f"expected {count:,} images in {folder}, got {len(paths):,}{which}")
    return (_read_image(paths[index], shape) for index in range(count))


def _order(found: list[Path], folder: Path, places: Places) -> list[int] | None:
    """Images in the order of the dataset's files, where they have the names of these."""
    names = [path.relative_to(folder).as_posix() for path in found]
    indexed = all(map(_is_index, found))
    if indexed and not all("/" in name for name in names):
        return None
    try:
        return places.files(names, folder)
    except ValueError:
        if indexed:  # some happen to be called as files are
            return None
        raise


def _is_index(path: Path) -> bool:
    return path.stem.isascii() and path.stem.isdigit() and len(path.stem) < 19


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
