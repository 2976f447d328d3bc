"""The configs in examples/configs: each is what a command takes, and those of papers have the papers' numbers."""

import pkgutil
import runpy
from pathlib import Path
from typing import Any

import pytest
from configs import (
    CONFIGS,
    COSTS,
    NAMES,
    OF_PAPERS,
    SHORT,
    TEACHERS,
    TRAINED,
    content,
    method_of,
    pair_of,
    parsed,
    some_of_each,
)
from published import DIST, DKD, HKD, KAPPA, PAIRS, PUBLISHED, STANDARDIZED, WITH_ALL_PAIRS, WKD

from graphkd import losses

QUICK = some_of_each(TRAINED)


def pairs_of(method: str) -> set[str]:
    return {pair_of(name) for name in TRAINED if method_of(name) == method}


def options_of(name: str) -> dict[str, Any]:
    """Of the only criterion."""
    (criterion,) = content(name)["criteria"].values()
    return criterion["init_args"]


def of_methods(methods: Any) -> list[str]:
    return [name for name in TRAINED if method_of(name) in methods]


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=[] if each in QUICK else pytest.mark.slow) for each in TRAINED]
)
def test_each_config_is_what_train_takes(name: str):
    chosen, there = parsed("train", name), content(name)
    criteria = there.get("criteria", {})
    teachers = [] if isinstance(there["teacher"], str) or "class_path" in there["teacher"] else list(there["teacher"])
    terms = {weight for weight in there["weights"] if weight.rpartition("/")[0] in criteria}
    assert set(there["weights"]) - terms == {"task", *criteria, *teachers}
    assert chosen.data.class_path == there["data"]["class_path"]
    assert Path(chosen.out) == Path("runs") / name


@pytest.mark.parametrize("name", TEACHERS)
def test_each_teacher_is_what_its_command_takes_and_comes_to_where_it_is_looked_for(name: str):
    chosen, made = parsed("train-teacher", name), content(name)["teacher"]
    assert chosen.optimizer.init_args.lr == 0.05
    data = name.partition("/")[0]
    named = {
        there["teacher_checkpoint"]
        for there in map(content, [*TRAINED, *COSTS])
        if there["data"]["class_path"] == content(name)["data"]["class_path"] and there["teacher"] == made
    }
    assert named == {f"{chosen.out}.pt"}
    assert Path(chosen.out).parent == Path("runs") / data


def test_every_teacher_of_cifar100_has_a_config():
    named = {content(name)["teacher_checkpoint"] for name in OF_PAPERS if name.startswith("cifar100/")}
    assert named == {content(name)["out"] + ".pt" for name in TEACHERS if name.startswith("cifar100/")}


@pytest.mark.parametrize("name", COSTS)
def test_each_class_cost_is_what_its_command_takes(name: str):
    chosen = parsed("class-cost", name)
    assert chosen.relation == "linear_cka"
    assert Path(chosen.out) == Path("runs") / f"{name}.pt"
    if not name.startswith("digits/"):
        assert chosen.data.init_args.augment is False


def test_a_class_cost_that_is_named_is_made_by_a_config_of_the_same_teacher():
    made = {(cost["out"], cost["teacher_checkpoint"], str(cost["teacher"])) for cost in map(content, COSTS)}
    named = {
        (criterion["init_args"]["class_cost"], there["teacher_checkpoint"], str(there["teacher"]))
        for there in map(content, TRAINED)
        for criterion in there.get("criteria", {}).values()
        if "class_cost" in criterion.get("init_args", {})
    }
    assert named == made


def test_the_files_are_what_the_script_writes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(CONFIGS))
    written = dict(runpy.run_path(str(CONFIGS / "write.py"))["files"]())
    found = [f"{name}.yaml" for name in NAMES if name.startswith(("cifar100/", "imagenet/"))]
    assert sorted(written) == found
    for path in found:
        assert (CONFIGS / path).read_text() == written[path], f"{path}: run examples/configs/write.py"


@pytest.mark.parametrize("name", ["cifar100/kd/resnet32x4_resnet8x4", "imagenet/crd/resnet34_resnet18"])
def test_a_short_schedule_is_laid_over_a_pair(name: str):
    short = f"{name.partition('/')[0]}/short"
    assert short in SHORT
    whole, chosen = parsed("train", name), parsed("train", name, short, more=("--out", "runs/mine"))
    share = 20 / whole.epochs
    assert chosen.epochs == 20
    assert chosen.scheduler.init_args.gamma == 0.1
    steps = zip(chosen.scheduler.init_args.milestones, whole.scheduler.init_args.milestones, strict=True)
    assert all(abs(short_step - share * step) <= 0.5 for short_step, step in steps)
    assert (chosen.optimizer, chosen.criteria, chosen.weights) == (whole.optimizer, whole.criteria, whole.weights)
    assert chosen.out == "runs/mine"


