"""JPEG files of a folder, linked as often as a benchmark needs."""

from pathlib import Path


def link_photos(photos: Path, root: Path, count: int | None = None) -> Path:
    """Make a folder CLASS/FILE of links to the JPEG files below `photos`, each of which is a class of its own.

    Args:
        photos: folder of JPEG files.
        root: folder to make.
        count: number of links; files are repeated as often as necessary. Each file once by default.

    Raises:
        SystemExit: if there is no JPEG file.
    """
    files = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not files:
        raise SystemExit(f"no JPEG files in {str(photos)!r}")
    for index in range(len(files) if count is None else count):
        file = files[index % len(files)]
        link = root / file.stem / f"{index}.jpg"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file.absolute())
    return root
