"""What a config of a paper consists of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Network:
    """A network, and what the authors' code compares of it.

    Attributes:
        title: As papers call it.
        path: Of the class or function.
        stages: The modules with the last map of each stage.
        rows: Of these maps.
        pool: The module with the vector before the classifier.
        rate: The learning rate of CRD's protocol.
        options: Arguments that jsonargparse passes on unseen.
    """

    title: str
    path: str
    stages: tuple[str, ...]
    rows: tuple[int, ...]
    pool: str = "pool"
    rate: float = 0.05
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Setting:
    """A data set with its networks and schedule."""

    folder: str
    title: str
    data: str
    data_options: Mapping[str, Any]
    workers: int
    networks: Mapping[str, Network]
    trained: tuple[str, ...]
    teachers: str
    epochs: int
    steps: list[int]
    weight_decay: float
    short_epochs: int

    def rate(self, student: Network, batch: int) -> float:
        """CRD's protocol says it by student; on ImageNet it is 0.1 for batches of 256, and in proportion."""
        return student.rate * batch / 256 if self.folder == "imagenet" else student.rate

    def checkpoint(self, teacher: str) -> str:
        """Where the teacher's weights are."""
        return f"runs/{self.folder}/{teacher.lower()}.pt  # {self.teachers}"


@dataclass(frozen=True)
class Noted:
    """A value with a comment behind it."""

    value: Any
    note: str


@dataclass(frozen=True)
class Scheduled:
    """A weight that changes from epoch to epoch."""

    schedule: Literal["ConstantThenCosine", "LinearWarmup"]
    options: Mapping[str, float]


@dataclass(frozen=True)
class Criterion:
    """A criterion under a name, its weight, and the weights of single terms."""

    name: str
    recipe: str
    options: Mapping[str, Any] = field(default_factory=dict)
    weight: Any = 1.0
    terms: Mapping[str, Scheduled] = field(default_factory=dict)

    def but(self, **changes: Any) -> "Criterion":
        """The same with another weight or other options."""
        weight = changes.pop("weight", self.weight)
        return Criterion(self.name, self.recipe, {**self.options, **changes}, weight, self.terms)


@dataclass(frozen=True)
class Method:
    """A method as one source has it.

    Attributes:
        folder: Of its configs.
        paper: Name, authors, venue.
        source: What is said by whom.
        criteria: The losses.
        pairs: Teacher and student, and what is different for them.
        sees: Which features: the vector before the classifier, the last map, that of the second stage, those of all.
        notes: Further paragraphs.
        task: Weight of the cross-entropy.
        batch: Images per step.
        index: Whether batches have the images' indices.
        nesterov: Of SGD's momentum.
        seed: Of the run.
    """

    folder: str
    paper: str
    source: str
    criteria: tuple[Criterion, ...]
    pairs: Mapping[tuple[str, str], Mapping[str, Any]]
    sees: Literal["nothing", "vector", "last", "hint", "stages"] = "nothing"
    notes: tuple[str, ...] = ()
    task: float = 1.0
    batch: int = 64
    index: bool = False
    nesterov: bool = False
    seed: int = 0

    def features(self, network: Network, stages: int) -> dict[str, str]:
        """Names to modules, of the stages that both networks have."""
        return {
            "nothing": {},
            "vector": {"feat": network.pool},
            "last": {"map": network.stages[-1]},
            "hint": {"map": network.stages[1]},
            "stages": {f"stage{i}": path for i, path in enumerate(network.stages[:stages], 1)},
        }[self.sees]

    def of_pair(self, student: Network, teacher: Network, **changes: Any) -> tuple[list[Criterion], list[str]]:
        """The criteria for two networks, and what there is to say about them."""
        criteria = [each.but(**changes) for each in self.criteria]
        notes = []
        if self.sees == "stages":
            criteria, sized = _by_rows(criteria[0], student, teacher)
            if sized:
                notes = ["Where maps differ in size the larger is averaged to the smaller: a criterion for each size."]
        if self.sees == "hint" and student.rows[1] != teacher.rows[1]:
            criteria = [each.but(size=student.rows[1]) for each in criteria]
            notes = [
                "The teacher's map is twice as large. The authors' regressor is a transposed convolution there; here "
                "the map is averaged to the student's size."
            ]
        return criteria, notes


@dataclass(frozen=True)
class ClassCost:
    """The class cost of a teacher, for WKD-L."""

    teacher: str
    source: str
    feature: str | Noted
    sharpen: float
    notes: tuple[str, ...] = ()


def _by_rows(criterion: Criterion, student: Network, teacher: Network) -> tuple[list[Criterion], bool]:
    """One criterion for the stages whose maps are of one size in both networks, and one for each other size."""
    groups: dict[int | None, list[str]] = {}
    for i, (ours, theirs) in enumerate(zip(student.rows, teacher.rows, strict=False), 1):
        groups.setdefault(None if ours == theirs else min(ours, theirs), []).append(f"stage{i}")
    made = [
        Criterion(
            criterion.name if rows is None else f"{criterion.name}_{rows}",
            criterion.recipe,
            {"maps": maps} | ({} if rows is None else {"size": rows}) | dict(criterion.options),
            criterion.weight,
        )
        for rows, maps in groups.items()
    ]
    return made, set(groups) != {None}
