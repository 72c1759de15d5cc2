"""benchmarks/audit.py: planted faults are what their names state, and the page shows the stored results."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))
import audit as audit_benchmark  # noqa: E402
import audit_plant  # noqa: E402
import audit_table  # noqa: E402


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Return a folder of images, its copy with faults, and the faults."""
    source, root = (tmp_path_factory.mktemp(name) for name in ("source", "planted"))
    generator = np.random.default_rng(0)
    for split, count in (("train", 60), ("test", 20)):
        for label in ("a", "b"):
            (source / split / label).mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 256, (40, 60, 3), np.uint8)
                Image.fromarray(pixels).save(source / split / label / f"{label}{index}.jpg")
    return source, root, audit_plant.plant(source, root, seed=3)


def _pixels(path):
    return np.asarray(Image.open(path).convert("RGB"))


def test_faults_are_what_their_names_state(planted):
    source, _, found = planted
    faults = {name: [sorted(map(Path, each)) for each in paths] for name, paths in found.faults.items()}
    assert {name: len(paths) > 0 for name, paths in faults.items()} == dict.fromkeys(audit_plant.PLANTED, True)
    for one, two in faults["exact_duplicates"]:
        np.testing.assert_array_equal(_pixels(one), _pixels(two))
    for one, two in faults["near_duplicates"]:
        assert _pixels(one).shape != _pixels(two).shape or (_pixels(one) != _pixels(two)).any()
    assert all({each.parts[-3] for each in pair} == {"train", "test"} for pair in faults["leaks"])
    assert all({each.parent.name for each in pair} == {"a", "b"} for pair in faults["label_conflicts"])
    for (path,) in faults["label_errors"]:
        original = path.name.partition("_")[0]
        assert path.parent.name != original
        assert path.name.partition("_")[2].startswith(original)
    for (path,) in faults["unreadable"]:
        with pytest.raises(OSError, match=r"(?i)truncated|cannot identify"):
            _pixels(path)
    assert all((np.ptp(_pixels(path).astype(int), axis=-1) == 0).all() for (path,) in faults["quality: gray"])
    assert all(_pixels(path).max() < 60 for (path,) in faults["quality: dark"])
    assert not any(path.is_symlink() for path in source.rglob("*"))


def test_an_image_has_one_fault_and_the_seed_decides_which(planted, tmp_path):
    source, root, found = planted
    singles = [name for name, paths in found.faults.items() if all(len(each) == 1 for each in paths)]
    counts = Counter(path for name in singles for each in found.faults[name] for path in each)
    assert set(counts.values()) == {1}
    again = audit_plant.plant(source, tmp_path / "again", seed=3)
    other = audit_plant.plant(source, tmp_path / "other", seed=4)

    def names(planted, root):
        return [{Path(path).relative_to(root) for each in paths for path in each} for paths in planted.faults.values()]

    assert names(again, tmp_path / "again") == names(found, root) != names(other, tmp_path / "other")
    part = audit_plant.plant(source, tmp_path / "part", images=50)
    assert len([each for each in (tmp_path / "part").rglob("*") if each.is_symlink()]) <= 50
    assert len(part.faults["leaks"]) == 1


def test_scores_count_findings_and_faults():
    planted = audit_plant.Planted()
    planted.faults["leaks"] = [frozenset("ab"), frozenset("cd"), frozenset("ef")]
    found = {"leaks": [{"paths": each} for each in (["b", "a", "x"], ["c"], ["e", "f"], ["g", "h"])]}
    score = audit_benchmark._score(found, planted, "leaks")
    assert score == {"planted": 3, "found": 2, "reported": 4, "recall": 0.6667, "precision": 0.5}
    planted.faults["quality: dark"] = [frozenset("a")]
    found["quality"] = [{"paths": ["a"], "issue": "gray"}, {"paths": ["b"], "issue": "dark"}]
    assert audit_benchmark._score(found, planted, "quality: dark")["found"] == 0


def test_the_page_is_up_to_date():
    audit_table.update(ROOT, check_only=True)
    assert audit_table.planted([]).count("\n") == 2
