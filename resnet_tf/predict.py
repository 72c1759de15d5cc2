"""Name what is on pictures, with an exported model.

python -m resnet_tf.predict --model=DIR/export/serving/1 cat.jpg dog.png
python -m resnet_tf.predict --model=DIR/export/serving --json *.jpg
"""

import dataclasses
import json

from absl import flags

from resnet_tf import cli
from resnet_tf.errors import UserError

FLAGS = flags.FlagValues()
MODEL = flags.DEFINE_string("model", "", "exported model, or the directory of its versions", flag_values=FLAGS)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "pictures answered at a time", lower_bound=1, flag_values=FLAGS)
JSON = flags.DEFINE_bool("json", False, "print one JSON object a picture", flag_values=FLAGS)


def main(arguments: list[str]) -> None:
    if not MODEL.value:
        raise UserError("--model=EXPORTED is missing, such as DIR/export/serving/1")
    if not arguments:
        raise UserError("no pictures given: name one file or more")

    from resnet_tf.serving.predictor import Predictor

    predictor = Predictor(MODEL.value)
    width = max(len(label) for label in predictor.labels)
    predictions = predictor.stream(arguments, batch_size=BATCH_SIZE.value)
    for file, prediction in zip(arguments, predictions, strict=True):
        if JSON.value:
            print(json.dumps({"file": file, **dataclasses.asdict(prediction)}))
            continue
        print(file)
        for place, (label, score) in enumerate(zip(prediction.labels, prediction.scores, strict=True), start=1):
            print(f"  {place}  {label:<{width}}  {score:.4f}")


if __name__ == "__main__":
    cli.run(main, FLAGS, doc=__doc__)
