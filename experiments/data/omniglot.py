"""Omniglot: a task per alphabet, an owner per drawer."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np

from experiments.data.dataset import Dataset, scaled, stratified
from unlearning.errors import ConfigError


def read_omniglot(root: str | None, download: bool) -> Dataset:
    """Return Omniglot's small background sets, 28x28: a task per alphabet, an owner per drawer.

    The official ``images_background_small1.zip`` and ``..._small2.zip``, or one of them, are read
    where they lie. A fifth of every character's drawings is the test part. The labels of the one
    task that other models learn are the alphabets.
    """
    from PIL import Image

    drawings = _drawings(Path(root or "data"))
    images, places, drawers = [], [], []
    for name in sorted(drawings):
        with Image.open(io.BytesIO(drawings[name])) as image:
            small = image.convert("L").resize((28, 28), Image.Resampling.BOX)
        images.append(1 - np.asarray(small, np.float32) / 255)
        alphabet, character, file = name.split("/")
        places.append((_slug(alphabet), character))
        drawers.append(int(Path(file).stem.rpartition("_")[2]) - 1)
    alphabets = sorted({alphabet for alphabet, _ in places})
    numbers = {place: i for i, place in enumerate(sorted(set(places)))}
    first = {a: min(i for (b, _), i in numbers.items() if b == a) for a in alphabets}
    sizes = {a: sum(b == a for b, _ in numbers) for a in alphabets}
    labels = np.full((len(images), len(alphabets)), -1)
    for row, place in enumerate(places):
        labels[row, alphabets.index(place[0])] = numbers[place] - first[place[0]]
    characters = np.array([numbers[place] for place in places])
    test = np.zeros(len(images), dtype=bool)
    test[stratified(characters, round(0.2 * len(images)))] = True
    x = scaled(np.stack(images)[:, None])
    kinds = np.array([alphabets.index(alphabet) for alphabet, _ in places])
    return Dataset(
        x[~test],
        kinds[~test],
        x[test],
        kinds[test],
        num_classes=len(alphabets),
        owner=np.array(drawers)[~test],
        tasks=tuple(sizes.items()),
        train_tasks=labels[~test],
        test_tasks=labels[test],
    )


def _drawings(folder: Path) -> dict[str, bytes]:
    """Return the pictures of the archives in a folder: ``alphabet/character/file`` to content."""
    archives = [folder / f"images_background_small{which}.zip" for which in (1, 2)]
    if not any(path.exists() for path in archives):
        raise ConfigError(
            f"data.root: neither {archives[0].name} nor {archives[1].name} lies in "
            f"{str(folder)!r}; put the official files there"
        )
    drawings: dict[str, bytes] = {}
    for path in archives:
        if path.exists():
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    if name.endswith(".png") and not name.startswith("__"):
                        drawings[name.partition("/")[2]] = archive.read(name)
    return drawings


def _slug(name: str) -> str:
    """Return a name of small letters, digits and hyphens."""
    return "-".join("".join(c.lower() if c.isalnum() else " " for c in name).split())
