"""Sinkhorn's algorithm for a cost too large for one process: each keeps its own rows, only potentials travel."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch import distributed as dist

from graphkd import checks, parallel
from graphkd.ot.domains import DomainName
from graphkd.ot.gradients import NoGradient, centred
from graphkd.ot.problem import EQUAL, Relative, uniform
from graphkd.ot.shards import ShardedEnvelope, domain_of, summed
from graphkd.ot.sinkhorn import Options, Order, tell
from graphkd.ot.sweeps import sweep
from graphkd.precision import no_autocast, raised
from graphkd.typing import Real, Transport


def sharded_sinkhorn(
    cost_rows: Shaped[Tensor, "n m"],
    a_rows: Shaped[Tensor, "..."] | None = None,
    b: Shaped[Tensor, "..."] | None = None,
    *,
    epsilon: Real | Relative,
    num_iters: int = 50,
    tol: Real | None = None,
    order: Order = "rows_first",
    domain: DomainName = "auto",
) -> Transport:
    r"""Entropic optimal transport of a cost whose rows are spread over the processes of a run.

    What :func:`~graphkd.ot.sinkhorn` computes for the rows of all processes, those of the first process first,

    .. math::
        \min_{P 1 = a,\; P^\top 1 = b} \langle P, M\rangle + \epsilon \, \mathrm{KL}(P \,\|\, a b^\top),
        \qquad M = [M_1; \dots; M_W], \quad a = [a_1; \dots; a_W],

    but process w only ever holds its own :math:`M_w`, kernel and plan. The row potentials stay where they are; per
    sweep the processes add up m numbers, in the log domain 2 m. They may have different numbers of rows, at least one.
    All of them call this together. A call waits for the device once, since the processes have to agree.

    The gradient is that of the value at convergence (``envelope``): dM = P, da = f, db = g; a loss that reads the plan
    raises. All processes call backward together, and the rows of each receive the gradient of the sum of their losses,

    .. math:: \sum_{v=1}^W \frac{\partial L_v}{\partial M_w} = \sum_{v=1}^W L_v' \, P_w,

    as with :func:`graphkd.parallel.gathered`: where all have the same loss, W times that of one process. Averaged over
    processes, as :class:`torch.nn.parallel.DistributedDataParallel` does, parameter gradients are therefore those of
    one process with all rows, whether a row of M comes from own or from gathered features. Without such an average,
    divide by the number of processes. ``b``, of which each process has a copy, receives that of the own loss, which the
    average or ``gathered`` completes.

    Args:
        cost_rows: This process's rows of M, finite: from its own rows of one side's features and everybody's rows of
            the other's, as :func:`graphkd.parallel.gathered` returns them.
        a_rows: Mass of these rows (n), of which all may be zero; uniform over the rows of all processes by default.
        b: Mass of the columns (m), the same in all processes, with the sum that ``a`` has over all processes; uniform
            by default.
        epsilon: Entropic weight in units of the cost, or :class:`Relative` to the standard deviation of all of M.
        num_iters: Sweeps, at most.
        tol: As for :func:`~graphkd.ot.sinkhorn`, in the ``l1`` norm; all processes stop at the same sweep.
        order: Whether rows or columns are updated first.
        domain: As for :func:`~graphkd.ot.sinkhorn`.

    Returns:
        A transport with this process's rows of the plan and of f; value, errors, g and all else are those of the whole
        problem, the same in all processes. The marginal updated last is exact: the columns', or with ``columns_first``
        the rows'.

    Raises:
        ValueError: In all processes: for what :func:`~graphkd.ot.sinkhorn` refuses, in any of them and on any device,
            and for processes that disagree about m, ``b``, the dtype or an option.
        RuntimeError: When another process ended, or did not come within the process group's timeout.

    >>> x, y = torch.tensor([[0.0], [1.0]], requires_grad=True), torch.tensor([[0.25], [1.25]])
    >>> everyone = parallel.gathered({"y": y})[0]
    >>> transport = sharded_sinkhorn((x - everyone["y"].T).square(), epsilon=0.01)
    >>> transport.plan.detach().round(decimals=3)
    tensor([[0.5000, 0.0000],
            [0.0000, 0.5000]])
    >>> transport.value.backward()
    >>> x.grad.flatten()
    tensor([-0.2500, -0.2500])

    Source: Cuturi, "Sinkhorn Distances", NeurIPS 2013, arXiv:1306.0895.
    """
    options = Options(epsilon, num_iters, tol, order=order, domain=domain)
    whole, cost, a, b = _prepared(cost_rows, a_rows, b, options)
    scale = cost.new_full((1, 1), whole.epsilon)
    with torch.no_grad(), no_autocast(cost.device):
        f, g, plan, count = _swept(cost, a, b, scale, options, whole)
        value, error, slope_a, columns = _judged(plan, a, b, f, g, whole)
    if whole.learns:
        value = ShardedEnvelope.apply(cost, a, b, slope_a, centred(g), plan, value)
        plan = NoGradient.apply("use the transport's value", plan, cost, a, b)
    converged = error <= (1e-3 if tol is None else tol)
    if parallel.rank() == 0:
        tell(converged, columns, b, options)
    return Transport(plan, value, (f, g), error, converged, count, scale, status=torch.zeros_like(count))


class _Shard(NamedTuple):
    """What a process tells the others before the sweeps: plain numbers."""

    settings: dict[str, Any]
    n: int
    low: float
    high: float
    mean: float
    variance: float
    mass: float
    other_mass: float
    other_moment: float


class _Whole(NamedTuple):
    """What all processes then know of the whole problem."""

    n: int
    mass: float
    reach: float
    epsilon: float
    learns: bool


def _prepared(
    cost: Tensor, a: Tensor | None, b: Tensor | None, options: Options
) -> tuple[_Whole, Tensor, Tensor, Tensor]:
    """The checked problem; what one process refuses is refused in all of them, where others would wait for it."""
    own, failure = None, None
    try:
        options.check()
        cost, a, b, own = _own(cost, a, b, options)
    except ValueError as error:
        failure = str(error)
    told = _told((own, failure))
    for rank, (_, message) in enumerate(told):
        if message is not None:
            raise ValueError(message if len(told) == 1 else f"in process {rank} of {len(told)}: {message}")
    shards = [shard for shard, _ in told if shard is not None]
    _agree(shards)
    n = sum(shard.n for shard in shards)
    assert b is not None
    if a is None:
        a, mass = cost.new_full((len(cost),), 1 / n), 1.0
    else:
        mass = sum(shard.mass for shard in shards)
    if not mass > 0:
        raise ValueError("a_rows needs masses with a sum above 0 over all processes, got zeros only")
    if abs(shards[0].other_mass - mass) > EQUAL * mass:
        raise ValueError(
            f"a and b need equal sums, got {mass:.6g} for the rows of all processes and {shards[0].other_mass:.6g}"
        )
    reach = max(shard.high for shard in shards) - min(shard.low for shard in shards)
    learns = bool(shards[0].settings["what needs gradients"])
    return _Whole(n, mass, reach, _resolved(options.epsilon, shards), learns), cost, a, b


def _own(
    cost: Tensor, a: Tensor | None, b: Tensor | None, options: Options
) -> tuple[Tensor, Tensor | None, Tensor, _Shard]:
    """This process's part of the problem in one dtype, and what the others have to know of it."""
    checks.rows("cost_rows", cost)
    checks.same_device(cost_rows=cost, a_rows=a, b=b)
    if cost.dim() != 2:
        raise ValueError(f"cost_rows needs this process's rows of one cost (n, m), got shape {tuple(cost.shape)}")
    cost = raised(cost)
    n, m = cost.shape
    a = None if a is None else _masses("a_rows", a, n, cost)
    b = uniform(m, cost) if b is None else _masses("b", b, m, cost)
    low, high, mean, variance, least, mass, other_least, other_mass, other_moment = _numbers(
        cost, a, b, isinstance(options.epsilon, Relative)
    )
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"cost_rows needs finite values, got NaN or infinite ones (shape {tuple(cost.shape)})")
    for name, smallest, total in (("a_rows", least, mass), ("b", other_least, other_mass)):
        if not (smallest >= 0 and total < math.inf):
            raise ValueError(
                f"{name} needs masses of at least 0 with a finite sum, got a smallest mass of {smallest:.3g} and a sum "
                f"of {total:.3g}"
            )
    leaves = {"cost_rows": cost, "a_rows": a, "b": b}
    settings = {
        **{name: getattr(options, name) for name in ("epsilon", "num_iters", "tol", "order", "domain")},
        "m": m,
        "the dtype": cost.dtype,
        "a_rows being given": a is not None,
        "what needs gradients": [
            name for name, x in leaves.items() if torch.is_grad_enabled() and x is not None and x.requires_grad
        ],
    }
    return cost, a, b, _Shard(settings, n, low, high, mean, variance, mass, other_mass, other_moment)


