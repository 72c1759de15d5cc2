"""Train a network, evaluate it, export it, and verify the export in a new process.

python -m resnet_tf.train                                          the embedded handwritten digits
python -m resnet_tf.train photos/                                  a data source, with the recipe auto (ten minutes)
python -m resnet_tf.train cifar10_resnet20                         a recipe
python -m resnet_tf.train --config=NAME --workdir=DIR              a recipe; the same command continues a run
python -m resnet_tf.train --config=auto --set data.source=photos/ --set train.minutes=30
python -m resnet_tf.train --config=NAME --dry-run                  print the plan, plot the first batch
"""

from pathlib import Path

from absl import flags

import resnet_tf
from resnet_tf.config import command_line, load_config
from resnet_tf.core.text import counted, shows_top5

command_line.refuse_import(__name__)

FLAGS = flags.FlagValues()
CONFIG, SET = command_line.config_flags(FLAGS)
WORKDIR = flags.DEFINE_string("workdir", "", "run directory; empty is runs/CONFIG-TIME", flag_values=FLAGS)
DRY_RUN = flags.DEFINE_bool(
    "dry_run",
    False,
    "print the plan of the run, plot its first batch to CONFIG-dry-run.png, and exit; with --workdir, the plan of the "
    "run in that directory, which is not changed",
    flag_values=FLAGS,
)


def main(arguments: list[str]) -> None:
    """Run the command."""
    recipe, overrides = command_line.recipe_or_data(arguments, CONFIG, SET)
    config, name = load_config(recipe, overrides=overrides), Path(recipe).stem
    if DRY_RUN.value:
        print(resnet_tf.plan(config, path=f"{name}-dry-run.png", name=name, workdir=WORKDIR.value or None))
        return
    result = resnet_tf.train(config, WORKDIR.value or None, name=name)
    if result:  # the chief's; other workers write nothing
        print(f"val     {result.evaluation}")
        if test := result.test_metrics:
            top1, top5, loss = (test[f"test_{name}"] for name in ("top1", "top5", "loss"))
            shown_top5 = f"  top-5 {top5:.4f}" if shows_top5(len(result.run.labels)) else ""
            examples = counted(int(test["test_examples"]), "example")
            print(f"test    top-1 {top1:.4f}{shown_top5}  loss {loss:.4f}  on {examples}")
        if result.calibration:
            print(f"trust   {result.calibration}")
        print(f"report  {result.report}")
        print(f"export  {result.export}")
        print(f"        {result.verification}")


if __name__ == "__main__":
    command_line.run(main, FLAGS, doc=__doc__, with_config=True)
