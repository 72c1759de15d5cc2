"""JPEG files of a folder: linked as often as a benchmark needs, in mixed sizes, and labeled as animals or things."""

from pathlib import Path

_ANIMALS = 398  # the first classes of ImageNet
LONGER_EDGES = (320, 500, 800, 1280, 2048, 3264, 4032)  # of thumbnails, of photos on web pages, and of cameras


def link_photos(photos: Path, root: Path, count: int | None = None) -> Path:
    """Make a folder CLASS/FILE of links to the JPEG files below `photos`, each of which is a class of its own.

    Args:
        photos: folder of JPEG files.
        root: folder to make.
        count: number of links; files are repeated as often as necessary. Each file once by default.

    Raises:
        SystemExit: if there is no JPEG file.
    """
    files = _jpeg_files(photos)
    for index in range(len(files) if count is None else count):
        file = files[index % len(files)]
        link = root / file.stem / f"{index}.jpg"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file.absolute())
    return root


def write_mixed_sizes(photos: Path, root: Path) -> Path:
    """Write each JPEG file below `photos` to the folder `root`, resized to the next of `LONGER_EDGES` in turn.

    Raises:
        SystemExit: if there is no JPEG file.
    """
    from PIL import Image  # installed with torchvision

    root.mkdir(parents=True)
    for index, file in enumerate(_jpeg_files(photos)):
        with Image.open(file) as photo:
            factor = LONGER_EDGES[index % len(LONGER_EDGES)] / max(photo.size)
            width, height = (round(edge * factor) for edge in photo.size)
            resized = photo.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
        resized.save(root / f"{index}.jpg", quality=90)
    return root


def list_animals(photos: Path) -> list[tuple[str, str, Path]]:
    """Return (split, label, file) of photos of ImageNet, evenly spaced by class: 398 classes of animals come first.

    A quarter of the photos is the test split.

    Raises:
        SystemExit: if there is no JPEG file.
    """
    files = _jpeg_files(photos)
    labels = ["animal" if 1000 * index < _ANIMALS * len(files) else "thing" for index in range(len(files))]
    return [("train" if index % 4 else "test", labels[index], file) for index, file in enumerate(files)]


def _jpeg_files(photos: Path) -> list[Path]:
    files = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not files:
        raise SystemExit(f"no JPEG files in {str(photos)!r}")
    return files
