"""Plans for `train.minutes`: tables of facts and rates, without any timing."""

import dataclasses
import time
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import override_groups

from resnet_tf.config import Config, iterate_keys, load_config, override
from resnet_tf.core.errors import UserError
from resnet_tf.data.pipeline import TrainingLength
from resnet_tf.data.sources import open_source
from resnet_tf.model.create import create_model
from resnet_tf.training import planner, time_budget
from resnet_tf.training.loop import _Fit
from resnet_tf.training.pace import Pace
from resnet_tf.training.planner import Facts, Weights
from resnet_tf.training.progress import RunState
from resnet_tf.training.run import load_run
from resnet_tf.training.start import start
from resnet_tf.training.time_budget import Deadline, Rate
from resnet_tf.training.trainer import size_in_epoch
from resnet_tf.workflows.train import train_and_evaluate

CIFAR = Facts(examples=50_000, evaluated=10_000, median=32, is_color=True, minutes=10)
LONG_CIFAR = dataclasses.replace(CIFAR, minutes=180)
FASHION = Facts(examples=60_000, evaluated=10_000, median=28, is_color=False, minutes=30)
DIGITS = Facts(examples=898, evaluated=899, median=8, is_color=False, minutes=10)
PHOTOS = Facts(examples=180, evaluated=20, median=375, is_color=True, minutes=10)
IMAGENET = (Weights("resnet50", "a", 224), Weights("resnet18", "b", 224))
SMALL = (Weights("resnet20", "akamaster/cifar10", 32),)
TUNED = dataclasses.replace(PHOTOS, weights=IMAGENET)


def _change(facts: Facts, **fields) -> Facts:
    return dataclasses.replace(facts, **fields)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (CIFAR, [("resnet8_pool_wide", 32, False, ""), ("resnet8_pool", 32, False, "")]),
        (_change(CIFAR, minutes=120), [("resnet18", 32, True, ""), ("resnet8_pool_wide", 32, False, "")]),
        (_change(CIFAR, on_accelerator=True), [("resnet18", 32, True, ""), ("resnet8_pool_wide", 32, False, "")]),
        (_change(CIFAR, minutes=2), [("resnet8_pool", 32, False, "")]),
        (_change(CIFAR, weights=IMAGENET), [("resnet8_pool_wide", 32, False, ""), ("resnet8_pool", 32, False, "")]),
        (_change(CIFAR, weights=SMALL), [("resnet20", 32, False, "akamaster/cifar10")]),
        (PHOTOS, [("resnet18", 224, False, "")]),
        (_change(PHOTOS, on_accelerator=True), [("resnet50", 224, False, ""), ("resnet18", 224, False, "")]),
        (TUNED, [("resnet50", 224, False, "a"), ("resnet18", 224, False, "b")]),
        (_change(TUNED, minutes=2), [("resnet18", 224, False, "b")]),
        (_change(TUNED, weights=IMAGENET + SMALL, given={"model.name": "resnet18"}), [("resnet18", 224, False, "b")]),
        (_change(PHOTOS, given={"model.name": "resnet34", "data.image_size": 128}), [("resnet34", 128, False, "")]),
        (_change(TUNED, given={"model.weights": ""}), [("resnet18", 224, False, "")]),
        (_change(CIFAR, given={"model.name": "resnet18"}), [("resnet18", 32, True, "")]),
        (_change(CIFAR, given={"model.name": "resnet50_d"}), [("resnet50_d", 32, True, "")]),
        (_change(CIFAR, given={"model.name": "resnet56"}), [("resnet56", 32, False, "")]),
        (DIGITS, [("resnet8_w64", 8, False, "")]),
        (FASHION, [("resnet8_pool", 28, False, "")]),
        (
            _change(FASHION, given={"augment.flip": True}),
            [("resnet8_pool_wide", 28, False, ""), ("resnet8_pool", 28, False, "")],
        ),
        (_change(CIFAR, given={"augment.flip": False}), [("resnet8_pool", 32, False, "")]),
        (
            _change(DIGITS, on_accelerator=True, given={"model.stem": "conv7"}),
            [("resnet18", 8, False, ""), ("resnet8_w64", 8, False, "")],
        ),
    ],
    ids=str,
)
def test_candidates_follow_images_weights_and_settings(facts, expected):
    found = [
        (each.network, each.size, each.small_stem, each.weights.name if each.weights else "")
        for each in planner.candidates(facts)
    ]
    assert found == expected


