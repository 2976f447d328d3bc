"""Write the configs of papers, cifar100/<method>/<teacher>_<student>.yaml and those of imagenet, from facts/.

python examples/configs/write.py
"""

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from facts import CLASS_COSTS, METHODS, SETTINGS
from facts.parts import ClassCost, Criterion, Method, Network, Noted, Scheduled, Setting

HERE = Path(__file__).parent
WIDTH = 120


def main() -> None:
    """Write them all, and remove what is no longer written."""
    written = dict(files())
    for path, text in written.items():
        (HERE / path).parent.mkdir(parents=True, exist_ok=True)
        (HERE / path).write_text(text)
    for setting in SETTINGS:
        for path in HERE.glob(f"{setting.folder}/**/*.yaml"):
            if str(path.relative_to(HERE)) not in written:
                path.unlink()
    print(f"{len(written)} configs")


def files() -> Iterator[tuple[str, str]]:
    """Each config's path in this folder, and its text."""
    for setting in SETTINGS:
        yield f"{setting.folder}/short.yaml", _short(setting)
        for teacher in setting.trained:
            path = f"{setting.folder}/teacher/{teacher.lower()}.yaml"
            yield path, _teacher(setting, teacher, path)
        for method in METHODS[setting.folder]:
            for teacher, student in method.pairs:
                path = f"{setting.folder}/{method.folder}/{teacher.lower()}_{student.lower()}.yaml"
                yield path, _pair(setting, method, teacher, student, path)
        for cost in CLASS_COSTS[setting.folder]:
            path = f"{setting.folder}/class_cost/{cost.teacher}.yaml"
            yield path, _class_cost(setting, cost, path)


def _pair(setting: Setting, method: Method, teacher: str, student: str, path: str) -> str:
    ours, theirs = setting.networks[student], setting.networks[teacher]
    criteria, more_notes = method.of_pair(ours, theirs, **method.pairs[teacher, student])
    head = f"{method.paper}, {theirs.title} to {ours.title} on {setting.title}: {method.source}. Not run here."
    costs = [f"class-cost --config examples/configs/{setting.folder}/class_cost/{teacher}.yaml"]
    needs_cost = any("class_cost" in criterion.options for criterion in criteria)
    commands = [*(costs if needs_cost else []), f"train --config examples/configs/{path}"]
    batch = {"batch_size": method.batch, "workers": setting.workers} | ({"with_index": True} if method.index else {})
    nesterov = {"nesterov": True} if method.nesterov else {}
    lines = [
        *_comment(head, *method.notes, *more_notes),
        *(f"#   graphkd {command}" for command in commands),
        *_network("student", ours),
        *_part("data", setting.data, setting.data_options | batch),
        *_network("teacher", theirs),
        f"teacher_checkpoint: {setting.checkpoint(teacher)}",
        *_features(method, ours, theirs),
        "criteria:",
        *(line for each in criteria for line in _part(each.name, f"graphkd.losses.{each.recipe}", each.options, "  ")),
        *_weights(method, criteria),
        *_schedule(setting, setting.rate(ours, method.batch), **nesterov),
        f"seed: {method.seed}",
        f"out: runs/{path.removesuffix('.yaml')}",
    ]
    return "\n".join(lines) + "\n"


def _teacher(setting: Setting, teacher: str, path: str) -> str:
    network = setting.networks[teacher]
    lines = [
        *_comment(
            f"{network.title} on {setting.title}, by a command of CRD's authors and its defaults "
            "(HobbitLong/RepDistiller, b0722bc, scripts/run_cifar_vanilla.sh). Not run here."
        ),
        f"#   graphkd train-teacher --config examples/configs/{path}",
        *_network("teacher", network),
        *_part("data", setting.data, setting.data_options | {"batch_size": 64, "workers": setting.workers}),
        *_schedule(setting, network.rate),
        "seed: 0",
        f"out: runs/{setting.folder}/{teacher.lower()}  # and the weights in {teacher.lower()}.pt beside it",
    ]
    return "\n".join(lines) + "\n"


def _class_cost(setting: Setting, cost: ClassCost, path: str) -> str:
    network = setting.networks[cost.teacher]
    head = f"The class cost of {network.title} on {setting.title} for {cost.source}. Not run here."
    lines = [
        *_comment(head, *cost.notes),
        f"#   graphkd class-cost --config examples/configs/{path}",
        *_network("teacher", network),
        f"teacher_checkpoint: {setting.checkpoint(cost.teacher)}",
        *_part("data", setting.data, setting.data_options | {"workers": setting.workers, "augment": False}),
        "relation: linear_cka",
        f"feature: {_value(cost.feature)}",
        f"sharpen: {_value(cost.sharpen)}",
        "seed: 0",
        f"out: runs/{path.removesuffix('.yaml')}.pt",
    ]
    return "\n".join(lines) + "\n"


