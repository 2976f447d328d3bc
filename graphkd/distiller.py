"""The distiller: a student, its teachers, criteria between them, and one loss per step."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from graphkd import parallel
from graphkd.cache import TeacherCache
from graphkd.cache.recall import checked, recalled
from graphkd.encoders import shared
from graphkd.features import MODEL_OUTPUT, FeatureExtractor, Spec
from graphkd.loss import Criterion, Term
from graphkd.memory import Memory
from graphkd.precision import raised
from graphkd.step import Step, flat, joined
from graphkd.task import TaskLoss, labelled_cross_entropy, task_logits
from graphkd.teachers import Given, TeacherMode, Teachers, pairs, with_logits
from graphkd.typing import CriterionOutput, Features, Real, Schedule
from graphkd.weights import TASK, TOTAL, constants_and_schedules, reaching, scheduled, times

LABELS, INDEX = "labels", "index"


class Distiller(nn.Module):
    r"""Train a student on its own task and on what criteria say about its teacher, or teachers.

    .. math:: L = w_{task} L_{task} + \sum_c w_c L_c, \qquad L_c = \sum_t v_{ct} u_{ct} L_{ct}

    over criteria c and their terms t, with the criterion's own weights u of its terms.

    *Several teachers*: a criterion whose name begins with a teacher's, such as ``vgg/kd``, is for that one; any other
    compares the student with each in turn, and counts as many times, logged under such names. The weight of a teacher,
    under its name, multiplies all that is compared with it.

    *Self-distillation*: with :func:`~graphkd.teachers.ema` of the student as the teacher, call :meth:`update_teachers`
    after each step of the optimiser, as :class:`~graphkd.training.DistillationModule` does. With the student itself as
    the teacher, one forward serves both, and ``teacher_features`` names its deeper parts, whose activations are
    constants.

    *Several processes*: in training, the features, labels and indices of all processes are gathered, with gradients
    that find their way back (:func:`graphkd.parallel.gathered`): task, criteria, batch graphs and memories are those of
    one batch as large as all together. Inside :class:`torch.nn.parallel.DistributedDataParallel`, the gradients
    of student and criteria are those of one process with that batch; where the student normalises over the batch, only
    with :class:`torch.nn.SyncBatchNorm`. In eval mode each process has its own batch.

    Args:
        student: The model to train, left as it is: ``distiller.student`` can be saved and used alone at any time.
        teacher: The model to learn from; several as a mapping of names or a list (``teacher1``, ``teacher2``, ...).
            Their parameters are frozen; they run without autograd, in eval mode whatever ``train()`` is called, and are
            not part of the distiller's ``state_dict``, but for averages of the student. Without criteria they are not
            run, and may be None.
        student_features: Which activations the criteria see, by name; see :class:`~graphkd.features.FeatureExtractor`.
            ``logits`` is added where the model's output has them; where it does not, name them here, and the task
            takes them too.
        teacher_features: The same for the teacher; for several, one for all, or a mapping of their names.
        criteria: What is compared, by name. What is built alike of the same features, such as a batch graph, is built
            once for all.
        weights: Of the criteria, w; of the student's own loss under ``task``; of teachers; and factors v on single
            terms under names such as ``otgd/f``. One where omitted. Each is a number or a schedule, a function of the
            epoch and the number of epochs such as :class:`~graphkd.training.schedules.ConstantThenCosine`: then call
            :meth:`set_epoch` before every epoch, as :class:`~graphkd.training.DistillationModule` does. What has
            weight zero is computed and logged; its gradient is zero whatever its value.
        cache: What the teacher says of the training samples, computed before (:func:`graphkd.cache.build_cache`, with
            these ``teacher_features``); of several teachers, by name. In training it is read in place of running the
            teacher, at the batch's ``index`` and ``view``.
        task_loss: The student's own loss, of its logits and the labels.
        teacher_mode: ``eval``, or ``train`` to let teachers follow ``train()``, for example to keep their batch
            statistics running; they stay frozen.

    Raises:
        ValueError: At construction for weights without a criterion, term or teacher, negative weights, a criterion
            named ``task``, ``loss``, as a teacher or as a term, nothing to minimise, a teacher that shares trainable
            parameters with the student, a memory that several teachers would share, and a cache of another teacher or
            of one that changes. At the call for missing labels where the task has weight, a missing index or view where
            there is a cache, and for schedules without an epoch.

    Attributes:
        teachers: The teachers, and what is seen of them.
        pairs: What is compared, by its name in the logs: a criterion, and a teacher.
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
        teacher: Given = None,
        *,
        student_features: Spec | None = None,
        teacher_features: Spec | Mapping[str, Spec] | None = None,
        criteria: Mapping[str, Criterion] | None = None,
        weights: Mapping[str, Real | Schedule] | None = None,
        cache: TeacherCache | Mapping[str, TeacherCache] | None = None,
        task_loss: TaskLoss = labelled_cross_entropy,
        teacher_mode: TeacherMode = "eval",
    ) -> None:
        super().__init__()
        self.student = student
        self.teachers = Teachers(student, teacher, teacher_features, teacher_mode)
        self.criteria = nn.ModuleDict(dict(criteria or {}))
        if self.criteria and not self.teachers.names:
            raise ValueError(f"criteria need a teacher, got none for {', '.join(self.criteria)}")
        named = self.teachers.names if isinstance(teacher, Mapping | list | tuple) else []
        self.weights, self.schedules = constants_and_schedules(weights or {}, criteria or {}, named)
        self.caches = checked(cache, self.teachers)
        self.task_loss = task_loss
        self.pairs = pairs(criteria or {}, self.teachers.names, named)
        # DistributedDataParallel would send them from the first process to the others before every step.
        self._ddp_params_and_buffers_to_ignore = _memories(self)
        self._extract_student = FeatureExtractor(student, self.teachers.with_own(student_features or {}))

    @property
    def teacher(self) -> nn.Module | None:
        """The one teacher, if there is any.

        Raises:
            ValueError: If there are several: they are in ``teachers.models``.
        """
        if len(self.teachers.names) > 1:
            raise ValueError(f"needs one teacher to speak of it, got {', '.join(self.teachers.names)}: see .teachers")
        return self.student if self.teachers.itself else next(iter(self.teachers.models.values()), None)

    def forward(
        self,
        inputs: Any,
        labels: Tensor | None = None,
        index: Tensor | None = None,
        view: Tensor | int | None = None,
    ) -> Step:
        """One batch through all networks and all criteria.

        Args:
            inputs: What the models take: one tensor, a sequence of positional or a mapping of keyword arguments.
            labels: For the task, and for criteria that use them; -100 marks a sample without.
            index: Where each sample stands in the data set, for criteria with a memory, whose feature ``index`` it is,
                and for a teacher cache.
            view: Which of its versions each sample is, for a teacher cache of more than one.
        """
        self._check_epoch()
        output, caught = self._extract_student.run(inputs)
        seen = recalled(self.caches, index, view) if self.training else {}
        asked = {pair.teacher for pair in self.pairs.values()} - seen.keys()
        seen |= self.teachers.see(asked, inputs, output, caught)
        taught = self.teachers.extra_specs()
        student = with_logits(output, {name: x for name, x in caught.items() if name not in taught})
        if self.weights[TASK] > 0 and labels is None:
            raise ValueError(
                f"the task has weight {self.weights[TASK]} and needs labels, got none; without labels its weight is 0"
            )
        has_task = self.weights[TASK] > 0 or (labels is not None and MODEL_OUTPUT in student)
        batch = {LABELS: labels, INDEX: index, TASK: task_logits(output, student) if has_task else None}
        batch = {name: x for name, x in batch.items() if x is not None}
        if self.training:
            student, batch, *found = parallel.gathered(student, batch, *seen.values())
            seen = dict(zip(seen, found, strict=True))
        labels, where = batch.get(LABELS), {INDEX: batch[INDEX]} if INDEX in batch else {}
        own, others = shared(student | where), {name: shared(found | where) for name, found in seen.items()}
        values: dict[str, Tensor] = {}
        outputs: dict[str, CriterionOutput] = {}
        if has_task:
            values[TASK] = self.task_loss(batch[TASK], batch[LABELS])
        for name, pair in self.pairs.items():
            outputs[name] = self._compared(name, own, others[pair.teacher], labels)
            values[name] = self._value(pair.criterion, outputs[name])
        loss = torch.stack([times(self._weight(name), raised(value)) for name, value in values.items()]).sum()
        if parallel.world() > 1 or any(w == 0 for name, w in self.weights.items() if name != TASK or TASK in values):
            loss = reaching(loss, self.learnable_parameters())
        return Step(loss, output, self._logs(loss, values, outputs), flat(outputs), student, joined(seen))

    def logits(self, inputs: Any) -> Tensor:
        """The student's logits (n c), as the task sees them; nothing else runs.

        >>> Distiller(nn.Linear(4, 3)).logits(torch.zeros(2, 4)).shape
        torch.Size([2, 3])
        """
        return task_logits(*self._extract_student.run(inputs))

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

    def update_teachers(self) -> None:
        """Move the teachers that are averages of the student towards it; call it after each step of the optimiser."""
        self.teachers.update(self.student)

    def learnable_parameters(self) -> list[nn.Parameter]:
        """What the optimiser should train: the student, and whatever the criteria learn."""
        modules = (self.student, self.criteria)
        return [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]

    def _check_epoch(self) -> None:
        waiting = [name for name in self.schedules if name not in self.weights]
        if waiting:
            raise ValueError(
                f"the schedule of {', '.join(waiting)} needs set_epoch(epoch, epochs) before the first step, got no "
                "epoch yet"
            )

    def _compared(self, name: str, student: Features, teacher: Features, labels: Tensor | None) -> CriterionOutput:
        """What a criterion says; of what goes wrong, which one it was, and whether teachers should not share it."""
        key = self.pairs[name].criterion
        criterion = self.criteria[key]
        try:
            return criterion(student, teacher, labels)
        except KeyError as error:
            raise KeyError(f"criterion {name!r} {error.args[0]}") from error
        except (RuntimeError, ValueError) as error:
            shared_by = [pair.teacher for pair in self.pairs.values() if pair.criterion == key]
            if len(shared_by) < 2 or not any(True for _ in criterion.parameters()):
                raise
            raise ValueError(
                f"criterion {key!r} learns, and its teachers {', '.join(shared_by)} may differ in width: give each one "
                f"of its own, under names such as {shared_by[0]}/{key}; it said: {error}"
            ) from error

    def _weight(self, name: str) -> float:
        """Of the task, or of a comparison: its criterion's times its teacher's."""
        if name == TASK:
            return self.weights[TASK]
        pair = self.pairs[name]
        return self.weights[pair.criterion] * self.weights.get(pair.teacher, 1.0)

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
            logs[f"weighted/{name}"] = times(self._weight(name), value.detach())
        for name, result in outputs.items():
            criterion = self.pairs[name].criterion
            terms = self._terms(criterion)
            for term, value in result.terms.items():
                logs[f"{name}/{term}"] = value.detach()
                weight = self._weight(name) * self.weights.get(f"{criterion}/{term}", 1.0)
                logs[f"weighted/{name}/{term}"] = times(weight, terms[term].weight * value.detach())
                logs[f"{name}/{term}/marginal_error"] = result.comparisons[term].marginal_error.amax()
        return logs


def _memories(distiller: nn.Module) -> list[str]:
    """The names of all that is remembered of past batches, among the distiller's buffers."""
    memories = [(path, module) for path, module in distiller.named_modules() if isinstance(module, Memory)]
    return [f"{path}.{name}" for path, module in memories for name, _ in module.named_buffers()]