def _plan(facts: Facts, rates: list[float], seconds: float) -> dict:
    named = dict(zip(planner.candidates(facts), rates, strict=True))
    return {choice.key: choice.value for choice in planner.choose(facts, named, seconds)}


@pytest.mark.parametrize(
    ("facts", "rates", "seconds", "expected"),
    [
        # 500 s at 85 % of 1,500 images/s, less 22 s of six evaluations, are 12.2 epochs; the large network has 2.
        (CIFAR, [300, 1500], 500, {"model.name": "resnet8_pool", "train.epochs": 12, "data.batch_size": 512}),
        (CIFAR, [800, 1500], 2400, {"model.name": "resnet8_pool_wide", "train.epochs": 31, "augment.cutout": 8}),
        (LONG_CIFAR, [300, 1500], 5000, {"model.name": "resnet18", "train.epochs": 24}),
        (LONG_CIFAR, [9000, 30000], 500, {"model.name": "resnet18", "model.stem": "small", "train.epochs": 73}),
        # Without mirror images, more epochs overfit, unless there are few images.
        (FASHION, [2000], 1700, {"model.name": "resnet8_pool", "train.epochs": 15, "augment.pad_crop": 1}),
        (_change(FASHION, examples=3_000), [2000], 1700, {"train.epochs": 200, "augment.cutout": 7}),
        (DIGITS, [5000], 400, {"model.name": "resnet8_w64", "train.epochs": 200, "data.batch_size": 128}),
        (DIGITS, [1500], 40, {"train.epochs": 35, "train.eval_every": 4, "optimizer.name": "muon", "train.ema": 0.95}),
        # Fine-tuning: 28 epochs of 180 photos are enough for the larger network.
        (TUNED, [14, 40], 500, {"model.name": "resnet50", "train.epochs": 32, "data.image_size": 224}),
        # Half of the time: smaller images, before the smaller network.
        (TUNED, [14, 40], 250, {"model.name": "resnet50", "data.image_size": 160}),
        (TUNED, [1, 2], 60, {"model.name": "resnet18", "data.image_size": 96, "train.finetune": "head_then_all"}),
        (TUNED, [0.2, 0.5], 60, {"train.epochs": 1, "train.finetune": "probe"}),
        (TUNED, [0.01, 0.02], 60, {"train.epochs": 1}),
    ],
    ids=str,
)
def test_the_best_network_that_the_time_allows_is_chosen(facts, rates, seconds, expected):
    plan = _plan(facts, rates, seconds)
    assert {key: plan.get(key) for key in expected} == expected


@pytest.mark.parametrize(
    ("given", "rates", "expected"),
    [
        ({"train.finetune": "head_then_all"}, [0.2, 0.5], {"train.epochs": 2, "train.head_epochs": 1}),
        ({"train.finetune": "head_then_all", "train.head_epochs": 3}, [0.2, 0.5], {"train.epochs": 4}),
        ({"train.finetune": "head_then_all", "train.head_epochs": 3}, [1, 2], {"train.epochs": 4}),
        ({"train.head_epochs": 3}, [1, 2], {"train.epochs": 2, "train.finetune": "probe"}),
        ({"train.head_epochs": 3, "train.epochs": 3}, [14, 40], {"train.finetune": "probe"}),
    ],
    ids=str,
)
def test_plans_have_an_epoch_for_the_other_layers_or_train_the_head_only(given, rates, expected):
    """Regression: a plan of one epoch was refused, with an error about settings that the user had not made."""
    plan = _plan(_change(TUNED, given=given), rates, 60)
    assert {key: plan.get(key) for key in expected} == expected
    override(Config(), given | plan)


