"""Hashes that nobody can compute without the perturbation: what an export may say in public.

A plain hash of an image's pixels, or the perturbation's digest, would let anybody check a guess: of
a seed, or of which photo a file was made from.
"""

from __future__ import annotations

import hashlib
import struct

from .artefact import digest_of
from .perturbation import Perturbation

_PURPOSE = b"unlearnable-seal"


class Seal:
    """Keyed hashes, as hexadecimal digits, for the exports of one perturbation.

    Args:
        perturbation: Their secret follows from its tensors and config, and not from its digest,
            which is shown to people.

    Attributes:
        perturbation_id: Tells exports of this perturbation from those of others.
    """

    def __init__(self, perturbation: Perturbation) -> None:
        secret = digest_of(perturbation.tensors, perturbation.config, _PURPOSE)
        self._secret = bytes.fromhex(secret)
        self.perturbation_id = self._hash(b"perturbation", b"", size=16)

    def key(self, key: int) -> str:
        """Of a written image's key."""
        return self._hash(b"key", struct.pack("<Q", key))

    def origin(self, key: int) -> str:
        """Of the key of the clean image that one was made from."""
        return self._hash(b"origin", struct.pack("<Q", key))

    def state(self, file: str, key: str, *, protected: bool) -> str:
        """Of whether a file with this sealed key is protected."""
        return self._hash(b"protected" if protected else b"clean", f"{key} {file}".encode())

    def _hash(self, purpose: bytes, content: bytes, size: int = 8) -> str:
        made = hashlib.blake2b(content, digest_size=size, key=self._secret, person=purpose)
        return made.hexdigest()
