"""Settings for a number of minutes, `train.minutes`: network, image size, epochs, batch, schedule and augmentation.

The plan is a function of facts about the data, the machine and the weights at hand; `time_budget` measures them.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resnet_tf.core.errors import UserError
from resnet_tf.core.text import counted
from resnet_tf.training.image_size import SMALL, choose_size, downsamples

_FEW_MINUTES = 5  # below, one network is measured only
_MANY_MINUTES = 120  # from which on a CPU has time for the network that accelerators train on small images
_MARGIN = 0.85  # fraction of the measured rate that is counted on
_MOST_EPOCHS = {True: 60, False: 200}  # with pretrained weights, and from scratch
# Fewest epochs and fewest images of a run for which a larger network or a larger image is worth its time.
_ENOUGH_EPOCHS = {True: 4, False: 15}
_ENOUGH_IMAGES = {True: 5_000, False: 60_000}
_SMALLEST = 96  # of photos that are reduced to save time, in pixels
# Networks of `cifar10_fast` and `cifar10_wide`, the smallest images that they suit, in pixels, and that of smaller ones
_FAST, _WIDE, _FAST_SIZE, _TINY = "resnet8_pool", "resnet8_pool_wide", 16, "resnet8_w64"
_LONG = 20  # epochs from which on a network of these overfits with weak augmentation
# Images, over all epochs, after which they overfit without mirror images. Fashion-MNIST: `resnet8_pool` has 95.22 %
# after 15 epochs and 94.81 after 30, `resnet8_pool_wide` 94.96 after 15 and, with strong augmentation, 94.83 after 31.
_MOST_IMAGES_UNMIRRORED = 900_000
_FLIPS = ("augment.flip", "augment.alternating_flip")
_EVALUATIONS = 10  # in a run, at most
# Peak learning rates at a batch of 256, from scratch and for fine-tuning. From scratch, Adam has that of the recipe
# signals and Muon that of cifar10_fast; for fine-tuning two fifths, as SGD in the recipe finetune.
_RATES = {"sgd": (0.2, 0.08), "adam": (0.004, 0.0016), "adamw": (0.004, 0.0016), "muon": (0.015, 0.006)}
_SAVE_SECONDS = 1.0  # of a checkpoint, with each evaluation
_EPOCH_SECONDS = 0.1  # of callbacks and logs
_EVALUATION_SPEEDUP = 3  # an evaluation computes no gradients

# Keys that a plan chooses, unless they are set.
KEYS = (
    *("model.name", "model.weights", "model.new_head", "model.stem"),
    *("data.image_size", "data.crop_fraction", "data.batch_size"),
    *("augment.random_resized_crop", "augment.min_crop_area", "augment.pad_crop"),
    *("augment.flip", "augment.alternating_flip", "augment.cutout"),
    *("train.epochs", "train.eval_every", "train.finetune", "train.head_epochs", "train.ema"),
    *("optimizer.name", "optimizer.base_lr", "optimizer.schedule", "optimizer.warmup_epochs"),
    *("optimizer.momentum", "optimizer.nesterov", "optimizer.weight_decay"),
    *("loss.label_smoothing", "export.checkpoint"),
)


@dataclass(frozen=True)
class Weights:
    """Pretrained weights at hand.

    Attributes:
        network: name of the network.
        name: value of `model.weights`.
        size: size that they were trained at, in pixels.
    """

    network: str
    name: str
    size: int


@dataclass(frozen=True)
class Candidate:
    """A network that may be trained.

    Attributes:
        network: name of the network.
        size: height and width of the model input, in pixels.
        weights: pretrained weights, or None.
        small_stem: whether the network gets the stem for small images in place of its own.
    """

    network: str
    size: int
    weights: Weights | None = None
    small_stem: bool = False

    def settings(self) -> dict[str, Any]:
        """Return the settings of the network."""
        settings: dict[str, Any] = {"model.name": self.network, "data.image_size": self.size}
        if self.small_stem:
            settings["model.stem"] = "small"
        if self.weights:
            settings |= {"model.weights": self.weights.name, "model.new_head": True}
        return settings


@dataclass(frozen=True)
class Facts:
    """Facts about the data, the machine and the weights that a plan follows from.

    Attributes:
        examples: number of training examples.
        evaluated: number of validation examples.
        median: median of the shorter edge of the images, in pixels.
        is_color: whether the images have colors.
        minutes: `train.minutes`.
        weights: pretrained weights at hand, the best first.
        on_accelerator: whether the machine has a GPU or TPU.
        replicas: number of replicas that a batch is divided among.
        group: number that the batch of a replica is a multiple of, see `default_settings.batch_group`.
        given: settings that stay, key -> value.
    """

    examples: int
    evaluated: int
    median: int
    is_color: bool
    minutes: float
    weights: tuple[Weights, ...] = ()
    on_accelerator: bool = False
    replicas: int = 1
    group: int = 1
    given: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """A chosen value of a key.

    Attributes:
        key: dotted key.
        value: its value.
        reason: for the log.
    """

    key: str
    value: Any
    reason: str

    def __str__(self) -> str:
        value = str(self.value).lower() if isinstance(self.value, bool) else self.value
        return f"{self.key}={value}: {self.reason}"


def check_optimizer(facts: Facts) -> None:
    """Refuse an optimizer that no learning rate is known for, unless that is set.

    Raises:
        UserError: naming the optimizers with a learning rate.
    """
    name = facts.given.get("optimizer.name", "sgd")
    if name.lower() not in _RATES and "optimizer.base_lr" not in facts.given:
        raise UserError(
            f"train.minutes={facts.minutes:g} has no learning rate for optimizer.name={name}; set optimizer.base_lr, "
            f"or take one of {', '.join(_RATES)}"
        )


def candidates(facts: Facts) -> list[Candidate]:
    """Return at most two networks to measure, the better one first; in a few minutes, only the faster one.

    Pretrained weights are preferred to a random start. Small images without weights have the network of `cifar10_fast`
    and, if training mirrors them, that of `cifar10_wide`; on accelerators, and in hours, also ResNet-18 with a stem for
    small images.
    """
    given, name, fitting = facts.given, facts.given.get("model.name"), fitting_weights(facts)
    most = slice(None) if facts.minutes >= _FEW_MINUTES else slice(-1, None)
    if fitting:
        best_and_fastest = [fitting[0], *fitting[1:][-1:]]
        return [Candidate(each.network, _size(facts, each.size), each) for each in best_and_fastest][most]
    size = _size(facts, 0)
    takes_small_stem = size <= SMALL and "model.stem" not in given
    if name:
        return [Candidate(name, size, small_stem=takes_small_stem and downsamples(name))]
    if size <= SMALL:
        large = Candidate("resnet18", size, small_stem=takes_small_stem)
        suitable = (_WIDE, _FAST) if _is_mirrored(facts) else (_FAST,)
        fast = [Candidate(each, size) for each in (suitable if size >= _FAST_SIZE else (_TINY,))]
        takes_large = facts.on_accelerator or facts.minutes >= _MANY_MINUTES
        found = [large, fast[0]] if takes_large else fast
    else:
        found = [*([Candidate("resnet50", size)] if facts.on_accelerator else []), Candidate("resnet18", size)]
    return found[most]


def fitting_weights(facts: Facts) -> list[Weights]:
    """Return the weights at hand for the size of the images, or those that are set, of the network that is set."""
    if "model.weights" in facts.given:
        fitting = [each for each in facts.weights if each.name == facts.given["model.weights"]]
    else:
        fitting = [each for each in facts.weights if (each.size <= SMALL) == (facts.median <= SMALL)]
    return [each for each in fitting if facts.given.get("model.name") in (None, each.network)]


def choose(facts: Facts, rates: Mapping[Candidate, float], seconds: float) -> list[Choice]:
    """Choose the settings of a run.

    The first network, at the largest size, with enough epochs in the time is chosen; without any, the fastest one.

    Args:
        facts: facts about the data.
        rates: images per second in training of `candidates(facts)`, and of smaller sizes of them.
        seconds: time for training and evaluations.
    """
    chosen, rate = select(facts, rates, seconds)
    epochs, enough = _epochs(facts, rate, seconds), _enough(facts, chosen)
    speed = f"{rate:,.0f} images/s of {chosen.size} pixels"
    if epochs >= enough:
        reason = f"{epochs:,.0f} epochs fit at {speed}, and {enough} are enough"
    else:
        reason = f"the fastest, {speed}; {enough} epochs would be better than the {epochs:.1f} that fit"
    most = _most_epochs(facts, chosen)
    number = facts.given.get("train.epochs") or max(_fewest_epochs(facts), min(math.floor(epochs), most))
    found = [
        *_network_choices(facts, chosen, reason),
        *_length_choices(facts, number, epochs, most),
        *_recipe_choices(facts, chosen, number),
    ]
    return [choice for choice in found if choice.key not in facts.given]


def select(facts: Facts, rates: Mapping[Candidate, float], seconds: float) -> tuple[Candidate, float]:
    """Return the network and size that `choose` chooses, and its images per second."""
    options = list(_options(facts, rates))
    for chosen, rate in options:
        if _epochs(facts, rate, seconds) >= _enough(facts, chosen):
            return chosen, rate
    return max(options, key=lambda option: option[1])


def _size(facts: Facts, trained_size: int) -> int:
    return facts.given.get("data.image_size") or choose_size(facts.median, trained_size).size


def _options(facts: Facts, rates: Mapping[Candidate, float]) -> Iterator[tuple[Candidate, float]]:
    """Yield networks and sizes with their rates, the better ones first."""
    for network in rates:
        same = (each for each in rates if dataclasses.replace(each, size=network.size) == network)
        measured = {each.size: rates[each] for each in same}
        if network.size < max(measured):
            continue  # one of the sizes below
        sizes = [network.size]
        if "data.image_size" not in facts.given and network.size > SMALL:
            smallest = max(_SMALLEST, facts.given.get("train.start_size", 0))
            sizes += range(network.size - 32, smallest - 1, -32)
        for size in sizes:
            yield dataclasses.replace(network, size=size), _rate_at(size, measured)


def _rate_at(size: int, measured: Mapping[int, float]) -> float:
    """Return the images per second at a size, from those at one or two sizes.

    One rate does not separate the part of the time that grows with the pixels from the rest, such as the update of the
    weights; two do. On two cores without AVX-512 and oneDNN, a ResNet-18 trains 6 images/s of 224 pixels, and 20 of 96
    instead of the 32 that follow from the pixels.
    """
    points = sorted((each**2, 1 / rate) for each, rate in measured.items())
    (pixels, seconds), (most, longest) = points[0], points[-1]
    slope = (longest - seconds) / (most - pixels) if most > pixels else seconds / pixels
    return 1 / max(seconds + slope * (size**2 - pixels), seconds * min(size**2 / pixels, 1))


def _enough(facts: Facts, candidate: Candidate) -> int:
    """Return the number of epochs from which on a better network or a larger image is worth more than more epochs."""
    pretrained = candidate.weights is not None
    images = math.ceil(_ENOUGH_IMAGES[pretrained] / facts.examples)
    return min(max(_ENOUGH_EPOCHS[pretrained], images), _most_epochs(facts, candidate))


def _most_epochs(facts: Facts, candidate: Candidate) -> int:
    """Return the number of epochs from which on more of them seldom help."""
    most = _MOST_EPOCHS[candidate.weights is not None]
    if candidate.weights or candidate.network not in (_FAST, _WIDE) or _is_mirrored(facts):
        return most
    return min(math.ceil(_MOST_IMAGES_UNMIRRORED / facts.examples), most)


def _fewest_epochs(facts: Facts) -> int:
    """Return the least number of epochs: if the head is trained first, one for the other layers, too."""
    given = facts.given
    return given.get("train.head_epochs", 1) + 1 if given.get("train.finetune") == "head_then_all" else 1


def _is_mirrored(facts: Facts) -> bool:
    """Return True if training mirrors images: by default, those in color."""
    given = [facts.given[key] for key in _FLIPS if key in facts.given]
    return any(given) if given else facts.is_color


def trial_settings(facts: Facts, candidate: Candidate) -> dict[str, Any]:
    """Return the settings that the speed of a candidate is measured with, key -> value."""
    return candidate.settings() | {
        "data.batch_size": batch_size(facts, candidate),
        "augment.random_resized_crop": candidate.size > SMALL,
        "optimizer.name": _optimizer(facts, candidate),
    }


def batch_size(facts: Facts, candidate: Candidate) -> int:
    """Return the batch size, at least, to divide among the replicas and their groups.

    It is 32 or 64 for fine-tuning. From scratch, it is 16 to 128 images, with 20 steps in an epoch; with Muon, 16 to
    512 images, with 7 steps.
    """
    if candidate.weights:
        size = 32 if facts.examples < 5_000 else 64
    else:
        steps, most = (7, 9) if _takes_muon(facts, candidate) else (20, 7)
        size = 2 ** min(max(int(math.log2(max(facts.examples / steps, 1))), 4), most)
    multiple = facts.replicas * facts.group
    return math.ceil(size / multiple) * multiple


def _optimizer(facts: Facts, candidate: Candidate) -> str:
    """Return the name of the optimizer in effect."""
    return facts.given.get("optimizer.name", "muon" if _is_fast(candidate) else "sgd").lower()


def _is_fast(candidate: Candidate) -> bool:
    return candidate.network in (_FAST, _WIDE, _TINY) and not candidate.weights


def _takes_muon(facts: Facts, candidate: Candidate) -> bool:
    """Return True for the networks of `cifar10_fast` and `cifar10_wide` with the optimizer of these recipes."""
    return _is_fast(candidate) and _optimizer(facts, candidate) == "muon"


def _epochs(facts: Facts, rate: float, seconds: float) -> float:
    """Return the number of epochs in a time, with their evaluations."""
    rate *= _MARGIN
    evaluation = facts.evaluated / (rate * _EVALUATION_SPEEDUP) + _SAVE_SECONDS
    epoch = facts.examples / rate + _EPOCH_SECONDS
    for evaluations in range(_EVALUATIONS, 1, -1):
        epochs = (seconds - evaluations * evaluation) / epoch
        if epochs >= 1 and _evaluations(facts, int(epochs)) >= evaluations:
            return epochs
    return max(seconds - evaluation, seconds * 2 / 3) / epoch  # an evaluation takes a third of the time at most


def _network_choices(facts: Facts, chosen: Candidate, reason: str) -> Iterator[Choice]:
    images = f"the images have {facts.median:,} pixels"
    yield Choice("model.name", chosen.network, reason)
    if chosen.weights:
        yield Choice("model.weights", chosen.weights.name, "pretrained weights at hand need fewer epochs")
        yield Choice("model.new_head", True, "the classes are others")
        images += f", and the weights were trained at {chosen.weights.size}"
    full = _size(facts, chosen.weights.size if chosen.weights else 0)
    reduced = f"; {full} would leave time for fewer epochs" if chosen.size < full else ""
    yield Choice("data.image_size", chosen.size, images + reduced)
    if chosen.small_stem:
        yield Choice("model.stem", "small", f"{images}, which a stem of stride four would reduce too much")
    if chosen.size <= SMALL:
        yield Choice("data.crop_fraction", 1.0, "small images are evaluated whole")


def _length_choices(facts: Facts, number: int, epochs: float, most: int) -> Iterator[Choice]:
    if number > max(epochs, 1):
        reason = f"{epochs:.2g} fit, and train.finetune=head_then_all needs more than train.head_epochs={number - 1}"
    elif epochs < 1:
        reason = f"{epochs:.0%} of one fits, so that the run ends within it"
    elif number == most:
        reason = f"{epochs:,.0f} fit, and more than {most} seldom help"
    else:
        reason = f"as many as fit in train.minutes={facts.minutes:g}"
    yield Choice("train.epochs", number, reason)
    count, each = counted(_evaluations(facts, number), "evaluation"), counted(facts.evaluated, "example")
    yield Choice("train.eval_every", _eval_every(facts, number), f"{count} of {each}")


def _evaluations(facts: Facts, epochs: int) -> int:
    """Return the number of evaluations in a run."""
    return math.ceil(epochs / _eval_every(facts, epochs))


def _eval_every(facts: Facts, epochs: int) -> int:
    """Return the epochs between evaluations, which take half of the time of training at most."""
    affordable = int(epochs * facts.examples * _EVALUATION_SPEEDUP / 2 / max(facts.evaluated, 1))
    return math.ceil(epochs / max(1, min(_EVALUATIONS, affordable)))


def _recipe_choices(facts: Facts, chosen: Candidate, epochs: int) -> Iterator[Choice]:
    """Yield batch, schedule and augmentation."""
    batch, optimizer = batch_size(facts, chosen), _optimizer(facts, chosen)
    if chosen.weights:
        yield Choice("data.batch_size", batch, "fine-tuning takes small batches")
        yield from _fine_tuning_choices(facts, epochs, optimizer)
    else:
        limits = "7 steps in an epoch, 16 to 512" if _takes_muon(facts, chosen) else "20 steps in an epoch, 16 to 128"
        yield Choice("data.batch_size", batch, f"at least {limits} images")
        if optimizer == "muon":
            yield from _muon_choices(epochs, epochs * math.ceil(facts.examples / batch))
        else:
            yield from _one_cycle_choices(facts, optimizer)
    if optimizer in ("sgd", "muon") and facts.given.get("optimizer.momentum", 1):
        yield Choice("optimizer.nesterov", True, "as in all recipes for short runs")
    yield Choice("export.checkpoint", "best", "the last checkpoint need not be the best")
    yield from _augmentation_choices(facts, chosen, epochs)


def _fine_tuning_choices(facts: Facts, epochs: int, optimizer: str) -> Iterator[Choice]:
    head_epochs = facts.given.get("train.head_epochs", 1)
    if epochs > head_epochs:
        yield Choice("train.finetune", "head_then_all", "a random head would disturb pretrained layers")
        yield Choice("train.head_epochs", max(1, epochs // 5), "a fifth of the epochs for the head")
    else:
        reason = f"train.head_epochs={head_epochs} leaves no epoch for the other layers"
        yield Choice("train.finetune", "probe", "one epoch trains a head only" if epochs == 1 else reason)
    if optimizer in _RATES:
        reason = "as in the recipe finetune" if optimizer == "sgd" else f"two fifths of {optimizer}'s from scratch"
        yield Choice("optimizer.base_lr", _RATES[optimizer][1], reason)


def _muon_choices(epochs: int, steps: int) -> Iterator[Choice]:
    recipe = "as in the recipe cifar10_fast"
    yield Choice("optimizer.name", "muon", "reaches the accuracy of SGD in fewer epochs (Jordan et al. 2024)")
    yield Choice("optimizer.base_lr", _RATES["muon"][0], recipe)
    yield Choice("optimizer.schedule", "linear", recipe)
    yield Choice("optimizer.warmup_epochs", epochs / 5, "a fifth of the epochs")
    yield Choice("optimizer.momentum", 0.85, recipe)
    yield Choice("optimizer.weight_decay", 0.2, recipe)
    yield Choice("loss.label_smoothing", 0.2, recipe)
    decay = min(max(round(1 - 14 / steps, 2), 0.0), 0.99)
    yield Choice("train.ema", decay, "averages a fourteenth of the steps as that recipe, 100 at most")


def _one_cycle_choices(facts: Facts, optimizer: str) -> Iterator[Choice]:
    # One cycle has a rise and an end of its own.
    if not (facts.given.get("optimizer.warmup_epochs") or facts.given.get("optimizer.end_lr_fraction")):
        yield Choice("optimizer.schedule", "one_cycle", "short runs from scratch (Smith and Topin 2017)")
    if optimizer == "sgd":
        yield Choice("optimizer.base_lr", _RATES["sgd"][0], "usual for batches of 256 with one cycle")
        yield Choice("optimizer.weight_decay", 5e-4, "short runs take stronger decay")
    elif optimizer in _RATES:
        yield Choice("optimizer.base_lr", _RATES[optimizer][0], "as in the recipe signals")
        yield Choice("optimizer.weight_decay", 0.01, "as in the recipe signals")
    yield Choice("loss.label_smoothing", 0.1, "short runs from scratch (Jordan 2024)")


def _augmentation_choices(facts: Facts, chosen: Candidate, epochs: int) -> Iterator[Choice]:
    is_fast = _takes_muon(facts, chosen)
    if chosen.size > SMALL:
        yield Choice("augment.random_resized_crop", True, "photos show objects at any scale")
        yield Choice("augment.min_crop_area", 0.35, "short runs take weaker augmentation")
    elif is_fast and epochs < _LONG:
        yield Choice("augment.pad_crop", max(1, chosen.size // 16), "a sixteenth of the image size (Jordan 2024)")
    else:
        yield Choice("augment.pad_crop", max(1, chosen.size // 8), "an eighth of the image size (He et al. 2015)")
    if is_fast and epochs >= _LONG and chosen.size >= _FAST_SIZE:
        yield Choice("augment.cutout", chosen.size // 4, "a quarter of the image size, as in the recipe cifar10_wide")
    if facts.is_color and not facts.given.keys() & _FLIPS:
        key = "augment.alternating_flip" if is_fast else "augment.flip"
        yield Choice(key, True, "images in color seldom change their class in a mirror")


def describe(choices: Sequence[Choice], minutes: float) -> list[str]:
    """Return a line for each choice."""
    return [f"train.minutes={minutes:g} chooses {choice}" for choice in choices]
