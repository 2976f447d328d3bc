"""Thousands of inputs with something wrong: each is refused in words, or solved."""

import inspect
import math
import random

import jaxtyping
import pytest
import torch

from graphkd import ot
from graphkd.typing import Transport

CASES = 300
"""Of each solver."""

SOLVERS = {
    # What it is given, and options that are within reach of all others.
    "sinkhorn": (("cost", "a", "b"), {"epsilon": 0.1, "num_iters": 20}),
    "shared_sinkhorn": (("cost", "a", "b"), {"epsilon": 0.1, "num_iters": 20}),
    "sharded_sinkhorn": (("cost", "a", "b"), {"epsilon": 0.1, "num_iters": 20}),
    "sinkhorn_divergence": (("cost", "row_cost", "column_cost", "a", "b"), {"epsilon": 0.1, "num_iters": 20}),
    "ipot": (("cost", "a", "b"), {"beta": 0.5, "num_iters": 20}),
    "exact": (("cost", "a", "b"), {}),
    "gaussian": (("x", "y", "p", "q"), {}),
    "fused_gromov": (("cost", "row_cost", "column_cost", "a", "b"), {"alpha": 0.5, "num_iters": 3}),
    "sparse_sinkhorn": (("edge_index", "edge_cost", "a", "b"), {"epsilon": 0.1, "num_iters": 20}),
}

OPTIONS = {
    "epsilon": [0, -1.0, math.nan, math.inf, True, None, "0.1", 1e-30, 1e-9, 1e30, 1, ot.Relative(1e-9)],
    "beta": [0, -1.0, math.nan, math.inf, True, None, "0.1", 1e-9, 1e30],
    "num_iters": [0, -3, 1.5, True, None, "5", math.nan, 1],
    "num_inner": [0, -3, 1.5, True, "5"],
    "max_iters": [0, -3, 1.5, True, "5", 1],
    "tol": [0, -1.0, math.nan, math.inf, True, "5", 1e-30],
    "tau_a": [-0.1, 1.1, math.nan, True, "1", 0, 0.5],
    "tau_b": [-0.1, 1.1, math.nan, True, "1", 0, 0.5],
    "tau": [-0.1, 1.1, math.nan, True, "1", 0, 0.5],
    "alpha": [-0.1, 1.1, math.nan, True, "1", None, 0, 1],
    "stabilizer": [-1.0, math.nan, math.inf, 1e-8],
    "newton_iters": [-1, 1.5, True, "2", 3],
    "order": ["rows", "", None, 1, "columns_first"],
    "domain": ["exp", None, "log", "scaling"],
    "gradient": ["none", None, "implicit", "unroll"],
    "loss": ["l1", None, "kl"],
    "solver": ["cg", None, "mirror", "conditional"],
    "start": ["uniform", None, torch.ones(2, 2), torch.full((5, 7), math.nan), -torch.ones(5, 7), "identity"],
    "covariance": ["none", None, "full"],
    "eps": [-1.0, math.nan, math.inf, 1e-3],
    "warm_start": [(torch.zeros(2), torch.zeros(2)), (torch.zeros(5), torch.full((7,), math.nan))],
}


def inputs(chance: random.Random) -> dict[str, torch.Tensor]:
    """Good inputs of every kind."""
    n, m = 5, 7
    generator = torch.Generator().manual_seed(chance.randrange(2**31))

    def draw(*shape):
        return torch.rand(*shape, generator=generator)

    a, b = draw(n) + 0.1, draw(m) + 0.1
    return {
        "cost": draw(n, m),
        "row_cost": draw(n, n),
        "column_cost": draw(m, m),
        "a": a / a.sum(),
        "b": b / b.sum(),
        "x": draw(n, 3),
        "y": draw(m, 3),
        "p": a,
        "q": b,
        "edge_index": torch.cartesian_prod(torch.arange(n), torch.arange(m)).T.contiguous(),
        "edge_cost": draw(n * m),
    }