def test_more_epochs_than_fit_have_a_reason():
    facts = _change(TUNED, given={"train.finetune": "head_then_all"})
    chosen = planner.choose(facts, dict(zip(planner.candidates(facts), [0.2, 0.5], strict=True)), 60)
    (reason,) = (choice.reason for choice in chosen if choice.key == "train.epochs")
    assert reason == "0.72 fit, and train.finetune=head_then_all needs more than train.head_epochs=1"


def test_images_of_a_plan_are_as_large_as_those_of_the_first_epoch():
    for size in (160, 192, 224):
        assert _plan(_change(TUNED, given={"train.start_size": size}), [14, 40], 250)["data.image_size"] >= size


def test_reasons_name_the_size_that_a_rate_belongs_to():
    chosen = planner.choose(TUNED, dict(zip(planner.candidates(TUNED), [14, 40], strict=True)), 250)
    reasons = {choice.key: choice.reason for choice in chosen}
    assert reasons["model.name"] == "30 epochs fit at 27 images/s of 160 pixels, and 28 are enough"
    assert reasons["data.image_size"].endswith("trained at 224; 224 would leave time for fewer epochs")


@pytest.mark.parametrize(
    ("small", "rates"),
    [
        # 0.05 s for an image, and as much for every 128x128 pixels.
        ({128: 10.0}, {224: 4.92, 192: 6.15, 160: 7.80, 128: 10.0, 96: 12.8}),
        # The smaller image takes less than its part of the pixels: rates below are in proportion to the pixels.
        ({128: 40.0}, {224: 4.92, 128: 40.0, 96: 71.1}),
        # The smaller image takes as long as the larger one.
        ({128: 4.92}, {224: 4.92, 192: 4.92, 96: 4.92}),
        ({}, {224: 4.92, 192: 6.70, 128: 15.1, 96: 26.8}),
    ],
    ids=str,
)
def test_rates_at_other_sizes_follow_from_those_of_one_or_two(small, rates):
    largest = planner.candidates(PHOTOS)[0]
    measured = {largest: 4.92} | {dataclasses.replace(largest, size=size): rate for size, rate in small.items()}
    found = {each.size: rate for each, rate in planner._options(PHOTOS, measured)}
    assert sorted(found) == [96, 128, 160, 192, 224]
    assert {size: found[size] for size in rates} == pytest.approx(rates, rel=0.01)


@pytest.mark.parametrize(
    ("name", "rates", "seconds"), [("cifar10_fast", [300, 1500], 500), ("cifar10_wide", [800, 1500], 2400)]
)
def test_plans_for_small_images_are_recipes(name, rates, seconds):
    recipe = load_config(name).values
    plan = _plan(CIFAR, rates, seconds)
    assert plan["optimizer.warmup_epochs"] == plan["train.epochs"] / 5
    own = {"train.epochs", "train.eval_every", "optimizer.warmup_epochs", "export.checkpoint"}
    assert {key: value for key, value in plan.items() if key not in own} == {
        key: recipe[key] for key in plan.keys() - own
    }
    changed = {key for key, value in recipe.items() if value != Config().values[key]}
    assert changed - plan.keys() == {"data.source"}


def test_the_fast_network_takes_another_optimizer():
    sgd = _plan(_change(CIFAR, given={"optimizer.name": "sgd"}), [300, 1500], 500)
    assert (sgd["optimizer.schedule"], sgd["data.batch_size"], sgd["augment.flip"]) == ("one_cycle", 128, True)


_MUON = {"optimizer.schedule": "linear", "optimizer.weight_decay": 0.2, "optimizer.momentum": 0.85}
_ADAM = {"optimizer.schedule": "one_cycle", "optimizer.weight_decay": 0.01, "optimizer.nesterov": None}
_NOTHING = {f"optimizer.{name}": None for name in ("base_lr", "weight_decay", "nesterov")}


