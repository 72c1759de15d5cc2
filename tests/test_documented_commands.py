"""Each `python ...` line of the README, the pages and the recipes runs, on small data in the place of the reader's.

A line is taken as it stands; what makes it short is appended. Those that run in a test of their own are in ELSEWHERE.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import resnet_tf
from resnet_tf.data.prepare import prepare_folder
from resnet_tf.model.weights import mapping

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")))
RECIPES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "configs").glob("[!_]*.py"))
ELSEWHERE = {
    "python -m venv .venv": ".ci/run",
    "python -m resnet_tf.train": "tests/test_commands.py",
    "python -m resnet_tf.evaluate --workdir=runs/fast --flip": "tests/test_commands.py",
    "python -m resnet_tf.evaluate --workdir=run --flip": "tests/test_commands.py",
    "python -m resnet_tf.evaluate --workdir=runs/fashion --flip": "tests/test_commands.py",
    "python -m pytest -n 2": ".ci/run",
    'python -m pytest -n 2 -m "slow and not long"': ".ci/run",
    "python docs/make_api.py": "tests/test_api.py",
    "python docs/make_architecture.py": "tests/test_api.py",
    "python benchmarks/gpu.py write steps/": "tests/benchmarks/test_gpu.py",
    "python benchmarks/gpu.py run steps/ --json": "tests/benchmarks/test_gpu.py",
    "python benchmarks/gpu.py table": "tests/benchmarks/test_gpu.py",
    "python examples/signals.py --out=signals/": "tests/test_signals.py",
    "python -m resnet_tf.train --config=signals --set data.source=signals/signals.npz": "tests/test_signals.py",
    "python -m resnet_tf.train --config=spectrograms --set data.source=signals/spectrograms.npz": (
        "tests/test_signals.py"
    ),
    "python -m resnet_tf.data_service --port=5050": "tests/data/test_service.py",
    "python -m resnet_tf.data_service --dispatcher=grpc://HOST:5050 --host=MY_NAME": "tests/data/test_service.py",
    "python -m resnet_tf.train --config=imagefolder --set data.source=/photos --set data.service=grpc://HOST:5050": (
        "tests/data/test_service.py"
    ),
    "python -m resnet_tf.train --config=imagefolder --set runtime.strategy=multiworker --workdir=/runs/photos": (
        "tests/training/test_cluster.py"
    ),
}
SHORT = {
    "train": "--set data.image_size=64 --set train.epochs=1 --set data.batch_size=4",
    "benchmark": "--seconds=0.2 --set data.image_size=64 --set data.batch_size=4",
    "preview": "--count=4 --set data.batch_size=4",
    "pytest": "--collect-only tests/test_packaging.py",
    "benchmarks/build.py": "--rounds=1",
    "benchmarks/depth.py": "--seeds=1",
    "benchmarks/digits_seeds.py": "--seeds=1",
    "benchmarks/input.py": "--rounds=1 --seconds=0.2",
    "benchmarks/input_memory.py": "--images=6000 --files=1200",
    "benchmarks/memory.py": "--case=resnet20",
    "benchmarks/loop.py": "--rounds=1 --epochs=1",
    "benchmarks/pytorch_cifar10.py": "--epochs=1",
    "benchmarks/serving.py": "--rounds=1 --only 'ours float32' 'Keras export'",
    "benchmarks/start.py": "--rounds=1",
    "benchmarks/training.py": "--case=resnet20 --rounds=1 --seconds=0.2",
    "benchmarks/results/run.py": "plain20_20epochs",
}
WITH_TORCH = ("input", "loop", "pytorch_cifar10", "training")
TIMEOUT = 900


def documented(page: str) -> list[str]:
    """The command lines of a file."""
    return _commands((ROOT / page).read_text())


def _commands(text: str) -> list[str]:
    """The command lines of a text in their order: indented, between backquotes, or beside a table as a comment."""
    text = re.sub(r"\\+\n\s*", "", text)
    spans = re.findall(r"^    (.+)$|`([^`\n]+)`|<!-- (.+) -->", text, re.MULTILINE)
    parts = [part for span in spans for part in "".join(span).split(" && ")]
    bare = [re.sub(r"^(\$ |[A-Z_]+='[^']*' +)+| {2,}\S.*", "", part).strip() for part in parts]
    return list(dict.fromkeys(part for part in bare if part.startswith("python ")))


def _of_recipes(page: str) -> list[str]:
    """Commands that train a published recipe: all of a recipe's own, elsewhere those on data that are not photos."""
    recipes = [line for line in documented(page) if " -m resnet_tf.train --config=" in line]
    return recipes if page in RECIPES else [line for line in recipes if "/photos" not in line and "=photos" not in line]


OF_RECIPES = list(
    dict.fromkeys(line for page in (*PAGES, *RECIPES) for line in _of_recipes(page) if line not in ELSEWHERE)
)
ON_PHOTOS = [
    line
    for page in ("README.md", "docs/benchmarks.md", "docs/data.md", "docs/serving.md", "docs/training.md")
    for line in documented(page)
    if " -m resnet_tf." in line and line not in OF_RECIPES and line not in ELSEWHERE
]
PROGRAMS = [
    line
    for line in dict.fromkeys(line for page in PAGES for line in documented(page))
    if " -m resnet_tf." not in line and line not in ELSEWHERE
]


