"""One image in memory: pixels of any kind of image as arrays, and back; one size for all."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeGuard, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ..engine.numbers import integer
from .photo import standard

Images: TypeAlias = NDArray[np.uint8]  # (B, C, H, W)
Pixels: TypeAlias = NDArray[np.uint8]  # (C, H, W)
_MOST = 4096  # pixels of a side: an image of that size takes 48 MB, and so does its row
_Levels = TypeVar("_Levels", np.uint8, np.int8)


def planar(images: Images) -> Images:
    """The same (B, C, H, W) images, contiguous in memory in this order."""
    return _contiguous(images, 1)


def interleaved(images: Images) -> NDArray[np.uint8]:
    """(B, C, H, W) images as (B, H, W, C), contiguous in memory in this order."""
    return _contiguous(images.transpose(0, 2, 3, 1), 3)


def laid_like(images: Images, added: NDArray[np.int8]) -> NDArray[np.int8]:
    """(B, C, H, W) levels in the memory layout of the images, which halves the time of sums."""
    if images.flags.c_contiguous or images.shape != added.shape:
        return added
    return _contiguous(added.transpose(0, 2, 3, 1), 3).transpose(0, 3, 1, 2)


def _contiguous(images: NDArray[_Levels], axis: int) -> NDArray[_Levels]:
    if images.flags.c_contiguous:
        return images
    copy = np.empty(images.shape, images.dtype)
    # By channel: numpy's own copy of a transposed array takes five times as long.
    for into, channel in zip(copy.swapaxes(0, axis), images.swapaxes(0, axis), strict=True):
        into[:] = channel
    return copy


def to_pil(pixels: Pixels) -> Image.Image:
    """A PIL image, mode L or RGB, from uint8 pixels of shape (1 or 3, H, W)."""
    return to_pils(pixels[None])[0]


def to_pils(images: Images) -> list[Image.Image]:
    """PIL images, mode L or RGB, from uint8 pixels of shape (B, 1 or 3, H, W)."""
    count, channels, height, width = images.shape
    shape = (count * height, width, 3) if channels == 3 else (count * height, width)
    column = Image.fromarray(interleaved(images).reshape(shape))
    if count == 1:
        return [column]
    # Cut from one image of all, which takes half as long as an Image.fromarray for each.
    return [column.crop((0, top, width, top + height)) for top in range(0, shape[0], height)]


def _from_pil(image: Image.Image) -> Pixels:
    """Pixels of a picture; those of a colour picture lie in memory as (H, W, C)."""
    return _from_plain([image if is_plain(image) else standard(image)])[0]


def _from_plain(pictures: Sequence[Image.Image]) -> Images:
    """Pixels of pictures of one size and mode; those of colour ones lie as (B, H, W, C)."""
    column, (width, height) = pictures[0], pictures[0].size
    if len(pictures) > 1:  # one picture of all of them takes half as long to read as each by itself
        column = Image.new(column.mode, (width, height * len(pictures)), None)
        for place, picture in enumerate(pictures):
            column.paste(picture, (0, place * height))
    # Half the time of np.asarray(column).
    pixels = np.frombuffer(column.tobytes(), np.uint8)
    if column.mode == "L":
        return pixels.reshape(-1, 1, height, width)
    return pixels.reshape(-1, height, width, 3).transpose(0, 3, 1, 2)


def is_plain(image: Any) -> TypeGuard[Image.Image]:
    """Whether an image is a picture made in memory without metadata."""
    return (
        type(image) is Image.Image
        and image.mode in ("RGB", "L")
        and not image.info
        and getattr(image, "_exif", None) is None
    )


def form_of(image: Pixels | Image.Image) -> tuple[Any, ...]:
    """The properties that images must share to be joined by :func:`as_batch`."""
    return (image.mode, image.size) if isinstance(image, Image.Image) else image.shape


def bytes_of(image: Pixels | Image.Image) -> int:
    """Size of an image's pixels in bytes."""
    if isinstance(image, Image.Image):
        return image.width * image.height * len(image.mode)  # L or RGB
    return image.nbytes


def as_batch(images: Sequence[Pixels | Image.Image]) -> Images:
    """Joins images of one form, pixels or plain pictures, to (B, C, H, W), keeping their layout."""
    if isinstance(images[0], Image.Image):
        return _from_plain(cast("Sequence[Image.Image]", images))
    return _stacked(cast("Sequence[Pixels]", images))


def _stacked(images: Sequence[Pixels]) -> Images:
    if len(images) == 1:
        return images[0][None]
    if any(image.flags.c_contiguous for image in images):
        return np.stack(images)
    return np.stack([image.transpose(1, 2, 0) for image in images]).transpose(0, 3, 1, 2)


