"""The class cost of a trained teacher, in a file that configs of WKD-L name."""

from typing import Any, Literal

from jaxtyping import Float
from lightning import LightningDataModule
from torch import Tensor, nn

from graphkd.class_cost import class_cost
from graphkd.training.processes import before_processes
from graphkd.training.teacher import prepare_teacher
from graphkd.typing import Real


def save_class_cost(
    teacher: nn.Module,
    data: LightningDataModule,
    teacher_checkpoint: str | None = None,
    teacher_epochs: int = 20,
    relation: Literal["linear_cka", "rbf_cka", "centroids", "classifier"] = "linear_cka",
    feature: str = "logits",
    samples_per_class: int | None = None,
    sharpen: Real = 1.0,
    sigma: Real = 0.8,
    seed: int = 0,
    out: str = "runs/class_cost.pt",
    overwrite: bool = False,
    trainer: dict[str, Any] | None = None,
) -> Float[Tensor, "c c"]:
    """Relate a teacher's classes, and keep what it costs to move probability from one to another.

    See :func:`graphkd.class_cost.class_cost`. If the file is there and was made of the same teacher, data and options,
    it is the result.

    Args:
        teacher: The model whose classes are related.
        data: What the teacher sees: the training batches, which should be as for testing, without augmentation.
        teacher_checkpoint: The teacher's weights, a ``state_dict``. If there is no such file, the teacher is first
            trained on ``data`` and saved there.
        teacher_epochs: How long a teacher without a checkpoint is trained.
        relation: How two classes are related.
        feature: By which of the teacher's features, a module path such as ``layer3``; its logits if omitted.
        samples_per_class: Samples of each class that are seen at most; all if omitted.
        sharpen: Kappa in 1 - exp(-kappa (1 - relation)); 1 - relation for 0.
        sigma: The width of ``rbf_cka``.
        seed: Of a teacher that is trained.
        out: The file.
        overwrite: Compute anew, and replace the file.
        trainer: Further arguments of Lightning's Trainer, for a teacher that is trained.

    Raises:
        ValueError: For a file that was made otherwise, and for what class_cost refuses.
    """
    prepare_teacher(teacher, teacher_checkpoint, data, teacher_epochs, seed, trainer or {})
    before_processes("a class cost")
    data.prepare_data()
    data.setup("fit")
    return class_cost(
        teacher,
        data.train_dataloader(),
        relation=relation,
        feature=feature,
        samples_per_class=samples_per_class,
        sharpen=sharpen,
        sigma=sigma,
        path=out,
        overwrite=overwrite,
    )
