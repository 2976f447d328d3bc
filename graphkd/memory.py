"""What samples are contrasted with: the rest of the batch, a memory of the whole data set, a queue of past batches."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch_geometric.data import Data

from graphkd import checks, parallel
from graphkd.features import hard
from graphkd.graphs import point_cloud, samples
from graphkd.measures import unit
from graphkd.precision import raised
from graphkd.typing import UNLABELLED, Features, Real


class Memory(nn.Module):
    """What is remembered of past batches, in buffers.

    In a run of several processes each keeps the whole memory, and all keep the same: they take part with the batches of
    all, gathered (:func:`graphkd.parallel.gathered`, as a :class:`~graphkd.Distiller` in training does). The first of
    them starts the others' memories.

    Raises:
        ValueError: In training, for a batch that is not the same in all processes.
    """

    _begun = False

    def _begin(self, batch: Tensor) -> None:
        """Make sure that all processes remember the same, before anything is remembered."""
        if self._begun or parallel.world() == 1 or not self.training:
            return
        if not parallel.alike(batch):
            raise ValueError(
                "a memory in a run of several processes needs their batches gathered (graphkd.parallel.gathered; a "
                f"Distiller in training does it), got batches that differ between the {parallel.world()} processes"
            )
        for buffer in self.buffers():
            parallel.agreed(buffer)
        self._begun = True


class MemoryBank(Memory):
    r"""One row of length one for every sample of a data set, a running mean of that sample's embeddings.

    .. math:: r_i \leftarrow \mathrm{unit}(\mu\, r_i + (1 - \mu)\, x_i)

    Rows carry no gradient. They are buffers, saved with the model: data sets must keep the order of their samples.

    Args:
        num_samples: Size of the data set.
        dim: Width of an embedding.
        momentum: :math:`\mu`, in [0, 1].

    Source: Wu, Xiong, Yu, Lin, "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018,
    arXiv:1805.01978.

    >>> bank = MemoryBank(num_samples=50, dim=4)
    >>> bank.recall(torch.tensor([7, 3]), None, num_negatives=10).x.shape
    torch.Size([12, 4])
    """

    rows: Tensor
    labels: Tensor

    def __init__(self, num_samples: int, dim: int, momentum: Real = 0.5) -> None:
        super().__init__()
        checks.at_least("num_samples", num_samples, 1)
        checks.at_least("dim", dim, 1)
        checks.share("momentum", momentum)
        self.momentum = momentum
        bound = (dim / 3) ** -0.5
        self.register_buffer("rows", torch.empty(num_samples, dim).uniform_(-bound, bound))
        self.register_buffer("labels", torch.full((num_samples,), UNLABELLED))

    def recall(
        self,
        index: Int[Tensor, " n"],
        labels: Int[Tensor, " n"] | None,
        num_negatives: int,
        negatives: Int[Tensor, "n k"] | None = None,
    ) -> Data:
        """A graph of remembered rows without edges: first those of the given samples, then candidates for negatives.

        Only the first n nodes have mass. ``negatives`` (n m) says how often each node is a negative of each sample. The
        candidates are drawn once for all, evenly and with replacement, and count where they are another sample and, as
        far as labels are known, of another class.

        Args:
            index: Where the samples stand in the data set.
            labels: Their classes, -100 where unknown.
            num_negatives: How many candidates are drawn.
            negatives: Which samples of the data set are the negatives of each, instead of a draw and as they are.
        """
        self._check(index)
        self._begin(index)
        n = len(index)
        if negatives is None:
            drawn = torch.randint(len(self.rows), (num_negatives,), device=index.device)
            drawn = parallel.agreed(drawn) if self.training else drawn
            rows = self.rows[drawn]
            times = others(index, drawn, labels, self.labels[drawn])
        else:
            self._check(negatives)
            rows = self.rows
            times = torch.zeros(n, len(rows), device=index.device)
            times.scatter_add_(1, negatives.long(), torch.ones_like(negatives, dtype=times.dtype))
        x = torch.cat([self.rows[index], rows])
        graph = point_cloud(x, torch.cat([x.new_full((n,), 1 / n), x.new_zeros(len(rows))]))
        graph.node = "remembered"
        graph.negatives = torch.cat([x.new_zeros(n, n), times.to(x.dtype)], 1)
        return graph

    @torch.no_grad()
    def update(self, index: Int[Tensor, " n"], x: Float[Tensor, "n d"], labels: Int[Tensor, " n"] | None) -> None:
        """Bring what is remembered of some samples up to date."""
        self._check(index)
        if x.shape != (len(index), self.rows.shape[1]):
            raise ValueError(
                f"a memory of width {self.rows.shape[1]} needs {len(index)} such rows, got {tuple(x.shape)}"
            )
        x = raised(x).to(self.rows.dtype)
        self.rows[index] = unit(self.momentum * self.rows[index] + (1 - self.momentum) * x)
        if labels is not None:
            self.labels[index] = labels.to(self.labels.dtype)

    def _check(self, index: Tensor) -> None:
        checks.tensor(index=index)
        if index.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"a memory needs integers as index of samples, got {index.dtype}")
        if checks.can_look(index) and not bool(((index >= 0) & (index < len(self.rows))).all()):
            raise ValueError(
                f"a memory of {len(self.rows)} samples needs an index of at least 0 and below that, got "
                f"{int(index.min())} to {int(index.max())}"
            )


class Queue(Memory):
    """The latest embeddings, oldest out first. A buffer, saved with the model.

    It starts empty: places that are not filled yet have no mass, so that nothing is compared with random rows.

    Args:
        size: How many embeddings there are at most, those of the current batch among them.
        dim: Width of an embedding.

    Source: He, Fan, Wu, Xie, Girshick, "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020,
    arXiv:1911.05722.

    >>> queue = Queue(size=5, dim=2)
    >>> queue.push(torch.ones(3, 2))
    >>> queue.recall(torch.zeros(2, 2)).mass
    tensor([0.2000, 0.2000, 0.2000, 0.2000, 0.2000, 0.0000, 0.0000])
    """

    rows: Tensor
    pushed: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        checks.at_least("size", size, 1)
        checks.at_least("dim", dim, 1)
        self.register_buffer("rows", torch.zeros(size, dim))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64))

    def recall(self, x: Float[Tensor, "n d"]) -> Data:
        """A graph without edges of a batch, n nodes, and behind it the queue, as if the batch were in it already.

        What the batch would push out, and what is not filled yet, has no mass; the other nodes share it evenly. Of a
        batch larger than the queue all nodes have mass, since each is compared with its own teacher too.
        """
        self._check(x)
        self._begin(x)
        n, size = len(x), len(self.rows)
        place = torch.arange(size, device=x.device)
        stays = (place < self.pushed) & ((place - self.pushed) % size >= n)
        counts = torch.cat([stays.new_ones(n), stays]).to(self.rows.dtype)
        nodes = torch.cat([raised(x).detach().to(self.rows.dtype), self.rows])
        graph = point_cloud(nodes, counts / counts.sum())
        graph.node = "remembered"
        return graph

    @torch.no_grad()
    def push(self, x: Float[Tensor, "n d"]) -> None:
        """Let a batch in, in place of the oldest embeddings; of a batch larger than the queue, the last rows."""
        self._check(x)
        size = len(self.rows)
        latest = raised(x)[-size:].to(self.rows.dtype)
        first = self.pushed + len(x) - len(latest)
        self.rows[(first + torch.arange(len(latest), device=x.device)) % size] = latest
        self.pushed += len(x)

    def extra_repr(self) -> str:
        """Size and width."""
        size, dim = self.rows.shape
        return f"size={size}, dim={dim}"

    def _check(self, x: Tensor) -> None:
        if x.shape[-1] != self.rows.shape[1]:
            raise ValueError(f"a queue of width {self.rows.shape[1]} needs such rows, got {tuple(x.shape)}")


def samples_apart(features: Features, same_class: bool = False) -> Data:
    """The samples of a batch with their ``feat``, each the negative of all others: a builder of an encoder.

    Args:
        features: With ``labels``, where there are any.
        same_class: Whether samples known to be of one class are negatives of each other too.

    >>> features = {"feat": torch.zeros(3, 2), "labels": torch.tensor([7, 7, -100])}
    >>> samples_apart(features).negatives
    tensor([[0., 0., 1.],
            [0., 0., 1.],
            [1., 1., 0.]])
    """
    graph = samples(features)
    x, labels = checks.nodes("samples", graph), None if same_class else features.get("labels")
    index = torch.arange(len(x), device=x.device)
    labels = None if labels is None else hard(labels)
    graph.negatives = others(index, index, labels, labels)
    return graph


def others(
    index: Int[Tensor, " n"],
    other_index: Int[Tensor, " m"],
    labels: Int[Tensor, " n"] | None,
    other_labels: Int[Tensor, " m"] | None,
) -> Float[Tensor, "n m"]:
    """One where j is another sample than i and not known to be of the same class, else zero.

    >>> others(torch.tensor([0]), torch.tensor([0, 1, 2]), torch.tensor([5]), torch.tensor([5, 5, -100]))
    tensor([[0., 0., 1.]])
    """
    apart = index.unsqueeze(1) != other_index
    if labels is not None and other_labels is not None:
        same = labels.unsqueeze(1) == other_labels
        apart = apart & ~(same & (labels != UNLABELLED).unsqueeze(1))
    return apart.float()
