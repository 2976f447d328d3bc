"""Distil with several processes in plain PyTorch: the batch graphs span all of them. No Lightning, no config.

torchrun --standalone --nproc_per_node 2 examples/ddp_plain.py    # two minutes on two cores
python examples/ddp_plain.py --smoke                              # the same by itself, in seconds

Prints how far the gradients of the first step are from those of one process with the whole batch: what a loss between
samples loses without graphkd's gathering is in the second line.
"""

import argparse
import os
import sys

import torch
from torch import Tensor, distributed, nn
from torch.distributed.run import main as torchrun
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR

from graphkd import Distiller, losses
from graphkd.datasets import DigitsData


def network(width: int) -> nn.Sequential:
    """A small CNN without batch statistics, which would be those of each process alone."""
    return nn.Sequential(
        *(nn.Conv2d(1, width, 3, padding=1), nn.GroupNorm(1, width), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(width, 4 * width, 3, padding=1), nn.GroupNorm(1, 4 * width), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 10)),
    )


def train(distiller: Distiller, data: DigitsData, epochs: int) -> None:
    """A training loop like any other: each process sees its own part of every batch."""
    model = DistributedDataParallel(distiller)
    optimizer = SGD(distiller.learnable_parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    schedule = CosineAnnealingLR(optimizer, T_max=epochs)
    loader = data.train_dataloader()
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        for images, labels in loader:
            step = model(images, labels)
            optimizer.zero_grad()
            step.loss.backward()
            optimizer.step()
        schedule.step()


def student_gradient(distiller: Distiller, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Of one batch, all parameters of the student in a row."""
    distiller.zero_grad()
    model(images, labels).loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in distiller.student.parameters()])


def compare(distiller: Distiller, data: DigitsData) -> None:
    """Gradients of one batch: of all processes together, of each by itself, and of one process with all of it."""
    rank, world = distributed.get_rank(), distributed.get_world_size()
    images, labels = (x[: 64 * world] for x in data.train)
    own = images[rank::world], labels[rank::world]
    together = student_gradient(distiller, DistributedDataParallel(distiller), *own)
    # In eval mode nothing is gathered. This network has no part that is different in it.
    apart = student_gradient(distiller, DistributedDataParallel(distiller.eval()), *own)
    whole = student_gradient(distiller, distiller, images, labels)
    distiller.train()
    for name, found in (("gathered", together), ("each by itself", apart)):
        cosine = torch.cosine_similarity(found, whole, dim=0)
        say(f"{name:15} cosine {cosine:.7f}, length {found.norm() / whole.norm():.7f} of one process's")


def say(message: str) -> None:
    """Print once, whatever the number of processes."""
    if distributed.get_rank() == 0:
        print(message, flush=True)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """In percent, on images that nothing was tuned on."""
    return 100 * float((model.eval()(images).argmax(-1) == labels).float().mean())


def main() -> None:
    """Train a teacher, then a student with RKD and KD."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--processes", type=int, default=2, help="how many are started, where torchrun did not do it")
    parser.add_argument("--smoke", action="store_true", help="two epochs, to see that it runs")
    options = parser.parse_args()
    if "RANK" not in os.environ:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        torchrun(["--standalone", f"--nproc_per_node={options.processes}", *sys.argv])
        return
    epochs = 2 if options.smoke else options.epochs
    distributed.init_process_group("gloo")
    torch.manual_seed(0)  # DistributedDataParallel copies the first process's weights, but teachers stay as they are
    teacher, student = network(24), network(4)
    data = DigitsData(batch_size=64 // distributed.get_world_size())
    train(Distiller(teacher), data, epochs)
    distiller = Distiller(
        student,
        teacher,
        student_features={"feat": "8"},
        teacher_features={"feat": "8"},
        criteria={"rkd": losses.rkd(), "kd": losses.kd()},
    )
    compare(distiller, data)
    train(distiller, data, epochs)
    say(f"teacher {accuracy(teacher, *data.test):.2f} %, student {accuracy(student, *data.test):.2f} %")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
