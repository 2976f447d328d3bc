"""Hints for thin deep nets (FitNet): the student's features, after a learned regression, are the teacher's.

Romero, Ballas, Kahou, Chassang, Gatta, Bengio, "FitNets: Hints for Thin Deep Nets", ICLR 2015, arXiv:1412.6550.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

from torch import nn
from torch_geometric.data import Data

from graphkd import checks
from graphkd.encoders import GraphEncoder
from graphkd.features import called_with
from graphkd.graphs import positions, samples
from graphkd.loss import Criterion, GraphLoss, Term
from graphkd.maps import sized
from graphkd.measures import mean_sqeuclidean
from graphkd.projectors import LinearProjector, MapProjector, matched
from graphkd.typing import Features


def fitnet(
    student_dim: int | None = None,
    teacher_dim: int | None = None,
    *,
    feature: Literal["map", "feat"] = "map",
    size: int | None = None,
    regressor: nn.Module | None = None,
) -> Criterion:
    r"""Hints for thin deep nets (FitNets).

    .. math:: \frac{1}{n h w d} \sum_{i x y} \| r(F^s)_{ixy} - F^t_{ixy} \|^2

    over n maps of h x w positions with d channels each, r being learned with the student and then dropped: a 1 x 1
    convolution, batch normalisation and ReLU. Of vectors (``feature="feat"``) it is the same without positions, with a
    linear r.

    Nodes are positions, each in a problem of its own with the same one of the same image, or samples; the cost is the
    squared difference per channel, the coupling the identity. Labels are not looked at.

    Needs: ``map`` (n c h w) or ``feat`` (n d).
    Pairing: used.
    Cost: n h w c d, of which n h w d numbers are held.
    Terms: ``hint``.
    Extra parameters: the regressor, 1 x 1 convolution and batch normalisation.
    Equal to: its definition.

    The paper trains the student's lower half on the hint alone, then all of it by KD; here, as in the comparisons of
    CRD's authors (weight 100, the second of three stages), both are one run. For a teacher's map of half or twice the
    size they have strided or transposed convolutions in place of the 1 x 1: give one as ``regressor``, or a ``size`` to
    which both maps are averaged first.

    Args:
        student_dim: Channels, or width, of the student's feature; read off the first batch if omitted.
        teacher_dim: The same of the teacher's.
        feature: ``map`` or ``feat``.
        size: Rows and columns to which maps are averaged by adaptive pooling; as they are, if omitted.
        regressor: A module of your own in place of r: of maps (n c h w), or of vectors.

    Raises:
        ValueError: For options out of range; at the call for features whose widths differ after the regressor, and,
            without ``size`` or a regressor of your own, for maps of different sizes.

    >>> import torch
    >>> student, teacher = {"map": torch.randn(4, 3, 8, 8)}, {"map": torch.randn(4, 5, 8, 8)}
    >>> list(fitnet()(student, teacher).terms)
    ['hint']
    """
    checks.one_of("feature", feature, ("map", "feat"))
    if size is not None:
        checks.at_least("size", size, 1)
        if feature == "feat":
            raise ValueError(f"size needs feature maps, got feature='feat' with size={size}")
    learned = regressor
    if learned is None:
        kind = partial(MapProjector, "conv1x1") if feature == "map" else LinearProjector
        learned = kind(student_dim, teacher_dim)
    if feature == "map":
        student = GraphEncoder(_Regressed(learned, size), normalize=False)
        teacher = GraphEncoder(partial(_positions, size=size), normalize=False)
    else:
        student, teacher = GraphEncoder(samples, learned, normalize=False), GraphEncoder(samples, normalize=False)
    criterion = Criterion(student, teacher, {"hint": Term(GraphLoss(cost=mean_sqeuclidean))})
    if regressor is None:
        matched(criterion, feature)
    if feature == "map":
        criterion.register_forward_pre_hook(_expect, with_kwargs=True)
    return criterion


class _Regressed(nn.Module):
    """Positions of a student's map behind the regressor."""

    def __init__(self, regressor: nn.Module, size: int | None) -> None:
        super().__init__()
        self.regressor, self.size = regressor, size
        self.expected: tuple[int, ...] | None = None

    def forward(self, features: Features) -> Data:
        maps = self.regressor(sized(features, size=self.size))
        if self.expected not in (None, maps.shape[2:]):
            came, wanted = (" x ".join(map(str, size)) for size in (maps.shape[2:], self.expected or ()))
            raise ValueError(
                f"needs maps of the teacher's size, {wanted}, behind the regressor, got {came}: give a `size` to "
                "average both to, or a regressor that strides"
            )
        return positions(maps)

    def extra_repr(self) -> str:
        return f"size={self.size}"


def _expect(criterion: nn.Module, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
    """Tell the regressor the size of the teacher's maps: what builds a network's graph does not see the other."""
    _, teacher = called_with(arguments, named)
    for module in criterion.modules():
        if isinstance(module, _Regressed) and "map" in teacher:
            module.expected = teacher["map"].shape[2:] if module.size is None else (module.size, module.size)


def _positions(features: Features, size: int | None) -> Data:
    return positions(sized(features, size=size))
