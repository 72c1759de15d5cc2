"""Plot docs/residual.png from the runs of the table in docs/depth.md, like Figure 6 of He et al. 2015.

python benchmarks/results/figure.py
"""

import sys
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from plan import PLAIN20, PLAIN56, RESNET20, RESNET56
from table import finished

from resnet_tf.core.files import read_json_lines
from resnet_tf.report.plots import save_figure

RESULTS = Path(__file__).parents[2] / "results"
CURVES = {
    "plain, 20 layers": (PLAIN20, "tab:orange", 1),
    "plain, 56 layers": (PLAIN56, "tab:orange", 2.5),
    "residual, 20 layers": (RESNET20[0], "tab:blue", 1),
    "residual, 56 layers": (RESNET56, "tab:blue", 2.5),
}


def main() -> None:
    figure = Figure(figsize=(10, 4), layout="constrained")
    loss, error = figure.subplots(1, 2)
    for label, (run, color, width) in CURVES.items():
        if not finished(run):
            sys.exit(f"results/{run.name} does not exist; run python benchmarks/results/run.py --root=DIR {run.name}")
        epochs = read_json_lines(RESULTS / run.name / "metrics.jsonl")
        epoch_numbers = [epoch["epoch"] for epoch in epochs]
        loss.plot(epoch_numbers, [epoch["loss"] for epoch in epochs], color=color, linewidth=width, label=label)
        error.plot(epoch_numbers, [100 * (1 - epoch["val_top1"]) for epoch in epochs], color=color, linewidth=width)
    loss.set(title="training loss (nats)", xlabel="epoch", ylim=(0, 2.5))
    error.set(title="validation error (%)", xlabel="epoch", ylim=(0, 90))
    figure.legend(loc="outside lower center", ncols=len(CURVES))
    for axes in (loss, error):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    save_figure(figure, RESULTS.parent / "docs" / "residual.png")


if __name__ == "__main__":
    main()
