"""Uploads presets to the Hugging Face hub."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from effcap.config import read_json
from effcap.preset_files import BASE, CONFIG, OWN_FILES, TRANSFORMERS, is_preset_config
from effcap.presets import list_presets, portable_name, preset_folder, preset_name
from effcap.tools.publishing.card_facts import read_facts
from effcap.tools.publishing.card_options import CardOptions
from effcap.tools.publishing.model_card import make_card
from effcap.utils.hub import (
    DEFAULT_REVISION,
    LOGIN,
    HubError,
    HubName,
    HubRepository,
    hub_errors,
    import_hub,
    is_hub_name,
    open_api,
    parse_hub_name,
)

README = "README.md"
COMMIT_LENGTH = 40  # characters of a commit
PULL_REQUEST = "refs/pr/"


class PushedPreset(NamedTuple):
    """A preset on the hub.

    Attributes:
        url: page of the repository.
        commit: commit that holds the preset.
        files: names of the uploaded files.
    """

    url: str
    commit: str
    files: tuple[str, ...]


def push_to_hub(
    preset: str | PathLike[str],
    name: str,
    *,
    private: bool = False,
    message: str | None = None,
    base: str | None = None,
    options: CardOptions | None = None,
) -> PushedPreset:
    """Uploads the files of a preset in one commit, and a model card if the repository has none.

    The preset is loaded first, as those who use it will load it. The card is README.md in the
    folder of the preset if it is there, and `model_card` otherwise.

    Args:
        preset: as in `Captioner.from_preset`, except folders of transformers.
        name: repository, which is created if missing: "hf://user/name", or "hf://user/name@branch"
            for another branch than the main one.
        private: create a private repository.
        message: message of the commit (default: "Upload" and the name of the preset).
        base: preset on the hub that an adapter was added to, if the preset names it by its folder.
        options: license, datasets and scores for the card.

    Returns:
        The page of the repository, the commit and the uploaded files.

    Raises:
        FileNotFoundError: there is no such preset.
        ImportError: `huggingface_hub` is not installed.
        OSError: the hub cannot be reached or refuses, or its branch has moved meanwhile.
        ValueError: the preset is damaged or of transformers, its base is on this machine alone, or
            the repository holds another model.

    Example:
        >>> effcap.tools.push_to_hub("runs/lite0/best", "hf://user/lite0").url
    """
    repository, hub = parse_hub_name(name), import_hub()
    branch = repository.revision or DEFAULT_REVISION
    if len(branch) == COMMIT_LENGTH and branch.isalnum():
        raise ValueError(f"Expected a branch to push to. Received: {name}, a commit")
    folder = preset_folder(preset)
    check_preset(folder)
    if hub.get_token() is None:
        raise HubError(f"Pushing to {repository} requires a token that may write: {LOGIN}")
    with portable_preset(folder, base) as source:
        facts = read_facts(source, (options or CardOptions()).scores)
        with hub_errors(repository):
            url = create_repository(repository, private)
            remote = HubRepository(HubName(repository.repository, branch))
        if remote.commit is None:
            raise HubError(f"Cannot read {repository} before pushing to it: try again")
        check_repository(remote)
        files: dict[str, bytes | str] = {
            file: str(source / file) for file in OWN_FILES if (source / file).is_file()
        }
        if README not in remote.files:
            own = folder / README
            card = None if own.is_file() else make_card(facts, repository, options or CardOptions())
            files[README] = str(own) if card is None else card.encode()
        stale = [file for file in OWN_FILES if file in remote.files and file not in files]
        operations = [
            *(hub.CommitOperationAdd(file, content) for file, content in files.items()),
            *(hub.CommitOperationDelete(file) for file in stale),
        ]
        with hub_errors(repository):
            commit = open_api().create_commit(
                repository.repository,
                operations,
                commit_message=message or f"Upload {preset_name(preset)}",
                revision=branch,
                parent_commit=remote.commit,
            )
    return PushedPreset(url, commit.oid, tuple(files))


def check_preset(folder: Path) -> None:
    """Checks that a folder holds a preset of EffCap.

    Raises:
        ValueError: it holds another model.
    """
    config = read_json(folder / CONFIG)
    if isinstance(config, dict) and config.get("model_type") in TRANSFORMERS:
        raise ValueError(
            f"{folder} is a folder of transformers, which the hub takes as it is: `hf upload`. For "
            f"a preset, convert it first: effcap convert {folder} PRESET"
        )
    if not is_preset_config(config):
        raise ValueError(
            f"Expected a preset. Received: {folder}, whose {CONFIG} is of another model"
        )


def check_repository(remote: HubRepository) -> None:
    """Checks that a push replaces nothing but an earlier preset.

    Raises:
        ValueError: the repository holds another model.
    """
    if not set(OWN_FILES) & set(remote.files):
        return
    if CONFIG not in remote.files:
        raise ValueError(
            f"{remote.name} has {' and '.join(sorted(set(OWN_FILES) & set(remote.files)))} without "
            f"{CONFIG}, of another model: choose another repository"
        )
    try:
        config = read_json(remote.fetch([CONFIG], is_quiet=True) / CONFIG)
    except ValueError:
        config = {}
    if not is_preset_config(config):
        raise ValueError(
            f"{remote.name} holds another model, whose {CONFIG} a preset would replace: choose "
            "another repository"
        )


def create_repository(name: HubName, private: bool) -> str:
    """Creates a repository, and its branch, unless they exist, and returns its page.

    Raises:
        HubError: it should be private, but exists and is public.
    """
    api = open_api()
    url = str(api.create_repo(name.repository, private=private or None, exist_ok=True))
    if private and not api.model_info(name.repository).private:
        raise HubError(
            f"hf://{name.repository} exists and is public: leave --private out, change its "
            "settings on the hub, or choose another repository"
        )
    branch = name.revision or DEFAULT_REVISION
    if branch != DEFAULT_REVISION and not branch.startswith(PULL_REQUEST):
        api.create_branch(name.repository, branch=branch, exist_ok=True)
    return url


@contextmanager
def portable_preset(folder: Path, base: str | None) -> Iterator[Path]:
    """Yields a folder with the files of a preset that load on any machine.

    It is the folder itself, unless the preset holds an adapter alone and names its base by a path.

    Args:
        folder: folder of the preset.
        base: preset on the hub to name instead. None to keep the one that is named.

    Raises:
        ValueError: the base is on this machine alone, or there is no base to name.
    """
    config = read_json(folder / CONFIG)
    if BASE not in config:
        if base is not None:
            raise ValueError(f"--base requires a preset with an adapter alone. Received: {folder}")
        yield folder
        return
    named = find_portable_base(folder, config) if base is None else base
    if not is_hub_name(named) and named not in list_presets():
        raise ValueError(f"Expected --base hf://USER/NAME. Received: {named}")
    if named == config[BASE]:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="effcap-") as temporary:
        for file in OWN_FILES:
            if (folder / file).is_file():
                shutil.copy(folder / file, temporary)
        text = json.dumps({**config, BASE: named}, indent=2) + "\n"
        (Path(temporary) / CONFIG).write_text(text, encoding="utf-8")
        yield Path(temporary)


def find_portable_base(folder: Path, config: Mapping[str, Any]) -> str:
    """Returns the base of an adapter by a name that is the same on all machines.

    Raises:
        ValueError: it has none.
    """
    base = config[BASE]
    if isinstance(base, str) and (is_hub_name(base) or base in list_presets()):
        return base
    portable = portable_name(Path(base)) if isinstance(base, str) else None
    if portable is None:
        raise ValueError(
            f"{folder} holds an adapter alone, and its base {base} is on this machine only. Push "
            f"that first: effcap push {base} hf://USER/BASE, then push the adapter with --base "
            "hf://USER/BASE"
        )
    return portable
