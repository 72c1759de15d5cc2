"""Each documented `python ...` command runs, on small data: those of the README, the pages and the recipes.

Commands are not changed, except that flags are appended which make them fast. ELSEWHERE lists the commands that other
tests run.
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
from conftest import import_torch_zoo
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
    "python -m resnet_tf.evaluate --workdir=runs/wide --flip": "tests/test_commands.py",
    "python -m resnet_tf.evaluate --workdir=run --flip": "tests/test_commands.py",
    "python -m resnet_tf.evaluate --workdir=runs/fashion --flip": "tests/test_commands.py",
    "python -m pytest -n 2": ".ci/run",
    'python -m pytest -n 2 -m "slow and not long"': ".ci/run",
    "python docs/make_api.py": "tests/test_api.py",
    "python docs/make_architecture.py": "tests/test_api.py",
    "python benchmarks/gpu.py write steps/": "tests/benchmarks/test_gpu.py",
    "python benchmarks/gpu.py run steps/ --json": "tests/benchmarks/test_gpu.py",
    "python benchmarks/gpu.py table": "tests/benchmarks/test_gpu.py",
    "python benchmarks/tpu.py check": "tests/benchmarks/test_tpu.py",
    **dict.fromkeys(
        (
            "python benchmarks/audit.py plant data/cifar10 --name=cifar10",
            "python benchmarks/audit.py real data/fashion-mnist --name=fashion_mnist --split=test",
            "python benchmarks/audit.py table",
        ),
        "tests/benchmarks/test_audit_faults.py",
    ),
    "python -m resnet_tf.train --config=imagenet_resnet50_v15 --set runtime.strategy=tpu --workdir=/mnt/run": (
        "tests/training/test_cluster.py"
    ),
    "python -m resnet_tf.train --config=imagenet_resnet50_v15 --set runtime.strategy=tpu --set runtime.tpu=photos": (
        "tests/training/test_cluster.py"
    ),
    "python examples/workers.py 4 --config=digits --workdir=runs/four": "tests/training/test_cluster.py",
    "python examples/signals.py --out=signals/": "tests/test_signals.py",
    "python -m resnet_tf.train --config=signals --set data.source=signals/signals.npz": "tests/test_signals.py",
    "python -m resnet_tf.train --config=spectrograms --set data.source=signals/spectrograms.npz": (
        "tests/test_signals.py"
    ),
    "python -m resnet_tf.benchmark --what=serving --workdir=runs/photos": "tests/workflows/test_serving_benchmark.py",
    "python -m resnet_tf.demo --model=models/photos": "tests/workflows/test_demo.py",
    "python -m resnet_tf.compare models/photos/1 models/photos/2 --max-accuracy-drop=0.01 --report=page/": (
        "tests/workflows/test_compare.py"
    ),
    "python -m resnet_tf.predict --model=runs/digits/export/serving photos/": "tests/workflows/test_trust.py",
    "python -m resnet_tf.evaluate --model=runs/digits/export/serving --ood=photos/": "tests/workflows/test_trust.py",
    "python benchmarks/trust.py table": "tests/benchmarks/test_trust_tables.py",
    "python benchmarks/trust.py measure --data=cifar10/ --weights=weights/ --ood=Fashion-MNIST=fashion/": (
        "tests/benchmarks/test_trust_tables.py"
    ),
    "python -m resnet_tf.evaluate --workdir=runs/photos --corruptions": "tests/workflows/test_robustness.py",
    "python -m resnet_tf.evaluate --model=models/photos --corruptions --json --report=page/": (
        "tests/workflows/test_robustness.py"
    ),
    "python -m resnet_tf.evaluate --model=resnet20/ --data=cifar10/ --set data.eval_split=test --corruptions "
    "--report=page/": "tests/workflows/test_robustness.py",
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
    """Return the commands of a file."""
    return _commands((ROOT / page).read_text())


def _commands(text: str) -> list[str]:
    """Return the commands of a text in their order: indented, between backquotes, or in a comment above a table."""
    text = re.sub(r"\\+\n\s*", "", text)
    spans = re.findall(r"^    (.+)$|`([^`\n]+)`|<!-- (.+) -->", text, re.MULTILINE)
    parts = [part for span in spans for part in "".join(span).split(" && ")]
    bare = [re.sub(r"^(\$ |[A-Z_]+='[^']*' +)+| {2,}\S.*", "", part).strip() for part in parts]
    return list(dict.fromkeys(part for part in bare if part.startswith("python ")))


def _of_recipes(page: str) -> list[str]:
    """Return commands that train a recipe: all of a recipe file, and those of a page that do not train on photos."""
    recipes = [line for line in documented(page) if " -m resnet_tf.train --config=" in line]
    return recipes if page in RECIPES else [line for line in recipes if "/photos" not in line and "=photos" not in line]


OF_RECIPES = list(
    dict.fromkeys(line for page in (*PAGES, *RECIPES) for line in _of_recipes(page) if line not in ELSEWHERE)
)
ON_PHOTOS = [
    line
    for page in (
        "README.md",
        "docs/accelerators.md",
        "docs/benchmarks.md",
        "docs/data.md",
        "docs/serving.md",
        "docs/training.md",
    )
    for line in documented(page)
    if " -m resnet_tf." in line and line not in OF_RECIPES and line not in ELSEWHERE
]
PROGRAMS = [
    line
    for line in dict.fromkeys(line for page in PAGES for line in documented(page))
    if " -m resnet_tf." not in line and line not in ELSEWHERE
]


def test_every_command_is_tested():
    """Commands of docs/own_images.md run in tests/test_own_images.py, which counts them."""
    run = {*ELSEWHERE, *OF_RECIPES, *ON_PHOTOS, *PROGRAMS}
    for page in (*PAGES, *RECIPES):
        missing = [line for line in documented(page) if line not in run]
        assert not missing or page == "docs/own_images.md"
    assert len(OF_RECIPES) > 25
    assert len(ON_PHOTOS) > 20
    assert len(PROGRAMS) > 12
    assert set(ELSEWHERE) <= {line for page in (*PAGES, *RECIPES) for line in documented(page)}
    assert all((ROOT / file).is_file() for file in ELSEWHERE.values())


@pytest.fixture
def working_directory(photos, monkeypatch) -> Path:
    """Return a directory of the files in the commands: photos/, holiday/, cat.jpg, dog.png, resnet50.safetensors."""
    monkeypatch.chdir(photos.parent)
    shutil.copytree(photos / "test" / "red", "holiday")
    for file in ("cat.jpg", "dog.png"):
        shutil.copy(next((photos / "test").rglob(f"*{Path(file).suffix}")), file)
    network = resnet_tf.create_model("resnet50")
    state = {name: np.ascontiguousarray(array) for name, array in mapping.to_torchvision(network).items()}
    save_file(state, "resnet50.safetensors")
    return photos.parent


@pytest.mark.slow
@pytest.mark.long
def test_commands_on_photos_run(working_directory, command):
    """Commands run in the order of the pages, because they use files of earlier commands."""
    for line in dict.fromkeys(ON_PHOTOS):
        words, _, file = line.partition(" > ")
        name, *arguments = shlex.split(words.removeprefix("python -m resnet_tf."))
        short = [] if "--help" in arguments else shlex.split(SHORT.get(name, ""))
        if name == "benchmark" and "--config=imagefolder" not in arguments:
            short = short[:1]  # the size of the digits is fixed
        outcome = command(name, *arguments, *short)
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
    """Return a directory of 300 random 32-pixel images of ten classes: few.npz, and cifar/train|test/CLASS/*.jpg."""
    generator = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("few")
    images, labels = generator.integers(0, 256, (300, 32, 32, 3), np.uint8), np.arange(300) % 10
    np.savez(folder / "few.npz", x_train=images[:260], y_train=labels[:260], x_test=images[260:], y_test=labels[260:])
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        file = folder / "cifar" / ("train" if index < 260 else "test") / str(label) / f"{index}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    return folder


# CI plans every fourth of them.
@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [pytest.param(line, marks=[pytest.mark.long] * (index % 4 > 0)) for index, line in enumerate(OF_RECIPES)],
)
def test_the_command_of_a_recipe_plans_its_run(line, few, command, tmp_path, monkeypatch):
    """A dry run builds the network and the first batch; training all recipes would take days."""
    monkeypatch.chdir(tmp_path)
    name, *arguments = shlex.split(line.removeprefix("python -m resnet_tf."))
    overrides = [
        f"data.source={few / 'few.npz'}",
        "data.train_split=train",
        "data.eval_split=test",
        "data.batch_size=24",
    ]
    if "finetune" in line:  # published weights are not downloaded
        overrides += ["model.weights=", "model.new_head=false", "train.finetune=full"]
    outcome = command(name, *arguments, *(f"--set={each}" for each in overrides), "--dry-run")
    assert outcome.code == 0, outcome.err
    assert re.search(r"^first batch +\w+-dry-run.png$", outcome.out, re.MULTILINE)


@pytest.fixture
def checkout(few, tmp_path) -> Path:
    """Return a copy of the checkout without package and plots, with the data of the commands in DIR/ and cifar/."""
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
        pytest.importorskip("torch", reason="compares with PyTorch")
    if "benchmarks/input.py --photos" in line:
        import_torch_zoo("torchvision")
    if "run.py" in line:  # trains only runs without metrics
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
