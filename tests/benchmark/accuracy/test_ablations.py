"""Variants differ from their method in what their names say, and in nothing else."""

import pytest
import torch

from graphkd.benchmark.accuracy.ablations import ABLATIONS, EVERY, VARIANTS, same_class
from graphkd.benchmark.accuracy.entries import ANY, ENTRIES, METHOD
from graphkd.reductions import PlanGap, PlanNLL

GIVEN = ANY._replace(samples=100, maps=())
BATCH = (
    {"feat": torch.randn(20, 12), "logits": torch.randn(20, 10)},
    {
        "feat": torch.randn(20, 24),
        "logits": torch.randn(20, 10),
    },
)


def value_of(entry):
    torch.manual_seed(0)
    student, teacher = ({"feat": torch.randn(20, d), "logits": torch.randn(20, 10)} for d in (12, 24))
    return float(entry.criteria(GIVEN)[METHOD](student, teacher).value.detach())


def test_the_first_of_each_is_the_method_itself():
    for name, group in ABLATIONS.items():
        assert next(iter(group.items())) == (name, ENTRIES[name])
    assert EVERY.keys() == ENTRIES.keys() | VARIANTS.keys()
    assert len(VARIANTS) == sum(map(len, ABLATIONS.values()))


@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in ENTRIES])
def test_a_variant_is_something_else_with_a_finite_value_and_as_many_trials(name):
    method = ENTRIES[name.partition(":")[0]]
    value = value_of(VARIANTS[name])
    # On a batch like this the anchored plan is the identity, at any strength.
    assert (value != value_of(method)) or name in {"fgw:identity", "fgw:anchor=.5", "fgw:anchor=8"}
    assert abs(value) < 1e4
    assert (VARIANTS[name].knob, VARIANTS[name].values) == (method.knob, method.values)


def test_replaced_parts_are_those_of_all_terms():
    for name, kind in (("otgd:nll", PlanNLL), ("otgd:classes", PlanGap)):
        criterion = VARIANTS[name].criteria(GIVEN)[METHOD]
        assert len(criterion.terms) == 4
        assert all(type(term.loss.reduction) is kind for term in criterion.terms.values())
        assert all(criterion.losses[term] is criterion.terms[term].loss for term in criterion.terms)
    assert all(term.loss.reduction.target is same_class for term in criterion.terms.values())


def test_classes_as_the_target_are_reached_by_a_plan_that_shares_them():
    logits = 9 * torch.eye(2)[torch.tensor([0, 1, 0, 1, 1])]
    features = {"feat": torch.randn(5, 4), "logits": logits}
    criterion = VARIANTS["otgd:classes"].criteria(GIVEN)[METHOD]
    found = criterion(features, features).comparisons["f"]
    target = same_class(found.graphs[1])
    torch.testing.assert_close(target.sum(1), torch.full((5,), 0.2))
    assert float(target[0, 2]) == pytest.approx(0.1) and float(target[0, 1]) == 0.0
    torch.testing.assert_close(found.value, (5 * (found.plan - target)).norm())