@pytest.mark.parametrize(
    ("facts", "given", "expected"),
    [
        (PHOTOS, {}, {"optimizer.base_lr": 0.2, "optimizer.weight_decay": 5e-4, "optimizer.nesterov": True}),
        (PHOTOS, {"optimizer.name": "SGD"}, {"optimizer.base_lr": 0.2, "optimizer.nesterov": True}),
        (PHOTOS, {"optimizer.momentum": 0.0}, {"optimizer.base_lr": 0.2, "optimizer.nesterov": None}),
        (PHOTOS, {"optimizer.name": "adamw"}, {"optimizer.base_lr": 0.004, **_ADAM}),
        (CIFAR, {"optimizer.name": "adamw"}, {"optimizer.base_lr": 0.004, "data.batch_size": 128, **_ADAM}),
        (TUNED, {"optimizer.name": "adamw"}, {"optimizer.base_lr": 0.0016, "optimizer.nesterov": None}),
        (TUNED, {"optimizer.name": "sgd"}, {"optimizer.base_lr": 0.08, "optimizer.nesterov": True}),
        (TUNED, {"optimizer.name": "muon"}, {"optimizer.base_lr": 0.006, "optimizer.nesterov": True}),
        (CIFAR, {"optimizer.name": "Muon"}, {"optimizer.base_lr": 0.015, "data.batch_size": 512, **_MUON}),
        (CIFAR, {"optimizer.name": "muon", "model.name": "resnet18"}, {"optimizer.base_lr": 0.015, **_MUON}),
        (PHOTOS, {"optimizer.name": "lamb", "optimizer.base_lr": 1e-3}, _NOTHING),
        (TUNED, {"optimizer.name": "lamb", "optimizer.base_lr": 1e-3}, _NOTHING),
        (PHOTOS, {"optimizer.end_lr_fraction": 0.1}, {"optimizer.schedule": None, "optimizer.base_lr": 0.2}),
        (PHOTOS, {"optimizer.end_lr_fraction": 0.0}, {"optimizer.schedule": "one_cycle"}),
        (CIFAR, {"optimizer.end_lr_fraction": 0.1}, {"optimizer.schedule": "linear"}),
    ],
    ids=str,
)
def test_learning_rate_and_decay_are_those_of_the_optimizer(facts, given, expected):
    """Regression: every optimizer other than Muon, and Muon with other networks, had the learning rate of SGD."""
    facts = _change(facts, given=given)
    planner.check_optimizer(facts)
    rates = dict.fromkeys(planner.candidates(facts), 1500.0)
    plan = {choice.key: choice.value for choice in planner.choose(facts, rates, 500)}
    assert {key: plan.get(key) for key in expected} == expected
    if "optimizer.name" in given:
        trial = planner.trial_settings(facts, planner.candidates(facts)[0])
        assert trial["optimizer.name"] == given["optimizer.name"].lower()


def test_learning_rates_are_those_of_the_recipes():
    for recipe, optimizer in (("signals", "adamw"), ("cifar10_fast", "muon")):
        settings = load_config(recipe).optimizer
        assert (settings.name, settings.base_lr) == (optimizer, planner._RATES[optimizer][0])
    assert load_config("finetune").optimizer.base_lr == planner._RATES["sgd"][1]
    for scratch, fine_tuning in planner._RATES.values():
        assert fine_tuning == pytest.approx(0.4 * scratch)


def test_an_optimizer_without_a_learning_rate_is_refused(digits_arrays, measured):
    settings = ["train.minutes=2", "optimizer.name=lion"]
    message = r"train.minutes=2 has no learning rate for optimizer.name=lion; set optimizer.base_lr, or take one of "
    with pytest.raises(UserError, match=message):
        start(_auto(digits_arrays, *settings))
    assert not measured
    assert start(_auto(digits_arrays, *settings, "optimizer.base_lr=0.001")).config.optimizer.base_lr == 0.001


