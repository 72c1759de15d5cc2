"""Cases of benchmarks/gpu.py, with weights and images as functions of a seed. Needs NumPy only."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

SAMPLES = 512  # elements of each tensor that are compared
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 1e-4, 0.9, 1e-4

# Allowed differences from the reference, see `differences`: (largest, median). A rounding error that changes the sign
# of a ReLU's input changes gradients by far more than the error: hence the larger tolerances of gradients, and of the
# largest difference compared with the median.
TOLERANCES = {
    "float32": {
        "losses": (1e-5, 1e-5),
        "gradients": (3e-2, 1e-3),
        "velocities": (3e-2, 2e-3),
        "weights": (1e-5, 1e-6),
        "statistics": (1e-4, 1e-5),
    },
    "mixed_bfloat16": {
        "losses": (5e-3, 5e-3),
        "gradients": (0.4, 0.2),
        "velocities": (0.4, 0.2),
        "weights": (1e-3, 1e-5),
        "statistics": (2e-2, 5e-3),
    },
}


@dataclass(frozen=True)
class Case:
    """A training step to compare with a reference and, in bfloat16, to time.

    Attributes:
        name: prefix of the case's files.
        network: name in this package and in torchvision.
        precision: Keras dtype policy.
        size: height and width of the images in pixels.
        batch: images per step.
        classes: number of logits.
        small_stem: 3x3 convolution without pooling instead of the 7x7 stem, for images of 32 pixels.
        steps: number of steps to compare with the reference.
        timed: time the step against PyTorch as well.
    """

    name: str
    network: str
    precision: str
    size: int
    batch: int
    classes: int
    small_stem: bool = False
    steps: int = 1
    timed: bool = False

    @property
    def title(self) -> str:
        dtype = "float32" if self.precision == "float32" else "bfloat16"
        return f"{self.network} {self.size} pixels batch {self.batch} {dtype}"


_ALL = (
    Case("resnet18_float32", "resnet18", "float32", 32, 16, 10, small_stem=True, steps=3),
    Case("resnet18_bfloat16", "resnet18", "mixed_bfloat16", 32, 512, 10, small_stem=True, timed=True),
    Case("resnet50_float32", "resnet50", "float32", 96, 16, 1000, steps=3),
    Case("resnet50_bfloat16", "resnet50", "mixed_bfloat16", 224, 128, 1000, timed=True),
)
CASES = {case.name: case for case in _ALL}


@dataclass(frozen=True)
class Variable:
    """A variable of the training step.

    Attributes:
        name: path of the Keras variable.
        role: `weight`, `velocity` of the optimizer, or moving `statistic` of BatchNorm.
        shape: dimensions.
        ends_branch: true for gamma of the last BatchNorm before the addition of a block.
    """

    name: str
    role: str
    shape: tuple[int, ...]
    ends_branch: bool = False

    def initial(self, seed: int) -> np.ndarray:
        """Return the initial value, float32.

        Gammas and variances differ from 1, so that an error in their use shows. A beta of 2 and small gammas at the
        end of a branch keep most inputs of a ReLU away from 0, where a rounding error decides about the gradient.
        """
        if self.role == "velocity":
            return np.zeros(self.shape, np.float32)
        # RandomState: its stream is the same in every release of NumPy (NEP 19).
        random, name = np.random.RandomState(seed), self.name.rsplit("/", 1)[-1]
        if name in ("gamma", "moving_variance"):
            scale = 0.2 if self.ends_branch else 1.0
            return (scale * random.uniform(0.5, 1.5, self.shape)).astype(np.float32)
        if name == "beta":
            return (2.0 + 0.1 * random.standard_normal(self.shape)).astype(np.float32)
        scale = 0.1
        if name == "kernel" and len(self.shape) == 4:  # He et al. 2015
            scale = np.sqrt(2.0 / np.prod([*self.shape[:2], self.shape[3]]))
        elif name == "kernel":
            scale = 0.01
        return (scale * random.standard_normal(self.shape)).astype(np.float32)


def initial_values(variables: Sequence[Variable]) -> list[np.ndarray]:
    return [variable.initial(seed) for seed, variable in enumerate(variables)]


def batch(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Return normalized images, float32 [B, H, W, 3], and labels, int32 [B].

    An image is the random center of its class plus noise: gradients of pure noise would cancel up to rounding errors.
    """
    random = np.random.RandomState(123456)
    labels = random.randint(0, min(case.classes, 10), case.batch).astype(np.int32)
    shape = (case.size, case.size, 3)
    centers = random.standard_normal((10, *shape)).astype(np.float32)
    noise = random.standard_normal((case.batch, *shape)).astype(np.float32)
    return (centers[labels] + noise) / np.float32(np.sqrt(2)), labels


