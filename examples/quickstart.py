"""Distil a student in plain PyTorch: the ten lines of the README, grown to a training loop. No Lightning, no config.

python examples/quickstart.py            # a minute on two cores
python examples/quickstart.py --smoke    # seconds
"""

import argparse

import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR

from graphkd import Distiller, losses
from graphkd.datasets import DigitsData
from graphkd.models import SmallCNN


def train(distiller: Distiller, data: DigitsData, epochs: int) -> None:
    """A training loop like any other."""
    optimizer = SGD(distiller.learnable_parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    schedule = CosineAnnealingLR(optimizer, T_max=epochs)
    loader = data.train_dataloader()
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        for images, labels in loader:
            step = distiller(images, labels)
            optimizer.zero_grad()
            step.loss.backward()
            optimizer.step()
        schedule.step()


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """In percent, on images that nothing was tuned on."""
    chosen = model.eval()(images).argmax(-1)
    model.train()
    return 100 * float((chosen == labels).float().mean())


def main() -> None:
    """Train a teacher, then the same student alone and with OTGD."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--labels-per-class", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="two epochs, to see that it runs")
    options = parser.parse_args()
    epochs = 2 if options.smoke else options.epochs
    test = DigitsData().test

    torch.manual_seed(options.seed)
    teacher = SmallCNN(width=24)
    train(Distiller(teacher), DigitsData(), epochs)
    print(f"teacher        {accuracy(teacher, *test):6.2f} %")

    few = DigitsData(options.labels_per_class, seed=options.seed)
    torch.manual_seed(options.seed)
    alone = SmallCNN(width=4)
    train(Distiller(alone), few, epochs)
    print(f"student alone  {accuracy(alone, *test):6.2f} %")

    torch.manual_seed(options.seed)
    student = SmallCNN(width=4)
    distiller = Distiller(
        student,
        teacher,
        student_features={"feat": "pool"},
        teacher_features={"feat": "pool"},
        criteria={"otgd": losses.otgd(), "kd": losses.kd()},
        weights={"task": 1.0, "otgd": 1.0, "kd": 1.0},
    )
    train(distiller, few, epochs)
    print(f"with OTGD      {accuracy(student, *test):6.2f} %")


if __name__ == "__main__":
    main()
