"""Names of class folders: those of the classes, but where a file system does not take one.

``ImageFolder`` numbers classes in the alphabetical order of their folders. So names have to be in
the order of class indices, too.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise

from ...data.export_marker import MARKER
from ...data.image_folder import FOREIGN
from ..manifest import FILES

_WINDOWS = os.name == "nt"
LONGEST = 255  # bytes of a name
_SIGNS = "_-~"  # to put in place of others: before and after letters in the alphabet
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def folder_names(names: Sequence[str]) -> list[str]:
    """One folder name per class, in an alphabetical order that is the order of class indices.

    Names change only if necessary: characters that some systems do not allow are replaced, and an
    index is appended to a name that counts as the same as another one on some systems. If the names
    are in a different order, an index is put in front of all of them.
    """
    for sign in _SIGNS:
        found = _apart(names, sign)
        if all(one < other for one, other in pairwise(found)):
            return found
    digits = len(str(len(names) - 1))
    rest = [spelling(name, "_", LONGEST - digits - 1) for name in names]
    return [f"{index:0{digits}d}_{name}" for index, name in enumerate(rest)]


def _apart(names: Sequence[str], sign: str) -> list[str]:
    """Names that file systems take, and take for different ones."""
    spelled = [spelling(name, sign) for name in names]
    # Names that can stay come first: another one gives way to them.
    used = {comparable(MARKER), comparable(FILES)}
    kept: dict[int, str] = {}
    for index in sorted(range(len(names)), key=lambda index: spelled[index] != names[index]):
        name = spelled[index]
        if comparable(name) in used:
            name = f"{shortened(name, LONGEST - 16)} ({index})"
        while comparable(name) in used:
            name += "_"
        used.add(comparable(name))
        kept[index] = name
    return [kept[index] for index in range(len(names))]


def comparable(name: str) -> str:
    """A form in which names that some file systems confuse are equal (case, Unicode)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def spelling(name: str, sign: str, longest: int = LONGEST) -> str:
    """The name with characters that are not allowed replaced by a sign."""
    name = re.sub(r"[\x00-\x1f\x7f/\\]", sign, name)
    if _WINDOWS:
        name = re.sub(r'[<>:"|?*]', sign, name)
        name += sign if _RESERVED.fullmatch(name) else ""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        name = re.sub(r"[\ud800-\udfff]", sign, name)
    name = shortened(name, longest)
    if not name or name[0] == "." or name.lower() in FOREIGN:
        name = sign + name[1:]
    if name[-1] in ". ":  # which Windows drops without a word
        name = name[:-1] + sign
    return name


def shortened(name: str, longest: int) -> str:
    """As much of a name as fits into this many bytes."""
    data = os.fsencode(name)
    return name if len(data) <= longest else data[:longest].decode(errors="ignore")
