"""CIFAR-10 and CIFAR-100: 50,000 + 10,000 colour images of 32 x 32.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", technical report, University of Toronto, 2009.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from graphkd.datasets import transforms
from graphkd.datasets.archived_data import ArchivedData
from graphkd.datasets.archives import Archive
from graphkd.datasets.image_data import Sources
from graphkd.datasets.parts import ArrayImages


class CIFARData(ArchivedData):
    """What the two CIFARs share; for the arguments see :class:`~graphkd.datasets.archived_data.ArchivedData`."""

    statistics: transforms.Statistics
    archive_size: int

    @abstractmethod
    def files(self) -> Any:
        """Torchvision's class of the set, which says where it is published, and its files' names and checksums."""

    def archive(self) -> Archive:
        """The python version."""
        files = self.files()
        return Archive(
            title=files.__name__,
            url=files.url,
            name=files.filename,
            size=self.archive_size,
            md5=files.tgz_md5,
            folder=files.base_folder,
            layout=f"with {', '.join(name for name, _ in _known(files))}",
        )

    def read(self) -> Sources:
        """Read the batches, after their checksums."""
        from torchvision.datasets.utils import check_integrity

        files = self.files()
        folder = self.folder / files.base_folder
        wrong = [name for name, md5 in _known(files) if not check_integrity(folder / name, md5)]
        if wrong:
            raise ValueError(
                f"{folder} needs the files of {files.filename}, got {', '.join(wrong)} missing or with another "
                "checksum: delete the folder, and have it unpacked from the archive again"
            )
        train, test = (files(self.folder, train=train) for train in (True, False))
        return Sources(_in_memory(train), None, _in_memory(test))

    def train_transform(self) -> Callable[[Any], Tensor]:
        """A random crop of 32 x 32, padded by 4, and a flip."""
        return transforms.crop_and_flip(self.statistics, size=32, padding=4)

    def test_transform(self) -> Callable[[Any], Tensor]:
        """Normalised only."""
        return transforms.as_it_is(self.statistics)


class CIFAR10Data(CIFARData):
    """CIFAR-10, ten classes, augmented as CRD's protocol has it for CIFAR-100.

    Its folder is ``cifar-10-batches-py``, its archive ``cifar-10-python.tar.gz``. For the arguments see
    :class:`~graphkd.datasets.archived_data.ArchivedData`.

    Raises:
        ValueError: For bad settings; when data are read, for missing files, with what is needed, and for corrupt ones.

    >>> CIFAR10Data().num_classes
    10
    """

    known_classes = 10
    statistics = transforms.CIFAR10
    archive_size = 170_498_071

    def files(self) -> Any:
        """torchvision.datasets.CIFAR10."""
        from torchvision.datasets import CIFAR10

        return CIFAR10


class CIFAR100Data(CIFARData):
    """CIFAR-100, one hundred classes, in the protocol of contrastive representation distillation (CRD).

    Random crop of 32 x 32 padded by 4, horizontal flip, batches of 64, all 50,000 images to train on. In that protocol
    the reported number is the test accuracy after the last epoch, and nothing is chosen by it.

    Its folder is ``cifar-100-python``, its archive ``cifar-100-python.tar.gz``. For the arguments see
    :class:`~graphkd.datasets.archived_data.ArchivedData`; for order, augmentation and views,
    :class:`~graphkd.datasets.image_data.ImageData`.

    Raises:
        ValueError: For bad settings; when data are read, for missing files, with what is needed, and for corrupt ones.

    >>> CIFAR100Data(views=10, with_view=True).views
    10
    """

    known_classes = 100
    statistics = transforms.CIFAR100
    archive_size = 169_001_437

    def files(self) -> Any:
        """torchvision.datasets.CIFAR100."""
        from torchvision.datasets import CIFAR100

        return CIFAR100


def _known(files: Any) -> list[tuple[str, str]]:
    """Names and checksums."""
    return [*map(tuple, files.train_list), *map(tuple, files.test_list), (files.meta["filename"], files.meta["md5"])]


def _in_memory(dataset: Any) -> ArrayImages:
    images = torch.as_tensor(dataset.data).permute(0, 3, 1, 2).contiguous()
    return ArrayImages(images, dataset.targets, dataset.classes)