def _like_tensor(image: Any) -> Callable[[Pixels], Any]:
    """From pixels to a tensor of the image's class: a ``tv_tensors.Image`` stays one."""
    import torch

    if type(image) is torch.Tensor:
        return lambda pixels: torch.from_numpy(pixels.copy())
    from torchvision import tv_tensors

    return lambda pixels: tv_tensors.wrap(torch.from_numpy(pixels.copy()), like=image)


def _like_array(pixels: Pixels, ndim: int) -> Pixels:
    grey = ndim == 2 and len(pixels) == 1
    return np.ascontiguousarray(pixels[0] if grey else pixels.transpose(1, 2, 0))


def canonical(image: Any) -> tuple[Pixels, Callable[[Pixels], Any]]:
    """uint8 pixels (1 or 3, H, W) and the inverse conversion; refuses transformed images."""
    if isinstance(image, Image.Image):
        return _from_pil(image), to_pil
    import torch  # here, since artefacts are read without it
    from torch import Tensor

    found, hint = type(image).__name__, ""
    if isinstance(image, (Tensor, np.ndarray)):
        found = f"a {str(image.dtype).removeprefix('torch.')} {found} of shape {tuple(image.shape)}"
        is_uint8, ndim = image.dtype in (torch.uint8, np.uint8), image.ndim
        if isinstance(image, Tensor):
            if is_uint8 and ndim == 3 and len(image) in (1, 3):
                return image.cpu().numpy(), _like_tensor(image)
        elif is_uint8 and (ndim == 2 or (ndim == 3 and image.shape[2] in (1, 3))):
            pixels = image[None] if ndim == 2 else np.ascontiguousarray(image.transpose(2, 0, 1))
            return pixels, lambda pixels: _like_array(pixels, ndim)
        first = isinstance(image, Tensor)  # where channels lie
        if is_uint8 and ndim == 3 and image.shape[0 if first else 2] in (2, 4):
            raise TypeError(
                f"expected 1 or 3 channels, grey or RGB, got {found}, whose last channel is "
                f"transparency; put the image on a background first, or drop that channel: "
                f"{'image[:-1]' if first else 'image[:, :, :-1]'}"
            )
        if isinstance(image, Tensor) and is_uint8 and ndim == 3 and image.shape[2] in (1, 3):
            hint = "; permute(2, 0, 1) puts the channels first"
        if isinstance(image, np.ndarray) and is_uint8 and ndim == 3 and len(image) in (1, 3):
            hint = "; transpose(1, 2, 0) puts the channels last"
        if first and is_uint8 and ndim == 2:
            hint = "; image[None] adds the channel"
        if "int" in str(image.dtype) and not is_uint8 and ndim in (2, 3):
            to_uint8 = "to(torch.uint8)" if first else "astype(np.uint8)"
            hint = f"; {to_uint8} converts it if its levels are 0 to 255"
    elif isinstance(image, Mapping) and "bytes" in image:
        hint = ", an encoded file; decode the column with cast_column(name, datasets.Image())"
    elif isinstance(image, (bytes, bytearray)):
        hint = ", an encoded file; decode it with PIL.Image.open(io.BytesIO(image))"
    elif isinstance(image, (str, os.PathLike)):
        hint = ", a path; open it with PIL.Image.open(path)"
    raise TypeError(
        f"expected a PIL image, a uint8 tensor (1 or 3, H, W) or a uint8 array (H, W, 1 or 3), "
        f"got {found}{hint}. Perturbations are added to pixels before any transform, so pass the "
        f"dataset without ToTensor, Normalize or scaling (the transform= of a torchvision dataset "
        f"is fine: it is removed and applied afterwards)"
    )


def pixels_of(image: Any) -> Pixels:
    """uint8 pixels (1 or 3, H, W) of a PIL image, a uint8 tensor or a uint8 array."""
    return canonical(image)[0]


class ResizeCrop(NamedTuple):
    """Resize and centre crop to one size; stored in an artefact and repeated from there."""

    height: int
    width: int

    @classmethod
    def parse(cls, image_size: int | Sequence[int] | None) -> ResizeCrop | None:
        """Parses ``image_size=``: a side, (height, width), or None."""
        if image_size is None:
            return None
        try:
            sides: Any = image_size if np.ndim(image_size) else (image_size, image_size)
            height, width = (integer("image_size", side, least=1) for side in sides)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"expected image_size to be a side or (height, width) in pixels, got {image_size!r}"
            ) from error
        if max(height, width) > _MOST:
            raise ValueError(
                f"expected image_size (--image-size) of up to {_MOST:,} pixels a side, got "
                f"{image_size!r}; choose a smaller size"
            )
        return cls(height, width)

    def __call__(self, pixels: Pixels) -> Pixels:
        if pixels.shape[1:] == (self.height, self.width):
            return pixels
        size = (self.width, self.height)
        return _from_pil(ImageOps.fit(to_pil(pixels), size, Image.Resampling.BICUBIC))
