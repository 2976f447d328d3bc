"""Look into an RTOT distillation: which of the teacher's neurons did each of the student's become?

The teacher's pooled layer has 96 neurons, the student's 16. Transport splits the 96 among the 16, exactly or by
Sinkhorn; the baseline has no choice: neuron i of the student follows neuron i of the teacher's first 16.

    python examples/rtot_digits.py
    python examples/rtot_digits.py --smoke
"""

import argparse
import copy

import torch
from lightning import seed_everything
from torch import Tensor, nn

from graphkd import Distiller, losses
from graphkd.datasets import DigitsData
from graphkd.models import SmallCNN
from graphkd.training.run import run, train_teacher
from graphkd.typing import Comparison


class Teacher(SmallCNN):
    """A CNN that also shows the first 16 of its neurons, as many as the student has."""

    def __init__(self) -> None:
        super().__init__(width=24)
        self.first = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Class logits."""
        pooled = self.pool(self.body(images))
        self.first(pooled[:, :16])
        return self.fc(pooled)


@torch.no_grad()
def compare(student: SmallCNN, teacher: Teacher, coupling: str) -> Comparison:
    """All neurons of both networks, by their responses to the test images."""
    features = {"feat": "pool"}
    criteria = {"rtot": losses.rtot(coupling=coupling)}
    distiller = Distiller(student, teacher, student_features=features, teacher_features=features, criteria=criteria)
    return distiller.eval()(*DigitsData().test).comparisons["rtot/neurons"]


def main() -> None:
    """Train a teacher and three students; print what each came to, and what the plans of one say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="one epoch, to see that it runs")
    options = parser.parse_args()
    epochs = 1 if options.smoke else options.epochs

    seed_everything(options.seed, verbose=False)
    teacher, untrained = Teacher(), SmallCNN(width=4)
    train_teacher(teacher, DigitsData(), epochs=min(epochs, 15), seed=0, enable_progress_bar=False)
    students = {}
    for coupling in ("exact", "sinkhorn", "identity"):
        student = students[coupling] = copy.deepcopy(untrained)
        distiller = Distiller(
            student,
            teacher,
            student_features={"feat": "pool"},
            teacher_features={"feat": "first" if coupling == "identity" else "pool"},
            criteria={"rtot": losses.rtot(coupling=coupling)},
            weights={"rtot": 3.0},
        )
        data = DigitsData(labels_per_class=10, seed=options.seed)
        result, history = run(distiller, data, epochs=epochs, seed=options.seed, enable_progress_bar=False)
        curve = history.curves["train/rtot/neurons"]
        print(
            f"{coupling:8s}: cost of the plan {curve[0]:.3f} in the first epoch, {curve[-1]:.3f} in the last; "
            f"test accuracy {100 * result.accuracy:.2f} %, agreement {100 * result.agreement:.2f} %"
        )

    exact, entropic = (compare(students["exact"], teacher, coupling) for coupling in ("exact", "sinkhorn"))
    took, softly = exact.plan.argmax(0), entropic.plan.argmax(0)
    same = 100 * float((took == softly).float().mean())
    print(f"exact student on test images: the two plans give {same:.0f} % of the teacher's neurons to the same neuron,")
    print(f"with an error of the marginals of {exact.marginal_error:.1e} and {entropic.marginal_error:.1e}")
    for neuron in range(exact.plan.shape[0]):
        print(f"student {neuron:2d} took {(took == neuron).nonzero().flatten().tolist()}")


if __name__ == "__main__":
    main()