def _short(setting: Setting) -> str:
    share = setting.short_epochs / setting.epochs
    lines = [
        *_comment(
            f"A SHORT schedule for any pair: {setting.short_epochs} epochs instead of {setting.epochs}, its steps in "
            "proportion. No paper has it, and its numbers stand next to no paper's. Weights that change from epoch to "
            "epoch keep their own epochs: shorten them too, as with --weights.dkd.init_args.epochs 2."
        ),
        f"#   graphkd train --config examples/configs/{setting.folder}/<method>/<teacher>_<student>.yaml \\",
        f"#       --config examples/configs/{setting.folder}/short.yaml "
        f"--out runs/{setting.folder}/short/<method>/<teacher>_<student>",
        *_scheduler([round(step * share) for step in setting.steps]),
        f"epochs: {setting.short_epochs}",
        f"out: runs/{setting.folder}/short",
    ]
    return "\n".join(lines) + "\n"


def _comment(*paragraphs: str) -> list[str]:
    return [f"# {line}" for each in paragraphs for line in textwrap.wrap(each, WIDTH - 2, break_on_hyphens=False)]


def _part(name: str, class_path: str, options: Mapping[str, Any], indent: str = "") -> list[str]:
    """Something built of a class or function: on one line if it fits and nothing has a comment."""
    lines = [f"{indent}{name}:", f"{indent}  class_path: {class_path}"]
    if not options:
        return lines
    flow = f"{indent}  init_args: {_value(options)}"
    if len(flow) <= WIDTH and not any(isinstance(value, Noted | Mapping) for value in options.values()):
        return [*lines, flow]
    lines.append(f"{indent}  init_args:")
    for key, value in options.items():
        if isinstance(value, Mapping):
            lines += _part(key, value["class_path"], value["init_args"], f"{indent}    ")
        else:
            lines.append(f"{indent}    {key}: {_value(value)}")
    return lines


def _network(name: str, network: Network) -> list[str]:
    passed_on = [f"  dict_kwargs: {_value(network.options)}"] if network.options else []
    return [f"{name}:", f"  class_path: {network.path}", *passed_on]


def _features(method: Method, student: Network, teacher: Network) -> list[str]:
    stages = min(len(student.stages), len(teacher.stages))
    found = [method.features(network, stages) for network in (student, teacher)]
    return [
        f"{whose}_features: {_value(each)}" for whose, each in zip(("student", "teacher"), found, strict=True) if each
    ]


def _weights(method: Method, criteria: list[Criterion]) -> list[str]:
    weights = {"task": method.task}
    for criterion in criteria:
        weights |= {criterion.name: criterion.weight, **criterion.terms}
    if not any(isinstance(weight, Scheduled | Noted) for weight in weights.values()):
        return [f"weights: {_value(weights)}"]
    lines = ["weights:"]
    for name, weight in weights.items():
        if isinstance(weight, Scheduled):
            lines += _part(name, f"graphkd.training.{weight.schedule}", weight.options, "  ")
        else:
            lines.append(f"  {name}: {_value(weight)}")
    return lines


def _schedule(setting: Setting, rate: float, **more: bool) -> list[str]:
    optimizer = {"lr": rate, "momentum": 0.9, "weight_decay": setting.weight_decay, **more}
    return [
        *_part("optimizer", "torch.optim.SGD", optimizer),
        *_scheduler(setting.steps, gamma=0.1),
        f"epochs: {setting.epochs}",
    ]


def _scheduler(milestones: list[int], **more: float) -> list[str]:
    return _part("scheduler", "torch.optim.lr_scheduler.MultiStepLR", {"milestones": milestones, **more})


def _value(value: Any) -> str:
    """As YAML, on one line."""
    if isinstance(value, Noted):
        return f"{_value(value.value)}  # {value.note}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_value(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        # Not 1e-05, which is a string in YAML 1.1.
        return f"{value:.10f}".rstrip("0") + ("0" if value == int(value) else "") if abs(value) < 1e-4 else repr(value)
    return f'"{value}"' if isinstance(value, str) and ":" in value else str(value)


if __name__ == "__main__":
    main()