def test_the_short_schedule_says_how_a_weight_is_shortened():
    name = "cifar100/dkd/resnet56_resnet20"
    chosen = parsed("train", name, "cifar100/short", more=("--weights.dkd.init_args.epochs", "2"))
    assert (chosen.weights["dkd"].init_args.weight, chosen.weights["dkd"].init_args.epochs) == (1, 2)
    assert "--weights.dkd.init_args.epochs 2" in (CONFIGS / "cifar100" / "short.yaml").read_text()


@pytest.mark.parametrize("method", WITH_ALL_PAIRS)
def test_methods_of_the_large_tables_have_their_pairs(method: str):
    assert pairs_of(f"cifar100/{method}") == PAIRS


@pytest.mark.parametrize(
    ("method", "pairs"), [("dist", DIST), ("hkd", HKD), ("dkd", set(DKD)), ("kd_standardized", set(STANDARDIZED))]
)
def test_others_have_those_of_their_own_tables(method: str, pairs: set[str]):
    assert pairs_of(f"cifar100/{method}") == pairs


def test_no_pair_is_invented():
    elsewhere = {"resnet32x4_resnet8x4", "wrn_40_2_shufflenet_v1"} | set(STANDARDIZED)
    assert {pair_of(name) for name in OF_PAPERS if name.startswith("cifar100/")} == PAIRS | elsewhere
    strong = {
        f"{teacher}_{student}"
        for teacher in ("resnet50", "resnet101", "resnet152")
        for student in ("resnet18", "resnet34")
    }
    assert pairs_of("imagenet/dist") == {"resnet34_resnet18", "resnet50_mobilenetv1"} | strong
    others = {pair_of(name) for name in OF_PAPERS if name.startswith("imagenet/") and "/dist/" not in name}
    assert others == {"resnet34_resnet18", "resnet50_mobilenetv1"}


def test_networks_are_those_that_a_file_is_named_by():
    for name in OF_PAPERS:
        there = content(name)
        student, teacher = (there[whose]["class_path"].rpartition(".")[2] for whose in ("student", "teacher"))
        assert pair_of(name) == f"{teacher}_{student.removesuffix('_100')}".lower()


@pytest.mark.parametrize("name", WKD)
def test_wkd_has_the_numbers_of_the_authors(name: str):
    there = content(name)
    logits, features = (there["criteria"].get(each, {}).get("init_args", {}) for each in ("wkd", "wkd_features"))
    weights = [there["weights"].get(each, {}).get("init_args", {}) for each in ("wkd/transport", "wkd_features")]
    transport, shape = (weight.get("weight") for weight in weights)
    decay = {weight["decay_from"] for weight in weights if weight}
    found = [transport, logits.get("temperature"), shape, *(features.get(each) for each in ("mean_ratio", "grid"))]
    assert (*found, *decay, there["seed"]) == WKD[name]
    assert there["weights"]["task"] == 1
    assert there["weights"].get("wkd", 1) == 1
    if logits:
        assert (logits["epsilon"], logits["num_iters"], logits["parity"]) == (0.05, 10, True)
    if features:
        usual = "bottleneck" if name.startswith("imagenet/") else "conv1x1"
        assert (features["projector"] == usual) is (pair_of(name) != "wrn_40_2_shufflenet_v1")


@pytest.mark.parametrize("name", of_methods(PUBLISHED))
def test_the_family_has_its_published_weights(name: str):
    there = content(name)
    task, expected, options = PUBLISHED[method_of(name)]
    weights = dict(there["weights"])
    assert weights.pop("task") == task
    for key, criterion in there["criteria"].items():
        weight = weights.pop(key)
        if expected is not None:
            assert (weight["init_args"]["weight"] if isinstance(weight, dict) else weight) == pytest.approx(expected)
        assert options.items() <= criterion["init_args"].items()
    assert not weights


