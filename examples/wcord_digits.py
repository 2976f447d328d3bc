"""Look into a WCoRD distillation, in plain PyTorch: a memory of the data set, and a transport plan within the batch.

The loop hands the distiller each image's place in the data set, where its embedding is remembered. The local term's
plan is not told which image is which: what it has on its diagonal beyond chance has been learned. The two terms are
weighted as in the paper, and both three times as much.

    python examples/wcord_digits.py
    python examples/wcord_digits.py --smoke
"""

import argparse

import torch
from lightning import seed_everything
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR

from graphkd import Distiller, losses, metrics
from graphkd.datasets import DigitsData
from graphkd.models import SmallCNN
from graphkd.training.run import train_teacher


def train(distiller: Distiller, data: DigitsData, epochs: int) -> None:
    """A training loop like any other, with an index."""
    optimizer = SGD(distiller.learnable_parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    schedule = CosineAnnealingLR(optimizer, T_max=epochs)
    loader = data.train_dataloader()
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        for images, labels, index in loader:
            step = distiller(images, labels, index)
            optimizer.zero_grad()
            step.loss.backward()
            optimizer.step()
        schedule.step()


@torch.no_grad()
def print_plan(when: str, distiller: Distiller, batch_size: int = 50) -> None:
    """Which share of the local plan's mass goes from an image to itself, mean over batches of the training images."""
    images, labels = DigitsData().train
    index = torch.arange(len(labels))
    own, same, errors = [], [], []
    distiller.eval()
    for rows in index.split(batch_size):
        comparison = distiller(images[rows], labels[rows], rows).comparisons["wcord/local"]
        own.append(metrics.diagonal_mass(comparison.plan))
        same.append(metrics.class_purity(comparison.plan, labels[rows]))
        errors.append(comparison.marginal_error)
    distiller.train()
    on_image, on_digit = (100 * float(torch.stack(mass).mean()) for mass in (own, same))
    print(
        f"{when}: {on_image:.1f} % of the mass on the same image (chance {100 / batch_size:.0f} %), "
        f"{on_digit:.1f} % on the same digit, marginal error up to {torch.stack(errors).max():.1e}"
    )


@torch.no_grad()
def shares(distiller: Distiller, data: DigitsData) -> tuple[float, float]:
    """Of the test images: on which the student is right, and on which it agrees with the teacher; in percent."""
    assert distiller.teacher is not None
    images, labels = data.test
    chosen, taught = (model.eval()(images).argmax(-1) for model in (distiller.student, distiller.teacher))
    return tuple(100 * float((chosen == other).float().mean()) for other in (labels, taught))


def main() -> None:
    """Train teacher and student; print where the plan's mass is before and after."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="one epoch, to see that it runs")
    options = parser.parse_args()
    epochs = 1 if options.smoke else options.epochs

    seed_everything(options.seed, verbose=False)
    teacher, student = SmallCNN(width=24), SmallCNN(width=4)
    train_teacher(teacher, DigitsData(), epochs=min(epochs, 15), seed=0, enable_progress_bar=False)
    data = DigitsData(labels_per_class=10, seed=options.seed, with_index=True)
    distiller = Distiller(
        student,
        teacher,
        student_features={"feat": "pool"},
        teacher_features={"feat": "pool"},
        criteria={"wcord": losses.wcord(16, 96, num_samples=1000, num_negatives=512)},
        weights={"wcord": 3.0},
    )
    print_plan("before training", distiller)
    train(distiller, data, epochs)
    print_plan("after training", distiller)
    accuracy, agreement = shares(distiller, data)
    print(f"student: test accuracy {accuracy:.2f} %, agreement {agreement:.2f} %")


if __name__ == "__main__":
    main()
