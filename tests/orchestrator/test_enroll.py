"""`mas enroll`, `revoke` and `broker-config` as an operator uses them, and the files that they leave."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_origin

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.edge_agent.config import AgentConfig
from mas_edge.orchestrator.cli import main
from mas_edge.orchestrator.fleet import board_config
from mas_edge.orchestrator.service import OrchestratorConfig
from mas_edge.wire.host import load_config

try:
    import tomllib
except ImportError:
    import tomli as tomllib

BROKER = ("--broker", "mqtts://broker.example")
DATA = ("--data", "watch=1,5")


@pytest.fixture
def mas(tmp_path, monkeypatch):
    """Runs `mas` in an empty folder, in which the authority of fleet "home" is kept too."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: main([*words, "--authority", "ca"])


def first(mas):
    assert mas("enroll", "edge-1", *BROKER, *DATA, "--fleet", "home") == 0


def test_a_device_gets_a_configuration_that_the_agent_takes_as_it_is(mas):
    assert mas("enroll", "edge-1", *BROKER, *DATA, "--data", "folder=attic", "--fleet", "home") == 0
    config = load_config(Path("edge-1/agent.toml"), AgentConfig)
    assert (config.device, config.fleet, config.broker.url) == (
        "edge-1",
        "home",
        "mqtts://broker.example:8883",
    )
    assert {name: data.clients for name, data in config.data.items()} == {
        "watch": ("1", "5"),
        "folder": ("attic",),
    }
    for path in (config.broker.ca, config.broker.cert, config.broker.key):
        assert Path(path).parent == Path("/etc/mas-edge")
        assert (Path("edge-1") / Path(path).name).exists()


def test_paths_are_those_of_where_the_files_will_lie(mas):
    assert (
        mas("enroll", "edge-1", *BROKER, *DATA, "--fleet", "home", "--target", "/opt/x/", "--out", "out") == 0
    )
    assert load_config(Path("out/agent.toml"), AgentConfig).broker.key == "/opt/x/edge-1.key"


def test_the_orchestrator_gets_its_own(mas):
    assert mas("enroll", "orchestrator", *BROKER, "--fleet", "home") == 0
    config = load_config(Path("orchestrator/orchestrator.toml"), OrchestratorConfig)
    assert (config.fleet, config.broker.cert) == ("home", "/etc/mas-edge/orchestrator.pem")


def keys(kind, prefix=""):
    """Every key of a configuration, down to the last table; those of [data.NAME] under NAME."""
    for field in msgspec.structs.fields(kind):
        parts = getattr(field.type, "__args__", (field.type,))
        inner = next((p for p in parts if isinstance(p, type) and issubclass(p, msgspec.Struct)), None)
        name = f"{prefix}{field.encode_name}"
        named = get_origin(field.type) is dict
        yield from keys(inner, f"{name}.NAME." if named else f"{name}.") if inner else (name,)


def said(text):
    """Every key that a text sets or shows, named as above."""
    table = ""
    for line in text.splitlines():
        if heading := re.fullmatch(r"(?:# )?\[(.*)\]", line):
            table = re.sub(r"^data\..*", "data.NAME", heading[1]) + "."
        elif setting := re.match(r"(?:# )?(\w+) = .* # \w", line):
            yield table + setting[1]


AGENT = board_config.agent_toml("edge-1", "home", "mqtts://broker", {"watch": ("1",)}, "/etc/mas-edge")
ORCHESTRATOR = board_config.orchestrator_toml("home", "mqtts://broker", "/etc/mas-edge")


@pytest.mark.parametrize(("text", "kind"), [(AGENT, AgentConfig), (ORCHESTRATOR, OrchestratorConfig)])
def test_every_key_that_there_is_is_shown_once_and_explained(text, kind):
    assert sorted(said(text)) == sorted(keys(kind))


@pytest.mark.parametrize(("text", "kind"), [(AGENT, AgentConfig), (ORCHESTRATOR, OrchestratorConfig)])
def test_what_is_commented_out_is_the_default_or_says_that_it_is_not_set(tmp_path, text, kind):
    plain, shown = tmp_path / "plain.toml", tmp_path / "shown.toml"
    plain.write_text(text)
    defaults = [line.removeprefix("# ") if "# not set" not in line else "" for line in text.splitlines()[2:]]
    shown.write_text("\n".join(defaults))
    assert load_config(shown, kind) == load_config(plain, kind)
    shown.write_text("\n".join(line.removeprefix("# ") for line in text.splitlines()[2:]))
    load_config(shown, kind)


@given(
    folder=st.text(st.characters(exclude_categories=["Cc", "Cs"])),
    clients=st.lists(st.text("a\"\\'#é ", min_size=1)),
)
def test_whatever_stands_in_a_name_is_quoted(folder, clients):
    text = board_config.agent_toml("edge-1", "home", "mqtts://b", {"watch": tuple(clients)}, folder)
    config = tomllib.loads("\n".join(text.splitlines()[1:]))
    assert (config["data"]["watch"]["clients"], config["broker"]["ca"]) == (clients, f"{folder}/ca.pem")


