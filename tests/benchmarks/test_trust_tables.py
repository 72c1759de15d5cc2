"""benchmarks/trust.py: calibration of published networks."""

import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED_DATA
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))
import trust  # noqa: E402

WEIGHTS = SHARED_DATA / "cifar_resnet"


def test_the_tables_are_up_to_date():
    trust.write_table(check_only=True)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(not WEIGHTS.is_dir(), reason="the weights are not beside the checkout")
def test_a_network_is_measured(tmp_path):
    rng = np.random.default_rng(0)
    for label in range(10):
        folder = tmp_path / "test" / f"class{label}"
        folder.mkdir(parents=True)
        for index in range(8):
            Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(folder / f"{index}.png")
    row = trust.measure("resnet20", WEIGHTS / trust.FILES["resnet20"], tmp_path, {"digits": "digits"})
    assert (row["network"], row["examples"], row["top1_after"]) == ("resnet20", 80, row["top1"])
    assert row["loss_after"] < row["loss_before"], "a network that guesses is not confident"
    assert 0 <= row["ood"]["digits"]["energy_auroc"] <= 1
    text = trust.render([{**row, "coverage": 0.5, "precision": 0.9}])
    assert "| resnet20 | digits (899) |" in text
