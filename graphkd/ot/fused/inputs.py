"""What fused Gromov-Wasserstein is given, checked: costs, masses, relations and the plan to start from."""

from typing import Literal

import torch
from torch import Tensor

from graphkd import checks
from graphkd.ot.fused.lowrank import LowRank, Relation, expanded, parts
from graphkd.ot.fused.structure import LOSSES, LossName, Structure
from graphkd.ot.problem import EQUAL, Problem, expands, marginal_error, prepare
from graphkd.precision import raised
from graphkd.typing import BAD_COST, Real

Start = Literal["product", "identity"] | Tensor


def prepare_fused(
    cost: Tensor | None,
    student: Relation | None,
    teacher: Relation | None,
    a: Tensor | None,
    b: Tensor | None,
    *,
    alpha: Real,
    loss: LossName,
    semi_relaxed: bool,
) -> tuple[Problem, Structure]:
    """Costs, masses and relations of one dtype and with the same leading axes; raises for what cannot be solved."""
    if cost is None and alpha < 1:
        raise ValueError(f"needs a cost where alpha is below 1, got None at alpha={alpha}")
    if (student is None or teacher is None) and alpha > 0:
        raise ValueError(f"needs both relations where alpha is above 0, got None at alpha={alpha}")
    if student is not None:
        student = _checked("student_relation", student, loss)
    if teacher is not None:
        teacher = _checked("teacher_relation", teacher, loss)
    if cost is None:
        assert student is not None and teacher is not None
        cost = _tensor(student).new_zeros(1, 1).expand(_size(student), _size(teacher))
    tensors = {"cost": cost, "student_relation": student, "teacher_relation": teacher}
    checks.same_device(**{name: None if x is None else _tensor(x) for name, x in tensors.items()})
    problem = prepare(cost, a, b, equal=not semi_relaxed)
    n, m = problem.cost.shape[-2:]
    sides = _like("student_relation", student, n, problem.cost), _like("teacher_relation", teacher, m, problem.cost)
    status = problem.status
    if not checks.can_look(problem.cost):
        bad = [_bad(_tensor(x), loss) for side in sides for x in parts(side) if x is not None]
        for x in bad:
            status = status | BAD_COST * x.long()
    return _same_batch(problem._replace(status=status), *sides, loss)


def start_plan(start: str | Tensor, problem: Problem, semi_relaxed: bool) -> Tensor | None:
    """The plan to start from; None stands for the product of the masses."""
    cost, a, b = (x.detach() for x in problem[:3])
    if isinstance(start, str):
        checks.one_of("start", start, ("product", "identity"))
        if start == "product":
            return None
        if a.shape != b.shape or (checks.can_look(a) and not semi_relaxed and not torch.equal(a, b)):
            raise ValueError(
                f"start='identity' needs equal masses on both sides, got {a.shape[-1]} and {b.shape[-1]} nodes"
                + (f" whose masses differ by up to {float((a - b).abs().max()):.3g}" if a.shape == b.shape else "")
            )
        return torch.diag_embed(a)
    checks.rows("start", start)
    checks.same_device(cost=cost, start=start)
    if start.shape[-2:] != cost.shape[-2:] or not expands(start.shape[:-2], cost.shape[:-2]):
        raise ValueError(f"start needs a plan of shape {tuple(cost.shape)}, got {tuple(start.shape)}")
    plan = start.detach().to(cost.dtype).expand(cost.shape)
    if checks.can_look(plan):
        error = float(marginal_error(plan, a, plan.sum(-2) if semi_relaxed else b).max())
        low = float(plan.min())
        if low < 0 or not error <= 2 * EQUAL:
            raise ValueError(
                f"start needs a plan of at least 0 with the masses asked for, got a smallest entry of {low:.3g} and "
                f"sums that are off by {error:.3g} of the mass"
            )
    return plan


def _checked(name: str, relation: Relation, loss: LossName) -> Relation:
    """A relation in float32 or more, dense where factors do not pay."""
    if isinstance(relation, LowRank):
        left, right = relation.left, relation.right
        checks.rows(f"{name}.left", left)
        checks.rows(f"{name}.right", right)
        checks.same_device(left=left, right=right)
        if left.shape != right.shape:
            raise ValueError(
                f"{name} needs two factors of one shape, got left {tuple(left.shape)}, right {tuple(right.shape)}"
            )
        left, right = raised(left), raised(right)
        if loss == "square" and 2 * left.shape[-1] < left.shape[-2]:
            return LowRank(left, right, relation.symmetric)
        relation = left @ right.mT
    checks.rows(name, relation)
    if relation.shape[-1] != relation.shape[-2]:
        raise ValueError(f"{name} needs a square matrix of nodes by nodes, got shape {tuple(relation.shape)}")
    if loss == "kl" and checks.can_look(relation) and float(relation.detach().amin()) < 0:
        raise ValueError(
            f"{name} needs values of at least 0 for the KL loss, got {float(relation.detach().amin()):.3g}"
        )
    return raised(relation)


def _like(name: str, relation: Relation | None, size: int, cost: Tensor) -> Relation:
    """A relation of as many nodes as a cost has, in its dtype; one of zeros where there is none."""
    if relation is None:
        zeros = cost.new_zeros(size, 1)
        return LowRank(zeros, zeros, True)
    if _size(relation) != size:
        raise ValueError(f"{name} needs {size} nodes for a cost of shape {tuple(cost.shape)}, got {_size(relation)}")
    if isinstance(relation, LowRank):
        return LowRank(relation.left.to(cost.dtype), relation.right.to(cost.dtype), relation.symmetric)
    return relation.to(cost.dtype)


def _same_batch(problem: Problem, student: Relation, teacher: Relation, loss: LossName) -> tuple[Problem, Structure]:
    cost, a, b, status = problem
    shapes = cost.shape[:-2], _tensor(student).shape[:-2], _tensor(teacher).shape[:-2]
    if shapes[0] == shapes[1] == shapes[2]:
        return problem, Structure(student, teacher, LOSSES[loss])
    try:
        batch = torch.Size(torch.broadcast_shapes(*shapes))  # pyright: ignore # torch does not type its arguments
    except RuntimeError as error:
        raise ValueError(
            f"needs leading axes that broadcast, got cost and masses {tuple(cost.shape)}, student_relation "
            f"{tuple(_tensor(student).shape)}, teacher_relation {tuple(_tensor(teacher).shape)}"
        ) from error
    n, m = cost.shape[-2:]
    problem = Problem(cost.expand(*batch, n, m), a.expand(*batch, n), b.expand(*batch, m), status.expand(batch))
    return problem, Structure(expanded(student, batch), expanded(teacher, batch), LOSSES[loss])


def _bad(values: Tensor, loss: LossName) -> Tensor:
    """Of each problem whether a relation cannot be computed with, without waiting for the device."""
    good = torch.isfinite(values.detach())
    if loss == "kl":
        good &= values.detach() >= 0
    return ~good.all(-1).all(-1)


def _tensor(relation: Relation) -> Tensor:
    return parts(relation)[0]


def _size(relation: Relation) -> int:
    return _tensor(relation).shape[-2]
