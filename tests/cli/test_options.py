"""What is typed, what the environment says, and the configuration that comes of it."""

from __future__ import annotations

import sys
from operator import attrgetter
from pathlib import Path

import pytest

from bulk_updater.cli.going_on import command_to_go_on
from bulk_updater.config import MaxFailures, RunConfig
from bulk_updater.connect import open_connect

from .conftest import summary_of

FLAGS = [
    ("--sandbox", "sandbox", True),
    ("--run-dir here", "run_dir", Path("here")),
    ("--fresh", "fresh", True),
    ("--rate 2.5", "pacing.rate", 2.5),
    ("--rate quota", "pacing.rate", "quota"),
    ("--rate auto", "pacing.rate", "auto"),
    ("--quota-share 0.5", "pacing.quota_share", 0.5),
    ("--exclusive", "pacing.exclusive", True),
    ("--quota-file q.json", "quota_file", Path("q.json")),
    ("--limit 10", "limit", 10),
    ("--max-in-flight 3", "max_in_flight", 3),
    ("--max-attempts 2", "retry.max_attempts", 2),
    ("--max-failures 7", "max_failures", MaxFailures(in_a_row=7)),
    ("--max-failures 20%", "max_failures", MaxFailures(share=0.2)),
    ("--max-failures none", "max_failures", MaxFailures(in_a_row=None, share=None)),
    ("--region eu-west-1", "connection.region", "eu-west-1"),
    ("--profile crm", "connection.profile", "crm"),
    ("--endpoint-url http://127.0.0.1:9", "connection.endpoint_url", "http://127.0.0.1:9"),
    ("--ca-bundle ca.pem", "connection.ca_bundle", "ca.pem"),
    ("--no-verify-ssl", "connection.verify_ssl", False),
    ("--no-sign-request", "connection.sign_requests", False),
    ("--allow-http", "connection.allow_http", True),
    ("--cli-connect-timeout 5", "connection.connect_timeout_s", 5.0),
    ("--cli-connect-timeout 0", "connection.connect_timeout_s", None),
    ("--cli-read-timeout 2.5", "connection.read_timeout_s", 2.5),
    ("--cli-read-timeout 0", "connection.read_timeout_s", None),
]


@pytest.mark.parametrize(("flags", "name", "value"), FLAGS)
def test_every_flag_reaches_the_run(call, configs, flags, name, value):
    """A flag of `run` sets its value, and nothing else differs from the defaults."""
    assert call(f"run mapping.yaml export.csv {flags}").code == 0
    if name == "sandbox":
        assert configs[0].connection.access_key == ("sandbox", "sandbox")
        assert configs[0].connection.endpoint_url.startswith("http://127.0.0.1:")
        assert configs[0].sandbox is True
        return
    default = RunConfig(mapping=Path("mapping.yaml"), sources=(Path("export.csv"),))
    names = {name for _, name, _ in FLAGS if name != "max_failures"} | {"max_failures"}
    expected = {each: attrgetter(each)(default) for each in names} | {name: value}
    assert {each: attrgetter(each)(configs[0]) for each in names} == expected


def test_what_is_not_typed_has_its_default(call, configs):
    """Without a flag a run has the defaults of RunConfig, and sources in the order given."""
    call("run mapping.yaml a.csv b.csv")
    words = "bulk-updater run mapping.yaml a.csv b.csv"
    assert configs == [
        RunConfig(
            mapping=Path("mapping.yaml"), sources=(Path("a.csv"), Path("b.csv")), command=words
        )
    ]


@pytest.mark.parametrize("case", FLAGS)
def test_every_flag_can_be_an_environment_variable(call, configs, monkeypatch, case):
    """BULK_UPDATER_RUN_<FLAG> does what the flag does."""
    flags, name, value = case
    flag, _, text = flags.partition(" ")
    variable = "BULK_UPDATER_RUN_" + flag.removeprefix("--").upper().replace("-", "_")
    monkeypatch.setenv(variable, text or "1")
    assert call("run mapping.yaml export.csv").code == 0
    assert attrgetter(name)(configs[0]) == value


def test_what_is_typed_comes_before_the_environment(call, configs, monkeypatch):
    """Flag, then environment, then default."""
    monkeypatch.setenv("BULK_UPDATER_RUN_RATE", "5")
    monkeypatch.setenv("BULK_UPDATER_RUN_LIMIT", "9")
    call("run mapping.yaml export.csv --rate 7")
    assert configs[0].pacing.rate == 7
    assert configs[0].limit == 9
    assert configs[0].max_in_flight == 32


