"""Model folders from a hub: from its local cache first, from the network if it can be reached."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from brainscan.errors import FetchError, UnknownModelError

_PATIENCE = 4.0
"""Seconds to wait for the hub to answer at all."""

_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
_NOT = ["*/*", "consolidated*"]


def fetch(name: str, *, adapter: bool = False) -> Path:
    """The folder of a hub's model.

    Args:
        name: its id.
        adapter: whether it is an adapter, which has other files.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    # The same patterns both times: what we leave out is not missing from the cache.
    snapshot = partial(snapshot_download, name, allow_patterns=_FILES, ignore_patterns=_NOT)
    try:
        folder = Path(snapshot(local_files_only=True))
        if adapter or weight_files(folder):
            return folder
    except (LocalEntryNotFoundError, UnknownModelError):
        pass
    except HFValidationError as error:
        raise _unknown(name, str(error)) from error
    if constants.HF_HUB_OFFLINE or not _reachable(constants.ENDPOINT):
        raise FetchError(
            f"the model '{name}' in the hub's local cache, or a connection to {constants.ENDPOINT}",
            "neither",
            "go online, or name a built-in model, a folder or a GGUF file",
        )
    try:
        with quiet_transformers():
            return Path(snapshot())
    except (HfHubHTTPError, OSError) as error:
        raise _unknown(name, str(error).strip().splitlines()[0]) from error


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model's folder, which must be whole."""
    if not (folder / "config.json").is_file():
        raise _unknown(str(folder), "no config.json there")
    index = folder / "model.safetensors.index.json"
    files = [folder / "model.safetensors"]
    if index.is_file():
        shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        files = [folder / shard for shard in sorted(set(shards))]
    for file in files:
        if not file.is_file():
            raise _unknown(str(folder), f"no {file.name} there")
    return files


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keeps the progress bars of transformers and the hub for people at a terminal."""
    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars
    from transformers.utils import logging

    if sys.stderr.isatty() and not os.environ.get("BRAINSCAN_QUIET"):
        yield
        return
    disable_progress_bars()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        enable_progress_bars()
        logging.enable_progress_bar()


def _unknown(name: str, reason: str) -> UnknownModelError:
    return UnknownModelError(
        "a model's folder or hub id, with config.json and safetensors",
        f"'{name}': {reason}",
        "check the name; weights in other formats must first be saved as safetensors",
    )


def _reachable(endpoint: str) -> bool:
    """Whether the hub answers; behind a proxy that is left to the download itself."""
    if os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"):
        return True
    parts = urlsplit(endpoint)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=_PATIENCE):
            return True
    except OSError:
        return False
