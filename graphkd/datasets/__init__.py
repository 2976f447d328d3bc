"""Data modules: training, validation and test batches of images and labels."""

from graphkd.datasets.cifar import CIFAR10Data as CIFAR10Data
from graphkd.datasets.cifar import CIFAR100Data as CIFAR100Data
from graphkd.datasets.digits import DigitsData as DigitsData
from graphkd.datasets.image_folder import ImageFolderData as ImageFolderData
from graphkd.datasets.imagenet import ImageNetData as ImageNetData
from graphkd.datasets.synthetic import SyntheticData as SyntheticData
from graphkd.datasets.tensor_data import TensorData as TensorData
from graphkd.datasets.texts import docstrings as docstrings
from graphkd.datasets.tiny_imagenet import TinyImageNetData as TinyImageNetData