def test_private_keys_are_for_their_owner_alone_and_are_never_printed(mas, capsys):
    first(mas)
    assert mas("enroll", "orchestrator", *BROKER) == 0
    assert mas("broker-config", "--name", "broker.example", "--out", "broker") == 0
    out, err = capsys.readouterr()
    assert "PRIVATE" not in out + err
    files = [path for path in Path().rglob("*") if path.is_file()]
    secret = {str(path) for path in files if b"PRIVATE" in path.read_bytes()}
    assert secret == {
        "ca/ca.key",
        "edge-1/edge-1.key",
        "orchestrator/orchestrator.key",
        "broker/broker.key",
    }
    assert {oct(Path(path).stat().st_mode & 0o777) for path in secret} == {"0o600"}
    folders = {oct(Path(path).parent.stat().st_mode & 0o777) for path in secret}
    assert folders == {"0o700"}


def test_revoking_says_what_the_broker_needs(mas, capsys):
    first(mas)
    capsys.readouterr()
    assert mas("revoke", "edge-1") == 0
    said_ = capsys.readouterr().out
    assert said_.startswith("edge-1: 1 certificate revoked")
    assert "ca/crl.pem" in said_
    assert "systemctl restart mosquitto" in said_


ENROLL = ("enroll", "edge-2", *BROKER)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("enroll", "edge-1", *BROKER, *DATA, "--out", "o"), r"edge-1 is enrolled until .*--renew"),
        (
            ("enroll", "edge-1", *BROKER, *DATA),
            r"edge-1 holds edge-1\.key already: remove it, or name another",
        ),
        (("enroll", "Edge_2", *BROKER, *DATA), r"device name 'Edge_2': use 1 to 48 of a-z"),
        (("enroll", "all", *BROKER, *DATA), r"device name 'all': .*neither 'all' nor 'orchestrator'"),
        (("enroll", "../x", *BROKER, *DATA), r"device name '\.\./x': use"),
        ((*ENROLL, *DATA, "--fleet", "away"), r"ca is the authority of fleet 'home', not of 'away'"),
        (("enroll", "edge-2", "--broker", "mqtt://b", *DATA), r"--broker mqtt://b: identities need TLS"),
        (("enroll", "edge-2", "--broker", "b", *DATA), r"broker address 'b': write mqtt://HOST"),
        (ENROLL, r"edge-2: --data WORKLOAD=CLIENT,\.\.\. is for devices, and they need it"),
        (("enroll", "orchestrator", *BROKER, *DATA), r"orchestrator: --data .* is for devices"),
        ((*ENROLL, "--data", "watch"), r"--data watch: write WORKLOAD=CLIENT,CLIENT"),
        ((*ENROLL, "--data", "watch=1,,2"), r"--data watch=1,,2: write"),
        ((*ENROLL, "--data", "a.b=1"), r"--data a\.b=1: write"),
        ((*ENROLL, *DATA, *DATA), r"--data watch=1,5: write .*each workload once"),
        ((*ENROLL, *DATA, "--out", "ca/ca.pem"), r"--out ca/ca\.pem: File exists; name a folder"),
        ((*ENROLL, *DATA, "--target", "x/y"), r"--target 'x/y': name the folder from / on"),
        (("broker-config", "--name", "b", "--out", "o", "--target", "/x\ny"), r"--target '/x\\ny': name"),
        (("revoke", "edge-9"), r"'edge-9' was never enrolled; there are: edge-1"),
        (("broker-config", "--name", "a b", "--out", "o"), r"broker name 'a b': write a host name"),
        (("broker-config", "--name", "b", "--out", "o", "--port", "0"), r"--port 0: a port is 1 to 65535"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_and_leaves_nothing(mas, capsys, words, why):
    first(mas)
    capsys.readouterr()
    before = sorted(Path().rglob("*"))
    assert mas(*words) == 2
    out, err = capsys.readouterr()
    assert re.match(f"mas: {why}", err), err
    assert (out, err.count("\n")) == ("", 1)
    assert sorted(Path().rglob("*")) == before


def test_an_identity_that_was_made_is_never_overwritten(mas):
    first(mas)
    key = Path("edge-1/edge-1.key").read_bytes()
    Path("edge-1/edge-1.pem").unlink()
    assert mas("enroll", "edge-1", *BROKER, *DATA, "--renew") == 2
    assert Path("edge-1/edge-1.key").read_bytes() == key


def test_a_broker_is_configured_again_with_a_new_key_and_the_newest_list(mas):
    first(mas)
    again = ("broker-config", "--name", "broker.example", "--out", "broker")
    assert mas(*again) == 0
    before = {path.name: path.read_bytes() for path in Path("broker").iterdir()}
    assert mas("revoke", "edge-1") == 0
    assert mas(*again) == 0
    after = {path.name: path.read_bytes() for path in Path("broker").iterdir()}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"broker.key", "broker.pem", "crl.pem"}
    assert after["crl.pem"] == Path("ca/crl.pem").read_bytes()
