"""A sentence encoder that is a table and a small perceptron."""

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F


class BagOfWords(nn.Module):
    """The mean of a text's word vectors, behind a perceptron; its embeddings have length one.

    Args:
        words: Word vectors (v d) to start from, such as the teacher's in their principal directions; they are copied.
            The first is that of padding, which no mean counts.
        embed_dim: Width of the embeddings, and of the hidden layer.

    >>> import torch
    >>> embeddings = BagOfWords(torch.randn(9, 4), 6)(torch.tensor([[3, 1, 0], [2, 8, 7]]))
    >>> embeddings.shape, torch.allclose(embeddings.norm(dim=-1), torch.ones(2))
    (torch.Size([2, 6]), True)
    """

    def __init__(self, words: Float[Tensor, "v d"], embed_dim: int) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag.from_pretrained(words.clone(), freeze=False, mode="mean", padding_idx=0)
        d = words.shape[1]
        self.body = nn.Sequential(nn.LayerNorm(d), nn.Linear(d, embed_dim), nn.GELU(), nn.Linear(embed_dim, embed_dim))

    def forward(self, ids: Int[Tensor, "n length"]) -> Float[Tensor, "n e"]:
        """Embeddings of texts, as numbers of words, padded with 0."""
        return F.normalize(self.body(self.words(ids)), dim=-1)
