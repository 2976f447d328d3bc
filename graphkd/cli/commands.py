"""All commands."""

from graphkd.benchmark.accuracy import benchmark_accuracy
from graphkd.benchmark.accuracy.entries import ENTRIES
from graphkd.benchmark.accuracy.suites import SUITES
from graphkd.benchmark.cache import benchmark_cache
from graphkd.benchmark.ot import SECTIONS, benchmark_ot
from graphkd.benchmark.step import TIMED, benchmark_step
from graphkd.cli.command import Command
from graphkd.cli.runs import (
    AUTO_WEIGHTS,
    PLOTS,
    RESUME,
    resumed,
    start_class_cost,
    start_evaluate,
    start_export,
    start_inspect,
    start_train,
    start_train_teacher,
)
from graphkd.demo import METHODS, demo
from graphkd.methods import show_methods
from graphkd.outline import show_features
from graphkd.training.class_cost import save_class_cost
from graphkd.training.evaluation import evaluate_student
from graphkd.training.export import export_student
from graphkd.training.inspect import inspect
from graphkd.training.save_teacher import save_teacher
from graphkd.training.train import train

SETTINGS = [name for suite in SUITES.values() for name in suite]


def _model_first(arguments: list[str]) -> list[str]:
    """Let the model stand without its name, and ``timm:NAME`` for timm's own function with that name."""
    if not arguments or arguments[0].startswith("-"):
        return arguments
    model, *rest = arguments
    if model.startswith("timm:"):
        return ["--model", "timm.create_model", "--model.model_name", model.removeprefix("timm:"), *rest]
    return ["--model", model, *rest]


COMMANDS = [
    Command(
        "demo",
        demo,
        "distil a digits classifier in a minute and write a report",
        "Example: graphkd demo --methods kd fgw --seeds 10",
        options={
            "methods": {
                "nargs": "+",
                "default": ["kd", "otgd"],
                "help": f"of {', '.join(METHODS)}, beside the student alone",
            }
        },
    ),
    Command(
        "train",
        train,
        "train a student from a config file",
        "Example: graphkd train --config examples/configs/digits/otgd.yaml --epochs 10 --criteria.otgd.init_args.k 4. "
        "Models, data and criteria are named by their import path (class_path) with their arguments (init_args); the "
        "configs in examples/configs show how.",
        options={"resume": RESUME, "plots": PLOTS, "auto-weights": AUTO_WEIGHTS},
        expand=resumed,
        start=start_train,
    ),
    Command(
        "train-teacher",
        save_teacher,
        "train a teacher from a config file",
        "Example: graphkd train-teacher --teacher graphkd.models.resnet20 --data graphkd.datasets.SyntheticData --out "
        "runs/synthetic/resnet20. Its weights are then in runs/synthetic/resnet20.pt.",
        options={"resume": RESUME},
        expand=resumed,
        start=start_train_teacher,
    ),
    Command(
        "evaluate",
        evaluate_student,
        "measure a run's student alone, or its exported form",
        "Example: graphkd evaluate runs/digits/otgd",
        positional=True,
        start=start_evaluate,
    ),
    Command(
        "export",
        export_student,
        "write a run's student as ONNX or as PyTorch's exported program",
        "Example: graphkd export runs/digits/otgd --out student.onnx",
        positional=True,
        start=start_export,
    ),
    Command(
        "inspect",
        inspect,
        "show what a run compared: plans, graphs and numbers over its training, as one page",
        "Example: graphkd inspect runs/digits/otgd --out report.html",
        positional=True,
        start=start_inspect,
    ),
    Command(
        "class-cost",
        save_class_cost,
        "relate a teacher's classes, for WKD-L",
        "Example: graphkd class-cost --config examples/configs/digits/class_cost.yaml. The file is what a config of "
        "graphkd.losses.wkd_logits names as class_cost.",
        start=start_class_cost,
    ),
    Command(
        "features",
        show_features,
        "list a model's modules, and suggest which to name as features",
        "Example: graphkd features torchvision.models.resnet18 --input 2,3,64,64 --depth 1",
        expand=_model_first,
    ),
    Command(
        "methods",
        show_methods,
        "list the methods: paper, needs, pairing, cost, extra parameters",
        "Example: graphkd methods",
        options={"markdown": {"action": "store_true", "help": "As the table of the README."}},
    ),
    Command(
        "benchmark accuracy",
        benchmark_accuracy,
        "compare what students come to with every method, and what it costs",
        "Example: graphkd benchmark accuracy --suite digits --methods kd otgd fgw --seeds 3",
        options={
            "methods": {"nargs": "+", "default": [], "help": f"of {', '.join(ENTRIES)}; all by default"},
            "settings": {"nargs": "+", "default": [], "help": f"of {', '.join(SETTINGS)}; the suite's by default"},
        },
    ),
    Command(
        "benchmark step",
        benchmark_step,
        "time a criterion's step against the student's own",
        "Example: graphkd benchmark step --methods kd otgd fgw --batch_sizes 64 256 --rounds 50",
        options={
            "methods": {"nargs": "+", "default": [], "help": f"of {', '.join(TIMED)}; all by default"},
            "batch_sizes": {"nargs": "+", "type": int, "default": [64, 128, 256], "help": "samples in a batch"},
            "widths": {"nargs": "+", "type": int, "default": [256], "help": "of both networks' features"},
        },
    ),
    Command(
        "benchmark cache",
        benchmark_cache,
        "time a teacher against the cache of its features",
        "Example: graphkd benchmark cache --samples 512",
    ),
    Command(
        "benchmark ot",
        benchmark_ot,
        "time transport solvers against those of other libraries (pip install graphkd[bench])",
        "Example: graphkd benchmark ot --sections sinkhorn batch --rounds 10 --out ot.json",
        options={
            "sections": {"nargs": "+", "default": list(SECTIONS), "help": f"of {', '.join(SECTIONS)}; all by default"},
            "sizes": {
                "nargs": "+",
                "type": int,
                "help": "nodes (in shared: samples, in step: the batch size) instead of each section's own",
            },
        },
    ),
]

GROUPS = {"benchmark": "time what graphkd does"}
"""The first words of commands with two."""
