"""Distil one timm model into another on a folder of images: folder/train/<class>/*.png and folder/val/<class>/*.png.

python examples/timm_imagefolder.py pets --teacher resnet50 --pretrained --student resnet18 --amp
python examples/timm_imagefolder.py --smoke    # tiny models on a folder that it draws itself
"""

import argparse
import tempfile
from pathlib import Path

import timm
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.utils import save_image

from graphkd import Distiller, losses
from graphkd.outline import outline_of


def draw_folder(folder: Path) -> None:
    """Write 40 images of each class: stripes that are flat, slanted or upright."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    for name, along in {"flat": y, "slanted": (x + y) / 2**0.5, "upright": x}.items():
        for part, many in {"train": 32, "val": 8}.items():
            (folder / part / name).mkdir(parents=True)
            for i in range(many):
                shift, noise = torch.rand(1, generator=generator), torch.rand(3, 32, 32, generator=generator)
                stripes = (along / 4 + 6.3 * shift).sin().expand(3, 32, 32)
                save_image((0.25 * stripes + 0.5 * noise + 0.25).clamp(0, 1), folder / part / name / f"{i}.png")


def loaders(folder: Path, model: nn.Module, side: int, batch_size: int) -> tuple[DataLoader, DataLoader]:
    """Training and validation batches, scaled as the model was trained to see them."""
    told = timm.data.resolve_model_data_config(model)
    last = [transforms.ToTensor(), transforms.Normalize(told["mean"], told["std"])]
    first = [transforms.RandomResizedCrop(side, scale=(0.5, 1.0)), transforms.RandomHorizontalFlip()]
    train = ImageFolder(folder / "train", transforms.Compose([*first, *last]))
    val = ImageFolder(folder / "val", transforms.Compose([transforms.Resize((side, side)), *last]))
    return DataLoader(train, batch_size, shuffle=True, drop_last=True), DataLoader(val, batch_size)


def train(distiller: Distiller, loader: DataLoader, epochs: int, amp: bool, device: str) -> None:
    """A training loop like any other, in half precision if asked: the criteria stay in single."""
    distiller.to(device).train()
    optimizer = torch.optim.AdamW(distiller.learnable_parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for images, labels in loader:
            with torch.autocast(device, torch.bfloat16, enabled=amp):
                step = distiller(images.to(device), labels.to(device))
            optimizer.zero_grad()
            step.loss.backward()
            optimizer.step()
        schedule.step()


@torch.no_grad()
def accuracy(model: nn.Module, loader: DataLoader, device: str) -> float:
    """In percent of the validation images."""
    model.eval()
    right = [model(images.to(device)).argmax(-1).cpu() == labels for images, labels in loader]
    return 100 * float(torch.cat(right).float().mean())


def main() -> None:
    """Train the teacher on the folder, then the student with its help; keep the student alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    for name, model in {"--teacher": "resnet50", "--student": "resnet18"}.items():
        parser.add_argument(name, default=model, help="timm's name")
    parser.add_argument("--pretrained", action="store_true", help="begin the teacher with timm's weights (a download)")
    for name, number in {"--epochs": 20, "--side": 224, "--batch-size": 64}.items():
        parser.add_argument(name, type=int, default=number)
    parser.add_argument("--amp", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("student.pt"))
    parser.add_argument("--smoke", action="store_true", help="tiny models and images, an epoch")
    options = parser.parse_args()
    if options.smoke:
        temporary = tempfile.TemporaryDirectory()
        options.folder, options.out = Path(temporary.name), Path(temporary.name) / "student.pt"
        draw_folder(options.folder)
        options.teacher, options.student = "test_vit", "test_resnet"
        options.side, options.batch_size, options.epochs = 160, 16, 1
    elif options.folder is None:
        parser.error("needs a folder with train/<class> and val/<class>")
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    classes = len(list((options.folder / "train").iterdir()))
    teacher = timm.create_model(options.teacher, pretrained=options.pretrained, num_classes=classes)
    student = timm.create_model(options.student, num_classes=classes)
    batches, val = loaders(options.folder, teacher, options.side, options.batch_size)
    train(Distiller(teacher), batches, options.epochs, options.amp, device)
    print(f"teacher {options.teacher}: {accuracy(teacher, val, device):.2f} %")

    # Any two models of timm: the vector before the last layer has another name in each.
    images = torch.zeros(2, 3, options.side, options.side, device=device)
    names = [{"feat": outline_of(model.to(device), images).features["feat"]} for model in (student, teacher)]
    print(f"features: {names[0]} of the student, {names[1]} of the teacher")
    distiller = Distiller(
        student,
        teacher,
        student_features=names[0],
        teacher_features=names[1],
        criteria={"otgd": losses.otgd(), "kd": losses.kd(temperature=4.0)},
        weights={"task": 1.0, "otgd": 0.1, "kd": 1.0},
    )
    train(distiller, batches, options.epochs, options.amp, device)
    print(f"student {options.student}: {accuracy(student, val, device):.2f} %")
    torch.save(student.state_dict(), options.out)
    print(
        f"kept {sum(x.numel() for x in student.state_dict().values()):,} numbers, the student alone, in {options.out}"
    )


if __name__ == "__main__":
    main()
