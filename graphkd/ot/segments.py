"""Sinkhorn's half-sweeps over a list of pairs: each side sees the pairs in the order of its nodes, as segments."""

from typing import Any, NamedTuple

import torch
from scipy.sparse import csr_array  # pyright: ignore # scipy has no types
from torch import Tensor
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]
from torch_geometric.utils import segment  # pyright: ignore[reportMissingTypeStubs]

from graphkd.ot.domains import REACH
from graphkd.typing import Real

FAR = REACH[torch.float64] / 4
"""How far, in units of epsilon, potentials may move from those in a kernel."""


class Side(NamedTuple):
    """The pairs as one side sees them: in the order of its nodes.

    Attributes:
        own: This side's node of each pair, ascending.
        other: The other side's node of each pair.
        ptr: Where each node's pairs begin, and the end of the last.
        cost: M of each pair.
        weight: The mass of the other node of each pair.
        mass: The mass of each node.
        alone: Which nodes have no candidate with mass.
        tau: How firmly the masses are held.
    """

    own: Tensor
    other: Tensor
    ptr: Tensor
    cost: Tensor
    weight: Tensor
    mass: Tensor
    alone: Tensor
    tau: Real

    def update(self, potential: Tensor, epsilon: Tensor) -> Tensor:
        """This side's potential given the other's: -tau epsilon log sum mass exp((potential - M) / epsilon)."""
        x = (potential.index_select(0, self.other) - self.cost) / epsilon
        top = segment(x.detach().masked_fill(self.weight == 0, -torch.inf), self.ptr, reduce="max")
        top = top.masked_fill(self.alone, 0)
        # Nodes without mass may be nearer than all others.
        x = (x - top.index_select(0, self.own)).clamp(-REACH[x.dtype], REACH[x.dtype])
        total = segment(self.weight * x.exp(), self.ptr).masked_fill(self.alone, 1)
        return -self.tau * epsilon * (total.log() + top)

    def excess(self, before: Tensor, after: Tensor, epsilon: Tensor) -> Tensor:
        """By what share of the mass nodes were off when an update moved their potentials so."""
        ratio = ((before - after) / epsilon).clamp_max(REACH[torch.float32]).expm1()
        return (self.mass * ratio).detach().abs().sum() / self.mass.detach().sum()

    def reached(self) -> Tensor:
        """The share of the mass whose nodes have a candidate with mass."""
        mass = self.mass.detach()
        return 1 - (mass * self.alone).sum() / mass.sum()

    def double(self) -> "Side":
        """The same in float64, without gradient."""
        cost, weight, mass = (x.detach().double() for x in (self.cost, self.weight, self.mass))
        return self._replace(cost=cost, weight=weight, mass=mass)


def sides(pairs: Tensor, cost: Tensor, a: Tensor, b: Tensor, tau_a: Real, tau_b: Real) -> tuple[Side, Side]:
    """The rows' and the columns' side of pairs that are sorted by row, then by column."""
    row, column = pairs
    order = column.argsort(stable=True)
    return (
        _side(row, column, cost, a, b, tau_a),
        _side(column.index_select(0, order), row.index_select(0, order), cost.index_select(0, order), b, a, tau_b),
    )


def _side(own: Tensor, other: Tensor, cost: Tensor, mass: Tensor, other_mass: Tensor, tau: Real) -> Side:
    ptr = torch.searchsorted(own, torch.arange(len(mass) + 1, device=own.device))
    weight = other_mass.index_select(0, other)
    alone = segment(weight.detach(), ptr, reduce="max") == 0
    return Side(own, other, ptr, cost, weight, mass, alone, tau)


class Log:
    """Half-sweeps on the potentials themselves: stable at any epsilon, on any device, differentiable.

    A backward pass computes each half-sweep again, instead of keeping ten numbers per pair of it.
    """

    def __init__(self, rows: Side, columns: Side, epsilon: Tensor) -> None:
        self._rows, self._columns, self.epsilon = rows, columns, epsilon

    def rows(self, g: Tensor) -> Tensor:
        """The rows' potential given the columns'."""
        return self._update(self._rows, g)

    def columns(self, f: Tensor) -> Tensor:
        """The columns' potential given the rows'."""
        return self._update(self._columns, f)

    def _update(self, side: Side, potential: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return side.update(potential, self.epsilon)
        found: Any = checkpoint(side.update, potential, self.epsilon, use_reentrant=False, preserve_rng_state=False)
        return found


class Scaling:
    r"""Half-sweeps by one product with :math:`K = \exp((f^0 + g^0 - M) / \epsilon)` each, in float64 on the CPU.

    The potentials stay near :math:`f^0` and :math:`g^0`, so that what K loses to underflow does not matter: an update
    that would lead too far is taken by :class:`Log`'s formula, and K is made anew from it. That is rare. scipy's
    product passes over the pairs once, where a gather, a product and a sum over segments pass three times.
    """

    def __init__(self, rows: Side, columns: Side, epsilon: Tensor) -> None:
        self._rows, self._columns, self.epsilon = rows.double(), columns.double(), epsilon.double()
        self.pattern = rows.other.int().numpy(), rows.ptr.int().numpy()
        self._absorb(torch.zeros_like(self._rows.mass), torch.zeros_like(self._columns.mass))

    def rows(self, g: Tensor) -> Tensor:  # noqa: D102
        f = self._update(self._rows, self.kernel, self.f, self._columns.mass, g - self.g)
        if f is None:
            f = self._rows.update(g, self.epsilon)
            self._absorb(f, g)
        return f

    def columns(self, f: Tensor) -> Tensor:  # noqa: D102
        g = self._update(self._columns, self.kernel.T, self.g, self._rows.mass, f - self.f)
        if g is None:
            g = self._columns.update(f, self.epsilon)
            self._absorb(f, g)
        return g

    def _update(self, side: Side, kernel: Any, absorbed: Tensor, mass: Tensor, moved: Tensor) -> Tensor | None:
        """A side's potential, given how far the other's has moved; None where that leads too far."""
        sums = kernel @ moved.div_(self.epsilon).exp_().mul_(mass).numpy()
        logs = torch.from_numpy(sums).masked_fill_(side.alone, 1).log_()  # pyright: ignore[reportUnknownMemberType]
        potential = side.tau * (absorbed - self.epsilon * logs)
        far = logs.abs().maximum((potential - absorbed).abs() / self.epsilon).max()
        return potential if bool(far < FAR) else None

    def _absorb(self, f: Tensor, g: Tensor) -> None:
        """Put the potentials into the kernel."""
        self.f, self.g = f, g
        x = (f.index_select(0, self._rows.own) + g.index_select(0, self._rows.other) - self._rows.cost) / self.epsilon
        reach = REACH[torch.float64]
        entries = x.clamp(-reach, reach).exp_().numpy()
        self.kernel: Any = csr_array((entries, *self.pattern), shape=(len(f), len(g)))
