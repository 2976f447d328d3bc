"""Look into plan matching: a student of another architecture learns which images its teacher finds alike.

Each network's batch is transported onto itself; the student's plan follows the teacher's. Nothing is projected: the
MLP's 16 hidden units and the CNN's 96 channels never meet.

    python examples/plan_matching_digits.py
    python examples/plan_matching_digits.py --smoke
"""

import argparse

import torch
from lightning import seed_everything
from torch import Tensor, nn

from graphkd import Distiller, losses
from graphkd.datasets import DigitsData
from graphkd.models import SmallCNN
from graphkd.training.run import run, train_teacher


class MLP(nn.Module):
    """64 pixels, 16 hidden units, 10 digits."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU())
        self.out = nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Class logits."""
        return self.out(self.hidden(images))


@torch.no_grad()
def print_plans(when: str, distiller: Distiller, data: DigitsData) -> None:
    """How far the two plans are apart on test images, and how many of the teacher's nearest are the student's."""
    images, labels = data.test[0][:200], data.test[1][:200]
    comparison = distiller.eval()(images, labels).comparisons["plans/self"]
    distiller.train()
    assert comparison.relations is not None
    others = 1 - torch.eye(len(labels))
    student, teacher = (relation * others for relation in comparison.relations)
    nearest = [relation.topk(8).indices for relation in (student, teacher)]
    shared = 100 * float((nearest[0].unsqueeze(2) == nearest[1].unsqueeze(1)).any(2).float().mean())
    same = labels.unsqueeze(1) == labels
    on_digit = [100 * float(relation[same].sum() / relation.sum()) for relation in (student, teacher)]
    print(
        f"{when}: divergence {comparison.value:.3f}, {shared:.0f} % of the teacher's 8 nearest are the student's; "
        f"mass to others of the same digit: student {on_digit[0]:.0f} %, teacher {on_digit[1]:.0f} %"
    )


def main() -> None:
    """Train a CNN, then an MLP alone and by its plans."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="one epoch, to see that it runs")
    options = parser.parse_args()
    epochs = 1 if options.smoke else options.epochs

    seed_everything(options.seed, verbose=False)
    teacher = SmallCNN(width=24)
    train_teacher(teacher, DigitsData(), epochs=min(epochs, 15), seed=0, enable_progress_bar=False)
    data = DigitsData(labels_per_class=10, seed=options.seed)
    for name, weight in (("alone", 0.0), ("with plan matching", 1.0)):
        seed_everything(options.seed, verbose=False)
        distiller = Distiller(
            MLP(),
            teacher,
            student_features={"feat": "hidden"},
            teacher_features={"feat": "pool"},
            criteria={"plans": losses.plan_matching()},
            weights={"plans": weight},
        )
        print_plans("before training", distiller, data)
        result, _ = run(distiller, data, epochs=epochs, seed=options.seed, enable_progress_bar=False)
        print_plans("after training", distiller, data)
        print(f"{name}: test accuracy {100 * result.accuracy:.2f} %, agreement {100 * result.agreement:.2f} %")


if __name__ == "__main__":
    main()
