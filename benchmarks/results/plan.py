"""Tables of results: the rows of each table, the runs of each row, and the command of each run."""

import dataclasses
import shlex
from dataclasses import dataclass

PYTORCH = "pytorch_cifar10"
CIFAR, FASHION = "data/cifar10", "data/fashion-mnist"
SCRATCH = ("model.weights=", "model.new_head=false", "train.finetune=full")
TWENTY_EPOCHS = ("train.epochs=20", "optimizer.decay_epochs=10,15")


@dataclass(frozen=True)
class Run:
    """A training run, whose results are in results/NAME.

    Attributes:
        name: name of the directory.
        config: name of the recipe, or `pytorch_cifar10` for benchmarks/pytorch_cifar10.py.
        overrides: `key=value` for each --set, or the arguments of benchmarks/pytorch_cifar10.py.
        evaluate: arguments of `python -m resnet_tf.evaluate`, if its accuracy is reported instead of the last epoch's.
        hub_of: name of the run whose hub export has the initial weights.
    """

    name: str
    config: str
    overrides: tuple[str, ...] = ()
    evaluate: tuple[str, ...] = ()
    hub_of: str = ""

    @property
    def command(self) -> str:
        """The command that repeats the run, without the seed."""
        if self.config == PYTORCH:
            words = (f"python benchmarks/{PYTORCH}.py", *self.overrides)
        else:
            overrides = (f"--set {shlex.quote(each)}" for each in self.overrides)  # [ ] are patterns in zsh
            words = ("python -m resnet_tf.train", f"--config={self.config}", *overrides)
        if self.evaluate:
            words += ("--workdir=run && python -m resnet_tf.evaluate --workdir=run", *self.evaluate)
        return " ".join(word for word in words if "seed=" not in word)


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        title: text of the first cell.
        runs: runs that differ in their seed only.
        published: accuracy in the source of the recipe, in %.
        run_here: false if the recipe needs other hardware; its runs have no files then.
    """

    title: str
    runs: tuple[Run, ...]
    published: str = ""
    run_here: bool = True


@dataclass(frozen=True)
class Table:
    """A table of a Markdown page.

    Attributes:
        name: name of the section of `page` between `<!-- results: NAME -->` and `<!-- end -->`.
        page: path of the page, relative to the root of the repository.
        rows: rows of the table.
    """

    name: str
    page: str
    rows: tuple[Row, ...]


def not_run(title: str, config: str, published: str, *overrides: str) -> Row:
    """Return the row of a recipe that needs other hardware, with the accuracy in its source."""
    return Row(title, (Run(config, config, overrides),), published, run_here=False)


def seeds(name: str, config: str, *overrides: str, count: int = 3, evaluate: tuple[str, ...] = ()) -> tuple[Run, ...]:
    """Return `count` runs that differ in their seed."""
    key = "--seed=" if config == PYTORCH else "runtime.seed="
    return tuple(Run(f"{name}_seed{seed}", config, (*overrides, f"{key}{seed}"), evaluate) for seed in range(count))


def cifar(name: str, config: str, *overrides: str, **options) -> tuple[Run, ...]:
    """Return runs of a CIFAR-10 recipe with several seeds."""
    return seeds(name, config, f"data.source={CIFAR}", *overrides, **options)


def same_budget(network: str) -> Run:
    """Return a run of another network with the paper's recipe in 20 epochs."""
    overrides = (f"data.source={CIFAR}", *TWENTY_EPOCHS, f"model.name={network}")
    return Run(f"{network}_20epochs", "cifar10_resnet20", overrides)


def variant(name: str, *overrides: str) -> tuple[Run, ...]:
    """Return a run of the fast recipe, with other settings if there are any."""
    return cifar(f"fast_{name}", "cifar10_fast", *overrides, count=1, evaluate=("--flip",))


def long_tail(name: str, *overrides: str) -> tuple[Run, ...]:
    """Return a run of a smaller network for a fifth of the epochs of Cao et al. 2019, with one method for imbalance."""
    short = ("model.name=resnet20", "train.epochs=40", "optimizer.decay_epochs=32,36")
    return cifar(f"longtail_{name}", "cifar10_longtail", *short, *overrides, count=1)