def entry(x, value):
    x = x.clone()
    # Of node numbers, one that is out of range.
    x.view(-1)[-1] = value if x.is_floating_point() else -1 if value < 0 else 99
    return x


SPOILT = {
    "a NaN": lambda x: entry(x, math.nan),
    "an infinite entry": lambda x: entry(x, math.inf),
    "minus infinity": lambda x: entry(x, -math.inf),
    "a negative entry": lambda x: entry(x, -1),
    "a zero": lambda x: entry(x, 0),
    "a huge entry": lambda x: entry(x, 3e38),
    "huge entries of both signs": lambda x: entry(x.sign() * 3e38, -3e38),
    "a tiny entry": lambda x: entry(x, 1e-42),
    "tiny": lambda x: x * 1e-40,
    "all zero": torch.zeros_like,
    "constant": torch.ones_like,
    "negated": lambda x: -x,
    "scaled": lambda x: 3 * x,
    "integers": lambda x: x.long(),
    "booleans": lambda x: x.bool(),
    "complex": lambda x: x.to(torch.complex64),
    "half": lambda x: x.half(),
    "double": lambda x: x.double(),
    "on another device": lambda x: x.to("meta"),
    "one less": lambda x: x[..., :-1],
    "one row less": lambda x: x[:-1],
    "none": lambda x: x[..., :0],
    "no rows": lambda x: x[:0],
    "a number": lambda x: x.flatten()[0],
    "one more axis": lambda x: x[None],
    "two problems": lambda x: torch.stack([x, x]),
    "no problems": lambda x: x[None][:0],
    "three of an axis of two": lambda x: x[None, None].repeat(3, 2, *[1] * x.dim()),
    "flat": lambda x: x.flatten(),
    "transposed": lambda x: x.t() if x.dim() == 2 else x.flip(0),
    "not contiguous": lambda x: torch.stack([x, x], -1)[..., 0],
    "a list": lambda x: x.tolist(),
    "a word": lambda x: "x",
    "an array": lambda x: x.numpy(),
    "nothing": lambda x: None,
}


def spoil(name: str, chance: random.Random) -> tuple[list, dict, str]:
    """Arguments of a solver with one or two things changed, and what was."""
    needed, options = SOLVERS[name]
    given, options = {key: inputs(chance)[key] for key in needed}, dict(options)
    known = inspect.signature(inspect.unwrap(getattr(ot, name))).parameters
    done = []
    for _ in range(chance.choice([1, 1, 2])):
        if chance.random() < 0.7:
            key, how = chance.choice(needed), chance.choice(list(SPOILT))
            if isinstance(given[key], torch.Tensor):
                given[key] = SPOILT[how](given[key])
            done.append(f"{key}: {how}")
        else:
            key = chance.choice([key for key in OPTIONS if key in known])
            options[key] = chance.choice(OPTIONS[key])
            done.append(f"{key}={options[key]}")
    return list(given.values()), options, ", ".join(done)


@pytest.fixture
def unchecked(monkeypatch):
    """The functions as users have them, without the tests' run-time type checks."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", SOLVERS)
def test_what_is_wrong_is_refused_in_words_or_solved(name):
    solve = inspect.unwrap(getattr(ot, name))
    refused = 0
    for seed in range(CASES):
        arguments, options, what = spoil(name, random.Random(seed))
        try:
            result = solve(*arguments, **options)
        except ValueError as error:
            refused += 1
            assert "got" in str(error), f"{what}: {error}"
            continue
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
        assert bool(result.value.isfinite().all()), what
        if isinstance(result, Transport):
            plan = result.plan.to_dense() if result.plan.is_sparse else result.plan
            assert bool(plan.isfinite().all() and (plan >= 0).all()), what
            assert bool(result.marginal_error.isfinite().all()), what
            assert bool((result.marginal_error[result.converged] < 0.1).all()) or "tol" in options, what
    # Some changes are no mistakes; most are.
    assert 0.4 * CASES < refused < 0.95 * CASES