def test_the_environment_of_one_command_is_not_another_s(call, monkeypatch):
    """BULK_UPDATER_RUN_RATE says nothing to `plan`, BULK_UPDATER_PLAN_RATE does."""
    monkeypatch.setenv("BULK_UPDATER_RUN_RATE", "5")
    assert "at 8 requests a second" in call("plan mapping.yaml export.csv").out
    monkeypatch.setenv("BULK_UPDATER_PLAN_RATE", "4")
    assert "at 4 requests a second" in call("plan mapping.yaml export.csv").out


@pytest.fixture
def reached(monkeypatch):
    """Region and endpoint that a run would use, after everybody had their say."""
    seen = []

    async def connect(config, **_):
        async with open_connect(config.connection, max_in_flight=1) as opened:
            seen.append((opened.region, opened.endpoint_url))
        return summary_of()

    monkeypatch.setattr("bulk_updater.cli.run.run_pipeline", connect)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    return seen


def test_regions_come_in_the_aws_cli_s_order(call, reached, monkeypatch):
    """--region, AWS_REGION, AWS_DEFAULT_REGION, in this order."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-3")
    assert call("run mapping.yaml export.csv").code == 0
    monkeypatch.setenv("AWS_REGION", "eu-west-2")
    assert call("run mapping.yaml export.csv").code == 0
    assert call("run mapping.yaml export.csv --region eu-west-1").code == 0
    assert [region for region, _ in reached] == ["eu-west-3", "eu-west-2", "eu-west-1"]


def test_profiles_hold_regions_and_credentials(call, reached, monkeypatch, tmp_path):
    """--profile comes before AWS_PROFILE, and a profile that is not there is refused."""
    config = tmp_path / "config"
    config.write_text("[profile a]\nregion = eu-north-1\n[profile b]\nregion = eu-south-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "b")
    assert call("run mapping.yaml export.csv --profile a --no-sign-request").code == 0
    assert call("run mapping.yaml export.csv --no-sign-request").code == 0
    assert [region for region, _ in reached] == ["eu-north-1", "eu-south-1"]
    ran = call("run mapping.yaml export.csv --profile nobody")
    assert ran.code == 2
    assert ran.err.startswith("error: There is no AWS profile 'nobody'; name one")


def test_endpoints_come_in_botocore_s_order(call, reached, monkeypatch):
    """--endpoint-url, AWS_ENDPOINT_URL_CONNECT, AWS_ENDPOINT_URL; they can be switched off."""
    monkeypatch.setenv("AWS_REGION", "eu-west-2")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    call("run mapping.yaml export.csv")
    monkeypatch.setenv("AWS_ENDPOINT_URL_CONNECT", "http://127.0.0.1:2")
    call("run mapping.yaml export.csv")
    call("run mapping.yaml export.csv --endpoint-url http://127.0.0.1:3")
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    call("run mapping.yaml export.csv")
    assert [url for _, url in reached] == [
        "http://127.0.0.1:1",
        "http://127.0.0.1:2",
        "http://127.0.0.1:3",
        "https://connect.eu-west-2.amazonaws.com",
    ]


PLAIN = (
    "error: The endpoint http://connect.invalid:8080 is plain http beyond this machine, so "
    "contacts' data and signatures would cross the network in the clear; name it with https, or "
    "give --allow-http if that network may see them.\n"
)


@pytest.mark.parametrize("named_by", ["--endpoint-url", "AWS_ENDPOINT_URL_CONNECT", "profile"])
def test_plain_http_beyond_this_machine_is_refused(call, reached, monkeypatch, tmp_path, named_by):
    """Exit code 2 whoever named it, before anything is sent, unless --allow-http says otherwise."""
    url = "http://connect.invalid:8080"
    monkeypatch.setenv("AWS_REGION", "eu-west-2")
    words = "run mapping.yaml export.csv"
    if named_by == "--endpoint-url":
        words += f" --endpoint-url {url}"
    elif named_by == "profile":
        config = tmp_path / "config"
        config.write_text(
            f"[default]\nservices = s\n[services s]\nconnect =\n  endpoint_url = {url}\n"
        )
        monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    else:
        monkeypatch.setenv(named_by, url)
    ran = call(words)
    assert (ran.code, ran.out, ran.error) == (2, "", PLAIN)
    assert call(f"{words} --allow-http").code == 0
    assert reached == [("eu-west-2", url)]


def test_a_plan_refuses_plain_http_too(call, monkeypatch):
    """What a run would be refused for, its plan is refused for."""
    monkeypatch.setenv("AWS_REGION", "eu-west-2")
    words = "plan mapping.yaml export.csv --rate 5 --endpoint-url http://connect.invalid:8080"
    ran = call(words)
    assert (ran.code, ran.out, ran.err) == (2, "", PLAIN)
    assert "Nothing was sent." in call(f"{words} --allow-http").out


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_password_in_an_endpoint_is_refused_and_not_repeated(call, configs, command):
    """It would stand in the command that goes on; exit code 2, and no word of it."""
    url = "https://me:hunter2@connect.invalid"
    ran = call(f"{command} mapping.yaml export.csv --rate 5 --endpoint-url {url}")
    assert (ran.code, ran.out) == (2, "")
    assert configs == []
    assert "holds a user name or a password" in ran.err
    assert "hunter2" not in ran.err


def test_an_endpoint_of_the_environment_tells_a_local_run_from_a_real_one(
    call, configs, monkeypatch
):
    """The configuration knows it, so that a rehearsal never shares a directory with a run."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    call("run mapping.yaml export.csv")
    assert configs[0].connection.endpoint_url == "http://127.0.0.1:1"


