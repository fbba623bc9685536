"""Downloads OpenAI's GPT-2, resumes where it was broken off, and checks what has arrived."""

from __future__ import annotations

import base64
import hashlib
import http.client
import shutil
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
# and the MD5 that the server tells, and the tensors against the checksums in the checkpoint.
SHA256 = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}
CHUNK = 2**20  # bytes
TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 5  # in a row without a byte more
NETWORK = (
    urllib.error.URLError,
    http.client.HTTPException,
    ssl.SSLError,
    ConnectionError,
    TimeoutError,
)


def download_gpt2(size: str, folder: str | PathLike, address: str = ADDRESS) -> Path:
    """Downloads a GPT-2 as OpenAI published it: TensorFlow checkpoint, sizes and tokenizer.

    A file that is there already and right is left as it is. One that was broken off lies beside
    its place as `….part`; calling again goes on from there.

    Args:
        size: "124M", "355M", "774M" or "1558M", in parameters.
        folder: where to; made if missing.
        address: of the folder that holds the sizes' folders.

    Returns:
        The folder, which `load_gpt2` and `Tokenizer.from_folder` read.

    Raises:
        ValueError: for an unknown size, or a file that is not what it should be.
        ConnectionError: without a connection, or when it fails again and again.
        OSError: where the server refuses, or the disk is full.
    """
    if size not in SIZES:
        raise ValueError(f"Expected a size out of {', '.join(SIZES)}. Received: {size!r}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = [_ask(f"{address}/{size}/{name}", folder / name) for name in FILES]
    missing = sum(file.length - file.arrived for file in files)
    if missing > shutil.disk_usage(folder).free:
        raise OSError(f"Expected {missing / 1e9:.2f} GB of free disk for {folder}. Received: less")
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
        before = 0
        for file in files:
            _fetch(file, lambda done, before=before: progress.update(bar, completed=before + done))
            before += file.length
            progress.update(bar, completed=before)
    return folder


def check_checkpoint(folder: str | PathLike) -> int:
    """Reads all of a downloaded checkpoint, whose tensors have checksums; its parameters.

    Raises:
        ValueError: for a damaged file, or more or fewer parameters than hparams.json asks for.
    """
    from effcap.weights.gpt2.architecture import gpt2_hparams
    from effcap.weights.gpt2.formats import open_gpt2

    sizes = gpt2_hparams(folder)
    width, inner = sizes["width"], sizes["inner"] or 4 * sizes["width"]
    block = (4 * width + 2 * inner) * width + 9 * width + inner  # kernels, biases and norms
    expected = (sizes["vocabulary_size"] + sizes["positions"] + 2) * width
    expected += sizes["layers"] * block
    count = sum(tensor.read().size for tensor in open_gpt2(folder).tensors.values())
    if count != expected:
        raise ValueError(f"Expected {expected:,} parameters in {folder}. Received: {count:,}")
    return count


@dataclass(frozen=True)
class _File:
    """A file on the server: its length, its MD5 where the server tells it, and its place here."""

    url: str
    path: Path
    length: int
    md5: str | None

    @property
    def part(self) -> Path:
        """Where it lies until it is whole."""
        return self.path.with_name(f"{self.path.name}.part")

    @property
    def arrived(self) -> int:
        """Bytes of it that are here."""
        found = next((path for path in (self.path, self.part) if path.is_file()), None)
        return 0 if found is None else found.stat().st_size

    def difference(self, path: Path) -> str | None:
        """What is wrong with the file at `path`, as "this. Received: that"; None if nothing."""
        if path.stat().st_size != self.length:
            return f"{self.length} bytes. Received: {path.stat().st_size}"
        md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                md5.update(chunk)
                sha256.update(chunk)
        known, received = SHA256.get(self.path.name), sha256.hexdigest()
        if known not in (None, received):
            return f"SHA-256 {known}. Received: {received}"
        received = base64.b64encode(md5.digest()).decode()
        return None if self.md5 in (None, received) else f"MD5 {self.md5}. Received: {received}"


def _ask(url: str, path: Path) -> _File:
    """What the server tells about a file."""
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            length, md5 = (response.headers.get(f"Content-{name}") for name in ("Length", "MD5"))
    except NETWORK as error:
        raise _failure(url, error) from error
    if length is None or not length.isdecimal():
        raise OSError(f"Expected the server to tell the length of {url}. Received: {length}")
    return _File(url, path, int(length), md5)


def _failure(url: str, error: Exception) -> OSError:
    """What is raised in place of an error of the network."""
    if isinstance(error, urllib.error.HTTPError):
        return OSError(f"Expected {url}. Received: HTTP {error.code} {error.reason}")
    return ConnectionError(
        f"Expected a connection to download {url}. Received: {getattr(error, 'reason', error)}. "
        "The same command goes on where this one broke off"
    )


def _fetch(file: _File, show: Callable[[int], None]) -> None:
    """Brings a file to its place, unless it is there and right; `show` is told bytes that came."""
    if file.path.is_file() and file.difference(file.path) is None:
        return
    part, attempts = file.part, 0
    while (have := part.stat().st_size if part.exists() else 0) != file.length:
        if have > file.length:  # of another file
            part.unlink()
            continue
        error: Exception = ConnectionError("the server broke off")
        try:
            _append(file, have, show)
        except NETWORK as failure:
            error = failure
        attempts = 0 if part.exists() and part.stat().st_size > have else attempts + 1
        refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
        if refused or attempts == ATTEMPTS:
            raise _failure(file.url, error) from error
        time.sleep(attempts)
    if not file.length:
        part.touch()
    difference = file.difference(part)
    if difference is not None:
        part.unlink()
        raise ValueError(
            f"Expected {file.url} with {difference}. It has been removed: download it again"
        )
    part.replace(file.path)


def _append(file: _File, have: int, show: Callable[[int], None]) -> None:
    """Adds to the part what comes, up to the end of the file or of the connection."""
    request = urllib.request.Request(file.url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        if response.status != 206:
            have = 0  # all of it comes again
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise ConnectionError(f"Content-Range {response.headers.get('Content-Range')}")
        with file.part.open("ab" if have else "wb") as part:
            while chunk := response.read(CHUNK):
                part.write(chunk)
                have += len(chunk)
                show(have)
