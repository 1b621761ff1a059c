"""Where the files of data sets lie, and where what is derived from them is kept."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from unlearning.errors import ConfigError

__all__ = ["cache_folder", "folder_of"]


def cache_folder() -> Path:
    """Return where derived files are kept: ``$FEDUNLEARN_CACHE`` or the user's cache folder."""
    return Path(os.environ.get("FEDUNLEARN_CACHE") or platformdirs.user_cache_dir("fedunlearn"))


def folder_of(name: str, root: str | None) -> Path:
    """Return the folder that ``data.root`` names for a data set.

    Raises
    ------
    ConfigError
        If it names none.
    """
    if root is None:
        raise ConfigError(f"data.root is missing; data set {name} needs the folder of its files")
    return Path(root).expanduser()
