"""Look into an FGW distillation: what nodes and structure cost, and what holds the plan at the right pairs.

After training, a batch of test images is compared once more, and once with the teacher's images shuffled: a plan that
nothing anchors follows the shuffle as if nothing had happened.

    python examples/fgw_digits.py
    python examples/fgw_digits.py --smoke
"""

import argparse

import torch
from lightning import seed_everything
from torch import Tensor

from graphkd import Criterion, Distiller, FeatureExtractor, losses, metrics
from graphkd.datasets import DigitsData
from graphkd.models import SmallCNN
from graphkd.training.run import run, train_teacher

FEATURES = {"feat": "pool", "logits": "logits"}


def describe(name: str, criterion: Criterion, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> None:
    """The two parts of the objective, and where the plan's mass is."""
    seen = criterion(student, teacher).comparisons["hop0"]
    assert seen.cost is not None
    nodes = float((seen.plan * seen.cost).sum())
    structure = 2 * float(seen.value) - nodes  # alpha is a half
    print(
        f"{name}: objective {seen.value:.3f}, nodes {nodes:.3f}, structure {structure:.3f}, "
        f"{metrics.diagonal_mass(seen.plan):.0%} of the mass on the same row, marginal error {seen.marginal_error:.1e}"
    )


def main() -> None:
    """Train teacher and student, then compare them on one batch."""
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
        student_features={"feat": "pool"},
        teacher_features={"feat": "pool"},
        criteria={"fgw": losses.fgw()},
    )
    data = DigitsData(labels_per_class=10, seed=options.seed)
    result, history = run(distiller, data, epochs=epochs, seed=options.seed, enable_progress_bar=False)
    curve = history.curves["train/fgw/hop0"]
    print(f"objective {curve[0]:.3f} in the first epoch, {curve[-1]:.3f} in the last")
    print(f"student: test accuracy {100 * result.accuracy:.2f} %, agreement {100 * result.agreement:.2f} %")

    images = data.test[0][:64]
    with torch.no_grad():
        seen = [FeatureExtractor(model.eval(), FEATURES)(images).features for model in (student, teacher)]
        order = torch.randperm(64)
        shuffled = {name: x[order] for name, x in seen[1].items()}
        for name, anchor in (("anchored    ", 2.0), ("not anchored", 0.0), ("fixed       ", None)):
            describe(f"{name}, right pairs   ", losses.fgw(anchor=anchor), seen[0], seen[1])
            describe(f"{name}, shuffled pairs", losses.fgw(anchor=anchor), seen[0], shuffled)


if __name__ == "__main__":
    main()
