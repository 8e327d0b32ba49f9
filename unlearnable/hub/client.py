"""The Hugging Face Hub: the only file that talks to the network; import it when needed."""

from __future__ import annotations

import errno
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

from .._version import __version__
from ..errors import HubError
from . import CONFIG, REPO

hide_progress = disable_progress_bars  # of the client, for the rest of the process
CARD = "README.md"
_PATTERNS = [CONFIG, CARD, "perturbation*.safetensors", "perturbation*.safetensors.index.json"]
_KIND = "dataset"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_LOG_IN = "log in (hf auth login), set HF_TOKEN, or pass token="


class Content(NamedTuple):
    """A kind of upload, described by patterns of file paths in the repository.

    Attributes:
        name: Name of the kind, for messages.
        own: Matches files of an earlier upload, which are removed.
        apart: Matches files next to which the upload is refused.
        because: What such files are and why they are refused.
        marker: A file that every upload has; None if other images may be in the repository.
    """

    name: str
    own: str
    apart: str
    because: str
    marker: str | None = None


_PAIR = "anyone who can read both can remove the perturbation"
PERTURBATION = Content(
    "a perturbation",
    r"perturbation(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?|preview/preview\.parquet",
    r"(.*/)?unlearnable\.json|(?!preview/preview\.parquet$).*\.parquet",
    f"images that it may protect; {_PAIR}",
)
IMAGES = Content(
    "protected images",
    r"data/train-\d{5}-of-\d{5}\.parquet",
    r".*\.safetensors(\.index\.json)?",
    f"possibly their perturbation; {_PAIR}",
    "unlearnable.json",
)
_OTHER_IMAGES = (
    r"(?i).*\.(parquet|arrow|(tar|bin)(\.\w+)?|tgz|zip|7z|npz|npy|pt|pth|pkl|pickle|h5|hdf5|mat|lmdb"
    r"|tfrecords?|png|jpe?g|jfif|webp|gif|bmp|tiff?|p[bgp]m|avif|hei[cf]|hif|jxl)"
)


class Pushed(NamedTuple):
    """Result of an upload: the new commit, or the last one if nothing changed."""

    repo_id: str
    commit: str
    url: str


def download(
    repo_id: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    endpoint: str | None = None,
) -> Path:
    """Downloads only a perturbation's files from a dataset repository into the cache.

    Takes the same arguments as :meth:`Perturbation.from_pretrained
    <unlearnable.Perturbation.from_pretrained>`, and raises only ``HubError``.
    """
    call = _Call(repo_id, revision, token, endpoint, local_files_only, cache_dir)
    with call.explained():
        folder = call.api.snapshot_download(
            repo_id,
            repo_type=_KIND,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            force_download=force_download,
            allow_patterns=_PATTERNS,
        )
    if not (Path(folder) / CONFIG).is_file():
        raise HubError(
            f"expected a perturbation in the dataset repository {call.what}, found no {CONFIG} "
            f"there; check the name and the revision"
        )
    return Path(folder)