@dataclass(frozen=True)
class Results:
    """Values that a correct training step must reproduce.

    Attributes:
        losses: mean loss of each step, float64 [steps].
        gradients: gradient of the first step with respect to each weight, including weight decay.
        velocities: SGD velocities after all steps: -learning rate * gradients, accumulated with momentum.
        weights: weights after all steps.
        statistics: moving mean and variance of each BatchNorm after all steps.
    """

    losses: np.ndarray
    gradients: list[np.ndarray]
    velocities: list[np.ndarray]
    weights: list[np.ndarray]
    statistics: list[np.ndarray]

    def sampled(self) -> dict[str, np.ndarray]:
        """Return a flat float64 array per quantity, with at most `SAMPLES` random elements of each tensor."""
        tensors = {name: getattr(self, name) for name in QUANTITIES}
        flat = {name: np.concatenate([_sample(*each) for each in enumerate(tensors[name])]) for name in tensors}
        return {"losses": np.asarray(self.losses, np.float64)} | flat


QUANTITIES = {"gradients": "weight", "velocities": "weight", "weights": "weight", "statistics": "statistic"}


def _sample(index: int, tensor: np.ndarray) -> np.ndarray:
    flat = np.asarray(tensor, np.float64).ravel()
    if flat.size <= SAMPLES:
        return flat
    return flat[np.random.RandomState(index).randint(0, flat.size, SAMPLES)]


def differences(
    found: dict[str, np.ndarray], expected: dict[str, np.ndarray], variables: Sequence[Variable]
) -> dict[str, dict[str, float]]:
    """Return the largest absolute and the largest and median relative difference of each quantity.

    The relative difference of a tensor is ||found - expected|| / ||expected|| over its samples; that of a loss is
    |found - expected| / |expected|. The differences of a quantity with nonfinite values are infinite.
    """
    sizes = {"losses": [1] * len(expected["losses"])}
    for quantity, role in QUANTITIES.items():
        sizes[quantity] = [min(SAMPLES, int(np.prod(each.shape))) for each in variables if each.role == role]
    return {name: _difference(found[name], expected[name], sizes[name]) for name in sizes}


def _difference(found: np.ndarray, expected: np.ndarray, sizes: list[int]) -> dict[str, float]:
    if found.shape != expected.shape or found.size != sum(sizes):
        raise ValueError(f"expected values of shape {expected.shape}, found shape {found.shape}")
    ends = np.cumsum(sizes)[:-1]
    pairs = list(zip(np.split(found - expected, ends), np.split(expected, ends), strict=True))
    if not np.isfinite(found).all():
        return dict.fromkeys(("absolute", "relative", "median"), np.inf)
    relative = [np.linalg.norm(error) / np.linalg.norm(value) for error, value in pairs]
    absolute = np.abs(found - expected).max()
    return {"absolute": float(absolute), "relative": float(max(relative)), "median": float(np.median(relative))}


def run(step: Callable, variables: Sequence[Variable], case: Case) -> Results:
    """Run `case.steps` steps of `step(values, images, labels) -> (values, loss)`, starting from the initial values."""
    values, losses, velocities = initial_values(variables), [], None
    images, labels = batch(case)
    for _ in range(case.steps):
        values, loss = step(values, images, labels)
        losses.append(float(loss))
        if velocities is None:
            velocities = _of_role(values, variables, "velocity")
    return Results(
        losses=np.asarray(losses, np.float64),
        gradients=[each / -LEARNING_RATE for each in velocities],  # after one step from zero velocity
        velocities=_of_role(values, variables, "velocity"),
        weights=_of_role(values, variables, "weight"),
        statistics=_of_role(values, variables, "statistic"),
    )


def _of_role(values: Sequence, variables: Sequence[Variable], role: str) -> list[np.ndarray]:
    pairs = zip(values, variables, strict=True)
    return [np.asarray(value).astype(np.float64) for value, variable in pairs if variable.role == role]


def save(
    case: Case, directory: Path, hlo: bytes, variables: Sequence[Variable], expected: Results, notes: dict
) -> None:
    (directory / f"{case.name}.hlo").write_bytes(hlo)
    np.savez_compressed(directory / f"{case.name}.npz", **expected.sampled())
    described = {"case": asdict(case), "variables": [asdict(each) for each in variables], **notes}
    (directory / f"{case.name}.json").write_text(json.dumps(described, indent=1) + "\n")


def load_variables(case: Case, directory: Path) -> tuple[Variable, ...]:
    """Load the variables of a case.

    Raises:
        SystemExit: if the files of the case do not exist or were written with other settings.
    """
    path = directory / f"{case.name}.json"
    if not path.is_file():
        raise SystemExit(f"{path} does not exist; write it with: python benchmarks/gpu.py write {directory}")
    described = json.loads(path.read_text())
    if described["case"] != asdict(case):
        raise SystemExit(f"{path} was written for other settings; write it again")
    return tuple(Variable(**each | {"shape": tuple(each["shape"])}) for each in described["variables"])


def load_expected(case: Case, directory: Path) -> dict[str, np.ndarray]:
    with np.load(directory / f"{case.name}.npz") as file:
        return {name: file[name] for name in file.files}