@torch.no_grad()
def _numbers(cost: Tensor, a: Tensor | None, b: Tensor, spread: bool) -> list[float]:
    """A shard in a few numbers, for which the host waits once."""
    variance, mean = torch.var_mean(cost, correction=0) if spread else (cost[0, 0], cost[0, 0])
    a = cost.new_zeros(1) if a is None else a
    moment = (b * torch.linspace(0, 1, len(b), dtype=b.dtype, device=b.device)).sum()
    numbers = torch.stack([*cost.aminmax(), mean, variance, a.amin(), a.sum(), b.amin(), b.sum(), moment])
    return numbers.double().tolist()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def _masses(name: str, x: Tensor, size: int, cost: Tensor) -> Tensor:
    checks.floating(name, x)
    if x.shape != (size,):
        raise ValueError(f"{name} needs {size} masses for cost rows of shape {tuple(cost.shape)}, got {tuple(x.shape)}")
    return x.to(cost.dtype)


def _told(own: tuple[_Shard | None, str | None]) -> Sequence[tuple[_Shard | None, str | None]]:
    """What all processes have to say, in their order."""
    if parallel.world() == 1:
        return [own]
    every: list[Any] = [None] * parallel.world()
    dist.all_gather_object(every, own)
    return every


def _agree(shards: Sequence[_Shard]) -> None:
    """Raise unless all processes solve one problem in one way."""
    for name in shards[0].settings:
        values = [shard.settings[name] for shard in shards]
        if any(value != values[0] for value in values):
            raise ValueError(f"processes need to agree about {name}, got {values}")
    for name in ("other_mass", "other_moment"):
        values = [getattr(shard, name) for shard in shards]
        if max(values) - min(values) > EQUAL * shards[0].other_mass:
            raise ValueError(f"processes need to agree about b, got sums or centres of {values}")


