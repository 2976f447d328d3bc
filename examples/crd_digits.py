"""Look into a CRD distillation: does the student's embedding of an image find that image in the teacher's memory?

The memory has one row for each of the 1000 training images, 900 of them without a label. Trained with Lightning, which
hands on each image's place in the data set because the data module gives it.

    python examples/crd_digits.py
    python examples/crd_digits.py --smoke
"""

import argparse

import torch
from lightning import seed_everything

from graphkd import Criterion, Distiller, losses
from graphkd.datasets import DigitsData
from graphkd.encoders import Remembering
from graphkd.features import FeatureExtractor
from graphkd.models import SmallCNN
from graphkd.training.run import run, train_teacher


@torch.no_grad()
def print_retrieval(when: str, student: SmallCNN, criterion: Criterion) -> None:
    """How often the nearest of all rows that the teacher's memory has is the image's own, or of its digit."""
    images, labels = DigitsData().train
    encode, remembered = criterion.student, criterion.teacher
    assert isinstance(encode, Remembering) and isinstance(remembered, Remembering)
    features = FeatureExtractor(student.eval(), {"feat": "pool"})(images).features
    embedded = encode.encoder(features)[0].x
    student.train()
    nearest = (embedded @ remembered.bank.rows.T).argmax(1)
    own = (nearest == torch.arange(len(images))).float().mean()
    same = (labels[nearest] == labels).float().mean()
    print(
        f"{when}: of {len(images)} images {100 * own:.1f} % find their own row among all {len(remembered.bank.rows)}, "
        f"{100 * same:.1f} % one of their digit"
    )


def main() -> None:
    """Train teacher and student; print how many images find themselves before and after."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="one epoch, to see that it runs")
    options = parser.parse_args()
    epochs = 1 if options.smoke else options.epochs

    seed_everything(options.seed, verbose=False)
    teacher, student = SmallCNN(width=24), SmallCNN(width=4)
    train_teacher(teacher, DigitsData(), epochs=min(epochs, 15), seed=0, enable_progress_bar=False)
    criterion = losses.crd(16, 96, num_samples=1000, num_negatives=1000)
    distiller = Distiller(
        student,
        teacher,
        student_features={"feat": "pool"},
        teacher_features={"feat": "pool"},
        criteria={"crd": criterion},
        weights={"crd": 0.8},
    )
    print_retrieval("before training", student, criterion)
    data = DigitsData(labels_per_class=10, seed=options.seed, with_index=True)
    result, history = run(distiller, data, epochs=epochs, seed=options.seed, enable_progress_bar=False)
    print_retrieval("after training", student, criterion)
    contrast = history.curves["train/crd/contrast"]
    print(f"contrast: {contrast[0]:.2f} in the first epoch, {contrast[-1]:.2f} in the last")
    print(f"student: test accuracy {100 * result.accuracy:.2f} %, agreement {100 * result.agreement:.2f} %")


if __name__ == "__main__":
    main()
