"""Distil a graph network into a perceptron that needs no graph, over the data's own edges.

Images of digits are the nodes of a graph that joins each with its most similar ones; five per class have a label. A
two-layer GCN learns on this graph, a perceptron learns from it, and is asked about new images, which no graph joins.

python examples/node_classification.py    # minutes on two cores; with --smoke, seconds
"""

import argparse
from collections.abc import Mapping
from statistics import mean, stdev
from typing import Any, NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch_geometric.nn import GCN

from graphkd import Distiller, losses
from graphkd.edges import GivenEdges
from graphkd.graphs import knn_graph


class Nodes(NamedTuple):
    """Half of the images with their edges and few labels (-100 elsewhere), the other half to test on."""

    x: Tensor
    edge_index: Tensor
    few: Tensor
    labels: Tensor
    new_x: Tensor
    new_labels: Tensor


class OnGraph(nn.Module):
    """A graph network together with its graph, so that it takes what the student takes: rows, in their order."""

    def __init__(self, network: nn.Module, edge_index: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("edge_index", edge_index)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of each node."""
        return self.network(x, self.edge_index)


def nodes(seed: int, per_class: int = 5) -> Nodes:
    """A split of the digits."""
    x, labels = (torch.as_tensor(each) for each in load_digits(return_X_y=True))
    x = (x / 16).float()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    own, new = order[: len(x) // 2], order[len(x) // 2 :]
    few = torch.full((len(own),), -100)
    for digit in range(10):
        few[(labels[own] == digit).nonzero()[:per_class, 0]] = digit
    return Nodes(x[own], knn_graph(x[own], k=8, symmetric=True).edge_index, few, labels[own], x[new], labels[new])


def trained(model: nn.Module, data: Nodes, epochs: int, **distillation: Any) -> nn.Module:
    """The model after so many steps on all nodes."""
    distiller = Distiller(model, **distillation)
    optimizer = torch.optim.Adam(distiller.learnable_parameters(), lr=0.01, weight_decay=5e-4)
    for _ in range(epochs):
        loss = distiller(data.x, data.few).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, labels: Tensor) -> float:
    """In percent, of the nodes with a label."""
    return 100 * float((model(x).argmax(-1) == labels)[labels >= 0].float().mean())


def results(seed: int, epochs: int) -> Mapping[str, float]:
    """The accuracy of each way to train the student, and of the teacher on the nodes of its graph."""
    data = nodes(seed)
    torch.manual_seed(seed)
    gcn = GCN(64, 64, num_layers=2, out_channels=10, dropout=0.5)
    teacher = trained(OnGraph(gcn, data.edge_index), data, epochs)
    found = {"GCN, on its own nodes": accuracy(teacher, data.x, data.labels.masked_fill(data.few >= 0, -100))}
    own_edges = losses.otgd(embed_dim=32)  # with the data's own graph, not the nearest in class probabilities
    own_edges.student.build = own_edges.teacher.build = GivenEdges(data.edge_index)
    names = {"student_features": {"feat": "3:input"}, "teacher_features": {"feat": "network.convs.1:input"}}
    ways = {
        "MLP alone": {},
        "MLP with KD": {"teacher": teacher, "criteria": {"kd": losses.kd()}},
        "MLP with KD and OTGD on the given edges": {
            "teacher": teacher,
            "criteria": {"kd": losses.kd(), "otgd": own_edges},
            "weights": {"otgd": 0.1},
            **names,
        },
    }
    for name, distillation in ways.items():
        torch.manual_seed(seed)
        perceptron = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 10))
        student = trained(perceptron, data, epochs, **distillation)
        found[name] = accuracy(student, data.new_x, data.new_labels)
    return found


def main() -> None:
    """Print mean and deviation over seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="two epochs, to see that it runs")
    options = parser.parse_args()
    rows = [results(seed, 2 if options.smoke else options.epochs) for seed in range(options.seeds)]
    for name in rows[0]:
        each = [row[name] for row in rows]
        print(f"{name:40} {mean(each):6.2f} +- {stdev(each) if len(each) > 1 else 0:.2f} %")


if __name__ == "__main__":
    main()
