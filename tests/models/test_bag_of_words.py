import torch
from torch.nn import functional as F

from graphkd.models import BagOfWords


def test_it_is_the_mean_of_word_vectors_behind_a_perceptron_without_padding():
    words = torch.randn(9, 4)
    model = BagOfWords(words, 6)
    texts = [[3, 1], [2, 8, 7], [5]]
    padded = torch.tensor([text + [0] * (5 - len(text)) for text in texts])
    expected = torch.cat([model.body(words[text].mean(0, keepdim=True)) for text in texts])
    torch.testing.assert_close(model(padded), F.normalize(expected, dim=-1))
    assert sum(p.numel() for p in model.parameters()) == 9 * 4 + 2 * 4 + (4 + 1) * 6 + (6 + 1) * 6


def test_the_vectors_that_it_starts_from_stay_as_they_are():
    words = torch.randn(9, 4)
    before = words.clone()
    model = BagOfWords(words, 6)
    model(torch.tensor([[1, 2]])).sum().backward()
    torch.optim.SGD(model.parameters(), 1.0).step()
    assert torch.equal(words, before)
    assert not torch.equal(model.words.weight, before)
