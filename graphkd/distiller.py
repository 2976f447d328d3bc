"""The distiller: a student, a frozen teacher, criteria between them, and one loss per step."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from graphkd import checks
from graphkd.features import MODEL_OUTPUT, FeatureExtractor, Spec, model_logits
from graphkd.loss import Criterion, Term
from graphkd.precision import raised
from graphkd.typing import UNLABELLED, Comparison, CriterionOutput, Features, Real, Schedule
from graphkd.weights import TASK, TOTAL, constants_and_schedules, reaching, scheduled, times

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
        student_features: What the criteria saw of the student, by name.
        teacher_features: What they saw of the teacher; empty where nothing asked.
    """

    loss: Float[Tensor, ""]
    output: Any
    logs: dict[str, Tensor]
    comparisons: dict[str, Comparison]
    student_features: dict[str, Tensor]
    teacher_features: dict[str, Tensor]


def labelled_cross_entropy(logits: Float[Tensor, "n c"], labels: Tensor) -> Float[Tensor, ""]:
    """Cross-entropy, mean over the samples whose label is not -100; zero if there are none.

    >>> labelled_cross_entropy(torch.zeros(2, 4), torch.tensor([-100, -100]))
    tensor(0.)
    """
    total = F.cross_entropy(raised(logits), labels, ignore_index=UNLABELLED, reduction="sum")
    return total / (labels != UNLABELLED).sum().clamp_min(1)


class Distiller(nn.Module):
    r"""Train a student on its own task and on what criteria say about the teacher.

    .. math:: L = w_{task} L_{task} + \sum_c w_c L_c, \qquad L_c = \sum_t v_{ct} u_{ct} L_{ct}

    over criteria c and their terms t, with the criterion's own weights u of its terms.

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
        weights: Of the criteria, w; of the student's own loss under ``task``; and factors v on single terms under names
            such as ``otgd/f``. One where omitted. Each is a number or a schedule, a function of the epoch and the
            number of epochs such as :class:`~graphkd.training.schedules.ConstantThenCosine`: then call
            :meth:`set_epoch` before every epoch, as :class:`~graphkd.training.DistillationModule` does. What has
            weight zero is computed and logged; its gradient is zero whatever its value.
        task_loss: The student's own loss, of its logits and the labels.
        teacher_mode: ``eval``, or ``train`` to let the teacher follow ``train()``, for example to keep its batch
            statistics running; it stays frozen.

    Raises:
        ValueError: At construction for weights without a criterion or term, negative weights, a criterion named
            ``task``, ``loss`` or as a term, nothing to minimise, and a teacher that shares trainable parameters with
            the student. At the call for missing labels where the task has weight, and for schedules without an epoch.

    Attributes:
        weights: The weights in force, by name. Those of schedules are there from the first :meth:`set_epoch`.
        schedules: The schedules, by name.

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
        weights: Mapping[str, Real | Schedule] | None = None,
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
        self.weights, self.schedules = constants_and_schedules(weights or {}, criteria or {})
        self.task_loss = task_loss
        self.teacher_mode = teacher_mode
        self._extract_student = FeatureExtractor(student, student_features or {})
        if teacher is None and self.criteria:
            raise ValueError(f"criteria need a teacher, got none for {', '.join(self.criteria)}")
        self._extract_teacher = None if teacher is None else FeatureExtractor(teacher, teacher_features or {})
        self.register_state_dict_post_hook(_leave_teacher_out)
        self.register_load_state_dict_pre_hook(_keep_teacher)
        self._set_teacher_mode()

    def forward(self, inputs: Any, labels: Tensor | None = None, index: Tensor | None = None) -> Step:
        """One batch through both networks and all criteria.

        Args:
            inputs: What the models take: one tensor, a sequence of positional or a mapping of keyword arguments.
            labels: For the task, and for criteria that use them; -100 marks a sample without.
            index: Where each sample stands in the data set, for criteria with a memory: the feature ``index``.
        """
        self._check_epoch()
        output, student = _run(self._extract_student, inputs)
        teacher = self._teacher_features(inputs)
        where = {} if index is None else {"index": index}
        values: dict[str, Tensor] = {}
        outputs: dict[str, CriterionOutput] = {}
        if self.weights[TASK] > 0 or (labels is not None and MODEL_OUTPUT in student):
            values[TASK] = self._task(output, student, labels)
        for name, criterion in self.criteria.items():
            outputs[name] = criterion(student | where, teacher | where, labels)
            values[name] = self._value(name, outputs[name])
        loss = torch.stack([times(self.weights[name], raised(value)) for name, value in values.items()]).sum()
        if any(weight == 0 for name, weight in self.weights.items() if name != TASK or TASK in values):
            loss = reaching(loss, self.learnable_parameters())
        return Step(loss, output, self._logs(loss, values, outputs), _flat(outputs), student, teacher)

    def set_epoch(self, epoch: int, epochs: int) -> None:
        """Give the scheduled weights the values that they have in an epoch.

        Args:
            epoch: The epoch that begins, counted from 1.
            epochs: How many there are.

        >>> schedule = {"task": lambda epoch, epochs: epoch / epochs}
        >>> distiller = Distiller(nn.Linear(4, 3), weights=schedule)
        >>> distiller.set_epoch(1, 4)
        >>> distiller.weights
        {'task': 0.25}
        """
        for name, schedule in self.schedules.items():
            self.weights[name] = scheduled(name, schedule, epoch, epochs)

    def learnable_parameters(self) -> list[nn.Parameter]:
        """What the optimiser should train: the student, and whatever the criteria learn."""
        modules = (self.student, self.criteria)
        return [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]

    def train(self, mode: bool = True) -> "Distiller":
        """Set training mode for all but the teacher, unless ``teacher_mode`` says otherwise."""
        super().train(mode)
        self._set_teacher_mode()
        return self

    def _check_epoch(self) -> None:
        waiting = [name for name in self.schedules if name not in self.weights]
        if waiting:
            raise ValueError(
                f"the schedule of {', '.join(waiting)} needs set_epoch(epoch, epochs) before the first step, got no "
                "epoch yet"
            )

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

    def _value(self, name: str, output: CriterionOutput) -> Tensor:
        """A criterion's value, with the factors on its terms if there are any."""
        terms = self._terms(name)
        if not any(f"{name}/{term}" in self.weights for term in terms):
            return output.value
        parts = [
            times(self.weights.get(f"{name}/{key}", 1.0), term.weight * output.terms[key])
            for key, term in terms.items()
        ]
        return torch.stack(parts).sum()

    def _terms(self, name: str) -> dict[str, Term]:
        criterion = self.criteria[name]
        assert isinstance(criterion, Criterion)
        return criterion.terms

    def _logs(
        self, loss: Tensor, values: Mapping[str, Tensor], outputs: Mapping[str, CriterionOutput]
    ) -> dict[str, Tensor]:
        logs = {TOTAL: loss.detach()}
        for name, value in values.items():
            logs[name] = value.detach()
            logs[f"weighted/{name}"] = times(self.weights[name], value.detach())
        for name, result in outputs.items():
            terms = self._terms(name)
            for term, value in result.terms.items():
                logs[f"{name}/{term}"] = value.detach()
                weight = self.weights[name] * self.weights.get(f"{name}/{term}", 1.0)
                logs[f"weighted/{name}/{term}"] = times(weight, terms[term].weight * value.detach())
                logs[f"{name}/{term}/marginal_error"] = result.comparisons[term].marginal_error.amax()
        return logs


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
    output, features = extract.run(inputs)
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
