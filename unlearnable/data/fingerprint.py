"""What identifies an image: its key, its thumbnail, and the digest of a whole dataset."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .image import Images, Pixels, interleaved, to_pil

THUMBNAIL_TOLERANCE = 12  # levels: other JPEG decoders stay within 4, other photos do not


def image_key(pixels: Pixels) -> int:
    """64-bit BLAKE2b of an image's size and RGB pixels; grey and RGB copies share a key."""
    return image_keys(pixels[None])[0]


def image_keys(images: Images) -> list[int]:
    """:func:`image_key` for a batch of images (B, 1 or 3, H, W)."""
    count, channels, height, width = images.shape
    if channels == 1:
        images = np.broadcast_to(images, (count, 3, height, width))
    start = hashlib.blake2b(struct.pack("<II", height, width), digest_size=8)
    keys = []
    for image in interleaved(images):
        digest = start.copy()
        digest.update(image)
        keys.append(int.from_bytes(digest.digest(), "little"))
    return keys


def thumbnail(pixels: Pixels) -> Pixels:
    """The RGB image averaged down to 4x4, uint8 of shape (3, 4, 4)."""
    small = to_pil(pixels).convert("RGB").resize((4, 4), Image.Resampling.BOX)
    return np.asarray(small).transpose(2, 0, 1)


def digest_of_images(keys: NDArray[np.uint64], labels: NDArray[np.int64]) -> str:
    """Fingerprint of a dataset: a digest of all keys and labels in order."""
    content = keys.tobytes() + labels.astype("<i8").tobytes()
    return hashlib.blake2b(content, digest_size=16).hexdigest()
