"""Files of repositories on the Hugging Face hub, named hf://USER/NAME or hf://USER/NAME@REVISION.

`huggingface_hub` is imported when a repository is opened.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import Any, NamedTuple

from effcap.utils.progress import print_line
from effcap.version import __version__

SCHEME = re.compile(r"hf:/{1,2}")  # pathlib makes one slash of two
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
DEFAULT_REVISION = "main"
CACHED, SNAPSHOTS = "models--", "snapshots"  # folders of the hub's cache
TIMEOUT = 10.0  # seconds without an answer
BYTES_BAR = "huggingface_hub.snapshot_download"  # name of a progress bar of the library
UNAUTHORIZED, FORBIDDEN, SERVER_ERROR = 401, 403, 500
LOGIN = "log in with `hf auth login` or set HF_TOKEN"


class HubError(OSError):
    """A repository on the hub cannot be used; the message says why and what to do."""


class HubName(NamedTuple):
    """The name of a repository on the hub.

    Attributes:
        repository: such as "user/name".
        revision: branch, tag or commit. None for the main branch.
    """

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"hf://{self.repository}" + (f"@{self.revision}" if self.revision else "")


def is_hub_name(name: str | PathLike[str]) -> bool:
    """Returns whether a name is one of a repository on the hub, rather than a path."""
    return SCHEME.match(_text(name)) is not None


def parse_hub_name(name: str | PathLike[str]) -> HubName:
    """Parses hf://USER/NAME or hf://USER/NAME@REVISION, also if it was made a `Path`.

    Raises:
        ValueError: the name has another form.
    """
    rest = SCHEME.sub("", _text(name), count=1)
    repository, at, revision = rest.partition("@")
    repository = repository.rstrip("/")
    if (
        not is_hub_name(name)
        or REPOSITORY.fullmatch(repository) is None
        or (at and (not revision or revision.startswith(("/", "-")) or ".." in revision))
        or any(word in repository for word in ("..", "--"))
    ):
        raise ValueError(
            "Expected a repository on the hub as hf://USER/NAME or hf://USER/NAME@REVISION. "
            f"Received: {_text(name)!r}"
        )
    return HubName(repository, revision or None)


def snapshot_name(folder: Path) -> HubName | None:
    """Returns the repository and the commit of a folder in the hub's cache; None for any other."""
    parts = folder.absolute().parts
    if len(parts) < 3 or parts[-2] != SNAPSHOTS or not parts[-3].startswith(CACHED):
        return None
    return HubName(parts[-3].removeprefix(CACHED).replace("--", "/", 1), parts[-1])


def _text(name: str | PathLike[str]) -> str:
    return fspath(name).replace("\\", "/")


