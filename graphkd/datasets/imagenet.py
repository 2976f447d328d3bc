"""ImageNet's 1000 classes: 1,281,167 + 50,000 colour images.

Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015, arXiv:1409.0575.
"""

from graphkd.datasets.image_data import Sources
from graphkd.datasets.image_folder import ImageFolderData

PAGE = "https://image-net.org/challenges/LSVRC/2012/2012-downloads.php"


class ImageNetData(ImageFolderData):
    """ImageNet as of 2012, in folders ``train/<wnid>`` and ``val/<wnid>``, as torchvision.datasets.ImageNet unpacks it.

    Cut out, scaled to 224 x 224 and flipped, with the arguments of
    :class:`~graphkd.datasets.image_folder.ImageFolderData`; runs in the literature take batches of 256 or 512 in all.
    The published validation images are the test split, since those published for testing have no labels. Class c is the
    c-th WordNet identifier in alphabetical order, as for torchvision's pre-trained models.

    For a part of ImageNet, or other images, use ImageFolderData: here the number of images is checked, so that what was
    not unpacked to the end is refused.

    Raises:
        ValueError: For bad settings; when data are read, for missing images, with what is needed.

    >>> ImageNetData("data/imagenet", batch_size=256, workers=8).num_classes
    1000
    """

    known_classes = 1000
    evaluated = ("val",)
    train_images = 1_281_167
    test_images = 50_000

    def read(self) -> Sources:
        """List and count the images."""
        sources = super().read()
        for name, source, images in (
            ("train", sources.train, self.train_images),
            ("val", sources.test, self.test_images),
        ):
            if len(source.targets) != images:
                raise ValueError(
                    f"{self.folder / name} needs ImageNet's {images} images, got {len(source.targets)}: it was not "
                    "unpacked to the end, or is another set, which ImageFolderData reads"
                )
        return sources

    def _missing(self, there: list[str]) -> str:
        from torchvision.datasets.imagenet import ARCHIVE_META

        archives = ", ".join(
            f"{name} ({size} bytes, md5 {md5})"
            for (name, md5), size in zip(
                (ARCHIVE_META["train"], ARCHIVE_META["val"]), (147_897_477_120, 6_744_924_160), strict=True
            )
        )
        return (
            f"ImageNet is missing: needs train/<wnid>/*.JPEG and val/<wnid>/*.JPEG in {self.folder.resolve()}, got "
            f"{'only ' + ' and '.join(there) if there else 'none of these folders'}. Get {archives} and "
            f"{ARCHIVE_META['devkit'][0]} (md5 {ARCHIVE_META['devkit'][1]}) from {PAGE}, which needs an account, and "
            "unpack them with torchvision.datasets.ImageNet(folder, split='train') and split='val'"
        )
