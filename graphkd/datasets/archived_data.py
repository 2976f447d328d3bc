"""Data modules of image sets that are published as one archive."""

from abc import abstractmethod
from pathlib import Path

from graphkd.datasets.archives import Archive
from graphkd.datasets.image_data import ImageData
from graphkd.typing import Real


class ArchivedData(ImageData):
    """An image set that is unpacked from an archive, where its folder is not there.

    Args:
        folder: Where the set's folder or archive is.
        validation: How many of the training images are held out, or which share. With 0, validation is the test split.
        labels_per_class: How many training images of each class keep their label; the others are labelled -100.
        batch_size: Images per batch.
        seed: Of labelled images, order and augmentation. The split does not depend on it.
        workers: Processes that load; 0 loads in the training process.
        augment: Whether training images are transformed at random.
        views: In how many versions each training image exists; None augments anew in each epoch.
        with_index: Whether training batches are (images, labels, index).
        with_view: Whether they are (images, labels, index, view).
        download: Whether the archive is downloaded where neither it nor the folder is there.
    """

    def __init__(
        self,
        folder: str = "data",
        *,
        validation: Real = 0,
        labels_per_class: int | None = None,
        batch_size: int = 64,
        seed: int = 0,
        workers: int = 0,
        augment: bool = True,
        views: int | None = None,
        with_index: bool = False,
        with_view: bool = False,
        download: bool = False,
    ) -> None:
        super().__init__(
            validation=validation,
            labels_per_class=labels_per_class,
            batch_size=batch_size,
            seed=seed,
            workers=workers,
            augment=augment,
            views=views,
            with_index=with_index,
            with_view=with_view,
        )
        self.folder, self.download = Path(folder), download

    @abstractmethod
    def archive(self) -> Archive:
        """What is published."""

    def prepare_data(self) -> None:
        """Unpack the archive, and download it if asked, where the folder is not there.

        Raises:
            ValueError: For a missing or corrupt archive, with what is needed.
        """
        self.archive().unpacked(self.folder, self.download)
