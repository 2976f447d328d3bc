"""Teachers: the models that a student learns from, one or several, frozen, averaged from the student, or itself."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from graphkd import checks
from graphkd.features import MODEL_OUTPUT, FeatureExtractor, Spec, logits_in, model_logits
from graphkd.loss import Criterion
from graphkd.memory import Memory
from graphkd.typing import Real

ONLY = "teacher"
"""The name of a teacher that has no other beside it."""

Given = nn.Module | Mapping[str, nn.Module] | Sequence[nn.Module] | None
"""How teachers are given: one, several by name, or several that are then called ``teacher1``, ``teacher2``, ..."""

TeacherMode = Literal["eval", "train"]


def ema(student: nn.Module, decay: Real = 0.999) -> AveragedModel:
    r"""A teacher for self-distillation: the exponential moving average of a student's weights and buffers.

    .. math:: \bar\theta \leftarrow \beta \bar\theta + (1 - \beta) \theta

    after every step, by :meth:`graphkd.Distiller.update_teachers`. Its modules have the student's own paths.

    Args:
        student: The student, as it is at the start.
        decay: :math:`\beta`, in [0, 1].

    Source: Tarvainen, Valpola, "Mean teachers are better role models", NIPS 2017, arXiv:1703.01780.

    >>> student = nn.Linear(3, 2)
    >>> type(ema(student)).__name__
    'AveragedModel'
    """
    checks.share("decay", decay)
    average = AveragedModel(student, avg_fn=partial(_moved_towards, decay=decay), use_buffers=True)
    # The copy that is made here is the first of the average; torch would replace it by the first update.
    average.n_averaged += 1
    return average


def _moved_towards(average: Tensor, current: Tensor, num_averaged: Tensor | int, decay: Real) -> Tensor:
    """One step of a moving average; what is counted in integers is as it is."""
    return decay * average + (1 - decay) * current if average.is_floating_point() else current


class Teachers(nn.Module):
    """Teachers by name, and what criteria see of each.

    A teacher runs without autograd, in eval mode unless told otherwise, and is not part of a ``state_dict``, except one
    that is averaged from the student. The student itself as a teacher does not run again: what its own forward gave is
    detached.

    Args:
        student: Who learns from them.
        given: See :data:`Given`.
        features: Which activations are seen, for all; or by teacher, a mapping of their names.
        mode: ``eval``, or ``train`` to follow :meth:`train`.

    Raises:
        ValueError: For names that are empty or have a dot or slash, and teachers with the student's own parameters.
    """

    def __init__(
        self, student: nn.Module, given: Given, features: Spec | Mapping[str, Spec] | None, mode: TeacherMode = "eval"
    ) -> None:
        super().__init__()
        checks.one_of("teacher_mode", mode, ("eval", "train"))
        self.mode = mode
        models = _named(given)
        self.itself = {name for name, model in models.items() if model is student}
        others = {name: model for name, model in models.items() if name not in self.itself}
        for name, model in others.items():
            _check_apart(student, name, model)
        self.models = nn.ModuleDict({name: model.requires_grad_(False) for name, model in others.items()})
        self.names = list(models)
        self.specs = _by_teacher(features, self.names)
        self.own_specs = {name: _paths(self.specs[name]) for name in self.itself}
        self._extractors = {name: FeatureExtractor(_run_of(model), self.specs[name]) for name, model in others.items()}
        self.register_state_dict_post_hook(_leave_frozen_out)
        self.register_load_state_dict_pre_hook(_keep_frozen)
        self.train(self.training)

    def extra_specs(self) -> dict[str, Any]:
        """What must be caught while the student runs, for teachers that are the student itself."""
        return {_key(name, feature): path for name in self.itself for feature, path in self.own_specs[name].items()}

    def with_own(self, spec: Spec) -> Spec:
        """What is to be caught while the student runs: its own features, and those with which it teaches itself."""
        if not self.itself:
            return spec
        if not isinstance(spec, Mapping):
            raise ValueError(
                "a student that teaches itself needs student_features by name, module paths or functions of the "
                "output, got one function of all"
            )
        for own in self.own_specs.values():
            if not own or dict(spec) == own:
                raise ValueError(
                    "a student that teaches itself needs teacher_features that name other parts of it than "
                    f"student_features, got teacher_features={own} and student_features={dict(spec)}; for another "
                    "model of its kind, give a copy.deepcopy"
                )
        return {**spec, **self.extra_specs()}

    @torch.no_grad()
    def see(
        self, names: Collection[str], inputs: Any, output: Any, caught: Mapping[str, Tensor]
    ) -> dict[str, dict[str, Tensor]]:
        """These teachers' features of a batch: of the student's output and what was caught, where it is the student.

        ``logits`` is added where the model's output has them.
        """
        seen: dict[str, dict[str, Tensor]] = {}
        for name in (name for name in self.names if name in names):
            if name in self.itself:
                found = {feature: caught[_key(name, feature)].detach() for feature in self.own_specs[name]}
                seen[name] = with_logits(output, found)
                seen[name] = {feature: x.detach() for feature, x in seen[name].items()}
            else:
                result = self._extractors[name].run(inputs)
                seen[name] = with_logits(result.output, result.features)
        return seen

    @torch.no_grad()
    def probabilities(self, inputs: Any) -> Tensor | None:
        """The teachers' mean class probabilities (n c); None where one has no logits, or there is only the student."""
        if not self.models:
            return None
        logits = [each.get(MODEL_OUTPUT) for each in self.see(self.models.keys(), inputs, None, {}).values()]
        found = [each.softmax(-1) for each in logits if each is not None]
        return torch.stack(found).mean(0) if len(found) == len(logits) else None

    def update(self, student: nn.Module) -> None:
        """Move teachers that are averaged from the student towards it."""
        for model in self.models.values():
            if isinstance(model, AveragedModel):
                model.update_parameters(student)

    def train(self, mode: bool = True) -> "Teachers":
        """Set training mode where the teachers follow it, else eval mode."""
        return super().train(mode and self.mode == "train")