def upload(
    files: Callable[[], Mapping[str, Path | bytes]],
    content: Content,
    repo_id: str,
    *,
    private: bool = True,
    branch: str | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
    endpoint: str | None = None,
    commit_message: str | None = None,
) -> Pushed:
    """Uploads a perturbation or protected images to a dataset repository.

    The contents are uploaded first; then a single commit adds all files and removes those of an
    earlier upload, so that nobody sees a partial upload. Existing files are not sent again.

    ``files`` returns names in the repository with a file or bytes for each. Because it may take
    long, it is called only once the repository is known to accept the ``content``. The rest is as
    in :meth:`Perturbation.push_to_hub <unlearnable.Perturbation.push_to_hub>`.
    """
    if create_pr and branch is not None:
        raise ValueError(
            "expected either branch or create_pr, got both; pull requests are always for main"
        )
    check_repo(repo_id)
    call = _Call(repo_id, branch, token, endpoint, writing=True)
    with call.explained():
        api = call.api
        repo_id = api.create_repo(repo_id, repo_type=_KIND, private=private, exist_ok=True).repo_id
        found = api.repo_info(repo_id, repo_type=_KIND)
    if private and not found.private:
        raise HubError(
            f"expected {repo_id} to be private, got an existing public repository; pass "
            f"private=False (--public) to publish there, or choose another name"
        )
    with call.explained():
        if branch is not None:
            api.create_branch(repo_id, branch=branch, repo_type=_KIND, exist_ok=True)
        head = api.repo_info(repo_id, repo_type=_KIND, revision=branch).sha
        there = api.list_repo_files(repo_id, repo_type=_KIND, revision=head)
    _check_apart(content, call, repo_id)
    made = files()
    _check_apart(content, call, repo_id)  # others may have pushed since
    with call.explained():
        gone = [name for name in there if re.fullmatch(content.own, name) and name not in made]
        done = api.create_commit(
            repo_id,
            [
                *(CommitOperationAdd(name, what) for name, what in made.items()),
                *map(CommitOperationDelete, gone),
            ],
            commit_message=commit_message or f"Upload {content.name} with unlearnable",
            repo_type=_KIND,
            revision=branch,
            create_pr=create_pr,
            parent_commit=head,
        )
    if found.private and not private:
        warnings.warn(f"{repo_id} is private and stays so: see its settings", stacklevel=3)
    return Pushed(repo_id, done.oid, done.pr_url or done.commit_url)


def check_repo(repo_id: Any) -> None:
    """Raises ``HubError`` for anything but owner/name.

    To a name alone the client would prepend the user's, and the card would name another repository.
    """
    if not isinstance(repo_id, str) or not re.fullmatch(REPO, repo_id):
        raise HubError(f"expected a repository as owner/name, got {repo_id!r}")


def _names(api: HfApi, repo_id: str) -> set[str]:
    """The files of all branches, tags and pull requests; whoever reads one of them reads all."""
    refs = api.list_repo_refs(repo_id, repo_type=_KIND, include_pull_requests=True)
    commits = {
        ref.target_commit for ref in [*refs.branches, *refs.tags, *(refs.pull_requests or [])]
    }
    return {
        name
        for commit in commits
        for name in api.list_repo_files(repo_id, repo_type=_KIND, revision=commit)
    }


def _check_apart(content: Content, call: _Call, repo_id: str) -> None:
    with call.explained():
        names = _names(call.api, repo_id)
    because = content.because
    found = [name for name in names if re.fullmatch(content.apart, name)]
    if not found and content.marker is not None and content.marker not in names:
        because = (
            "one of several other images, which may be the clean ones; pairs of both reveal "
            "the perturbation"
        )
        found = [name for name in names if re.fullmatch(_OTHER_IMAGES, name)]
    if found:
        raise HubError(
            f"expected a repository only for {content.name}, got {repo_id}, which has "
            f"{min(found)}, {because}; choose another repository (deleted files can still be read "
            f"in the history)"
        )