def test_keys_that_a_plan_leaves_without_effect_are_warned_of(digits_arrays, measured, caplog):
    settings = ["augment.min_crop_area=0.5", "optimizer.rise_fraction=0.2", "model.new_head=true", "train.epochs=9"]
    start(_auto(digits_arrays, "train.minutes=2", *settings))
    warnings = [each for each in caplog.messages if "has no effect" in each]
    assert warnings == [
        "train.minutes=2: augment.min_crop_area=0.5 has no effect: it needs augment.random_resized_crop=true",
        "train.minutes=2: model.new_head=True has no effect: it needs model.weights",
        "train.minutes=2: optimizer.rise_fraction=0.2 has no effect: it needs optimizer.schedule=one_cycle",
    ]


@pytest.mark.parametrize(
    ("facts", "given", "expected"),
    [
        (CIFAR, {}, "model.name=resnet20 model.weights=cifar10"),
        (_change(CIFAR, weights=IMAGENET), {}, "model.name=resnet20 model.weights=cifar10"),
        (CIFAR, {"model.name": "resnet56"}, "model.name=resnet56 model.weights=cifar10"),
        (PHOTOS, {}, "model.name=resnet18 model.weights=imagenet"),
        (PHOTOS, {"model.name": "resnet50"}, "model.name=resnet50 model.weights=imagenet"),
        (TUNED, {}, None),
        (PHOTOS, {"model.weights": ""}, None),
        (PHOTOS, {"model.name": "resnet8_pool"}, None),
    ],
    ids=str,
)
def test_weights_that_can_be_downloaded_fit_the_images(facts, given, expected, caplog):
    """Regression: ImageNet weights were recommended for images of 32 pixels."""
    with caplog.at_level("INFO", "resnet_tf"):
        time_budget._log_missing_weights(_change(facts, given=given))
    text = f"no weights for images of this size in the cache; {expected} downloads some"
    assert caplog.messages == ([text] if expected else [])


def test_a_flip_that_is_set_excludes_the_other():
    for key in ("augment.flip", "augment.alternating_flip"):
        plan = _plan(_change(CIFAR, given={key: True}), [300, 1500], 500)
        assert not {"augment.flip", "augment.alternating_flip"} & plan.keys()


@pytest.mark.parametrize(("replicas", "batch"), [(1, 512), (3, 513), (7, 518)])
def test_batches_divide_among_replicas(replicas, batch):
    assert _plan(_change(CIFAR, replicas=replicas), [300, 1500], 500)["data.batch_size"] == batch


def test_settings_of_the_user_are_never_chosen():
    given = {"train.epochs": 3, "augment.flip": False, "data.batch_size": 8, "optimizer.base_lr": 0.01}
    plan = _plan(_change(CIFAR, given=given), [1500], 500)
    assert not given.keys() & plan.keys()
    given = {"train.epochs": 3}
    assert _plan(_change(TUNED, given=given), [14, 40], 500)["train.head_epochs"] == 1, "of three, not of 31"
    assert set(plan) <= set(planner.KEYS) <= {key for key, _ in iterate_keys()}


@pytest.mark.parametrize("facts", [CIFAR, DIGITS, PHOTOS, TUNED, _change(CIFAR, weights=SMALL)])
@pytest.mark.parametrize("rate", [0.001, 1.0, 100.0, 1e5])
def test_every_plan_is_a_configuration_with_a_reason_for_each_choice(facts, rate):
    choices = planner.choose(facts, dict.fromkeys(planner.candidates(facts), rate), 300)
    assert len({choice.key for choice in choices}) == len(choices)
    assert all(choice.reason and "\n" not in str(choice) for choice in choices)
    config = override(Config(), {choice.key: choice.value for choice in choices})
    assert 1 <= config.train.epochs <= 200
    assert config.train.eval_every <= config.train.epochs
    assert planner.describe(choices, 5)[0].startswith("train.minutes=5 chooses model.name=")


def test_more_time_never_gives_fewer_epochs_of_a_network():
    for facts in (CIFAR, FASHION, DIGITS, PHOTOS):
        (*_, fast) = planner.candidates(facts)
        epochs = [
            {each.key: each.value for each in planner.choose(facts, {fast: 50.0}, seconds)}["train.epochs"]
            for seconds in (10, 60, 300, 1200)
        ]
        assert facts is PHOTOS or epochs == sorted(epochs)


