"""Faults that are planted in a copy of a folder of images, and their paths."""

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from photos import list_animals
from PIL import Image, ImageEnhance, ImageFilter

# List of findings, with an issue of quality, -> fraction of the images.
PLANTED = {
    "label_errors": 0.02,
    "exact_duplicates": 0.005,
    "near_duplicates": 0.005,
    "leaks": 0.01,
    "label_conflicts": 0.002,
    "unreadable": 0.002,
    "outliers": 0.001,
    "quality: blurred": 0.002,
    "quality: dark": 0.002,
    "quality: gray": 0.002,
}


@dataclass
class Planted:
    """Planted faults: list of findings -> paths of the images of each fault."""

    faults: dict[str, list[frozenset[str]]] = field(default_factory=lambda: {name: [] for name in PLANTED})


def _encode(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def _crop(image: Image.Image) -> Image.Image:
    """Return an image without 2 % at its left and upper edge, at least one pixel in a large one."""
    left, top = image.width // 50, image.height // 50
    return image.crop((left, top, image.width, image.height))


# Changes of near duplicates.
CHANGES: tuple[Callable[[Image.Image], Image.Image], ...] = (
    lambda image: _encode(image, 60),
    lambda image: image.resize((image.width * 3 // 4, image.height * 3 // 4), Image.Resampling.BICUBIC),
    lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    lambda image: _encode(_crop(image), 80),
    lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
)


class _Planter:
    def __init__(self, root: Path, images: list[tuple[str, str, Path]], seed: int):
        self._root, self._images = root, images
        self._generator = np.random.default_rng(seed)
        self._free = self._generator.permutation(len(images)).tolist()
        self._classes = sorted({label for _, label, _ in images})
        self.planted = Planted()

    def take(self, split: str = "") -> tuple[str, str, Path]:
        """Return an image that has no fault, of a split."""
        index = next(each for each in self._free if split in ("", self._images[each][0]))
        self._free.remove(index)
        return self._images[index]

    def count(self, name: str) -> int:
        return max(round(PLANTED[name] * len(self._images)), 1)

    def path(self, split: str, label: str, file: Path, suffix: str = "") -> Path:
        """Return the path of an image, or of a copy of it, which has a suffix."""
        return self._root / split / label / (f"{file.stem}{suffix}.png" if suffix else file.name)

    def save(self, image: Image.Image, split: str, label: str, file: Path, suffix: str) -> Path:
        """Save a copy of an image without loss."""
        target = self.path(split, label, file, suffix)
        image.save(target)
        return target

    def add(self, name: str, *paths: Path) -> None:
        self.planted.faults[name].append(frozenset(map(str, paths)))

    def change(self, number: int, image: Image.Image) -> Image.Image:
        return CHANGES[number % len(CHANGES)](image)

    def other(self, label: str) -> str:
        return str(self._generator.choice([each for each in self._classes if each != label]))

    def noise(self, size: tuple[int, int]) -> Image.Image:
        return Image.fromarray(self._generator.integers(0, 256, (*size[::-1], 3), np.uint8))


def plant(source: Path, root: Path, *, images: int = 0, animals: bool = False, seed: int = 0) -> Planted:
    """Make a folder of links to images, with faults, and return the faults.

    Args:
        source: folder of split/class/file, or, with `animals`, of ImageNet's photos.
        root: folder to make.
        images: largest number of images; 0 for all.
        animals: label photos as animals and other things, by the order of their names; a quarter is the test split.
        seed: of the random numbers.
    """
    found = list_animals(source) if animals else _list_folder(source)
    if images and images < len(found):
        chosen = np.random.default_rng(seed + 1).permutation(len(found))[:images]
        found = [found[index] for index in np.sort(chosen)]
    for split, label, file in found:
        target = root / split / label / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(file.absolute())
    planter = _Planter(root, found, seed)
    _plant_labels(planter)
    _plant_duplicates(planter)
    _plant_quality(planter)
    return planter.planted


def _list_folder(source: Path) -> list[tuple[str, str, Path]]:
    files = (path for path in sorted(source.glob("*/*/*")) if path.is_file())
    return [(path.parent.parent.name, path.parent.name, path) for path in files]


def _plant_labels(planter: _Planter) -> None:
    for _ in range(planter.count("label_errors")):
        split, label, file = planter.take()
        target = planter.path(split, planter.other(label), file)
        target = target.with_name(f"{label}_{target.name}")
        planter.path(split, label, file).rename(target)
        planter.add("label_errors", target)


def _plant_duplicates(planter: _Planter) -> None:
    for name in ("exact_duplicates", "near_duplicates"):
        for number in range(planter.count(name)):
            split, label, file = planter.take("train")
            image = Image.open(file).convert("RGB")
            image = image if name == "exact_duplicates" else planter.change(number, image)
            copy = planter.save(image, split, label, file, f"_{name}")
            planter.add(name, planter.path(split, label, file), copy)
    for number in range(planter.count("leaks")):
        split, label, file = planter.take("test")
        image = Image.open(file).convert("RGB")
        exact = number % 2 == 0
        copy = planter.save(image if exact else planter.change(number // 2, image), "train", label, file, "_leak")
        for name in ("leaks", "exact_duplicates" if exact else "near_duplicates"):
            planter.add(name, planter.path(split, label, file), copy)
    for _ in range(planter.count("label_conflicts")):
        split, label, file = planter.take("train")
        copy = planter.save(Image.open(file).convert("RGB"), split, planter.other(label), file, f"_{label}")
        for name in ("label_conflicts", "exact_duplicates"):
            planter.add(name, planter.path(split, label, file), copy)


def _plant_quality(planter: _Planter) -> None:
    """Replace images by others that cannot be read, are noise, or are blurred, dark or gray."""
    changes: dict[str, Callable[[Image.Image], Image.Image]] = {
        "quality: blurred": lambda image: image.filter(ImageFilter.GaussianBlur(max(image.size) / 16)),
        "quality: dark": lambda image: ImageEnhance.Brightness(image).enhance(0.15),
        "quality: gray": lambda image: image.convert("L"),
        "outliers": lambda image: planter.noise(image.size),
    }
    for name, change in changes.items():
        for _ in range(planter.count(name)):
            split, label, file = planter.take("train")
            planter.path(split, label, file).unlink()
            image = change(Image.open(file).convert("RGB"))
            planter.add(name, planter.save(image, split, label, file, f"_{name.partition(': ')[2] or name}"))
    for _ in range(planter.count("unreadable")):
        split, label, file = planter.take("train")
        target, content = planter.path(split, label, file), file.read_bytes()
        target.unlink()
        target.write_bytes(content[: len(content) // 4])
        planter.add("unreadable", target)
