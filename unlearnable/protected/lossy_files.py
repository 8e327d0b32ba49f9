"""The files of an export in a lossy format, as they are verified: what is left of the change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..data.fingerprint import image_key
from ..data.image import Images, pixels_of
from ..data.photo import load_photo
from .manifest import Entry, Seal
from .share_left import ShareLeft


class LossyFiles:
    """Protected files of a lossy export, recognised by the pixels that it recorded.

    Args:
        folder: Folder of the export.
        stated: The entry ``lossy`` in its ``unlearnable.json``.
        entries: Its list of files.
        seal: Seal of the perturbation.
    """

    def __init__(
        self, folder: Path, stated: Mapping[str, Any], entries: Iterable[Entry], seal: Seal
    ) -> None:
        self._folder, self._stated, self._seal = folder, stated, seal
        self._entries: dict[str, list[Entry]] = defaultdict(list)  # by origin
        for entry in entries:
            if entry.protected:
                self._entries[entry.origin].append(entry)
        self._keys = {entry.key for own in self._entries.values() for entry in own}
        self._left: dict[str, ShareLeft] = {}  # by file
        self.given: list[Entry] = []  # whose originals were given

    def measure(self, originals: Images, unchanged: Images, protected: Images) -> None:
        """Compares the files of some originals with the protected originals.

        Takes the originals as read and as prepared; all are (B, 1 or 3, H, W).
        """
        for clean, before, added in zip(originals, unchanged, protected, strict=True):
            for entry in self._entries.get(self._seal.origin(image_key(clean)), ()):
                self.given.append(entry)
                try:
                    pixels = pixels_of(load_photo(self._folder / entry.file))
                except (OSError, ValueError):
                    continue
                if self._seal.key(image_key(pixels)) != entry.key:
                    continue
                left = ShareLeft()
                share = left.add(before, added, pixels)
                earlier = self._left.get(entry.file)
                # Of originals that are there twice, the file is of the one that it is most like.
                if earlier is None or (share or 0) > (earlier.share or 0):
                    self._left[entry.file] = left

    def described(self, keys: Iterable[str]) -> dict[str, Any] | None:
        """The result for a verification, given the sealed keys found; None if none match."""
        if self._keys.isdisjoint(keys):
            return None
        whole = ShareLeft()
        for left in self._left.values():
            whole.merge(left)
        found = {name: self._stated.get(name) for name in ("format", "quality")}
        if not self._left:
            share = self._stated.get("share_left")
            known = isinstance(share, (int, float)) and not isinstance(share, bool)
            return found | {"share_left": share if known else None, "measured": False}
        files = {file: round(left.share or 0, 4) for file, left in sorted(self._left.items())}
        share = None if whole.share is None else round(whole.share, 4)
        return found | {"share_left": share, "measured": True, "files": files}
