"""Networks to distil from and into, each with its pooled features behind a module named ``pool``."""

from graphkd.models.resnet import CifarResNet as CifarResNet
from graphkd.models.resnet import resnet8x4 as resnet8x4
from graphkd.models.small_cnn import SmallCNN as SmallCNN
