"""The samples for nights without anybody: each is run, or checked by what will read it."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
from botocore.model import ServiceModel
from botocore.validate import ParamValidator

from bulk_updater.cli import cli
from bulk_updater.config import ConnectionConfig

from .e2e.processes import MAPPING, Served, Shell, environment, export_of

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "samples"
UNITS = ("bulk-updater.service", "bulk-updater.timer")
ECS = ("ecs_task_definition.json", "ecs_schedule.json", "ecs_night.sh")
NAMES = ("crontab", *UNITS, "Containerfile", *ECS)
SYSTEMD_ANALYZE = shutil.which("systemd-analyze")


def text_of(name: str) -> str:
    return (SAMPLES / name).read_text(encoding="utf-8")


def check_command(words: list[str]) -> dict[str, Any]:
    """The parameters that a command's words make; whatever is wrong with them fails."""
    group = click.Context(cli, info_name="bulk-updater")
    command = cli.get_command(group, words[0])
    assert command is not None, words
    context = command.make_context(words[0], list(words[1:]), parent=group)
    if isinstance(command, click.Group):
        name, inner, rest = command.resolve_command(context, words[1:])
        assert inner is not None, words
        context = inner.make_context(name, rest, parent=context)
    return context.params


def check_night(words: list[str]) -> None:
    """A night sends what changed, ends in the morning, and logs what a machine can read."""
    told = check_command(words)
    assert words[0] == "run"
    assert told["only_changed"] is True
    assert told["state"] is not None
    assert told["until"] is not None
    assert told["log_format"] == "json"


# --- cron -------------------------------------------------------------------------------------


def crontab() -> tuple[dict[str, str], list[tuple[str, str]]]:
    """The variables, and of each job when it is run and what."""
    variables, jobs = {}, []
    for line in text_of("crontab").splitlines():
        if not line or line.startswith("#"):
            continue
        named = re.fullmatch(r"([A-Z_]+)=(.*)", line)
        if named:
            variables[named.group(1)] = named.group(2)
        else:
            *when, command = line.split(maxsplit=5)
            jobs.append((" ".join(when), command))
    return variables, jobs


def test_the_crontab_is_one():
    """Five fields and a command for each job, without a percent sign, which cron takes for a line
    end; times at which a night begins and a week does."""
    variables, jobs = crontab()
    assert [when for when, _ in jobs] == ["0 22 * * *", "0 7 * * 1"]
    assert all("%" not in command for _, command in jobs)
    assert {"SHELL", "PATH", "MAILTO"} <= set(variables)
    night, week = (command.partition("bulk-updater ")[2] for _, command in jobs)
    check_night(shlex.split(night.partition(" >")[0]))
    check_command(shlex.split(week))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Shell, Served]]:
    shell = Shell(tmp_path / "here")
    shell.folder.mkdir()
    yield shell, Served(shell, "--rate", "100000", "--burst", "100000")
    shell.close()


def test_the_lines_of_the_crontab_work(served):
    """Three nights and a Monday, by sh: all is sent, then what changed, and a night that fails
    prints why; nothing is printed, and so mailed, where all went well."""
    shell, sandbox = served
    variables, ((_, night), (_, week)) = crontab()
    env = environment(
        **variables
        | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "BULK_HOME": str(shell.folder),
            "METRICS": str(shell.folder / "bulk_updater.prom"),
            "BULK_UPDATER_RUN_ENDPOINT_URL": sandbox.url,
            "BULK_UPDATER_RUN_RATE": "5000",
        }
    )

    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [variables["SHELL"], "-c", command],
            cwd="/",
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def summary() -> dict[str, Any]:
        lines = (shell.folder / "night.log").read_text().splitlines()
        return [json.loads(line) for line in lines][-1]["summary"]

    shell.write("mapping.yaml", MAPPING)
    shell.write("export.csv", export_of(20, 20))
    ran = run(night)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert summary()["updated"] == 20
    assert len(sandbox.contacts("c-")) == 20

    export = export_of(20, 20).replace('"note 7"', '"note changed"')
    shell.write("export.csv", export)
    ran = run(night)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert (summary()["updated"], summary()["unchanged"]) == (1, 19)
    assert sandbox.attributes("c-7")["c-7"]["note"] == "note changed"

    (shell.folder / "export.csv").unlink()
    ran = run(night)
    *_, error, last = ran.stdout.splitlines()
    assert "export.csv: there is no such file" in json.loads(error)["message"]
    assert json.loads(last)["summary"]["exit"] == 2
    assert "last_success_timestamp_seconds" in (shell.folder / "bulk_updater.prom").read_text()

    ran = run(week)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "20" in ran.stdout


