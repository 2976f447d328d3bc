"""The distiller: a student, a frozen teacher, criteria between them, and one loss per step."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from graphkd import checks
from graphkd.features import MODEL_OUTPUT, FeatureExtractor, Spec, model_logits
from graphkd.loss import Criterion
from graphkd.precision import raised
from graphkd.typing import UNLABELLED, Comparison, CriterionOutput, Features, Real

TASK = "task"
"""The name of the student's own loss among the weights and in the logs."""

TOTAL = "loss"
"""The name of the weighted sum in the logs."""

TaskLoss = Callable[[Tensor, Tensor], Tensor]


class Step(NamedTuple):
    """What a :class:`Distiller` returns for one batch.

    Attributes:
        loss: The weighted sum, to be minimised.
        output: The student's output.
        logs: Detached scalars by name: ``loss``; ``task`` and each criterion; each criterion's terms as ``otgd/f``,
            with ``otgd/f/marginal_error``; and what each adds to the loss, under ``weighted/``. Read them when you
            print: turning one into a number waits for the device.
        comparisons: Each criterion's comparisons as ``otgd/f``.
    """

    loss: Float[Tensor, ""]
    output: Any
    logs: dict[str, Tensor]
    comparisons: dict[str, Comparison]


def labelled_cross_entropy(logits: Float[Tensor, "n c"], labels: Tensor) -> Float[Tensor, ""]:
    """Cross-entropy, mean over the samples whose label is not -100; zero if there are none.

    >>> labelled_cross_entropy(torch.zeros(2, 4), torch.tensor([-100, -100]))
    tensor(0.)
    """
    total = F.cross_entropy(raised(logits), labels, ignore_index=UNLABELLED, reduction="sum")
    return total / (labels != UNLABELLED).sum().clamp_min(1)