@pytest.fixture
def measured(monkeypatch):
    """Replace measurements by a rate, and return the list of measured settings."""
    found: list[dict] = []

    def measure(config, source, strategy, settings):
        found.append(settings)
        return Rate(400.0, 0.5)

    monkeypatch.setattr(time_budget, "_measure", measure)
    monkeypatch.setattr(time_budget, "_weights_at_hand", tuple)
    return found


def _auto(digits_arrays, *settings: str) -> Config:
    return load_config("auto", [f"data.source={digits_arrays}", "runtime.precision=float32", *settings])


def test_choices_are_stored_and_kept(digits_arrays, measured, tmp_path, caplog):
    config = _auto(digits_arrays, "train.minutes=2", "train.epochs=1", "model.name=resnet8_w32")
    with caplog.at_level("INFO", "resnet_tf"):
        train_and_evaluate(config, tmp_path)
    assert [each["model.name"] for each in measured] == ["resnet8_w32"]
    assert any("chooses optimizer.schedule=one_cycle: short runs" in each for each in caplog.messages)
    stored = load_config(tmp_path / "config.json")
    assert (stored.train.epochs, stored.data.image_size, stored.optimizer.schedule) == (1, 8, "one_cycle")
    assert not stored.augment.flip, "digits are gray"
    result = train_and_evaluate(config, tmp_path)
    assert len(measured) == 1, "a run that continues does not measure"
    assert result["step"] == load_run(tmp_path).step


def test_a_planned_batch_divides_into_micro_batches_and_pairs(digits_arrays, measured):
    settings = ["train.minutes=2", "model.name=resnet8_w32", "train.accumulate=3", "augment.mixup=0.2"]
    assert start(_auto(digits_arrays, *settings)).config.data.batch_size == 36, "32 or more, divided by 6"


def test_reduced_images_are_measured_at_their_size(tmp_path, measured, monkeypatch, caplog):
    rates = {192: 6.0, 96: 18.0}

    def measure(config, source, strategy, settings):
        measured.append(settings)
        return Rate(rates[settings["data.image_size"]], 0.5)

    monkeypatch.setattr(time_budget, "_measure", measure)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 200, 200, 3), np.uint8)
    labels = np.arange(40) % 2
    np.savez(tmp_path / "photos.npz", x_train=pixels, y_train=labels, x_test=pixels[:4], y_test=labels[:4])
    with caplog.at_level("INFO", "resnet_tf"):
        planned = start(_auto(tmp_path / "photos.npz", "train.minutes=2", "data.channels=3")).config
    assert [each["data.image_size"] for each in measured] == [192, 96]
    assert planned.data.image_size == 96
    assert "model.name=resnet18: the fastest, 18 images/s of 96 pixels; " in caplog.text


def test_signals_have_no_plan(measured, tiny_config):
    config = override_groups(tiny_config, data={"length": 8, "channels": 1}, train={"minutes": 1.0})
    with pytest.raises(UserError, match=r"train.minutes=1 chooses settings for images, and the data are signals"):
        time_budget.fit_into_minutes(config, open_source(tiny_config.data), None, Deadline(1.0))


def test_a_measurement_takes_steps_on_the_real_input(digits_arrays, monkeypatch):
    monkeypatch.setattr(time_budget, "_MEASURE_SECONDS", 0.01)
    config = override_groups(_auto(digits_arrays), train={"minutes": 0.0})
    started = start(config)
    settings = {"model.name": "resnet8_w32", "data.image_size": 8, "data.batch_size": 64}
    rate = time_budget._measure(config, started.source, started.strategy, settings)
    assert rate.images_per_second > 0
    assert rate.compile_seconds > 0


