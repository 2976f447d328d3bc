"""Distil models of your own: inputs by name, odd outputs, features by path, by part of an output and by function.

python examples/bring_your_own_model.py            # ten seconds on two cores
python examples/bring_your_own_model.py --smoke    # fewer steps
"""

import argparse
from typing import Any

import torch
from torch import Tensor, nn

from graphkd import Distiller, losses
from graphkd.adaptors import MeanTokens
from graphkd.datasets import DigitsData
from graphkd.outline import outline_of


class RowReader(nn.Module):
    """The teacher: reads an image row by row, and returns a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.GRU(8, 64, batch_first=True, bidirectional=True)
        self.scores = nn.Linear(128, 10)

    def forward(self, image: Tensor, keep: Tensor) -> dict[str, Any]:
        """Scores, what was read in each row, and how long it was."""
        read, _ = self.rows(image.flatten(1, 2) * keep.unsqueeze(-1))
        return {"scores": self.scores(read.mean(1)), "read": read, "length": read.shape[1]}


class Pixels(nn.Module):
    """The student: a small perceptron that returns a tuple, and does not look at ``keep``."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU())
        self.scores = nn.Linear(12, 10)

    def forward(self, image: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Scores, and what they are made of."""
        hidden = self.body(image)
        return self.scores(hidden), hidden


def inputs_of(images: Tensor) -> dict[str, Tensor]:
    """What both models take, by name: images, and which of their rows count (here all)."""
    return {"image": images, "keep": torch.ones(len(images), 8)}


def train(distiller: Distiller, data: DigitsData, steps: int, labelled: bool = True) -> None:
    """A training loop like any other; without labels, the student learns from its teacher alone."""
    optimizer = torch.optim.Adam(distiller.learnable_parameters(), lr=3e-3)
    loader = data.train_dataloader()
    for step in range(steps):
        if step % len(loader) == 0:
            loader.sampler.set_epoch(step // len(loader))
            batches = iter(loader)
        images, labels, *_ = next(batches)
        loss = distiller(inputs_of(images), labels if labelled else None).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def accuracy(model: nn.Module, scores: Any) -> float:
    """In percent, on images that nothing was tuned on; ``scores`` is their key or place in the output."""
    images, labels = DigitsData().test
    chosen = model.eval()(**inputs_of(images))[scores].argmax(-1)
    model.train()
    return 100 * float((chosen == labels).float().mean())


def main() -> None:
    """Train the teacher, then students with its help: with labels, and without any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="ten steps, to see that it runs")
    options = parser.parse_args()
    steps = 10 if options.smoke else options.steps
    torch.manual_seed(options.seed)
    data = DigitsData(seed=options.seed)
    teacher = RowReader()

    # 1. Which names are there? `graphkd features your.package.Model --input 2,3,32,32` prints the same in a shell.
    print(outline_of(teacher, inputs_of(torch.rand(2, 1, 8, 8))), end="\n\n")

    # 2. The task needs logits: of a dictionary by key, of a tuple by place, of anything else by a function.
    train(Distiller(teacher, student_features={"logits": ":output.scores"}), data, steps)
    print(f"teacher         {accuracy(teacher, 'scores'):6.2f} %")

    # 3. Features: what a module is given, the mean of a sequence where a mask among the inputs says so, a function.
    teacher_features = {"feat": MeanTokens(":output.read", mask=":input.keep"), "logits": ":output.scores"}
    student_features = {"feat": "scores:input", "logits": lambda output: output[0]}
    criteria = {"rkd": losses.rkd(), "kd": losses.kd()}
    for labelled in (True, False):
        torch.manual_seed(options.seed)
        student = Pixels()
        distiller = Distiller(
            student,
            teacher,
            student_features=student_features,
            teacher_features=teacher_features,
            criteria=criteria,
            weights={"task": float(labelled), "rkd": 0.1, "kd": 1.0},
        )
        # 4. Without labels the task has weight zero, and nothing else asks for them.
        train(distiller, data, steps, labelled)
        print(f"{'with' if labelled else 'without'} labels".ljust(15), f"{accuracy(student, 0):6.2f} %")


if __name__ == "__main__":
    main()