class Distiller(nn.Module):
    r"""Train a student on its own task and on what criteria say about the teacher.

    .. math:: L = w_{task} L_{task} + \sum_c w_c L_c

    Args:
        student: The model to train, left as it is: ``distiller.student`` can be saved and used alone at any time.
        teacher: The model to learn from. Its parameters are frozen; it runs without autograd, in eval mode whatever
            ``train()`` is called. It is not part of the distiller's ``state_dict``. Without criteria it is not run, and
            may be None.
        student_features: Which activations the criteria see, by name; see :class:`~graphkd.features.FeatureExtractor`.
            ``logits`` is added where the model's output has them; where it does not, name them here, and the task
            takes them too.
        teacher_features: The same for the teacher.
        criteria: What is compared, by name.
        weights: Of the criteria, and of the student's own loss under ``task``. One where omitted.
        task_loss: The student's own loss, of its logits and the labels.
        teacher_mode: ``eval``, or ``train`` to let the teacher follow ``train()``, for example to keep its batch
            statistics running; it stays frozen.

    Raises:
        ValueError: At construction for weights without a criterion, negative weights, a criterion named ``task`` or
            ``loss``, nothing to minimise, and a teacher that shares trainable parameters with the student. At the call
            for missing labels where the task has weight.

    >>> student, teacher = nn.Linear(4, 3), nn.Linear(4, 3)
    >>> from graphkd import losses
    >>> distiller = Distiller(student, teacher, criteria={"kd": losses.kd()}, weights={"kd": 0.5})
    >>> sorted(distiller(torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])).logs)
    ['kd', 'kd/kd', 'kd/kd/marginal_error', 'loss', 'task', 'weighted/kd', 'weighted/kd/kd', 'weighted/task']
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None = None,
        *,
        student_features: Spec | None = None,
        teacher_features: Spec | None = None,
        criteria: Mapping[str, Criterion] | None = None,
        weights: Mapping[str, Real] | None = None,
        task_loss: TaskLoss = labelled_cross_entropy,
        teacher_mode: Literal["eval", "train"] = "eval",
    ) -> None:
        super().__init__()
        checks.one_of("teacher_mode", teacher_mode, ("eval", "train"))
        if teacher is not None:
            _check_apart(student, teacher)
        self.student = student
        self.teacher = None if teacher is None else teacher.requires_grad_(False)
        self.criteria = nn.ModuleDict(dict(criteria or {}))
        self.weights = _complete(weights or {}, self.criteria)
        self.task_loss = task_loss
        self.teacher_mode = teacher_mode
        self._extract_student = FeatureExtractor(student, student_features or {})
        if teacher is None and self.criteria:
            raise ValueError(f"criteria need a teacher, got none for {', '.join(self.criteria)}")
        self._extract_teacher = None if teacher is None else FeatureExtractor(teacher, teacher_features or {})
        self.register_state_dict_post_hook(_leave_teacher_out)
        self.register_load_state_dict_pre_hook(_keep_teacher)
        self._set_teacher_mode()

    def forward(self, inputs: Any, labels: Tensor | None = None) -> Step:
        """One batch through both networks and all criteria.

        Args:
            inputs: What the models take: one tensor, a sequence of positional or a mapping of keyword arguments.
            labels: For the task, and for criteria that use them; -100 marks a sample without.
        """
        output, student = _run(self._extract_student, inputs)
        teacher = self._teacher_features(inputs)
        values: dict[str, Tensor] = {}
        outputs: dict[str, CriterionOutput] = {}
        if self.weights[TASK] > 0 or (labels is not None and MODEL_OUTPUT in student):
            values[TASK] = self._task(output, student, labels)
        for name, criterion in self.criteria.items():
            outputs[name] = criterion(student, teacher, labels)
            values[name] = outputs[name].value
        loss = torch.stack([self.weights[name] * raised(value) for name, value in values.items()]).sum()
        return Step(loss, output, self._logs(loss, values, outputs), _flat(outputs))

    def learnable_parameters(self) -> list[nn.Parameter]:
        """What the optimiser should train: the student, and whatever the criteria learn."""
        modules = (self.student, self.criteria)
        return [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]

    def train(self, mode: bool = True) -> "Distiller":
        """Set training mode for all but the teacher, unless ``teacher_mode`` says otherwise."""
        super().train(mode)
        self._set_teacher_mode()
        return self

    def _set_teacher_mode(self) -> None:
        if self.teacher is not None:
            self.teacher.train(self.training and self.teacher_mode == "train")

    def _teacher_features(self, inputs: Any) -> dict[str, Tensor]:
        """What the criteria see of the teacher; it does not run where nothing asks."""
        if self._extract_teacher is None or not self.criteria:
            return {}
        with torch.no_grad():
            return _run(self._extract_teacher, inputs)[1]

    def _task(self, output: Any, features: Features, labels: Tensor | None) -> Tensor:
        if labels is None:
            raise ValueError(
                f"the task has weight {self.weights[TASK]} and needs labels, got none; without labels its weight is 0"
            )
        named = MODEL_OUTPUT in features and not _has_logits(output)
        return self.task_loss(features[MODEL_OUTPUT] if named else model_logits(output), labels)

    def _logs(
        self, loss: Tensor, values: Mapping[str, Tensor], outputs: Mapping[str, CriterionOutput]
    ) -> dict[str, Tensor]:
        logs = {TOTAL: loss.detach()}
        for name, value in values.items():
            logs[name] = value.detach()
            logs[f"weighted/{name}"] = self.weights[name] * value.detach()
        for name, result in outputs.items():
            criterion = self.criteria[name]
            assert isinstance(criterion, Criterion)
            for term, value in result.terms.items():
                logs[f"{name}/{term}"] = value.detach()
                logs[f"weighted/{name}/{term}"] = self.weights[name] * criterion.terms[term].weight * value.detach()
                logs[f"{name}/{term}/marginal_error"] = result.comparisons[term].marginal_error.amax()
        return logs


def _complete(weights: Mapping[str, Real], criteria: nn.ModuleDict) -> dict[str, float]:
    """A weight for the task and each criterion."""
    for name, taken in ((TASK, "the student's own loss"), (TOTAL, "the sum of all")):
        if name in criteria:
            raise ValueError(f"no criterion can be named {name!r}: that is {taken}")
    known = [TASK, *criteria]
    for name, weight in weights.items():
        if name not in known:
            raise ValueError(f"weights needs names among {', '.join(known)}, got {name!r}")
        if not 0 <= weight < float("inf"):
            raise ValueError(f"the weight of {name!r} needs a finite number of at least 0, got {weight!r}")
    if not criteria and weights.get(TASK) == 0:
        raise ValueError("needs something to minimise, got no criterion and weight 0 for the task")
    return {name: float(weights.get(name, 1.0)) for name in known}


def _check_apart(student: nn.Module, teacher: nn.Module) -> None:
    """Freezing the teacher must not freeze the student."""
    theirs = {id(parameter) for parameter in teacher.parameters()}
    shared = [
        name for name, parameter in student.named_parameters() if id(parameter) in theirs and parameter.requires_grad
    ]
    if shared:
        raise ValueError(
            f"needs a teacher with parameters of its own, got {len(shared)} trainable ones of the student, such as "
            f"{shared[0]!r}: distil from copy.deepcopy(student), or freeze what is shared first"
        )


def _has_logits(output: Any) -> bool:
    return isinstance(getattr(output, "logits", output), Tensor)


def _run(extract: FeatureExtractor, inputs: Any) -> tuple[Any, dict[str, Tensor]]:
    """Output and features, ``logits`` among them wherever the output has any."""
    if isinstance(inputs, Mapping):
        output, features = extract(**inputs)
    elif isinstance(inputs, Sequence) and not isinstance(inputs, str):
        output, features = extract(*inputs)
    else:
        output, features = extract(inputs)
    if MODEL_OUTPUT not in features and _has_logits(output):
        features[MODEL_OUTPUT] = model_logits(output)
    return output, features


def _flat(outputs: Mapping[str, CriterionOutput]) -> dict[str, Comparison]:
    return {f"{name}/{term}": seen for name, output in outputs.items() for term, seen in output.comparisons.items()}


def _leave_teacher_out(module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
    for key in [key for key in state if key.startswith(f"{prefix}teacher.")]:
        del state[key]


def _keep_teacher(module: nn.Module, state: dict[str, Tensor], prefix: str, *rest: Any) -> None:
    """Loading a state without the teacher leaves the teacher as it is."""
    teacher = module.teacher
    if not isinstance(teacher, nn.Module):
        return
    for key, value in teacher.state_dict(prefix=f"{prefix}teacher.").items():
        state.setdefault(key, value)
