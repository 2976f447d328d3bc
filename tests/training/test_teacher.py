"""A teacher that only guesses is refused before anything is learned from it."""

import pytest
import torch
from lightning import LightningDataModule
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from graphkd import losses
from graphkd.datasets import DigitsData
from graphkd.models import SmallCNN
from graphkd.training.teacher import IMAGES, check_teachers
from graphkd.training.train import train


class Labels(nn.Module):
    """Knows the class of an image, which is its first value, of one in so many; of none for 0."""

    def __init__(self, classes=10, every=1):
        super().__init__()
        self.classes, self.every = classes, every
        self.seen = []

    def forward(self, x):
        label, i = x[:, 0].long(), x[:, 1].long()
        assert not self.training
        self.seen += i.tolist()
        right = i // self.classes % self.every == 0 if self.every else torch.zeros_like(label).bool()
        said = torch.where(right, label, label + 1) % self.classes
        return nn.functional.one_hot(said, self.classes).float()


class Data(LightningDataModule):
    """Images whose first value is their class, sorted by class if asked to, and whose second is their place."""

    def __init__(self, n=2000, classes=10, labels=None, batch_size=50, ordered=False, stream=False):
        super().__init__()
        own = torch.arange(n) % classes
        own = own.sort().values if ordered else own
        self.images = torch.stack([own, torch.arange(n)], 1)
        self.labels = own if labels is None else labels
        self.batch_size, self.stream = batch_size, stream

    def val_dataloader(self):
        dataset = TensorDataset(self.images, self.labels)
        if self.stream:
            return [batch for batch in DataLoader(dataset, self.batch_size)]
        return DataLoader(dataset, self.batch_size)


def test_a_teacher_that_knows_its_classes_is_taken_in_the_mode_that_it_was_in():
    teacher = Labels()
    check_teachers({"teacher": teacher}, Data(ordered=True))
    assert teacher.training
    assert len(teacher.seen) == IMAGES
    assert min(teacher.seen) == 0 and max(teacher.seen) > 1900


def test_a_teacher_whose_classes_are_in_another_order_is_refused():
    with pytest.raises(ValueError) as error:
        check_teachers({"teacher 'vgg'": Labels(every=0)}, Data())
    assert str(error.value).startswith(
        "teacher 'vgg' needs to be better than chance, got accuracy 0.0 % on 256 validation images of 10 classes, "
        "where chance is 10.0 %: its weights may be of another checkpoint"
    )


@pytest.mark.parametrize(("classes", "every", "refused"), [(10, 8, True), (10, 4, False), (100, 20, True)])
def test_it_has_to_be_clearly_better_than_chance(classes, every, refused):
    teacher = Labels(classes, every)
    data = Data(classes=classes)
    if refused:
        with pytest.raises(ValueError, match="needs to be better than chance"):
            check_teachers({"teacher": teacher}, data)
    else:
        check_teachers({"teacher": teacher}, data)


def test_of_few_images_it_has_to_be_right_on_more_of_them():
    check_teachers({"teacher": Labels(4, every=3)}, Data(2000, classes=4))
    with pytest.raises(ValueError, match=r"got accuracy 40.0 % on 40 validation images of 4 classes"):
        check_teachers({"teacher": Labels(4, every=3)}, Data(40, classes=4))


def test_of_a_stream_no_more_than_a_few_hundred_images_are_read():
    teacher = Labels()
    check_teachers({"teacher": teacher}, Data(stream=True))
    assert len(teacher.seen) == 300


class Forever(IterableDataset):
    def __iter__(self):
        while True:
            yield torch.tensor([3, 0]), torch.tensor(3)


def test_data_without_an_end_or_a_length_are_read_as_well():
    data = Data()
    data.val_dataloader = lambda: DataLoader(Forever(), 64)
    check_teachers({"teacher": Labels()}, data)


@pytest.mark.parametrize(
    "labels", [torch.full((2000,), -100), torch.rand(2000), torch.rand(2000, 10), torch.zeros(2000, 2).long()]
)
def test_data_without_labels_of_classes_say_nothing(labels):
    check_teachers({"teacher": Labels(every=0)}, Data(labels=labels))


def test_a_model_without_logits_is_not_measured():
    class Features(nn.Module):
        def forward(self, x):
            return {"feat": x}

    class Maps(nn.Module):
        def forward(self, x):
            return x[:, :, None, None].float()

    check_teachers({"one": Features(), "two": Maps()}, Data())


def test_measuring_draws_no_random_number():
    class Noisy(Labels):
        def forward(self, x):
            torch.rand(3)
            return super().forward(x)

    before = torch.get_rng_state()
    check_teachers({"teacher": Noisy()}, Data())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_begins_only_with_a_teacher_that_knows_something(tmp_path, digits_run):
    torch.save(SmallCNN(4).state_dict(), tmp_path / "teacher.pt")
    with pytest.raises(ValueError, match="^teacher needs to be better than chance"):
        train(**digits_run, check_teacher=True)
    assert not (tmp_path / "run" / "last.ckpt").exists()
    train(**digits_run, check_teacher=False)
    train(**digits_run | {"epochs": 2}, resume=True)


@pytest.fixture
def digits_run(tmp_path):
    data = DigitsData()
    data.train = tuple(part[:64] for part in data.train)
    return {
        "student": SmallCNN(2),
        "data": data,
        "teacher": SmallCNN(4),
        "teacher_checkpoint": str(tmp_path / "teacher.pt"),
        "criteria": {"kd": losses.kd()},
        "epochs": 1,
        "out": str(tmp_path / "run"),
        "trainer": {"enable_progress_bar": False},
    }


def test_data_without_validation_measure_no_teacher():
    class Unvalidated(Data):
        val_dataloader = LightningDataModule.val_dataloader

    with pytest.raises(ValueError, match="better than chance"):
        check_teachers({"teacher": Labels(every=0)}, Data())
    check_teachers({"teacher": Labels(every=0)}, Unvalidated())