class _Call(NamedTuple):
    """A request to the Hub, which explains its failure."""

    repo_id: str
    revision: str | None
    token: str | bool | None
    endpoint: str | None
    local_files_only: bool = False
    cache_dir: str | Path | None = None
    writing: bool = False

    @property
    def api(self) -> HfApi:
        # Without the line break of the file that a token was read from.
        token = self.token.strip() if isinstance(self.token, str) else self.token
        return HfApi(self.endpoint, token, "unlearnable", __version__)

    @property
    def what(self) -> str:
        return self.repo_id if self.revision is None else f"{self.repo_id} at {self.revision}"

    @property
    def hub(self) -> str:
        return self.endpoint or constants.ENDPOINT

    @property
    def cache(self) -> str | Path:
        return self.cache_dir or constants.HF_HUB_CACHE

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turns any error into a ``HubError`` of one sentence, with no token in it."""
        try:
            yield
        except Exception as error:
            token = self.api.token
            secret = token if isinstance(token, str) else get_token()
            sentence = " ".join(self._explain(error).split())
            if not secret:
                raise HubError(sentence) from error
            # As it is, and as libraries quote it.
            spellings = {secret, repr(secret)[1:-1]}
            spelled = any(text in str(link) for link in _chain(error) for text in spellings)
            for text in spellings:
                sentence = sentence.replace(text, "hf_…")
            raise HubError(sentence) from (None if spelled else error)

    def _explain(self, error: Exception) -> str:
        if any(_is_full(link) for link in _chain(error)):
            return f"the disk is full: free space in {self.cache}, or pass another cache_dir="
        if isinstance(error, HFValidationError):
            return f"expected a repository as owner/name, got {self.repo_id!r}: {error}"
        if isinstance(error, LocalTokenNotFoundError):
            return f"expected a token, found none: {_LOG_IN}"
        if isinstance(error, GatedRepoError):
            return (
                f"{self.repo_id} is gated: request access at {self.hub}/datasets/{self.repo_id}, "
                f"then {_LOG_IN}"
            )
        if isinstance(error, RepositoryNotFoundError):
            return (
                f"found no dataset repository {self.repo_id} on {self.hub}: check the name; if it "
                f"is private, {_LOG_IN}"
            )
        if isinstance(error, RevisionNotFoundError):
            return f"found no revision {self.revision!r} in {self.repo_id}: check the name"
        if isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled):
            return self._explain_absence()
        if isinstance(error, EntryNotFoundError):
            return (
                f"a file of {self.what} is missing on {self.hub}: try again, or contact its owner"
            )
        if isinstance(error, HfHubHTTPError):
            return self._explain_status(error)
        verb = "send" if self.writing else "get"
        failed = f"could not {verb} {self.what} ({type(error).__name__}: {error})"
        if isinstance(error, OSError) and error.filename is not None:
            return f"{failed}: check the cache {self.cache}, or pass another cache_dir="
        advice = f"check the connection to {self.hub} and try again"
        return f"{failed}: {advice}; no partial files were left behind"

    def _explain_absence(self) -> str:
        if constants.HF_HUB_OFFLINE and self.writing:
            return (
                f"could not upload {self.what}, because HF_HUB_OFFLINE forbids network "
                f"access; unset it"
            )
        if not (self.local_files_only or constants.HF_HUB_OFFLINE):
            return (
                f"could not reach {self.hub}, and {self.what} is not in the cache: check the "
                f"connection and the address, and try again"
            )
        asked = "local_files_only=True" if self.local_files_only else "HF_HUB_OFFLINE"
        return (
            f"{self.what} is missing or incomplete in the cache {self.cache}, and {asked} forbids "
            f"network access: download it once without that setting"
        )

    def _explain_status(self, error: HfHubHTTPError) -> str:
        status = error.response.status_code
        answer = f"{self.hub} answered {status}"
        if error.server_message:
            answer += f" ({error.server_message})"
        if status == 401:
            return f"{answer}: the token is missing or invalid; {_LOG_IN}"
        if status == 403:
            need = "write to" if self.writing else "read"
            return (
                f"{answer}: the token does not allow you to {need} {self.repo_id}; use another one"
            )
        if status == 412:
            return f"{answer}: {self.repo_id} was changed by somebody else meanwhile; try again"
        if status == 429 or status >= 500:
            return f"{answer} when asked for {self.what}: try again later"
        return f"{answer} when asked for {self.what}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_full(error: BaseException) -> bool:
    # What Xet's library raises has no errno.
    full = os.strerror(errno.ENOSPC), os.strerror(errno.EFBIG)
    return getattr(error, "errno", None) in _FULL or any(text in str(error) for text in full)
