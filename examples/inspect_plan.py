"""From two arrays of features to four pictures: batch graph, plan, transport, embedding."""

import argparse

import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from graphkd import GraphLoss, graphs, measures, metrics
from graphkd.couplings import Sinkhorn
from graphkd.viz import plot_embedding, plot_graph, plot_plan, plot_transport

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--out", default="inspect_plan.png", help="where to save the picture")
parser.add_argument("--smoke", action="store_true", help="save nothing, to see that it runs")
options = parser.parse_args()

images, digits = load_digits(return_X_y=True)
labels = torch.as_tensor(digits[:80])
teacher = torch.as_tensor(PCA(8).fit_transform(images)[:80], dtype=torch.float32)  # any (n, d) arrays of your own
student = teacher + 8 * torch.randn(80, 8, generator=torch.Generator().manual_seed(0))

loss = GraphLoss(cost=measures.cosine_distance, coupling=Sinkhorn(epsilon=0.05, num_iters=200, tol=1e-3))
seen = loss.compare(graphs.knn_graph(student, k=5), graphs.knn_graph(teacher, k=5))

figure = Figure(figsize=(13, 11), layout="constrained")
axes = figure.subplots(2, 2).flat
plot_graph(seen.graphs[1], labels=labels, ax=axes[0], title="batch graph of the teacher")
plot_plan(seen, labels=labels, ax=axes[1], title="transport plan")
plot_transport(seen, labels=labels, ax=axes[2], title="where the mass goes")
plot_embedding(student, teacher, plan=seen, labels=labels, ax=axes[3], title="both networks")
own, same = metrics.diagonal_mass(seen.plan), metrics.class_purity(seen.plan, labels)
print(f"mass on the true pair {own:.0%}, within the class {same:.0%}")
if not options.smoke:
    figure.savefig(options.out, dpi=110)