def fine_tuned(name: str, *overrides: str, hub_of: str = "") -> tuple[Run, ...]:
    """Return runs of ResNet-20 trained on 200 images of Fashion-MNIST, about 20 per class, and evaluated on 10,000."""
    few = (
        *(f"data.source={FASHION}", "data.train_split=train[:200]", "data.drop_remainder=true"),
        *("data.image_size=32", "data.crop_fraction=1"),
    )
    augment = ("augment.random_resized_crop=false", "augment.pad_crop=4", "train.eval_every=1000")
    runs = seeds(f"finetune_{name}", "finetune", "model.name=resnet20", *few, *augment, *overrides)
    return tuple(dataclasses.replace(run, hub_of=hub_of) for run in runs)


def finetune_modes(name: str, title: str, weights: str, hub_of: str = "") -> tuple[Row, ...]:
    """Return one row for each value of `train.finetune`, from the same initial weights."""
    modes = {"linear probe": "probe", "head first, then all layers": "head_then_all", "all layers": "full"}
    return tuple(
        Row(
            f"{title}: {text}",
            fine_tuned(f"{name}_{mode}", f"model.weights={weights}", f"train.finetune={mode}", hub_of=hub_of),
        )
        for text, mode in modes.items()
    )


FULL = Run("resnet20_164epochs", "cifar10_resnet20", (f"data.source={CIFAR}",))
RESNET20 = cifar("resnet20_20epochs", "cifar10_resnet20", *TWENTY_EPOCHS)
FAST = cifar("fast", "cifar10_fast", evaluate=("--flip",))
WIDE = cifar("wide", "cifar10_wide", evaluate=("--flip",))
SGD = ("optimizer.name=sgd", "optimizer.base_lr=0.2", "optimizer.weight_decay=5e-4", "optimizer.decay_all=true")
PREDECESSOR = (
    *("model.name=resnet8_w64", "data.batch_size=128", "augment.pad_crop=4", "train.epochs=36", "train.ema=0.998"),
    *("train.eval_every=6", *SGD, "optimizer.momentum=0.9", "optimizer.schedule=one_cycle"),
    "loss.label_smoothing=0.1",
)
HALF = same_budget("resnet20_w8")
PLAIN20, PLAIN56, RESNET56 = (same_budget(network) for network in ("plain20", "plain56", "resnet56"))

