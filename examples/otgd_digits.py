"""Look into an OTGD distillation: plan before and after message passing, numbers beside the pictures.

Trains as ``graphkd train --config examples/configs/digits/otgd.yaml`` does, with Lightning, then compares a batch of
test images as student and teacher see it, and saves the two plans.

    python examples/otgd_digits.py --out otgd_plans.png
    python examples/otgd_digits.py --smoke
"""

import argparse
from pathlib import Path

import torch
from lightning import seed_everything

from graphkd import Distiller, losses, metrics
from graphkd.datasets import DigitsData
from graphkd.models import SmallCNN
from graphkd.training.run import run, train_teacher
from graphkd.viz import plot_before_after


def main() -> None:
    """Train teacher and student, then compare them on one batch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="where to save the picture of the plans")
    parser.add_argument("--smoke", action="store_true", help="one epoch, to see that it runs")
    options = parser.parse_args()
    epochs = 1 if options.smoke else options.epochs

    seed_everything(options.seed, verbose=False)
    teacher, student = SmallCNN(width=24), SmallCNN(width=4)
    train_teacher(teacher, DigitsData(), epochs=min(epochs, 15), seed=0, enable_progress_bar=False)
    distiller = Distiller(
        student,
        teacher,
        student_features={"feat": "pool"},
        teacher_features={"feat": "pool"},
        criteria={"otgd": losses.otgd(), "kd": losses.kd()},
    )
    data = DigitsData(labels_per_class=10, seed=options.seed)
    result, _ = run(distiller, data, epochs=epochs, seed=options.seed, enable_progress_bar=False)
    print(f"student: test accuracy {100 * result.accuracy:.2f} %, agreement {100 * result.agreement:.2f} %")

    images, labels = data.test[0][:64], data.test[1][:64]
    order = labels.argsort()
    with torch.no_grad():
        comparisons = distiller.eval()(images[order], labels[order]).comparisons
    before, after = comparisons["otgd/f"], comparisons["otgd/g"]
    for name, comparison in (("before", before), ("after", after)):
        print(
            f"{name} message passing: {metrics.diagonal_mass(comparison.plan):.1%} of the mass on the same image, "
            f"{metrics.class_purity(comparison.plan, labels[order]):.1%} on the same digit, "
            f"marginal error {comparison.marginal_error:.1e}"
        )
    if options.out is not None:
        panels = plot_before_after({"before": before, "after": after}, labels=labels[order])
        panels[0].figure.savefig(options.out, dpi=110)


if __name__ == "__main__":
    main()
