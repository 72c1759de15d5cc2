"""Train a residual network, test it, export it, and check the export in a fresh process.

python -m resnet_tf.train                                          the embedded handwritten digits
python -m resnet_tf.train --config=NAME --workdir=DIR              a recipe; the same command continues a run
python -m resnet_tf.train --config=imagefolder --set data.source=photos/ --set model.name=resnet18
python -m resnet_tf.train --config=NAME --dry-run                  what it would do, and a picture of its first batch
"""

import datetime
from pathlib import Path

from absl import flags

from resnet_tf.config import Config, command_line, load_config

FLAGS = flags.FlagValues()
CONFIG, SET = command_line.config_flags(FLAGS)
WORKDIR = flags.DEFINE_string("workdir", "", "run directory; empty is runs/CONFIG-TIME", flag_values=FLAGS)
DRY_RUN = flags.DEFINE_bool(
    "dry_run",
    False,
    "say what the run would do, draw its first batch to CONFIG-dry-run.png, and end",
    flag_values=FLAGS,
)


def main(arguments: list[str]) -> None:
    command_line.no_arguments(arguments)
    config = load_config(CONFIG.value, overrides=SET.value)
    if DRY_RUN.value:
        _show_plan(config)
        return
    workdir = Path(WORKDIR.value or f"runs/{Path(CONFIG.value).stem}-{datetime.datetime.now():%Y%m%d-%H%M%S}")

    from resnet_tf.data.sources import open_source
    from resnet_tf.serving.artifact import find_export_of_step
    from resnet_tf.serving.export import export_model
    from resnet_tf.serving.verify import verify
    from resnet_tf.training.cluster import is_chief
    from resnet_tf.training.evaluation import evaluate_run
    from resnet_tf.training.run import load_run
    from resnet_tf.workflows.reporting import write_run_report
    from resnet_tf.workflows.train import train_and_evaluate

    train_and_evaluate(config, workdir)
    if not is_chief(config.runtime):
        return
    run = load_run(workdir)
    config = run.config  # with what follows from the data
    source = open_source(config.data)
    evaluation = evaluate_run(run, source, batch_size=config.data.batch_size)
    print(f"test    {evaluation}")
    print(f"report  {write_run_report(workdir / 'report', run, evaluation, source)}")
    versions = workdir / "export" / "serving"
    export = find_export_of_step(versions, run.step) or export_model(run, versions)
    print(f"export  {export}")
    checked = evaluation.logits[: config.export.verify_examples]
    print(f"        {verify(export, checked, batch_size=config.data.batch_size)}")


def _show_plan(config: Config) -> None:
    from resnet_tf.data.sources import open_source
    from resnet_tf.training.default_settings import resolve
    from resnet_tf.workflows.plan import make_plan
    from resnet_tf.workflows.reporting import draw_batch

    config, name = resolve(config), Path(CONFIG.value).stem
    facts, picture = make_plan(config), Path(f"{name}-dry-run.png")
    draw_batch(picture, config, open_source(config.data), step=0, count=32, title=f"{name}: first batch")
    for fact, text in {**facts, "first batch": picture}.items():
        print(f"{fact:<14} {text}")


if __name__ == "__main__":
    command_line.run(main, FLAGS, doc=__doc__, with_config=True)
