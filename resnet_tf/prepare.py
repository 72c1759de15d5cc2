"""Turn a folder of pictures into a TFDS directory: sharded TFRecord files, which read and move faster than many files.

python -m resnet_tf.prepare --from=photos/ --to=prepared/
python -m resnet_tf.train --config=imagefolder --set data.source=prepared/

The folder holds split/class/file, or class/file, of which a share (--eval-fraction) becomes the test split. The files
are kept byte for byte.
"""

from pathlib import Path

from absl import flags

from resnet_tf.config import command_line

FLAGS = flags.FlagValues()
FROM = flags.DEFINE_string("from", "", "folder of pictures to read", flag_values=FLAGS)
TO = flags.DEFINE_string("to", "", "directory to write; it must not exist, or be empty", flag_values=FLAGS)
EVAL_FRACTION = flags.DEFINE_float(
    "eval_fraction",
    0.1,
    "share of a folder of class/file that becomes the test split",
    lower_bound=0.0,
    upper_bound=1.0,
    flag_values=FLAGS,
)


def main(arguments: list[str]) -> None:
    command_line.no_arguments(arguments)
    command_line.require(FROM, TO)

    from resnet_tf.data.prepare import prepare_folder

    written = prepare_folder(Path(FROM.value), Path(TO.value), eval_fraction=EVAL_FRACTION.value)
    for split in written.splits.values():
        print(f"{split.name}: {split.num_examples:,} pictures in {split.num_shards} file(s)")
    print(f"data.source={TO.value}")


if __name__ == "__main__":
    command_line.run(main, FLAGS, doc=__doc__)