class Pair(NamedTuple):
    """A criterion, and the teacher that it compares the student with."""

    criterion: str
    teacher: str


def pairs(criteria: Mapping[str, Criterion], teachers: list[str], named: list[str]) -> dict[str, Pair]:
    """What is compared, by its name in the logs: that of the criterion, behind a teacher's where it serves several."""
    found: dict[str, Pair] = {}
    remembering: set[int] = set()
    for name, criterion in criteria.items():
        own = [teacher for teacher in named if name.startswith(f"{teacher}/")]
        if len(named) > 1 and "/" in name and not own:
            raise ValueError(
                f"criterion {name!r} needs one of the teachers before the slash, {', '.join(named)}, got "
                f"{name.partition('/')[0]!r}"
            )
        if own or len(teachers) < 2:
            new = {name: Pair(name, (own or teachers)[0])}
        else:
            new = {f"{teacher}/{name}": Pair(name, teacher) for teacher in teachers}
        memories = [module for module in criterion.modules() if isinstance(module, Memory)]
        if memories and (len(new) > 1 or not remembering.isdisjoint(map(id, memories))):
            raise ValueError(
                f"{name} has a memory and needs a teacher of its own, got {', '.join(teachers)}: give each a criterion "
                f"of its own, under names such as {teachers[0]}/{name.rpartition('/')[2]}"
            )
        remembering |= {id(memory) for memory in memories}
        for key, pair in new.items():
            if key in found or (key in criteria and key != name):
                raise ValueError(f"needs one criterion for each name, got two for {key!r}")
            found[key] = pair
    return found


def with_logits(output: Any, features: dict[str, Tensor]) -> dict[str, Tensor]:
    """The features, ``logits`` among them wherever the output has any.

    >>> list(with_logits(torch.zeros(2, 3), {}))
    ['logits']
    """
    if MODEL_OUTPUT in features or not has_logits(output):
        return features
    return {**features, MODEL_OUTPUT: model_logits(output)}


def has_logits(output: Any) -> bool:
    """Whether a model's output is logits, or has them.

    >>> has_logits(torch.zeros(2, 3)), has_logits({"feat": torch.zeros(2, 3)})
    (True, False)
    """
    return logits_in(output) is not None


def _named(given: Given) -> dict[str, nn.Module]:
    if given is None:
        return {}
    if isinstance(given, nn.Module):
        return {ONLY: given}
    if not isinstance(given, Mapping | list | tuple):
        raise ValueError(f"needs a module as the teacher, several by name or in a list, or None, got {given!r}")
    named = dict(given) if isinstance(given, Mapping) else {f"{ONLY}{i + 1}": each for i, each in enumerate(given)}
    for name, model in named.items():
        if not name or "." in name or "/" in name:
            raise ValueError(f"teachers need names without dot and slash, got {name!r}")
        if not isinstance(model, nn.Module):
            raise ValueError(f"teacher {name!r} needs a module, got {type(model).__name__}")
    return named


def _by_teacher(features: Spec | Mapping[str, Spec] | None, names: list[str]) -> dict[str, Any]:
    several = isinstance(features, Mapping) and len(names) > 1 and bool(features.keys() & set(names))
    if isinstance(features, Mapping) and (several or any(isinstance(each, Mapping) for each in features.values())):
        unknown = [name for name in features if name not in names]
        if unknown:
            raise ValueError(f"teacher_features by teacher needs names among {', '.join(names)}, got {unknown[0]!r}")
        return {name: features.get(name, {}) for name in names}
    return dict.fromkeys(names, features or {})


def _paths(spec: Any) -> dict[str, Any]:
    if not isinstance(spec, Mapping):
        raise ValueError(
            "a student that teaches itself needs teacher_features by name, module paths or functions of the output, "
            "got one function of all"
        )
    return dict(spec)


def _run_of(model: nn.Module) -> nn.Module:
    """What runs: an averaged model keeps it one level down, and is to have its paths."""
    return model.module if isinstance(model, AveragedModel) else model


def _key(teacher: str, feature: str) -> str:
    return f"{teacher}/{feature}"


def _check_apart(student: nn.Module, name: str, teacher: nn.Module) -> None:
    """Freezing the teacher must not freeze the student."""
    theirs = {id(parameter) for parameter in teacher.parameters()}
    shared = [
        name for name, parameter in student.named_parameters() if id(parameter) in theirs and parameter.requires_grad
    ]
    if shared:
        raise ValueError(
            f"{name} needs parameters of its own, got {len(shared)} trainable ones of the student, such as "
            f"{shared[0]!r}: distil from copy.deepcopy(student), from the student itself, or freeze what is shared"
        )


def _frozen(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    """The state of the teachers that are not averaged from the student."""
    assert isinstance(module, Teachers)
    state: dict[str, Tensor] = {}
    for name, model in module.models.items():
        if not isinstance(model, AveragedModel):
            model.state_dict(destination=state, prefix=f"{prefix}models.{name}.")
    return state


def _leave_frozen_out(module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
    for key in _frozen(module, prefix):
        state.pop(key, None)


def _keep_frozen(module: nn.Module, state: dict[str, Tensor], prefix: str, *rest: Any) -> None:
    """Loading a state without the frozen teachers leaves them as they are."""
    for key, value in _frozen(module, prefix).items():
        state.setdefault(key, value)