def test_the_sandbox_comes_before_an_endpoint_of_the_environment(call, configs, monkeypatch):
    """--sandbox is typed, so it wins over AWS_ENDPOINT_URL."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    ran = call("run mapping.yaml export.csv --sandbox")
    assert ran.code == 0
    assert configs[0].connection.endpoint_url not in (None, "http://127.0.0.1:1")
    assert configs[0].connection.region == "us-east-1"
    assert "A rehearsal: requests go to a sandbox on this machine, none to AWS." in ran.err


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--rate 0", '"0" is no rate: it is "quota", "auto", or requests a second above 0.'),
        ("--rate nan", '"nan" is no rate'),
        ("--rate inf", '"inf" is no rate'),
        ("--rate fast", '"fast" is no rate'),
        ("--quota-share 0", "--quota-share is 0; it must be above 0 and at most 1."),
        ("--quota-share 1.5", "--quota-share is 1.5; it must be above 0 and at most 1."),
        ("--quota-share nan", "--quota-share is nan; it must be above 0 and at most 1."),
        (
            "--exclusive --quota-share 0.8",
            "--exclusive takes all of the quota; leave --quota-share out.",
        ),
        ("--limit 0", "--limit is 0; it must be at least 1."),
        ("--limit many", "'many' is not a valid integer."),
        ("--max-in-flight 0", "--max-in-flight is 0; it must be at least 1."),
        ("--max-attempts 0", "--max-attempts is 0; it must be at least 1."),
        ("--max-failures 0", '"0" is none of N (failures in a row with one code), P% (of'),
        ("--max-failures 101%", '"101%" is none of N'),
        ("--max-failures often", '"often" is none of N'),
        ("--cli-connect-timeout -1", "-1 is no time; it is a number of seconds from 0."),
        ("--cli-read-timeout nan", "nan is no time; it is a number of seconds from 0."),
        ("--color blue", "'blue' is not one of 'on', 'off', 'auto'."),
        ("--frobnicate", "No such option"),
        (
            "--sandbox --endpoint-url http://127.0.0.1:9",
            "--sandbox and --endpoint-url exclude each other: the one starts its own endpoint.",
        ),
    ],
)
def test_a_flag_that_makes_no_sense_is_refused_in_one_line(call, configs, flags, says):
    """Exit code 2, one line that names the flag's value, and no run."""
    ran = call(f"run mapping.yaml export.csv {flags}")
    assert (ran.code, ran.out, configs) == (2, "", [])
    assert ran.err.startswith("error: ")
    assert ran.error.count("\n") == 1
    assert says in ran.err


def test_the_command_that_goes_on_is_the_one_that_was_typed(call, configs, monkeypatch):
    """Words keep their quotes, `--fresh` is left out, and the program is named as it was."""
    call("run mapping.yaml 'my export.csv' --fresh --rate 5")
    assert configs[0].command == "bulk-updater run mapping.yaml 'my export.csv' --rate 5"
    words = ["run", "mapping.yaml", "export.csv"]
    module = command_to_go_on(["/x/bulk_updater/__main__.py", *words])
    assert module == f"{sys.executable} -m bulk_updater run mapping.yaml export.csv"
    installed = ["/opt/tools/bulk-updater", "run", "m.yaml", "e.csv"]
    assert command_to_go_on(installed) == "/opt/tools/bulk-updater run m.yaml e.csv"
    monkeypatch.setattr("shutil.which", lambda name: f"/opt/tools/{name}")
    assert command_to_go_on(installed) == "bulk-updater run m.yaml e.csv"
