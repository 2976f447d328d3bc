"""What papers and their code say: options, weights and pairs of networks of each method, and where it is said."""

from facts import contrast, features, logits, wkd
from facts.networks import SETTINGS as SETTINGS

METHODS = {
    "cifar100": logits.CIFAR100 + features.CIFAR100 + contrast.CIFAR100 + wkd.CIFAR100,
    "imagenet": logits.IMAGENET + features.IMAGENET + contrast.IMAGENET + wkd.IMAGENET,
}
CLASS_COSTS = wkd.CLASS_COSTS