def import_hub() -> Any:
    """Imports `huggingface_hub`.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import huggingface_hub
        import huggingface_hub.errors  # not imported with the package
    except ImportError as error:
        raise ImportError(
            "hf:// names require huggingface_hub: pip install 'effcap[hub]'"
        ) from error
    return huggingface_hub


def open_api() -> Any:
    """Returns the client of the hub, an `HfApi`, which names EffCap in its requests."""
    return import_hub().HfApi(library_name="effcap", library_version=__version__)


class HubRepository:
    """A revision of a repository, on the hub or, without a connection, in the hub's cache.

    Args:
        name: name of the repository.

    Attributes:
        name: name of the repository.
        files: paths of its files, or of those in the cache.
        commit: commit of the revision. None without a connection.

    Raises:
        HubError: there is no such repository or revision, it cannot be read, or there is neither a
            connection nor a copy in the cache.
        ImportError: `huggingface_hub` is not installed.
    """

    def __init__(self, name: HubName) -> None:
        self.name, self._hub = name, import_hub()
        errors = self._hub.errors
        self.commit: str | None = None
        try:
            info = open_api().model_info(name.repository, revision=name.revision, timeout=TIMEOUT)
        except (errors.HTTPError, OSError) as error:
            if not _is_unreachable(error, errors):
                raise _explain(error, name, errors) from error
            self._folder = self._find_cached([], error)
            self.files = sorted(path.name for path in self._folder.iterdir())
            if not isinstance(error, errors.OfflineModeIsEnabled):
                print_line(
                    f"cannot reach the hub ({_reason(error)}): using the copy of {name} in the "
                    f"cache, commit {self._folder.name[:8]}"
                )
        else:
            self.commit = info.sha
            self.files = sorted(file.rfilename for file in info.siblings or ())

    def fetch(self, files: Sequence[str], *, is_quiet: bool = False) -> Path:
        """Returns a folder with some files, which are downloaded unless they are in the cache.

        Args:
            files: names of files of the repository, without folders.
            is_quiet: whether to show no progress.

        Raises:
            HubError: a download fails; the next call resumes it.
        """
        if self.commit is None:
            return self._find_cached(files, None)
        cached = self._cached_folder(files)
        if cached is None and not is_quiet:
            print_line(f"downloading {self.name}")
        return cached or self._download(files, "" if is_quiet else self.name.repository)

    def _cached_folder(self, files: Sequence[str]) -> Path | None:
        """Returns the folder of the commit in the cache if it has the files."""
        for file in files:
            path = self._hub.try_to_load_from_cache(
                self.name.repository, file, revision=self.name.revision or DEFAULT_REVISION
            )
            if not isinstance(path, str) or Path(path).parent.name != self.commit:
                return None
        return Path(path).parent

    def _download(self, files: Sequence[str], title: str = "", **options: Any) -> Path:
        with hub_errors(self.name):
            return Path(
                self._hub.snapshot_download(
                    self.name.repository,
                    revision=self.name.revision,
                    allow_patterns=list(files),
                    library_name="effcap",
                    library_version=__version__,
                    tqdm_class=_download_bar(title),
                    **options,
                )
            )

    def _find_cached(self, files: Sequence[str], reason: BaseException | None) -> Path:
        """Returns the folder of the revision in the cache.

        Raises:
            HubError: it is not there, or it lacks files.
        """
        try:
            return self._download(files, local_files_only=True)
        except HubError as error:
            offline = isinstance(reason, self._hub.errors.OfflineModeIsEnabled)
            why = (
                "HF_HUB_OFFLINE is set" if offline else f"Cannot reach the hub ({_reason(reason)})"
            )
            raise HubError(
                f"{why}, and {self.name} is not in its cache: "
                f"{'unset it' if offline else 'connect'}, or use a preset in a folder"
            ) from error


@contextmanager
def hub_errors(name: HubName) -> Iterator[None]:
    """Turns the errors of `huggingface_hub` into a `HubError` with a message of one line."""
    errors = import_hub().errors
    try:
        yield
    except HubError:
        raise
    except (errors.HTTPError, OSError, RuntimeError) as error:
        # Xet's transfers raise RuntimeError.
        raise _explain(error, name, errors) from error


def _is_unreachable(error: BaseException, errors: Any) -> bool:
    """Returns whether a copy in the cache may stand in for the hub after an error."""
    if isinstance(error, errors.HfHubHTTPError):
        return _status(error) >= SERVER_ERROR
    return isinstance(error, errors.HTTPError | ConnectionError | TimeoutError)


def _status(error: Any) -> int:
    return getattr(getattr(error, "response", None), "status_code", 0)


def _reason(error: BaseException | None) -> str:
    if error is None:
        return "no connection"
    status = _status(error)
    return f"it answered {status}" if status else str(error) or type(error).__name__


def _explain(error: BaseException, name: HubName, errors: Any) -> HubError:
    """Returns an error that says what is wrong with a repository and what to do."""
    repository, status = name.repository, _status(error)
    if isinstance(error, errors.GatedRepoError):
        text = (
            f"Access to {name} is restricted: ask for it at https://huggingface.co/{repository}, "
            f"then {LOGIN}"
        )
    elif isinstance(error, errors.RepositoryNotFoundError):
        text = f"There is no repository {name}, or it is private: check its name, or {LOGIN}"
    elif isinstance(error, errors.RevisionNotFoundError):
        text = f"{HubName(repository)} has no branch, tag or commit {name.revision}"
    elif status in (UNAUTHORIZED, FORBIDDEN):
        detail = getattr(error, "server_message", None)
        text = f"The hub refuses access to {name}{f' ({detail})' if detail else ''}: {LOGIN}"
    elif isinstance(error, errors.OfflineModeIsEnabled):
        text = f"HF_HUB_OFFLINE is set, and {name} requires a connection: unset it"
    elif _is_unreachable(error, errors):
        text = f"Cannot reach the hub for {name} ({_reason(error)}): check the connection"
    else:
        cause = error.__cause__ or error  # RuntimeError of an upload has its reason there
        text = (
            f"Cannot transfer the files of {name}: {getattr(error, 'server_message', '') or cause}"
        )
    return HubError(text)


def _download_bar(title: str) -> Callable[..., Any]:
    """Returns a class of progress bars for `snapshot_download`, which shows that of bytes alone."""
    from huggingface_hub.utils import tqdm

    class DownloadBar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            if not title or kwargs.get("name") != BYTES_BAR:
                kwargs["disable"] = True
            kwargs.pop("bar_format", None)
            super().__init__(*args, **{**kwargs, "desc": title})

        def set_description(self, desc: str | None = None, refresh: bool | None = True) -> None:
            """Keeps the title."""

    return DownloadBar
