"""pyproject.toml, constraints.txt, environment.yml, the Makefile and CI say the same."""

import os
import re
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import graphkd

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())

CONDA_NAMES = {"torch": "pytorch", "torch-geometric": "pytorch_geometric", "torch-scatter": "pytorch_scatter"}
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
DEPENDENCIES = sorted({*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)})


def pins() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def conda_name(dependency: Requirement) -> str:
    name = canonicalize_name(dependency.name)
    return CONDA_NAMES.get(name, name)


def conda_specs() -> list[str]:
    return [spec for spec in ENVIRONMENT["dependencies"] if isinstance(spec, str)]


def oldest_python() -> str:
    return PROJECT["requires-python"].removeprefix(">=")


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("dependency", DEPENDENCIES)
def test_each_dependency_is_pinned_inside_its_range(dependency: str, python: str):
    needed = Requirement(dependency)
    environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    name = canonicalize_name(needed.name)
    found = [
        pin
        for pin in pins()
        if canonicalize_name(pin.name) == name and (pin.marker is None or pin.marker.evaluate(environment))
    ]
    assert len(found) == 1, f"{len(found)} pins of {name} for Python {python}, see `make constraints`"
    (specifier,) = found[0].specifier
    assert needed.specifier.contains(specifier.version), f"{found[0]} is outside {dependency}"


def test_constraints_pin_exactly():
    assert all([specifier.operator for specifier in pin.specifier] == ["=="] for pin in pins())


def test_constraints_leave_out_graphkd():
    assert "graphkd" not in {canonicalize_name(pin.name) for pin in pins()}


def test_conda_environment_has_the_dependencies_and_bounds_of_pyproject():
    dependencies = [Requirement(line) for line in [*PROJECT["dependencies"], *EXTRAS["scatter"], *EXTRAS["vision"]]]
    expected = {f"{conda_name(dependency)}{dependency.specifier}" for dependency in dependencies}
    assert set(conda_specs()) == {*expected, f"python>={oldest_python()}", "pip"}
    assert len(conda_specs()) == len(set(conda_specs()))


def test_conda_environment_ends_with_graphkd_itself():
    assert ENVIRONMENT["name"] == "graphkd"
    assert ENVIRONMENT["channels"] == ["conda-forge"]
    assert ENVIRONMENT["dependencies"][-1] == {"pip": ["-e ."]}


def test_oldest_python_is_the_same_everywhere():
    makefile = (ROOT / "Makefile").read_text()
    assert PYPROJECT["tool"]["ruff"]["target-version"] == "py" + oldest_python().replace(".", "")
    assert f"sys.version_info < ({oldest_python().replace('.', ', ')})" in makefile
    assert set(re.findall(r"needs Python (\S+) or newer", makefile)) == {oldest_python()}
    assert f"--python-version {oldest_python()} " in makefile
    assert oldest_python() in WORKFLOW["jobs"]["test"]["strategy"]["matrix"]["python-version"]
    assert PYTHONS[0] == oldest_python()


def test_pre_commit_runs_the_pinned_ruff():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    (ruff,) = [repository for repository in config["repos"] if repository["repo"].endswith("/ruff-pre-commit")]
    (pin,) = [pin for pin in pins() if pin.name == "ruff"]
    assert ruff["rev"].removeprefix("v") == str(pin.specifier).removeprefix("==")


def test_package_has_the_version_of_pyproject():
    assert graphkd.__version__ == PROJECT["version"], "installed from an older pyproject.toml; run `make install`"


def test_package_is_typed():
    assert (Path(graphkd.__file__).parent / "py.typed").is_file()
    assert "py.typed" in PYPROJECT["tool"]["setuptools"]["package-data"]["graphkd"]


def test_all_that_the_package_reads_is_packaged():
    package = Path(graphkd.__file__).parent
    others = {path for path in package.rglob("*.*") if path.suffix not in (".py", ".pyc", ".pyi")}
    packaged = PYPROJECT["tool"]["setuptools"]["package-data"]["graphkd"]
    assert others == {path for pattern in packaged for path in package.glob(pattern)}


def test_markers_name_make_targets_that_exist():
    markers = " ".join(PYPROJECT["tool"]["pytest"]["ini_options"]["markers"])
    assert set(re.findall(r"`make (\S+)`", markers)) <= make_targets()


def test_makefile_has_its_targets():
    assert {"help", "demo", "test", "test-all", "lint", "install", "clean"} <= make_targets()


def make_targets() -> set[str]:
    """The targets that `make help` lists."""
    return set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def test_workflow_runs_make_targets_that_exist():
    commands = [step["run"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "run" in step]
    called = {target for command in commands for target in re.findall(r"^make (\S+)$", command, flags=re.MULTILINE)}
    assert called
    assert called <= make_targets()


def test_ci_script_can_be_run():
    assert os.access(ROOT / ".ci/run", os.X_OK)