def test_no_command_is_forgotten():
    """docs/own_photos.md has a test of its own, which counts its commands."""
    run = {*ELSEWHERE, *OF_RECIPES, *ON_PHOTOS, *PROGRAMS}
    for page in (*PAGES, *RECIPES):
        missing = [line for line in documented(page) if line not in run]
        assert not missing or page == "docs/own_photos.md"
    assert len(OF_RECIPES) > 25
    assert len(ON_PHOTOS) > 20
    assert len(PROGRAMS) > 12
    assert set(ELSEWHERE) <= {line for page in (*PAGES, *RECIPES) for line in documented(page)}
    assert all((ROOT / place).is_file() for place in ELSEWHERE.values())


@pytest.fixture
def place(photos, monkeypatch) -> Path:
    """A directory with what the pages' commands name: photos/, cat.jpg, dog.png, holiday/, weights of PyTorch's."""
    monkeypatch.chdir(photos.parent)
    shutil.copytree(photos / "test" / "red", "holiday")
    for file in ("cat.jpg", "dog.png"):
        shutil.copy(next((photos / "test").rglob(f"*{Path(file).suffix}")), file)
    network = resnet_tf.create_model("resnet50")
    state = {name: np.ascontiguousarray(array) for name, array in mapping.to_torchvision(network).items()}
    save_file(state, "resnet50.safetensors")
    return photos.parent


@pytest.mark.slow
def test_the_pages_commands_on_photos_run(place, command):
    """One after another, as a reader would: later ones need what earlier ones made."""
    for line in dict.fromkeys(ON_PHOTOS):
        words, _, file = line.partition(" > ")
        name, *arguments = shlex.split(words.removeprefix("python -m resnet_tf."))
        more = [] if "--help" in arguments else shlex.split(SHORT.get(name, ""))
        if name == "benchmark" and "--config=imagefolder" not in arguments:
            more = more[:1]  # the digits have their own size
        outcome = command(name, *arguments, *more)
        assert outcome.code == 0, f"{line}: {outcome.err}"
        if file:
            Path(file).write_text(outcome.out)
    assert Path("answers.csv").read_text().startswith("file,label1,score1")
    assert len(list(Path("maps").iterdir())) == len(list(Path("holiday").iterdir()))
    assert Path("models/photos/1/saved_model.pb").is_file()
    assert Path("runs/photos/export/hub/1/saved_model.pb").is_file()
    assert Path("back.safetensors").stat().st_size == pytest.approx(Path("resnet50.safetensors").stat().st_size, 0.01)
    assert list(Path("prepared").rglob("*.tfrecord*"))


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Path:
    """300 pictures of ten classes of 32 pixels, and a directory of them for what wants files."""
    generator = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("few")
    images, labels = generator.integers(0, 256, (300, 32, 32, 3), np.uint8), np.arange(300) % 10
    np.savez(folder / "few.npz", x_train=images[:260], y_train=labels[:260], x_test=images[260:], y_test=labels[260:])
    for place, (image, label) in enumerate(zip(images, labels, strict=True)):
        file = folder / "cifar" / ("train" if place < 260 else "test") / str(label) / f"{place}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("line", OF_RECIPES)
def test_a_recipes_command_plans_its_run(line, few, command, tmp_path, monkeypatch):
    """As far as the first batch and the network: training every one of them would take days."""
    monkeypatch.chdir(tmp_path)
    name, *arguments = shlex.split(line.removeprefix("python -m resnet_tf."))
    changes = [f"data.source={few / 'few.npz'}", "data.train_split=train", "data.eval_split=test", "data.batch_size=24"]
    if "finetune" in line:  # its weights are published ones
        changes += ["model.weights=", "model.new_head=false", "train.finetune=full"]
    outcome = command(name, *arguments, *(f"--set={each}" for each in changes), "--dry-run")
    assert outcome.code == 0, outcome.err
    assert re.search(r"^first batch +\w+-dry-run.png$", outcome.out, re.MULTILINE)


@pytest.fixture
def checkout(few, tmp_path) -> Path:
    """A copy of what is not in the wheel, undrawn, with what the programs' lines name: DIR, and pictures in cifar/."""
    for name in ("benchmarks", "docs", "examples", "results", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.png"))
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(few / "cifar", tmp_path / "cifar")
    shutil.copytree(few / "cifar", tmp_path / "DIR" / "cifar")
    prepare_folder(tmp_path / "DIR" / "cifar", tmp_path / "DIR" / "data" / "cifar10", eval_fraction=0.1)
    return tmp_path


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("line", PROGRAMS)
def test_a_program_runs(line, checkout):
    program = line.split()[2 if " -m " in line else 1]
    if any(f"benchmarks/{name}.py" in line for name in WITH_TORCH):
        pytest.importorskip("torch", reason="it compares with PyTorch")
    if "benchmarks/input.py --photos" in line:
        try:
            import torchvision  # noqa: F401
        except (ImportError, RuntimeError) as error:  # the latter where it was built for another PyTorch
            pytest.skip(f"it compares with torchvision, which does not load: {error}")
    if "run.py" in line:  # which runs what has no figures yet
        shutil.rmtree(checkout / "results" / "plain20_20epochs")
    command = [sys.executable, *shlex.split(line)[1:], *shlex.split(SHORT.get(program, ""))]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if "table.py" in line:
        assert (checkout / "README.md").read_text() == (ROOT / "README.md").read_text()
    elif "figure.py" in line:
        assert (checkout / "docs" / "residual.png").is_file()
    elif "run.py" in line:
        assert (checkout / "results" / "plain20_20epochs" / "metrics.jsonl").read_text().count("val_top1") == 20
    else:
        assert done.stdout.strip() or "depth" in line