@pytest.mark.parametrize("pair", DKD)
def test_dkd_has_the_beta_of_its_pair(pair: str):
    assert options_of(f"cifar100/dkd/{pair}")["nontarget_weight"] == DKD[pair]
    schedule = content(f"cifar100/dkd/{pair}")["weights"]["dkd"]
    assert schedule == {"class_path": "graphkd.training.LinearWarmup", "init_args": {"weight": 1.0, "epochs": 20}}


@pytest.mark.parametrize(("pair", "beta"), [("resnet34_resnet18", 0.5), ("resnet50_mobilenetv1", 2)])
def test_dkd_has_its_beta_on_imagenet(pair: str, beta: float):
    assert options_of(f"imagenet/dkd/{pair}")["nontarget_weight"] == beta


@pytest.mark.parametrize("pair", STANDARDIZED)
def test_standardised_kd_has_the_temperature_and_weight_of_its_pair(pair: str):
    name = f"cifar100/kd_standardized/{pair}"
    assert (options_of(name)["temperature"], content(name)["weights"]["kd"]) == STANDARDIZED[pair]


@pytest.mark.parametrize("name", KAPPA)
def test_class_costs_have_the_kappa_of_the_authors(name: str):
    assert (content(name)["sharpen"], content(name)["feature"]) == KAPPA[name]


@pytest.mark.parametrize(
    "name", of_methods([f"{data}/{each}" for data in ("cifar100", "imagenet") for each in ("crd", "wcord")])
)
def test_contrastive_methods_have_the_numbers_of_the_authors(name: str):
    there, method = content(name), name.split("/")[1]
    size = {"cifar100": 50000, "imagenet": 1281167}[name.partition("/")[0]]
    options = there["criteria"][method]["init_args"]
    bank = [options[each] for each in ("num_samples", "embed_dim", "num_negatives", "temperature", "momentum")]
    assert bank == [size, 128, 16384, 0.07, 0.5]
    if method == "crd":
        assert there["weights"] == {"task": 1, "crd": 0.8}
    else:
        assert (options["global_weight"], options["local_weight"]) == (0.8, 0.05)
        assert there["weights"] == {"task": 1, "wcord": 1}


@pytest.mark.parametrize("name", [name for name in TEACHERS if name.startswith("cifar100/")])
def test_teachers_have_the_recipe_of_the_students(name: str):
    there, usual = content(name), content("cifar100/kd/resnet32x4_resnet8x4")
    for option in ("optimizer", "scheduler", "epochs", "seed", "data"):
        assert there[option] == usual[option]


@pytest.mark.parametrize("name", OF_PAPERS)
def test_papers_recipes(name: str):
    cifar, there = name.startswith("cifar100/"), content(name)
    batch = there["data"]["init_args"]["batch_size"]
    rate = (
        (0.01 if name.endswith(("mobilenetv2", "shufflenet_v1", "shufflenet_v2")) else 0.05) if cifar else batch / 2560
    )
    sgd = {"lr": rate, "momentum": 0.9, "weight_decay": 5e-4 if cifar else 1e-4}
    assert there["optimizer"]["init_args"] == (sgd | {"nesterov": True} if cifar and "/wkd" in name else sgd)
    steps = [150, 180, 210] if cifar else [30, 60, 90]
    assert there["scheduler"]["init_args"] == {"milestones": steps, "gamma": 0.1}
    assert there["epochs"] == (240 if cifar else 100)
    # mdistiller's batches for losses without a memory.
    twice = name.split("/")[1] in {"kd", "kd_standardized", "dkd", "attention_transfer"}
    assert batch == (64 if cifar else 512 if twice else 256)


def test_memories_get_the_images_indices():
    for name in TRAINED:
        memory = any("num_samples" in each.get("init_args", {}) for each in content(name).get("criteria", {}).values())
        assert content(name)["data"].get("init_args", {}).get("with_index", False) is memory


def test_every_method_has_a_config_for_the_digits_and_one_for_cifar100():
    recipes = {module.name for module in pkgutil.iter_modules(losses.__path__)}
    ours = {"fgw", "plan_matching"}
    # Its authors' tables are of fine-tuning, not of these pairs.
    elsewhere = {"rtot"}
    for folder, wanted in (("digits", recipes), ("cifar100", recipes - ours - elsewhere)):
        there = {
            criterion["class_path"].removeprefix("graphkd.losses.")
            for name in TRAINED
            if name.startswith(f"{folder}/")
            for criterion in content(name).get("criteria", {}).values()
        }
        assert wanted <= there
