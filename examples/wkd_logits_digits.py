"""Look into a WKD-L distillation: which digits the teacher finds alike, and what the transport over them is worth.

The class cost is computed in one pass over the teacher's feature maps and kept in a file; reading it again takes no
pass. As published, the transport's weight stays and then falls along a cosine, that of the target class stays.

    python examples/wkd_logits_digits.py --cost class_cost.pt
    python examples/wkd_logits_digits.py --smoke
"""

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from lightning import seed_everything
from torch import Tensor, nn

from graphkd import Distiller, losses
from graphkd.class_cost import class_cost
from graphkd.datasets import DigitsData
from graphkd.models import SmallCNN
from graphkd.training import ConstantThenCosine
from graphkd.training.run import run, train_teacher


def kept_cost(teacher: nn.Module, path: Path) -> Tensor:
    """The class cost by linear CKA of the last feature map, made once and then read from its file."""
    images = DigitsData().train_dataloader()
    for overwrite, what in ((True, "computed"), (False, "read")):
        start = time.perf_counter()
        cost = class_cost(teacher, images, feature="body", path=path, overwrite=overwrite, progress=False)
        print(f"class cost {what} in {1000 * (time.perf_counter() - start):.0f} ms")
    return cost


def print_neighbours(cost: Tensor) -> None:
    """For each digit the nearest other one."""
    apart = cost + torch.diag(cost.new_full((len(cost),), torch.inf))
    nearest = (f"{digit}: {int(row.argmin())} ({float(row.min()):.2f})" for digit, row in enumerate(apart))
    print("nearest digit (cost)  " + "  ".join(nearest))
    farthest, other = divmod(int(cost.argmax()), len(cost))
    print(f"farthest apart: {farthest} and {other} ({float(cost.max()):.2f})")


def main() -> None:
    """Train teacher and student; print the class cost, and how the two terms and the plan's marginals went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cost", type=Path, help="where to keep the class cost")
    parser.add_argument("--smoke", action="store_true", help="one epoch, to see that it runs")
    options = parser.parse_args()
    epochs = 1 if options.smoke else options.epochs

    seed_everything(options.seed, verbose=False)
    teacher, student = SmallCNN(width=24), SmallCNN(width=4)
    train_teacher(teacher, DigitsData(), epochs=min(epochs, 15), seed=0, enable_progress_bar=False)
    with TemporaryDirectory() as folder:
        cost = kept_cost(teacher, options.cost or Path(folder) / "class_cost.pt")
    print_neighbours(cost)

    distiller = Distiller(
        student,
        teacher,
        criteria={"wkd": losses.wkd_logits(cost, temperature=4.0, tol=0.01)},
        weights={"wkd/transport": ConstantThenCosine(100.0, decay_from=(epochs + 1) // 2)},
    )
    data = DigitsData(labels_per_class=10, seed=options.seed)
    result, history = run(distiller, data, epochs=epochs, seed=options.seed, enable_progress_bar=False)
    curves = history.curves
    for epoch in sorted({1, (epochs + 1) // 2, epochs}):
        weight, target, transport, error = (
            curves[f"train/{name}"][epoch - 1]
            for name in ("weight/wkd/transport", "wkd/target", "wkd/transport", "wkd/transport/marginal_error")
        )
        print(
            f"epoch {epoch:2d}: target {target:.3f}, transport {transport:.4f} x {weight:.1f}, "
            f"marginal error {100 * error:.2f} %"
        )
    print(f"student: test accuracy {100 * result.accuracy:.2f} %, agreement {100 * result.agreement:.2f} %")


if __name__ == "__main__":
    main()