TABLES = (
    Table(
        "cifar10",
        "README.md",
        (
            Row("ResNet-20, the paper's full recipe", (FULL,), "91.25"),
            Row("fast recipe, logits averaged over each image and its mirror image", FAST),
            Row("the same with a wider network and more epochs", WIDE),
            Row("ResNet-20, the paper's recipe in 20 epochs", RESNET20),
            Row(
                "PyTorch, usual loop: float32, torchvision's DataLoader and transforms",
                seeds("pytorch_usual", PYTORCH, "--data=cifar", "--style=usual", count=1),
            ),
            Row(
                "PyTorch, tuned loop: bfloat16, channels_last, images in memory",
                seeds("pytorch_best", PYTORCH, "--data=cifar", "--style=best", count=1),
            ),
            Row(
                "Fashion-MNIST, ResNet-20 with Muon, logits averaged over each image and its mirror image",
                (Run("fashion_mnist", "fashion_mnist", (f"data.source={FASHION}",), evaluate=("--flip",)),),
                "95.61 (300 epochs)",
            ),
        ),
    ),
    Table(
        "fast",
        "docs/training.md",
        (
            Row("`cifar10_fast`", FAST),
            Row("`cifar10_wide`", WIDE),
            Row(
                "its predecessor: SGD with one cycle, `resnet8_w64`",
                cifar("one_cycle", "cifar10_fast", *PREDECESSOR, evaluate=("--flip",)),
            ),
        ),
    ),
    Table(
        "ablation",
        "docs/training.md",
        (
            Row("`cifar10_fast`", variant("unchanged")),
            Row("learned 3x3 stem with normalization", variant("learned_stem", "model.stem=small")),
            Row("`resnet8_w64`: learned stem, strides in place of pooling", variant("w64", "model.name=resnet8_w64")),
            Row("SGD in place of Muon", variant("sgd", *SGD, "optimizer.momentum=0.9")),
            Row("random flips", variant("random_flip", "augment.alternating_flip=false", "augment.flip=true")),
            Row("without label smoothing", variant("hard_labels", "loss.label_smoothing=0")),
        ),
    ),
    Table(
        "published",
        "docs/training.md",
        (
            not_run("CIFAR-10, ResNet-32, He et al. 2015", "cifar10_resnet32", "92.49"),
            not_run("CIFAR-10, ResNet-56, He et al. 2015", "cifar10_resnet56", "93.03"),
            not_run("CIFAR-10, ResNet-110, He et al. 2015", "cifar10_resnet110", "93.57"),
            not_run("CIFAR-10, ResNet-18, kuangliu/pytorch-cifar", "cifar10_resnet18", "93.02"),
            not_run("CIFAR-10, WRN-28-10, Zagoruyko and Komodakis 2016", "cifar10_wrn_28_10", "96.00"),
            not_run("CIFAR-10 with a long tail, ResNet-32, Cao et al. 2019", "cifar10_longtail", "70.36"),
            not_run("CIFAR-10, BiT-M-R50x1, Kolesnikov et al. 2020", "bit_finetune", "97.4", "data.source=cifar10"),
            not_run("ImageNet, ResNet-50 in 90 epochs, torchvision", "imagenet_resnet50", "76.13"),
            not_run("ImageNet, ResNet-50, NVIDIA", "imagenet_resnet50_v15", "77.0"),
            not_run("ImageNet, ResNet-50, A1 of ResNet strikes back", "imagenet_rsb_a1", "80.4"),
            not_run("ImageNet, ResNet-50, A2", "imagenet_rsb_a2", "79.8"),
            not_run("ImageNet, ResNet-50, A3", "imagenet_rsb_a3", "78.1"),
            not_run("ImageNet, ResNet-50, torchvision V2", "imagenet_torchvision_v2", "80.86"),
            not_run("ImageNet, ResNet-RS-50, Bello et al. 2021", "imagenet_resnet_rs50", "78.8"),
        ),
    ),
    Table(
        "residual",
        "docs/depth.md",
        (
            Row("20 layers, plain", (PLAIN20,)),
            Row("20 layers, residual", RESNET20[:1]),
            Row("56 layers, plain", (PLAIN56,)),
            Row("56 layers, residual", (RESNET56,)),
        ),
    ),
    Table(
        "longtail",
        "docs/training.md",
        (
            Row("plain loss", long_tail("plain")),
            Row("class weights", long_tail("class_weights", "loss.class_weights=inverse")),
            Row("balanced sampling", long_tail("balanced", "data.balance=uniform")),
            Row("focal loss", long_tail("focal", "loss.name=focal")),
            Row("logit adjustment", long_tail("logit_adjustment", "loss.logit_adjustment=1")),
        ),
    ),
    Table(
        "finetune",
        "docs/training.md",
        (
            *finetune_modes("imported", "published CIFAR-10 weights", "data/resnet20-12fca82f.th"),
            *finetune_modes("hub", "hub export", f"out/{RESNET20[-1].name}/export/hub/1", hub_of=RESNET20[-1].name),
            Row("from scratch, same number of steps", fine_tuned("scratch", *SCRATCH)),
            Row("from scratch, ten times as many steps", fine_tuned("scratch_long", *SCRATCH, "train.epochs=400")),
        ),
    ),
)


def all_runs() -> list[Run]:
    """Return each run of the tables once, in their order, and the run for benchmarks/results/cost.py."""
    runs = [run for table in TABLES for row in table.rows if row.run_here for run in row.runs]
    return list(dict.fromkeys([*runs, HALF]))
