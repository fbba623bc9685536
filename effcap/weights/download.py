"""Downloads OpenAI's GPT-2, resumes interrupted downloads, and verifies the files."""

from __future__ import annotations

import base64
import hashlib
import http.client
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from effcap.utils.files import check_free_space

ADDRESS = "https://openaipublic.blob.core.windows.net/gpt-2/models"
SIZES = ("124M", "355M", "774M", "1558M")
FILES = (
    "hparams.json",
    "encoder.json",
    "vocab.bpe",
    "checkpoint",
    "model.ckpt.index",
    "model.ckpt.meta",
    "model.ckpt.data-00000-of-00001",
)
# SHA-256 of the files that are the same for all sizes. The others are checked against the length
# and the MD5 from the server, and the tensors against the checksums in the checkpoint.
SHA256 = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}
CHUNK_SIZE = 2**20  # bytes
TIMEOUT = 30.0  # seconds without a byte
MAX_ATTEMPTS = 5  # in a row without progress
NETWORK_ERRORS = (
    urllib.error.URLError,
    http.client.HTTPException,
    ssl.SSLError,
    ConnectionError,
    TimeoutError,
)


def download_gpt2(size: str, folder: str | PathLike, address: str = ADDRESS) -> Path:
    """Downloads a GPT-2 as OpenAI published it: TensorFlow checkpoint, sizes and tokenizer.

    A file that is present and correct is not downloaded again. An incomplete one is kept as
    `NAME.part`, and the next call resumes it.

    Args:
        size: number of parameters: "124M", "355M", "774M" or "1558M".
        folder: destination, created if missing.
        address: URL of the folder with a folder for each size.

    Returns:
        The folder, which `load_gpt2` and `Tokenizer.from_folder` read.

    Raises:
        ValueError: the size is unknown, or a file has another checksum.
        ConnectionError: there is no connection, or it fails repeatedly without progress.
        OSError: the server refuses a file, or there is too little disk space.
    """
    if size not in SIZES:
        raise ValueError(f"Expected size out of {', '.join(SIZES)}. Received: size={size!r}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = [_remote_file(f"{address}/{size}/{name}", folder / name) for name in FILES]
    check_free_space(folder, sum(file.length - file.received for file in files))
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(f"GPT-2 {size}", total=sum(file.length for file in files))
        completed = 0
        for file in files:

            def report(size: int, completed: int = completed) -> None:
                progress.update(bar, completed=completed + size)

            _fetch(file, report)
            completed += file.length
            progress.update(bar, completed=completed)
    return folder


def check_checkpoint(folder: str | PathLike) -> int:
    """Reads all tensors of a downloaded checkpoint, which verifies their checksums.

    Returns:
        The number of parameters.

    Raises:
        ValueError: a file is damaged, or the number of parameters does not match hparams.json.
    """
    from effcap.weights.gpt2.formats import open_gpt2
    from effcap.weights.gpt2.sizes import gpt2_hparams

    sizes = gpt2_hparams(folder)
    hidden_dim = sizes["hidden_dim"]
    intermediate_dim = sizes["intermediate_dim"] or 4 * hidden_dim
    kernels = (4 * hidden_dim + 2 * intermediate_dim) * hidden_dim
    biases_and_norms = 9 * hidden_dim + intermediate_dim
    expected = (sizes["vocabulary_size"] + sizes["max_sequence_length"] + 2) * hidden_dim
    expected += sizes["num_layers"] * (kernels + biases_and_norms)
    count = sum(tensor.read().size for tensor in open_gpt2(folder).tensors.values())
    if count != expected:
        raise ValueError(f"Expected {expected:,} parameters in {folder}. Received: {count:,}")
    return count


@dataclass(frozen=True)
class _RemoteFile:
    """A file on the server.

    Attributes:
        url: its address.
        path: its destination.
        length: number of bytes.
        md5: MD5 in base64, None if the server does not send it.
    """

    url: str
    path: Path
    length: int
    md5: str | None

    @property
    def part(self) -> Path:
        """Path of the incomplete file."""
        return self.path.with_name(f"{self.path.name}.part")

    @property
    def received(self) -> int:
        """Number of bytes on this disk."""
        path = next((path for path in (self.path, self.part) if path.is_file()), None)
        return 0 if path is None else path.stat().st_size

    def difference(self, path: Path) -> str | None:
        """Compares a file on disk; returns "expected. Received: actual", or None if it is equal."""
        if path.stat().st_size != self.length:
            return f"{self.length} bytes. Received: {path.stat().st_size}"
        md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_SIZE):
                md5.update(chunk)
                sha256.update(chunk)
        expected, actual = SHA256.get(self.path.name), sha256.hexdigest()
        if expected not in (None, actual):
            return f"SHA-256 {expected}. Received: {actual}"
        actual = base64.b64encode(md5.digest()).decode()
        return None if self.md5 in (None, actual) else f"MD5 {self.md5}. Received: {actual}"


def _remote_file(url: str, path: Path) -> _RemoteFile:
    """Requests the length and the MD5 of a file from the server."""
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            length, md5 = (response.headers.get(f"Content-{name}") for name in ("Length", "MD5"))
    except NETWORK_ERRORS as error:
        raise _download_error(url, error) from error
    if length is None or not length.isdecimal():
        raise OSError(f"The server sends no Content-Length for {url}")
    return _RemoteFile(url, path, int(length), md5)


def _download_error(url: str, error: Exception) -> OSError:
    """Returns the error to raise instead of a network error."""
    if isinstance(error, urllib.error.HTTPError):
        return OSError(f"Cannot download {url}: HTTP {error.code} {error.reason}")
    return ConnectionError(
        f"Cannot download {url}: {getattr(error, 'reason', error)}. "
        "Repeat the command to resume the download"
    )


def _fetch(file: _RemoteFile, report: Callable[[int], None]) -> None:
    """Downloads a file unless it is present and correct.

    Args:
        file: the file.
        report: called with the number of bytes received so far.
    """
    if file.path.is_file() and file.difference(file.path) is None:
        return
    part, attempts = file.part, 0
    while (size := part.stat().st_size if part.exists() else 0) != file.length:
        if size > file.length:  # part of another file
            part.unlink()
            continue
        error: Exception = ConnectionError("the server closed the connection")
        try:
            _append(file, size, report)
        except NETWORK_ERRORS as failure:
            error = failure
        attempts = 0 if part.exists() and part.stat().st_size > size else attempts + 1
        refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
        if refused or attempts == MAX_ATTEMPTS:
            raise _download_error(file.url, error) from error
        time.sleep(attempts)
    if not file.length:
        part.touch()
    difference = file.difference(part)
    if difference is not None:
        part.unlink()
        raise ValueError(
            f"Expected {file.url} with {difference}. The file was removed: download it again"
        )
    part.replace(file.path)


def _append(file: _RemoteFile, size: int, report: Callable[[int], None]) -> None:
    """Appends to the incomplete file until the file or the connection ends.

    Args:
        file: the file.
        size: number of bytes received before.
        report: called with the number of bytes received so far.
    """
    request = urllib.request.Request(file.url, headers={"Range": f"bytes={size}-"} if size else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        if response.status != 206:
            size = 0  # the server ignores Range and sends the whole file
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {size}-"):
            raise ConnectionError(f"Content-Range {response.headers.get('Content-Range')}")
        with file.part.open("ab" if size else "wb") as part:
            while chunk := response.read(CHUNK_SIZE):
                part.write(chunk)
                size += len(chunk)
                report(size)
