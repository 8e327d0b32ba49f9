"""The folder that an export goes to: checked first, filled in one move, nothing overwritten."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ...data.export_marker import MARKER, export_at
from ...hub import CONFIG
from ...io.files import WriteError, is_full, is_ours, write_error, writing
from .staging import failed, is_staging, kept, thrown_away


def check_folder(
    folder: str | Path,
    *,
    sources: Sequence[str | Path | None] = (),
    apart: Sequence[str | Path | None] = (),
    force: bool = False,
) -> Path:
    """The absolute folder; raises the errors of writing there, as in ``check_target``."""
    folder = Path(folder).absolute()
    with writing(folder):
        if folder.is_symlink():
            raise FileExistsError(
                f"expected a folder, got the symbolic link {folder}; pass the folder that it "
                f"points to"
            )
        folder.exists()  # raises where the name is too long
    for source in sources:
        if source and Path(source).is_dir() and overlap(source, folder):
            raise ValueError(
                f"expected a folder separate from the images' own, {source}, got {folder}; "
                f"originals are never overwritten, so choose another place"
            )
    for other in apart:
        if other and overlap(other, folder):
            raise ValueError(
                f"expected a folder separate from the perturbation's, {other}, got {folder}; "
                f"choose another place, because anyone who has both can remove the perturbation "
                f"from the images"
            )
    with writing(folder):
        _refuse_keys(folder, inside=force)
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not there.is_dir():
        raise NotADirectoryError(
            f"expected a folder to write to, got the file {there}; choose another name"
        )
    if not os.access(there, os.W_OK | os.X_OK):
        error = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        raise write_error(error, there)
    if folder.exists() and not force and not (folder.is_dir() and _is_empty(folder)):
        raise FileExistsError(
            f"expected a new or empty folder, got {folder}, which already contains files; choose "
            f"another folder, or pass force=True (--force) to replace the copies of an earlier "
            f"export and keep all other files"
        )
    if folder.exists():
        _earlier(folder)
    return folder


def _refuse_keys(folder: Path, *, inside: bool) -> None:
    """Refuses a folder that lies in that of a perturbation or, where asked, contains one."""
    keys = [place for place in (folder, *folder.parents) if is_ours(place, CONFIG)]
    if inside and not keys and folder.is_dir():
        found = (path.parent for path in folder.rglob(CONFIG))
        keys = [place for place in found if is_ours(place, CONFIG)]
    if keys:
        raise ValueError(
            f"expected a folder separate from any perturbation's (key's), got {folder} with one in "
            f"{keys[0]}; choose another place, because anyone who has both can remove the "
            f"perturbation from the images"
        )


def _is_empty(folder: Path) -> bool:
    """Whether nothing lies there but what an unfinished export has left."""
    return all(is_staging(path, folder) for path in folder.iterdir())


def is_taken(folder: Path, name: str) -> bool:
    """Whether a file exists there that no earlier export lists, so that it must be kept."""
    path = folder / name
    return (path.exists() or path.is_symlink()) and path not in _earlier(folder)


def paths_of(folder: Path) -> list[str]:
    """Everything in a finished folder, in the form used by its marker; folders end with a slash."""
    found: list[str] = []
    # Plain strings: a Path for each of many files takes more memory than their names.
    for at, folders, names in os.walk(folder):
        way = "" if Path(at) == folder else f"{Path(at).relative_to(folder).as_posix()}/"
        found += [f"{way}{name}/" for name in folders] + [f"{way}{name}" for name in names]
    return sorted(found, key=lambda path: path.rstrip("/").split("/"))


@contextlib.contextmanager
def written_apart(folder: Path, settings: str | None = None) -> Iterator[Path]:
    """A new folder to fill; its content is moved to its place at the end, or deleted on errors.

    With ``settings``, which identify an export, it is kept on errors and reused by the next export
    with the same settings.

    An existing folder may be a mount point or lie in a read-only place; then the new one is created
    inside it. Files listed by an earlier export there are removed and all others are kept; if one
    of those is in the way, an error is raised and nothing is moved.
    """
    exists = folder.exists()
    place = folder if exists else folder.parent
    stays = settings is not None
    with kept(folder, place, settings) if settings else thrown_away(folder, place) as partial:
        try:
            yield partial
            partial.chmod(0o755)
            if exists:
                _exchange(partial, folder, _earlier(folder))
            elif folder.exists() and any(folder.iterdir()):
                raise FileExistsError(
                    f"expected no folder {folder}, got one that was created in the meantime; "
                    f"choose another name, or pass force=True (--force)"
                )
            else:
                partial.rename(folder)
        except OSError as error:
            if not _is_of_writing(error, (partial, folder)):
                raise
            raise failed(error, folder, partial, stays=stays) from error


def _is_of_writing(error: OSError, places: Sequence[Path]) -> bool:
    """Whether an error is one of writing, without words of its own, and not of reading an image."""
    if isinstance(error, WriteError) or (error.errno is None and not is_full(error)):
        return False
    if not isinstance(named := error.filename, str):
        return True
    return any(Path(named).is_relative_to(place) for place in places)


def _earlier(folder: Path) -> list[Path]:
    """What an earlier export wrote into a folder and is still there; its marker first."""
    if not folder.is_dir():
        raise NotADirectoryError(
            f"expected a folder to write to, got the file {folder}; choose another name"
        )
    marker = folder / MARKER
    described = None if marker.is_symlink() else export_at(folder)
    if described is None:
        return []
    names = described.get("files")
    if not isinstance(names, list):
        raise FileExistsError(
            f"expected an earlier export that lists its files, got one without a list in "
            f"{folder}, so its files cannot be told from others; delete it, or choose another "
            f"folder"
        )
    for name in names:
        if not _is_below(name):
            raise ValueError(
                f"expected {marker} to list files in its own folder, got {name!r}; nothing was "
                f"deleted"
            )
    return [folder / name for name in [MARKER, *names] if _is_there(folder, name)]


def _is_below(name: object) -> bool:
    """Whether a path as :func:`paths_of` writes them stays inside of its folder."""
    signs = "\\:\0" if os.name == "nt" else "\\\0"  # elsewhere a name may hold a colon
    if not isinstance(name, str) or any(sign in name for sign in signs):
        return False
    return all(part not in ("", ".", "..") for part in name.removesuffix("/").split("/"))


def _is_there(folder: Path, name: str) -> bool:
    """Whether what is listed is there, of its kind, and no link is on the way to it."""
    path = folder / name
    way = [path, *path.parents[: name.removesuffix("/").count("/")]]
    there = path.is_dir() if name.endswith("/") else path.is_file()
    return there and not any(at.is_symlink() for at in way)


def _exchange(partial: Path, folder: Path, earlier: Sequence[Path]) -> None:
    """Moves an earlier export's files out and the new ones in, or nothing at all."""
    # The marker is last: then the export is complete.
    new = sorted(partial.rglob("*"), key=lambda path: (path == partial / MARKER, path))
    places = {path: folder / path.relative_to(partial) for path in new}
    replaced = set(earlier)
    for path, target in places.items():
        free = target in replaced and not (target.is_dir() and path.is_file())
        merges = path.is_dir() and target.is_dir() and not target.is_symlink()
        if (target.exists() or target.is_symlink()) and not free and not merges:
            kind = "a symbolic link" if target.is_symlink() else "one"
            raise FileExistsError(
                f"expected a folder without {path.relative_to(partial)}, got {kind} in {folder}; "
                f"other files are never overwritten, so move it away or choose another folder"
            )
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old-", dir=folder))
    made = [target for path, target in places.items() if path.is_dir() and not target.is_dir()]
    leaving = [(path, old / path.relative_to(folder)) for path in earlier if path.is_file()]
    coming = [(path, target) for path, target in places.items() if path.is_file()]
    folders = {path for path in earlier if path.is_dir()}
    try:
        for source, target in leaving:
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)
        for path in made:
            path.mkdir(parents=True, exist_ok=True)
        for source, target in coming:
            source.rename(target)
    except BaseException:
        _move_back(coming)
        _remove_empty(made)
        _move_back(leaving)
        _remove_empty([*(path for path in old.rglob("*") if path.is_dir()), old])
        raise
    shutil.rmtree(old)
    _remove_empty(folders - set(places.values()))


def _move_back(moves: Iterable[tuple[Path, Path]]) -> None:
    """Undoes moves by what is where: an interrupt may fall between a move and any note of it."""
    for source, target in moves:
        if target.exists() and not source.exists():
            target.rename(source)


def _remove_empty(folders: Iterable[Path]) -> None:
    for path in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def overlap(one: str | Path, other: str | Path) -> bool:
    """Whether two folders are the same or one contains the other; they need not exist."""
    one, other = Path(one).resolve(), Path(other).resolve()
    return one == other or one in other.parents or other in one.parents
