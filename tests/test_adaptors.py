"""Adaptors of tokens and maps: what they return, of which sources, and what they refuse."""

import pytest
import torch
from torch import nn

from graphkd.adaptors import ChannelsFirst, ClsToken, MeanMap, MeanTokens, TokenMap
from graphkd.features import FeatureExtractor

TOKENS = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("index", [0, 2, -1])
def test_one_token_stands_for_the_sequence(index):
    assert torch.equal(ClsToken("x", index)(TOKENS), TOKENS[:, index])


def test_the_mean_is_over_tokens():
    torch.testing.assert_close(MeanTokens("x")(TOKENS), TOKENS.mean(1))
    torch.testing.assert_close(MeanTokens("x", skip=2)(TOKENS), TOKENS[:, 2:].mean(1))


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
@pytest.mark.parametrize("skip", [0, 1])
def test_the_mean_is_over_those_tokens_that_count(dtype, skip):
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 1, 0]]).to(dtype)
    expected = torch.stack([row[skip:][keep[skip:].bool()].mean(0) for row, keep in zip(TOKENS, mask, strict=True)])
    torch.testing.assert_close(MeanTokens("x", "m", skip)(TOKENS, mask), expected)


def test_a_sequence_without_tokens_gives_zeros_and_no_gradient():
    tokens = TOKENS.clone().requires_grad_()
    pooled = MeanTokens("x", "m")(tokens, torch.zeros(3, 5))
    assert torch.equal(pooled, torch.zeros(3, 2))
    pooled.sum().backward()
    assert torch.equal(tokens.grad, torch.zeros(3, 5, 2))


def test_what_does_not_count_may_be_no_number():
    tokens = TOKENS.clone()
    tokens[:, 3:] = torch.nan
    mask = torch.tensor([1, 1, 1, 0, 0]).expand(3, 5)
    torch.testing.assert_close(MeanTokens("x", "m")(tokens, mask), TOKENS[:, :3].mean(1))


def test_half_precision_is_summed_in_single():
    tokens = torch.full((1, 4, 1), 60000.0, dtype=torch.float16)
    for pooled in (MeanTokens("x")(tokens), MeanTokens("x", "m")(tokens, torch.ones(1, 4))):
        assert pooled.dtype == torch.float32
        assert pooled.item() == tokens[0, 0, 0].item()
    assert MeanMap("x")(tokens.view(1, 1, 2, 2)).item() == tokens[0, 0, 0].item()


def test_patches_become_a_map_row_by_row():
    tokens = torch.arange(7.0).view(1, 7, 1)
    assert TokenMap("x", skip=1, size=(2, 3))(tokens)[0, 0].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert TokenMap("x", skip=3)(tokens)[0, 0].tolist() == [[3, 4], [5, 6]]


def test_a_vision_transformers_patches_are_its_first_convolution_again():
    maps = torch.randn(2, 3, 4, 4)
    tokens = torch.cat([torch.zeros(2, 1, 3), maps.flatten(2).mT], 1)
    assert torch.equal(TokenMap("x")(tokens), maps)


def test_channels_come_first():
    maps = torch.randn(2, 3, 4, 5)
    assert torch.equal(ChannelsFirst("x")(maps.permute(0, 2, 3, 1)), maps)


def test_a_map_is_averaged_over_positions():
    maps = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(MeanMap("x")(maps), maps.mean((2, 3)))
    torch.testing.assert_close(MeanMap("x", channels_last=True)(maps), maps.mean((1, 2)))


@pytest.mark.parametrize(
    ("adaptor", "given", "message"),
    [
        (
            ClsToken("x"),
            (torch.zeros(2, 3),),
            r"ClsToken\(source='x', index=0\) needs tokens \(n, t, d\), got .*\(2, 3\)",
        ),
        (ClsToken("x", 5), (TOKENS,), "a token of that index, got 5 tokens"),
        (ClsToken("x", -6), (TOKENS,), "a token of that index, got 5 tokens"),
        (MeanTokens("x"), (torch.zeros(2, 3, 4, 4),), r"needs tokens \(n, t, d\)"),
        (MeanTokens("x", skip=5), (TOKENS,), r"t > 5, got shape \(3, 5, 2\)"),
        (MeanTokens("x", "m"), (TOKENS, torch.ones(3, 4)), r"one number per token, \(3, 5\), got \(3, 4\)"),
        (TokenMap("x", skip=0), (TOKENS,), "needs a square number of patches behind 0 tokens, got 5 in all"),
        (TokenMap("x", skip=5), (TOKENS,), "a square number of patches behind 5 tokens, got 5"),
        (TokenMap("x", size=(2, 3)), (TOKENS,), "needs 2 x 3 of patches behind 1 tokens, got 5 in all"),
        (ChannelsFirst("x"), (TOKENS,), r"needs maps \(n, h, w, c\), got shape \(3, 5, 2\)"),
        (MeanMap("x"), (TOKENS,), r"needs maps \(n, c, h, w\), got shape \(3, 5, 2\)"),
    ],
)
def test_what_does_not_fit_is_refused(adaptor, given, message):
    with pytest.raises(ValueError, match=message):
        adaptor(*given)


@pytest.mark.parametrize(
    "make", [lambda: MeanTokens("x", skip=-1), lambda: TokenMap("x", -1), lambda: TokenMap("x", 1, (0, 2))]
)
def test_options_out_of_range_are_refused_at_construction(make):
    with pytest.raises(ValueError, match="needs an integer of at least"):
        make()


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, ids, keep=None):
        return self.head(self.embed(ids).sum(1))


@pytest.mark.parametrize("positional", [True, False])
def test_an_adaptor_sees_a_modules_output_and_the_models_inputs(positional):
    model, ids, keep = Encoder(), torch.tensor([[1, 2, 3], [4, 5, 0]]), torch.tensor([[1, 1, 1], [1, 0, 0]])
    extract = FeatureExtractor(model, {"feat": MeanTokens("embed", mask=":input.keep")})
    features = extract.run([ids, keep] if positional else {"keep": keep, "ids": ids}).features
    table = model.embed.weight
    torch.testing.assert_close(features["feat"], torch.stack([table[[1, 2, 3]].mean(0), table[4]]))
    with pytest.raises(ValueError, match="a part named 'keep' for ':input.keep', got .* with parts ids"):
        extract(ids)
