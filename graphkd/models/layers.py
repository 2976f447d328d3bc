"""What the backbones share: the pooling before the classifier, and the initial weights of convolutions."""

from torch import nn


def global_pool() -> nn.Sequential:
    """Averages feature maps (n c h w) over all positions to one vector per image (n c).

    >>> import torch
    >>> global_pool()(torch.zeros(2, 5, 3, 4)).shape
    torch.Size([2, 5])
    """
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


def he_convolutions(model: nn.Module) -> None:
    r"""Draw convolutions' weights from :math:`N(0, 2 / (k^2 c))`, for kernels of k x k and c output channels.

    He, Zhang, Ren, Sun, "Delving Deep into Rectifiers", ICCV 2015, arXiv:1502.01852, in its form for the backward pass.
    Biases become zero.

    >>> convolution = nn.Conv2d(3, 8, 1)
    >>> he_convolutions(convolution)
    >>> float(convolution.bias.detach().abs().max())
    0.0
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
