"""Train a residual network, test it, export it, and check the export in a fresh process.

python -m resnet_tf.train                                          the embedded handwritten digits
python -m resnet_tf.train --config=NAME --workdir=DIR              a recipe; the same command continues a run
python -m resnet_tf.train --config=imagefolder --set data.source=photos/ --set model.name=resnet18
"""

import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from resnet_tf import cli
from resnet_tf.config import load_config

if TYPE_CHECKING:
    from resnet_tf.data.sources import Source
    from resnet_tf.training.evaluation import Evaluation
    from resnet_tf.training.run import Run

FLAGS = flags.FlagValues()
CONFIG, SET = cli.config_flags(FLAGS)
WORKDIR = flags.DEFINE_string("workdir", "", "run directory; empty is runs/CONFIG-TIME", flag_values=FLAGS)


def main(arguments: list[str]) -> None:
    cli.no_arguments(arguments)
    config = load_config(CONFIG.value, overrides=SET.value)
    workdir = Path(WORKDIR.value or f"runs/{Path(CONFIG.value).stem}-{datetime.datetime.now():%Y%m%d-%H%M%S}")

    from resnet_tf.data.sources import open_source
    from resnet_tf.serving.artifact import find_export_of_step
    from resnet_tf.serving.export import export_model
    from resnet_tf.serving.verify import verify
    from resnet_tf.training.evaluation import evaluate_run
    from resnet_tf.training.loop import train_and_evaluate
    from resnet_tf.training.run import load_run
    from resnet_tf.training.runtime import is_chief

    train_and_evaluate(config, workdir)
    if not is_chief(config.runtime):
        return
    run = load_run(workdir)
    config = run.config  # with what follows from the data
    source = open_source(config.data)
    evaluation = evaluate_run(run, source, batch_size=config.data.batch_size)
    print(f"test    {evaluation}")
    print(f"report  {_draw(run, source, evaluation)}")
    versions = workdir / "export" / "serving"
    export = find_export_of_step(versions, run.step) or export_model(run, versions)
    print(f"export  {export}")
    checked = evaluation.logits[: config.export.verify_examples]
    print(f"        {verify(export, checked, batch_size=config.data.batch_size)}")


def _draw(run: "Run", source: "Source", evaluation: "Evaluation") -> Path:
    """The picture of the run: curves, confusion matrix, mistakes."""
    from resnet_tf.data.pipeline import load_pictures
    from resnet_tf.report.plots import draw_summary
    from resnet_tf.training.progress import read_metrics
    from resnet_tf.training.run import METRICS

    worst = evaluation.mistakes(12)
    pictures = load_pictures(source.test, run.preprocess, worst)
    named = [
        (picture, run.labels[evaluation.labels[index]], run.labels[evaluation.predictions[index]])
        for picture, index in zip(pictures, worst, strict=True)
    ]
    return draw_summary(
        run.workdir / "report" / "summary.png",
        title=f"{run.config.model.name} on {run.config.data.source}: {evaluation}",
        metrics=read_metrics(run.workdir / METRICS),
        labels=evaluation.labels,
        predictions=evaluation.predictions,
        class_names=run.labels,
        mistakes=named,
    )


if __name__ == "__main__":
    cli.run(main, FLAGS, doc=__doc__, with_config=True)
