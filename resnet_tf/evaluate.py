"""Test a trained run or an exported model; every image counts once.

python -m resnet_tf.evaluate --workdir=DIR
python -m resnet_tf.evaluate --model=DIR/export/serving
python -m resnet_tf.evaluate --model=DIR/export/serving --data=photos/ --json
"""

import json

from absl import flags

from resnet_tf import cli
from resnet_tf.config import override, parse_assignments
from resnet_tf.errors import UserError

FLAGS = flags.FlagValues()
WORKDIR = flags.DEFINE_string("workdir", "", "run directory to test the newest checkpoint of", flag_values=FLAGS)
MODEL = flags.DEFINE_string("model", "", "exported model to test, instead of --workdir", flag_values=FLAGS)
DATA = flags.DEFINE_string("data", "", "other data than it was trained on, as in data.source", flag_values=FLAGS)
SET = flags.DEFINE_multi_string("set", [], "override a data key, as in --set data.eval_split=val", flag_values=FLAGS)
JSON = flags.DEFINE_bool("json", False, "print one JSON object", flag_values=FLAGS)
CLASSES = flags.DEFINE_bool("classes", False, "also each class's recall, and what it is taken for", flag_values=FLAGS)
FLIP = flags.DEFINE_bool("flip", False, "mean logits of a picture and its mirror; for --workdir", flag_values=FLAGS)


def main(arguments: list[str]) -> None:
    cli.no_arguments(arguments)
    if bool(WORKDIR.value) == bool(MODEL.value):
        raise UserError("give either --workdir=DIR or --model=EXPORTED")
    if FLIP.value and MODEL.value:
        raise UserError("--flip takes --workdir=DIR: an exported model answers as it was exported")
    changes = parse_assignments([*SET.value, *([f"data.source={DATA.value}"] if DATA.value else [])])

    from resnet_tf.data.sources import check_classes, open_source
    from resnet_tf.serving.predictor import Predictor
    from resnet_tf.training.evaluation import Evaluation, evaluate_run
    from resnet_tf.training.run import load_run

    if WORKDIR.value:
        run = load_run(WORKDIR.value)
        data = override(run.config, changes).data
        evaluation = evaluate_run(run, open_source(data), batch_size=data.batch_size, flip=FLIP.value)
        labels = run.labels
    else:
        predictor = Predictor(MODEL.value)
        source = open_source(override(predictor.config, changes).data)
        check_classes(predictor.labels, source)
        evaluation = Evaluation(*predictor.logits(source.test))
        labels = predictor.labels
    if JSON.value:
        print(json.dumps(evaluation.to_dict() | (evaluation.classes(labels) if CLASSES.value else {})))
        return
    print(evaluation)
    if CLASSES.value:
        print(evaluation.describe_classes(labels))


if __name__ == "__main__":
    cli.run(main, FLAGS, doc=__doc__)
