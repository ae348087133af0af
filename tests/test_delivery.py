"""A delivery builds and rolls out what has changed since the last one, and nothing else.

The steps of the workflow run here with programs that record how they are called; no registry, cluster or
server is there.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.cli.locations import code_locations

COMMIT = "0123456789abcdef0123456789abcdef01234567"
RECORDER = """#!/bin/sh
echo "{name} $*" >> "$CALLS"
{answer}
"""
Run = Callable[..., list[str]]


def steps(root: Path, job: str) -> dict[str, str]:
    """Return the shell scripts of a job, by the name or id of the step."""
    workflow: dict[str, Any] = yaml.safe_load((root / ".github/workflows/deliver.yml").read_text())
    return {
        step.get("name") or step["id"]: step["run"]
        for step in workflow["jobs"][job]["steps"]
        if "run" in step
    }


@pytest.fixture
def run(root: Path, clone: Path, tmp_path: Path) -> Run:
    """Run a step in a copy of the repository, and return the calls of the programs in `answers`."""

    def run_step(job: str, step: str, answers: dict[str, str], **environment: str) -> list[str]:
        programs = tmp_path / "bin"
        programs.mkdir(exist_ok=True)
        for name, answer in answers.items():
            (programs / name).write_text(RECORDER.format(name=name, answer=answer))
            (programs / name).chmod(0o755)
        calls = tmp_path / "calls"
        calls.write_text("")
        variables = {
            "CALLS": str(calls),
            "GITHUB_ACTOR": "ann",
            "GITHUB_OUTPUT": str(tmp_path / "output"),
            "GITHUB_REPOSITORY": "Team/ETL",
            "GITHUB_SHA": COMMIT,
            "RUNNER_TEMP": str(tmp_path),
            "PATH": f"{programs}:{os.environ['PATH']}",
        }
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", steps(root, job)[step]],  # as GitHub does
            cwd=clone,
            env={**os.environ, **variables, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return calls.read_text().splitlines()

    return run_step


def affected(clone: Path, tmp_path: Path, run: Run, delivered: str, **environment: str) -> set[str]:
    (call,) = run("changed", "find", {"gh": f"echo {delivered}"}, **environment)
    assert "owner=Team" in call
    assert "name=ETL" in call
    last = (tmp_path / "output").read_text().splitlines()[-1]
    return set(json.loads(last.removeprefix("locations=")))


def test_what_changed_since_the_last_delivery_is_delivered(
    clone: Path, tmp_path: Path, run: Run
) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        command = ["git", *identity, *arguments]
        environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull}
        done = subprocess.run(
            command, cwd=clone, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def commit(path: str) -> str:
        (clone / path).write_text((clone / path).read_text() + "\n# changed\n")
        git("commit", "-qam", path)
        return git("rev-parse", "HEAD")

    git("init", "-q")
    git("add", "--all")
    git("commit", "-qm", "base")
    delivered = git("rev-parse", "HEAD")
    every = set(code_locations())
    assert affected(clone, tmp_path, run, "") == every  # nothing is delivered yet
    assert affected(clone, tmp_path, run, delivered) == set()
    commit("projects/csv_etl/src/csv_etl/assets.py")
    last = commit("README.md")
    # A delivery between these commits that failed would not hide the first change.
    assert affected(clone, tmp_path, run, delivered) == {"csv_etl"}
    assert affected(clone, tmp_path, run, delivered, ALL="true") == every
    for common in ("shared/src/shared/settings.py", "environments.toml", "deploy/Dockerfile"):
        after = commit(common)
        assert affected(clone, tmp_path, run, last) == every
        last = after


def test_an_image_is_scanned_before_it_is_pushed(root: Path, run: Run) -> None:
    workflow: Any = yaml.safe_load((root / ".github/workflows/deliver.yml").read_text())
    image = workflow["jobs"]["image"]
    names = [step.get("name") for step in image["steps"]]
    assert names[-3:] == ["Build", "Scan", "Push"]
    scan = image["steps"][-2]["with"]
    assert (scan["exit-code"], scan["severity"]) == ("1", "HIGH,CRITICAL")
    (build,) = run("image", "Build", {"docker": ""}, LOCATION="csv_etl")
    assert build == (
        "docker build --file deploy/Dockerfile --target location --tag scanned/csv_etl "
        "--build-arg LOCATION=csv_etl --build-arg EXTRA=kubernetes ."
    )
    dockerfile = (root / "deploy" / "Dockerfile").read_text()
    assert '--package "$LOCATION"' in dockerfile  # and no other location
    *_, last = run("image", "Push", {"docker": "cat > /dev/null"}, LOCATION="csv_etl", TOKEN="t")
    assert last == "docker push ghcr.io/team/etl/csv_etl:latest"


def tags(root: Path) -> dict[str, tuple[str, str]]:
    values = yaml.safe_load((root / "deploy/kubernetes/values.yaml").read_text())
    return {
        deployment["name"]: (deployment["image"]["repository"], deployment["image"]["tag"])
        for deployment in values["dagster-user-deployments"]["deployments"]
    }


def test_kubernetes_gets_the_new_image_of_a_changed_location_only(
    root: Path, clone: Path, run: Run
) -> None:
    deployed = {
        "dagster-user-deployments": {
            "deployments": [
                {"name": name.replace("_", "-"), "image": {"tag": "earlier"}}
                for name in code_locations()
            ]
        }
    }
    answers = {"helm": f"[ $1 = get ] && echo '{json.dumps(deployed)}' || true", "kubectl": ""}
    # The packages of this environment, in place of `uv run --locked --package shared`.
    answers["uv"] = (
        f"PATH={Path(sys.executable).parent}:$PATH\n"
        'while [ "$1" != python ] && [ "$1" != dagster ]; do shift; done; exec "$@"'
    )
    calls = run("kubernetes", "Roll out", answers, LOCATIONS="csv_etl", CONTENT="a kubeconfig")
    registry = "ghcr.io/team/etl"
    assert tags(clone) == {
        "simple-etl": (f"{registry}/simple_etl", "earlier"),
        "csv-etl": (f"{registry}/csv_etl", COMMIT),
        "api-etl": (f"{registry}/api_etl", "earlier"),
    }
    upgrade = next(call for call in calls if call.startswith("helm upgrade"))
    assert re.search(r"--version 1\.\d+\.\d+ ", upgrade)  # the chart of the locked Dagster
    assert "kubectl apply --namespace etl --filename deploy/kubernetes/manifests.yaml" in calls
    first = {**answers, "helm": "[ $1 = get ] && exit 1 || true"}
    run("kubernetes", "Roll out", first, LOCATIONS=" ".join(code_locations()), CONTENT="")
    assert {tag for _, tag in tags(clone).values()} == {COMMIT}
    with pytest.raises(AssertionError, match="no image of api_etl, simple_etl is deployed yet"):
        run("kubernetes", "Roll out", first, LOCATIONS="csv_etl", CONTENT="")


def test_a_server_restarts_the_changed_locations_only(run: Run) -> None:
    answers = {"ssh": "sed 's|^cd .*||' | bash -s", "docker": 'echo "  from $REGISTRY" >> "$CALLS"'}
    calls = run(
        "compose",
        "Roll out",
        answers,
        LOCATIONS="csv_etl api_etl",
        SSH_KEY="k",
        SERVER="etl@host",
        KNOWN_HOSTS="host ssh-ed25519 AAAA",
    )
    assert "etl@host bash -s" in calls[0]
    assert calls[1:] == [
        "docker compose pull --quiet csv_etl api_etl",
        "  from ghcr.io/team/etl",
        "docker compose up --detach --no-deps --no-build --wait csv_etl api_etl",
        "  from ghcr.io/team/etl",
    ]


def test_every_deployed_part_is_production(root: Path) -> None:
    """Otherwise a load on a server is refused."""
    compose = yaml.safe_load((root / "deploy" / "compose.yaml").read_text())
    for name in code_locations():
        assert compose["services"][name]["environment"]["ETL_ENVIRONMENT"] == "production"
        assert (
            compose["services"][name]["image"]
            == f"${{REGISTRY:-embedded-etl}}/{name}:${{TAG:-latest}}"
        )
    assert "ETL_ENVIRONMENT=production" in (root / "deploy/systemd/server.env").read_text()
    settings, *_ = yaml.safe_load_all((root / "deploy/kubernetes/manifests.yaml").read_text())
    assert settings["data"]["ETL_ENVIRONMENT"] == "production"