def _resolved(epsilon: Real | Relative, shards: Sequence[_Shard]) -> float:
    """Epsilon in units of the cost; of a relative one from the shards' means and variances."""
    if not isinstance(epsilon, Relative):
        return float(epsilon)
    size = sum(shard.n for shard in shards)
    # Means relative to the first: of a constant cost, exactly zero.
    away = [shard.mean - shards[0].mean for shard in shards]
    centre = sum(shard.n * x for shard, x in zip(shards, away, strict=True)) / size
    squares = sum(shard.n * (shard.variance + (x - centre) ** 2) for shard, x in zip(shards, away, strict=True))
    return epsilon.share * math.sqrt(squares / size) if squares > 0 else 1.0


def _swept(
    cost: Tensor, a: Tensor, b: Tensor, epsilon: Tensor, options: Options, whole: _Whole
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Potentials, plan and the number of sweeps."""
    flip = options.order == "columns_first"
    sides = (cost.mT, b, a) if flip else (cost, a, b)
    kernel = domain_of(options.domain, *sides, epsilon, -1 if flip else -2, whole.reach)
    # The kernel says by one number how far off all columns are: as a share of all mass.
    total = cost.new_full((1,), whole.mass)
    run = sweep(kernel, kernel.enter(None), total, options.num_iters, options.tol, "l1")
    f, g = kernel.potentials(run.left, run.right)
    plan = kernel.plan(run.left, run.right)
    return (g, f, plan.mT, run.num_iters) if flip else (f, g, plan, run.num_iters)


def _judged(
    plan: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, whole: _Whole
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Value, marginal error, the value's slope along a, and the plan's sums over all rows."""
    own = torch.stack([f @ a, (plan.sum(-1) - a).abs().sum(), f.sum()])
    everyone = summed(torch.cat([plan.sum(-2), own]))
    columns, (paid, gap, potentials) = everyone[:-3], everyone[-3:]
    error = (gap + (columns - b).abs().sum()) / whole.mass
    value, error = parallel.agreed(torch.stack([paid + g @ b, error]))
    return value, error, f - potentials / whole.n, columns
