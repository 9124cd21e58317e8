"""What a release consists of: one version everywhere, the license, the changelog, the extras and the hosted checks."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from attnscope import __version__
from attnscope.core.packages import EXTRAS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
"""The sections of a version in Keep a Changelog."""


def name_of(requirement: str) -> str:
    """Return the name of the package in a requirement."""
    found = re.match(r"[\w.-]+", requirement)
    assert found is not None
    return found[0]


def date_of_citation() -> str:
    """Return the date of the release in CITATION.cff."""
    found = re.search(r'^date-released: "(.*)"$', (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    return found[1]


def test_citation_has_the_version_and_the_license():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.*)$", citation, re.MULTILINE) == [__version__]
    assert re.findall(r"^license: (.*)$", citation, re.MULTILINE) == [PROJECT["license"]]
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith(f"{PROJECT['license']} License")


def test_the_changelog_has_all_versions_and_only_the_sections_of_keep_a_changelog():
    versions = re.findall(r"^## (.*)$", CHANGELOG, re.MULTILINE)
    released = [version for version in versions if version != "Unreleased"]
    assert versions in (released, ["Unreleased", *released])
    assert released[0] == f"{__version__} - {date_of_citation()}"
    assert versions[-1].startswith("0.1.0 - ")
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", version) for version in released)
    for part in re.split(r"^## ", CHANGELOG, flags=re.MULTILINE)[1:]:
        kinds = re.findall(r"^### (.*)$", part, re.MULTILINE)
        assert set(kinds) <= KINDS
        assert len(kinds) == len(set(kinds))


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_brings_the_packages_that_an_error_names(extra: str):
    brought = {name_of(requirement) for requirement in PROJECT["optional-dependencies"][extra]}
    assert set(EXTRAS[extra]) <= brought


def test_classifiers_name_the_supported_versions_of_python():
    minors = [re.fullmatch(r"Programming Language :: Python :: 3\.(\d+)", each) for each in PROJECT["classifiers"]]
    versions = [int(found[1]) for found in minors if found]
    assert versions == list(range(11, 11 + len(versions)))
    assert PROJECT["requires-python"] == f">=3.{versions[0]}"


HEAVY = {"torch", "fvcore"}
"""Dependencies that commands without a run do not need; fvcore brings numpy, and torch several GB."""


def test_the_light_install_in_the_docs_has_all_other_dependencies():
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    found = re.search(
        r"^    python -m pip install --no-deps attnscope && python -m pip install (.*)$", page, re.MULTILINE
    )
    assert found is not None
    light = [each for each in PROJECT["dependencies"] if name_of(each) not in HEAVY]
    below = {name_of(each): re.search(r"<[\d.]+", each) for each in light}
    assert set(shlex.split(found[1])) == {name + (bound[0] if bound else "") for name, bound in below.items()}


def test_the_docs_list_the_extras():
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert sorted(listed) == sorted(PROJECT["optional-dependencies"].keys() - {"counters"})


def test_hosted_checks_use_the_scripts_and_every_supported_python():
    hosted = (ROOT / ".github" / "workflows" / "checks.yml").read_text(encoding="utf-8")
    scripts = set(re.findall(r"- run: (\.ci/\w+)$", hosted, re.MULTILINE))
    local = set(re.findall(r"^(\.ci/\w+)$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE))
    assert scripts == local
    assert all((ROOT / script).exists() for script in scripts)
    versions = re.search(r"python: \[(.*)\]", hosted)
    assert versions is not None
    assert [f"Programming Language :: Python :: {each}" for each in re.findall(r"[\d.]+", versions[1])] == [
        each for each in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", each)
    ]
    assert "entry: .ci/lint" in (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