@pytest.mark.parametrize(("finetune", "trained"), [("head_then_all", "full"), ("probe", "probe")])
def test_a_measurement_takes_the_slowest_steps_of_the_run(digits_arrays, tmp_path, monkeypatch, finetune, trained):
    """Regression: steps of the head only, and on small images, gave plans of several times too many epochs."""
    found = []
    monkeypatch.setattr(time_budget, "_seconds", lambda trainer, *rest: found.append(trainer.config) or 9.0)
    weights = tmp_path / "start.weights.h5"
    create_model("resnet8_w32", num_classes=10, input_shape=(8, 8, 1)).save_weights(weights)
    started = start(override_groups(_auto(digits_arrays), train={"minutes": 0.0}))
    settings = {"model.name": "resnet8_w32", "model.weights": str(weights), "train.start_size": 4}
    config = override(started.config, settings | {"train.finetune": finetune})
    time_budget._measure(config, started.source, started.strategy, {"data.batch_size": 64})
    assert {each.train.finetune for each in found} == {trained}
    assert size_in_epoch(config, 0) == 4
    assert size_in_epoch(found[0], 0) is None


@pytest.mark.parametrize(
    ("settings", "count"),
    [({"data.batch_size": 16}, 256), ({"data.batch_size": 512}, 0), ({"augment.random_resized_crop": True}, 0)],
)
def test_a_measurement_loads_only_the_examples_that_it_trains_on(digits_arrays, settings, count):
    source = open_source(_auto(digits_arrays).data)
    config = override(_auto(digits_arrays), {"data.batch_size": 16, "data.image_size": 8, **settings})
    part = time_budget._part(config, source)
    assert part.train.num_examples == (count or source.train.num_examples)
    assert part.validation is source.validation
    assert set(part.train.labels) == set(source.train.labels)


def test_the_time_left_reserves_export_and_evaluations(monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: 1100.0)
    deadline = Deadline(10.0, start=1000.0)
    assert deadline.left(5.0) == 600 - 100 - 60 - 4 * 5
    assert Deadline(1.0, start=1100.0).left(0.0) == 30
    split = SimpleNamespace(num_examples=100)
    for test, evaluations in ((SimpleNamespace(num_examples=250), 6.5), (None, 4)):
        deadline = Deadline(10.0, start=1000.0)
        deadline.include_test(SimpleNamespace(validation=split, test=test))
        assert deadline.left(5.0) == 600 - 100 - 60 - evaluations * 5


@pytest.mark.parametrize(("importing", "compiling", "reserved"), [(3.0, 2.0, 16.0), (3.0, 30.0, 60.0), (0.0, 0.0, 0.0)])
def test_export_and_report_get_the_time_that_they_take_on_the_machine(importing, compiling, reserved, monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: 1100.0)
    monkeypatch.setattr(time, "process_time", lambda: importing)
    deadline = Deadline(10.0, start=1100.0)
    deadline.reserve(compiling)
    assert deadline.left(0.0) == 600 - reserved


def test_a_run_without_minutes_has_no_deadline():
    assert not Deadline(0.0).is_set


class _Loop:
    """The parts of the loop that the deadline needs."""

    def __init__(self, left: float):
        self._trainer = type("Trainer", (), {"state": RunState(epochs=2)})()
        self._config = override_groups(Config(), train={"epochs": 5, "minutes": 1.0})
        self._deadline = type("Deadline", (), {"is_set": True, "left": lambda self, seconds: left})()
        self._cluster = type("Cluster", (), {"from_chief": lambda self, values: values})()
        self._trainer.length = TrainingLength(5, 20)
        self._evaluation_seconds, self._pace = 1.0, Pace(most=5)
        for seconds in (30.0, 2.0):  # the first step compiles
            self._pace.note(1, seconds)


@pytest.mark.parametrize(("left", "ended"), [(100.0, False), (9.0, True)])
def test_a_run_that_is_slower_than_measured_ends_after_an_epoch(left, ended, caplog):
    loop = _Loop(left)
    _Fit._check_deadline(loop)
    assert loop._trainer.state.ended == ended
    assert ("slower than measured; the run ends after epoch 3 of 5" in caplog.text) == ended