# --- systemd ----------------------------------------------------------------------------------


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text_of(name))
    return parser


def test_systemd_takes_the_units():
    """`systemd-analyze verify` has nothing to say of either; where there is no systemd the other
    tests still read them."""
    if SYSTEMD_ANALYZE is None:
        assert not Path("/run/systemd/system").exists(), "systemd runs here without its tools"
        return
    ran = subprocess.run(
        [SYSTEMD_ANALYZE, "verify", "--man=no", *(str(SAMPLES / name) for name in UNITS)],
        # The last colon adds the machine's own units, which every unit leans on.
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{SAMPLES}:", "SYSTEMD_LOG_LEVEL": "warning"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    ours = [line for line in ran.stderr.splitlines() if "bulk-updater" in line or str(ROOT) in line]
    assert (ran.returncode, ours) == (0, [])


def test_the_service_runs_a_night():
    """Its command is one that the program takes, in the folder that its user may write to."""
    service = unit("bulk-updater.service")["Service"]
    program, *words = shlex.split(service["ExecStart"])
    assert (program, words[0]) == ("/usr/bin/env", "bulk-updater")
    check_night(words[1:])
    assert service["Type"] == "oneshot"
    assert service["User"] not in ("", "root", "0")
    assert service["WorkingDirectory"] == f"%S/{service['StateDirectory']}"


def test_the_service_is_given_the_time_to_stop():
    """An attempt's connecting and waiting, and the notification, fit in before the SIGKILL."""
    service = unit("bulk-updater.service")["Service"]
    connection = ConnectionConfig()
    assert connection.connect_timeout_s is not None
    assert connection.read_timeout_s is not None
    needed_s = connection.connect_timeout_s + connection.read_timeout_s + 10
    assert int(service["TimeoutStopSec"]) > needed_s
    assert service["KillSignal"] == "SIGTERM"


def test_the_service_tells_ends_from_failures():
    """The deadline and a stop are none; bad rows, mistakes and stopped runs are."""
    service = unit("bulk-updater.service")["Service"]
    assert set(service["SuccessExitStatus"].split()) == {"4", "130"}
    assert service["Restart"] == "no"


def test_the_service_is_shut_in():
    """It may write to its state and the metrics' folder, and gain no privilege."""
    service = unit("bulk-updater.service")["Service"]
    assert service["ProtectSystem"] == "strict"
    assert service["NoNewPrivileges"] == "yes"
    assert service["CapabilityBoundingSet"] == ""
    metrics = shlex.split(service["ExecStart"])
    folder = str(Path(metrics[metrics.index("--metrics-file") + 1]).parent)
    assert service["ReadWritePaths"] == f"-{folder}"


def test_the_timer_starts_the_service_and_makes_up_for_nothing():
    """A missed night is not begun in the morning, whose 06:00 would be the next day's."""
    timer = unit("bulk-updater.timer")["Timer"]
    assert timer["Unit"] == "bulk-updater.service"
    assert timer["OnCalendar"] == "*-*-* 22:00:00"
    assert timer["Persistent"] == "false"


# --- The image --------------------------------------------------------------------------------


def containerfile() -> list[tuple[str, str]]:
    """The instructions, continuation lines joined."""
    lines = [line for line in text_of("Containerfile").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [
        (name, rest)
        for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line)
    ]


def test_the_image_runs_as_nobody_special():
    """The last user is a number above 0, so that `runAsNonRoot` can tell, and owns the volume."""
    instructions = containerfile()
    (user,) = [rest for name, rest in instructions if name == "USER"]
    assert re.fullmatch(r"[1-9][0-9]{3,}:[1-9][0-9]{3,}", user)
    uid, gid = user.split(":")
    made = next(rest for name, rest in instructions if name == "RUN" and "useradd" in rest)
    assert f"--owner {uid} --group {gid} --mode 0700 /state" in made
    names = [name for name, _ in instructions]
    assert names.index("USER") > max(at for at, name in enumerate(names) if name == "RUN")


def test_the_image_writes_to_its_volume_only():
    """Home and folder of the run are the volume, and no bytecode is written beside the code."""
    instructions = containerfile()
    last = dict(instructions)
    assert last["VOLUME"] == last["WORKDIR"] == "/state"
    environment = dict(word.split("=", 1) for word in shlex.split(last["ENV"]))
    assert environment["HOME"] == "/state"
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"
    assert environment["PATH"].startswith("/opt/bulk-updater/bin:")


def test_the_image_holds_the_package_and_no_secret():
    """What is copied is named one by one, is there, and is what the package is made of."""
    instructions = containerfile()
    assert {name for name, _ in instructions} == {
        *("FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME"),
        *("STOPSIGNAL", "ENTRYPOINT", "CMD"),
    }
    copied = [
        word
        for name, rest in instructions
        if name == "COPY" and "--from" not in rest
        for word in rest.split()[:-1]
    ]
    copied.remove("--chmod=0755")
    assert sorted(copied) == [
        *("README.md", "bulk_updater", "constraints.txt", "pyproject.toml"),
        "samples/ecs_night.sh",
    ]
    assert all((ROOT / name).exists() for name in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = [project["project"]["readme"], project["tool"]["hatch"]["version"]["path"]]
    needed += project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert all(any(Path(name).is_relative_to(each) for each in copied) for name in needed)
    assert not re.search("(?i)secret|password|token|_KEY", text_of("Containerfile"))


def test_the_image_installs_what_can_be_installed():
    """pip takes its flags, keeps no cache, and the extra and the entry point are the project's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (line,) = [
        rest
        for name, rest in containerfile()
        if name == "RUN" and " install " in rest and "/pip " in rest
    ]
    program, *words = shlex.split(line)
    assert program == "/opt/bulk-updater/bin/pip"
    assert "--no-cache-dir" in words
    assert words[-1] == ".[otel]"
    assert "otel" in project["optional-dependencies"]
    ran = subprocess.run(
        # Everything but the installing: flags and constraints are read.
        [sys.executable, "-m", "pip", *words[:-1], "--no-index", "--dry-run", "click"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    last = dict(containerfile())
    (program,) = json.loads(last["ENTRYPOINT"])
    assert project["scripts"][program] == "bulk_updater.cli:main"
    assert json.loads(last["CMD"]) == ["--help"]


def test_the_image_s_own_words_are_a_night():
    """The command in its comment, with a root file system that is read only."""
    told = re.sub(r"\\\n#\s*", "", text_of("Containerfile"))
    (line,) = re.findall(r"^#   (podman run .*)$", told, re.MULTILINE)
    words = shlex.split(line)
    at = words.index("bulk-updater")
    assert {"--read-only", "--rm"} <= set(words[:at])
    check_night(words[at + 1 :])


# --- ECS --------------------------------------------------------------------------------------


def faults(loader: Any, service: str, operation: str, told: Any) -> list[str]:
    """What is wrong with a request, by the service's model: botocore itself looks at no more than
    types and names, so enums, patterns and sizes are looked at here."""
    model = ServiceModel(loader.load_service_model(service, "service-2"))
    shape = model.operation_model(operation).input_shape
    report = ParamValidator().validate(told, shape)
    if report.has_errors():
        return [report.generate_report()]
    return list(deeper_faults(told, shape, operation))


def deeper_faults(value: Any, shape: Any, where: str) -> Iterator[str]:
    """Of a request whose types and names are right."""
    if shape.type_name == "structure":
        for name, inner in value.items():
            yield from deeper_faults(inner, shape.members[name], f"{where}.{name}")
    elif shape.type_name == "list":
        for inner in value:
            yield from deeper_faults(inner, shape.member, f"{where}[]")
    elif shape.type_name == "string":
        if shape.enum and value not in shape.enum:
            yield f"{where}: {value} is none of {shape.enum}"
        pattern = shape.metadata.get("pattern")
        if pattern and not re.fullmatch(pattern, value):
            yield f"{where}: {value} does not match {pattern}"
        if len(value) > shape.metadata.get("max", len(value)):
            yield f"{where}: longer than {shape.metadata['max']}"


def filled(name: str) -> Any:
    """A sample with every placeholder replaced, as a user has to."""
    text = text_of(name)
    for placeholder, value in {
        "ACCOUNT": "123456789012",
        "fs-FILESYSTEM": "fs-0123456789abcdef0",
        "fsap-ACCESSPOINT": "fsap-0123456789abcdef0",
        "REGION": "eu-central-1",
        "CLUSTER": "night",
        "subnet-SUBNET": "subnet-0123456789abcdef0",
        "sg-GROUP": "sg-0123456789abcdef0",
    }.items():
        text = re.sub(rf"(?<![A-Z_]){placeholder}(?![A-Z_])", value, text)
    assert not re.search(r"(?<![A-Z_])[A-Z]{7,}(?![A-Z_])(?!\")", text.replace("DISABLED", "")), (
        text
    )
    return json.loads(text)


def test_ecs_takes_the_task_definition(loader):
    """By its service model, down to enums and patterns."""
    assert faults(loader, "ecs", "RegisterTaskDefinition", filled("ecs_task_definition.json")) == []


def test_the_scheduler_takes_the_schedule(loader):
    """By its service model, down to enums and patterns; it names the other sample's family."""
    schedule = filled("ecs_schedule.json")
    assert faults(loader, "scheduler", "CreateSchedule", schedule) == []
    task = filled("ecs_task_definition.json")
    arn = schedule["Target"]["EcsParameters"]["TaskDefinitionArn"]
    assert arn.endswith(f":task-definition/{task['family']}")
    assert schedule["Target"]["EcsParameters"]["TaskCount"] == 1


def test_what_is_wrong_with_a_sample_would_be_found(loader):
    """An unknown member, a wrong enum and a wrong pattern are each a fault."""
    task = filled("ecs_task_definition.json")
    for changes in ({"families": "x"}, {"networkMode": "none of them"}, {"family": 7}):
        assert faults(loader, "ecs", "RegisterTaskDefinition", task | changes)
    schedule = filled("ecs_schedule.json")
    for changes in ({"Name": "two words"}, {"State": "ON"}, {"ScheduleExpression": "x" * 300}):
        assert faults(loader, "scheduler", "CreateSchedule", schedule | changes)


def test_the_task_is_a_night_that_may_write_to_its_volume_only():
    """Read-only root file system, nobody special, logs to CloudWatch, no secret in the clear."""
    task = filled("ecs_task_definition.json")
    (container,) = task["containerDefinitions"]
    check_night(container["command"])
    assert container["readonlyRootFilesystem"] is True
    assert container["user"] == dict(containerfile())["USER"]
    own, shared = task["volumes"]
    assert own == {"name": "state"}  # the task's own disk
    assert shared["efsVolumeConfiguration"]["transitEncryption"] == "ENABLED"
    mounted = {each["sourceVolume"]: each["containerPath"] for each in container["mountPoints"]}
    assert mounted == {"state": "/state", shared["name"]: "/nights"}
    assert container["logConfiguration"]["logDriver"] == "awslogs"
    variables = {each["name"]: each["value"] for each in container["environment"]}
    assert variables == {"AWS_REGION": "eu-central-1", "NIGHTS": "/nights", "STATE": "/state"}
    assert task["taskRoleArn"] != task["executionRoleArn"]


def test_the_task_is_given_the_time_to_stop():
    """Fargate waits 120 s at the most: connecting, waiting and telling fit in."""
    (container,) = filled("ecs_task_definition.json")["containerDefinitions"]
    told = check_command(container["command"])
    needed_s = told["cli_connect_timeout"] + told["cli_read_timeout"] + 10
    assert needed_s < container["stopTimeout"] <= 120


def test_the_state_lies_on_the_task_s_own_disk_and_all_else_on_the_shared_one():
    """Never SQLite's log on a network file system, and never a ledger on a disk that goes away."""
    task = filled("ecs_task_definition.json")
    (container,) = task["containerDefinitions"]
    told = check_command(container["command"])
    assert told["state"] == Path("/state/state.sqlite")
    assert (told["run_dir"], told["quota_file"]) == (None, None)
    assert container["workingDirectory"] == "/nights"
    assert not told["mapping"].is_absolute()
    assert container["entryPoint"] == ["ecs_night.sh"]
    # A volume has the owner of the image's own, where that is declared.
    assert dict(containerfile())["VOLUME"] == "/state"


class Task:
    """Runs the task's script, with directories of a test in place of the volumes."""

    def __init__(self, folder: Path, program: Path) -> None:
        self.nights, self.own = folder / "nights", folder / "own"
        self.nights.mkdir()
        self.state = self.nights / "state.sqlite"
        self.env = environment(
            PATH=f"{program}{os.pathsep}{os.environ['PATH']}",
            NIGHTS=str(self.nights),
            STATE=str(self.own),
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        shutil.rmtree(self.own, ignore_errors=True)  # each task has a new one
        self.own.mkdir()
        return subprocess.Popen(
            ["sh", str(SAMPLES / "ecs_night.sh"), *words],
            cwd="/",
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str) -> tuple[int, str, str]:
        process = self.start(*words)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """A task whose bulk-updater is a script: the words that it is given, as sh."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "bulk-updater"
    program.write_text('#!/bin/sh\neval "$*"\n')
    program.chmod(0o755)
    return Task(tmp_path, tmp_path / "bin")


def test_the_script_of_the_task_works(served):
    """Two nights: all is sent, then what changed, each from a disk of its own."""
    shell, sandbox = served
    night = Task(shell.folder, Path(sys.executable).parent)
    night.env |= {
        "BULK_UPDATER_RUN_ENDPOINT_URL": sandbox.url,
        "BULK_UPDATER_RUN_RATE": "5000",
        "AWS_REGION": "eu-central-1",
    }
    (container,) = filled("ecs_task_definition.json")["containerDefinitions"]
    words = [word.replace("/state/", f"{night.own}/") for word in container["command"]]
    (night.nights / "mapping.yaml").write_text(MAPPING)
    for export, updated in (
        (export_of(20, 20), 20),
        (export_of(20, 20).replace('"note 7"', '"note changed"'), 1),
    ):
        (night.nights / "export.csv").write_text(export)
        code, _, err = night.run(*words)
        assert code == 0, err
        assert json.loads(err.splitlines()[-1])["summary"]["updated"] == updated
        assert night.state.is_file()
    assert sandbox.attributes("c-7")["c-7"]["note"] == "note changed"
    assert list(night.nights.glob("runs/mapping/*/ledger.jsonl"))


def test_the_task_brings_the_state_back_whatever_the_exit_code(task):
    """What bulk-updater left is kept, in one step, and its exit code is the task's."""
    task.state.write_text("before")
    kept = f'cat "{task.own}/state.sqlite"; echo after > "{task.own}/state.sqlite"; exit 4'
    assert task.run(kept) == (4, "before", "")
    assert task.state.read_text() == "after\n"
    assert not (task.nights / "state.new").exists()


def test_a_task_that_makes_no_state_brings_none_back(task):
    """The first night with a mistake in its command ends with 2, and leaves no state behind."""
    assert task.run("exit 2") == (2, "", "")
    assert not task.state.exists()


@pytest.mark.parametrize(
    ("end", "is_back"),
    [
        ("kill -9 $$", True),  # before it had opened the state
        ("touch {own}/state.sqlite-wal; kill -9 $$", False),
        ("kill -9 $PPID", False),
    ],
)
def test_a_killed_task_leaves_no_state_that_is_too_old(task, end, is_back):
    """While it runs there is none on the shared disk; what was killed in the middle stays away."""
    task.state.write_text("before")
    code, out, _ = task.run(f"ls {task.nights}; {end}".replace("{own}", str(task.own)))
    assert code != 0
    assert "state.sqlite" not in out.split()
    assert task.state.exists() == is_back


def test_the_task_s_signal_reaches_bulk_updater(task):
    """SIGTERM is handed on, waited for, and the state brought back, with bulk-updater's code."""
    task.state.write_text("before")
    own = task.own
    night = (
        f"trap 'echo settled > {own}/state.sqlite; exit 130' TERM; "
        "echo ready; while :; do sleep 0.01; done"
    )
    process = task.start(night)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert task.state.read_text() == "settled\n"


def test_two_tasks_never_overlap(task):
    """The second ends with exit code 2 and touches nothing; when the first has ended it may."""
    task.state.write_text("before")
    first = task.start("echo ready; read line < pipe")
    os.mkfifo(task.nights / "pipe")
    assert first.stdout is not None
    assert first.stdout.readline() == "ready\n"
    (task.own / "mark").touch()
    second = subprocess.run(
        ["sh", str(SAMPLES / "ecs_night.sh"), "echo", "sent"],
        env=task.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (second.returncode, second.stdout) == (2, "")
    assert "another task has" in second.stderr
    assert not task.state.exists()
    (task.nights / "pipe").write_text("go on\n")
    first.communicate(timeout=60)
    assert (first.returncode, task.state.read_text()) == (0, "before")
    assert task.run("echo", "sent")[:2] == (0, "sent\n")


# --- What is said of them ---------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_says_how_each_is_used(name):
    """Each is named in the samples' README, and names nothing of this machine."""
    assert f"`{name}`" in text_of("README.md")
    assert str(ROOT) not in text_of(name)
