"""Look into a WKD-F distillation: feature maps as Gaussians, and how near the student's come to the teacher's.

A projector brings the student's 16 channels to the teacher's 96 while training, and is dropped afterwards. Both terms
are measured on test images before and after: how far the channels' means are apart, and how far their deviations.

    python examples/wkd_features_digits.py
    python examples/wkd_features_digits.py --smoke
"""

import argparse

import torch
from lightning import seed_everything

from graphkd import Distiller, losses
from graphkd.datasets import DigitsData
from graphkd.models import SmallCNN
from graphkd.training import ConstantThenCosine
from graphkd.training.run import run, train_teacher


@torch.no_grad()
def gaps(distiller: Distiller, data: DigitsData) -> dict[str, float]:
    """Both terms on the test images."""
    logs = distiller.eval()(*data.test).logs
    distiller.train()
    return {term: float(logs[f"wkd/{term}"]) for term in ("mean", "covariance")}


def main() -> None:
    """Train teacher and student; print both terms before and after, and what was dropped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="one epoch, to see that it runs")
    options = parser.parse_args()
    epochs = 1 if options.smoke else options.epochs

    seed_everything(options.seed, verbose=False)
    teacher, student = SmallCNN(width=24), SmallCNN(width=4)
    train_teacher(teacher, DigitsData(), epochs=min(epochs, 15), seed=0, enable_progress_bar=False)
    distiller = Distiller(
        student,
        teacher,
        student_features={"map": "body"},
        teacher_features={"map": "body"},
        criteria={"wkd": losses.wkd_features(student_channels=16, teacher_channels=96)},
        weights={"wkd": ConstantThenCosine(0.1, decay_from=(epochs + 1) // 2)},
    )
    distiller.set_epoch(1, epochs)
    data = DigitsData(labels_per_class=10, seed=options.seed)
    before = gaps(distiller, data)
    result, _ = run(distiller, data, epochs=epochs, seed=options.seed, enable_progress_bar=False)
    for term, after in gaps(distiller, data).items():
        share = 100 * (1 - after / before[term])
        print(f"{term:10s} on test images: {before[term]:7.2f} before training, {after:7.2f} after, {share:.0f} % less")
    print(f"dropped now: a projector of {result.extra_parameters} parameters, the student has {result.parameters}")
    print(f"student: test accuracy {100 * result.accuracy:.2f} %, agreement {100 * result.agreement:.2f} %")


if __name__ == "__main__":
    main()
