"""Distil one network into another through graphs and optimal transport."""

import warnings
from importlib.metadata import PackageNotFoundError, version

with warnings.catch_warnings():
    # Some releases of PyTorch Geometric decorate with torch.jit.script, which newer releases of torch deprecate.
    warnings.simplefilter("ignore", FutureWarning)
    warnings.simplefilter("ignore", DeprecationWarning)
    import torch_geometric as torch_geometric

from graphkd import graphs as graphs
from graphkd import losses as losses
from graphkd import measures as measures
from graphkd import ot as ot
from graphkd.balance import suggest_weights as suggest_weights
from graphkd.distiller import Distiller as Distiller
from graphkd.encoders import GraphEncoder as GraphEncoder
from graphkd.features import FeatureExtractor as FeatureExtractor
from graphkd.loss import Criterion as Criterion
from graphkd.loss import GraphLoss as GraphLoss
from graphkd.loss import Term as Term
from graphkd.step import Step as Step

try:
    __version__ = version("graphkd")
except PackageNotFoundError:
    __version__ = "0.0.0"
