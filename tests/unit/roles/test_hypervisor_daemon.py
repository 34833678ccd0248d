# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role does by itself and what it waits for, against the catalogue of controls it comes from."""

from __future__ import annotations

import json
import re
import typing as t
from pathlib import Path

import pytest
import yaml

from ansible_collections.hypervisor.hardening.plugins.modules import libvirt_conf
from ansible_collections.hypervisor.hardening.tests.unit.plugins.ansibleplay import play

ROLE = Path(__file__).parents[3] / "roles/hypervisor_daemon"
DEFAULTS = yaml.safe_load((ROLE / "defaults/main.yml").read_text(encoding="utf-8"))
TASKS = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in (ROLE / "tasks").glob("*.yml")}
MAIN = {task["ansible.builtin.include_tasks"]["file"][:-4]: task for task in TASKS["main"] if "when" in task}

# Topic: its switch, and whether the catalogue lets a role do it by itself (auto) or when it is asked (optin, advise).
TOPICS = {
    "tcp": ("hypervisor_daemon_tcp_off", True),  # DMN-01, DMN-04
    "sockets": ("hypervisor_daemon_sockets", True),  # DMN-06, DMN-08
    "tls": ("hypervisor_daemon_tls", True),  # DMN-02
    "sasl": ("hypervisor_daemon_sasl_mechanisms", False),  # DMN-05
    "access": ("hypervisor_daemon_access_drivers", False),  # DMN-11
    "audit": ("hypervisor_daemon_audit", False),  # LOG-01
    "logs": ("hypervisor_daemon_logs", True),  # LOG-03
    "limits": ("hypervisor_daemon_limits", False),  # DMN-18
    "permissions": ("hypervisor_daemon_permissions", True),  # DMN-13, DMN-14, DMN-15, DMN-17
    "report": ("hypervisor_daemon_report", True),  # DMN-09, DMN-10, DMN-12
}
# What waits for its own variable inside a topic.
OPT_IN = {
    "hypervisor_daemon_socket_group": "",
    "hypervisor_daemon_monitor_group": "",  # DMN-07
    "hypervisor_daemon_tls_clients": [],  # DMN-03
    "hypervisor_daemon_no_debug_logging": False,  # LOG-04
    "hypervisor_daemon_cut_off": False,
    "hypervisor_daemon_settings": {},
}


def test_each_topic_has_a_file_a_tag_and_a_switch() -> None:
    assert MAIN.keys() == TOPICS.keys()
    for name, task in MAIN.items():
        assert task["tags"] == task["ansible.builtin.include_tasks"]["apply"]["tags"] == ["daemon", f"daemon_{name}"]
        assert bool(DEFAULTS[TOPICS[name][0]]) is TOPICS[name][1]


def test_what_can_break_something_is_off() -> None:
    assert {name: DEFAULTS[name] for name in OPT_IN} == OPT_IN


def test_facts_are_there_whatever_topic_is_run_alone() -> None:
    look = TASKS["main"][0]
    assert "hypervisor.hardening.hypervisor_info" in look
    assert set(look["tags"]) == {tag for task in TASKS["main"][1:] for tag in task["tags"]}


def test_whatever_is_written_can_ask_for_a_restart() -> None:
    written = {
        task["register"] for tasks in TASKS.values() for task in tasks if "hypervisor.hardening.libvirt_conf" in task
    }
    names = yaml.safe_load((ROLE / "vars/main.yml").read_text(encoding="utf-8"))["__hypervisor_daemon_written"]
    assert len(written) == 10
    assert [name for name in written if f"{name} | default({{}})" not in names] == []


def test_daemons_are_those_that_the_module_takes() -> None:
    assert {"libvirtd", "virtqemud", "virtproxyd", "virtlogd", "virtlockd"} <= set(libvirt_conf.DAEMONS)


def test_what_the_audit_advises_is_there() -> None:
    rules = [path.read_text(encoding="utf-8") for path in (ROLE.parent / "hypervisor_audit/files/rules").glob("*.yml")]
    named = {name for text in rules for name in re.findall(r"variable: (hypervisor_daemon_\w+)", text)}
    composed = yaml.safe_load((ROLE.parent / "hypervisor/defaults/main.yml").read_text(encoding="utf-8"))
    assert named
    assert named <= {*DEFAULTS, *composed}


def facts(*daemons: str, layout: str = "monolithic", **sections: t.Any) -> dict[str, t.Any]:
    is_there = {"installed": True, "active": True, "enabled": True}
    return {
        "daemons": [{"name": name, **is_there} for name in (*daemons, "virtlogd", "virtlockd")],
        "libvirt": {"layout": layout},
        "sockets": [],
        "listeners": [],
        "configuration": {"virtlogd.conf": {"read_by": "virtlogd", "settings": {}}},
        "groups": {"groups": []},
        "files": {"polkit": {"rules": []}},
        "logging": {"audit": {"running": False}},
        **sections,
    }


def socket(kind: str, **others: t.Any) -> dict[str, t.Any]:
    unit = "libvirtd.socket" if kind == "rw" else f"libvirtd-{kind}.socket"
    made = {"name": f"/run/{kind}", "kind": kind, "daemon": "libvirtd", "unit": unit, "authentication": "polkit"}
    return {**made, "enabled": True, "listening": True, **others}


OPEN = facts("libvirtd", sockets=[socket("rw", authentication="none")])
GUARDED = facts("libvirtd", sockets=[socket("rw")])
TCP = facts(
    "libvirtd",
    sockets=[socket("tcp", name="0.0.0.0:16510")],
    listeners=[
        {"name": "0.0.0.0:16510", "port": 16510, "kind": "daemon", "process": "libvirtd"},
        {"name": "0.0.0.0:16514", "port": 16514, "kind": "daemon", "process": "libvirtd"},
    ],
)
UNBOUNDED = {"virtlogd.conf": {"read_by": "virtlogd", "settings": {"max_size": 0, "max_backups": 99}}}
PEOPLE = facts(
    *("libvirtd", "virtqemud"),
    groups={"groups": [{"name": "libvirt", "present": True, "members": ["alice", "mallory"]}]},
    files={
        "polkit": {
            "rules": [
                {"name": "/a", "verdict": "blanket", "actions": []},
                {"name": "/b", "verdict": None, "actions": []},
            ]
        }
    },
)
MODULAR = facts("virtqemud", "virtproxyd", layout="modular")

# A variable of the role, the host's facts, what the operator has set, and what the variable then is.
CASES: list[tuple[str, dict[str, t.Any], dict[str, t.Any], t.Any]] = [
    ("clients", facts("libvirtd", "virtqemud"), {}, ["libvirtd"]),
    ("clients", MODULAR, {}, ["virtqemud", "virtproxyd"]),
    ("remote", facts("libvirtd"), {}, ["libvirtd"]),
    ("remote", MODULAR, {}, ["virtproxyd"]),
    ("remote", facts("virtqemud", layout="modular"), {}, []),
    # polkit with an open socket, or a closed one without
    ("socket_mode", GUARDED, {}, ""),
    ("socket_mode", GUARDED, {"socket_group": "libvirt"}, "0660"),
    ("socket_mode", OPEN, {"socket_group": "libvirt"}, "0660"),
    ("socket_mode", OPEN, {}, "0600"),
    ("ro_group", GUARDED, {"monitor_group": "watch", "level": "baseline"}, ""),
    ("ro_group", GUARDED, {"monitor_group": "watch"}, "watch"),
    ("tcp_units", TCP, {}, ["libvirtd-tcp.socket"]),
    ("tcp_holders", TCP, {}, ["libvirtd"]),
    ("restart_units", TCP, {}, ["libvirtd.service"]),
    ("restart_units", TCP, {"tcp_off": "false"}, []),
    ("log_settings", facts("libvirtd"), {}, {}),
    ("log_settings", facts("libvirtd", configuration=UNBOUNDED), {}, {"max_size": None, "max_backups": None}),
    (
        "log_settings",
        facts("libvirtd", configuration=UNBOUNDED),
        {"log_size": 1048576},
        {"max_size": "1048576", "max_backups": None},
    ),
    ("tls_names", GUARDED, {"tls_clients": "CN=a", "level": "baseline"}, []),
    ("tls_pattern", GUARDED, {"tls_clients": ["CN=manager*,O=E.", "CN=b?"]}, r"^(CN=manager.*,O=E\.|CN=b.)$"),
    ("audit_level", GUARDED, {"level": "strict"}, 1),
    ("audit_level", facts("libvirtd", logging={"audit": {"running": True}}), {"level": "strict"}, 2),
    ("audit_level", facts("libvirtd", logging={"audit": {"running": True}}), {}, 1),
]


@pytest.fixture(scope="module")
def templated(tmp_path_factory: pytest.TempPathFactory) -> list[t.Any]:
    """What Ansible makes of the role's variables on a host for each case, and of the report on one more."""
    directory = tmp_path_factory.mktemp("play")
    asked = [*CASES, ("lines", PEOPLE, {"operators": "alice"}, None)]
    hosts = {
        f"case{number}": {
            "asked": f"__hypervisor_daemon_{name}",
            "__hypervisor_daemon_info": {"hypervisor": known},
            **{f"hypervisor_daemon_{key}": value for key, value in own.items()},
        }
        for number, (name, known, own, _expected) in enumerate(asked)
    }
    defaults = {key: value for key, value in DEFAULTS.items() if key != "hypervisor_daemon_level"}
    local = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
    shared = {**local, "hypervisor_daemon_level": "hardened", **defaults}
    tasks = [
        {"ansible.builtin.set_fact": {"found": "{{ lookup('ansible.builtin.vars', asked) }}"}},
        {
            "ansible.builtin.copy": {
                "content": "{{ hosts | map('extract', hostvars, 'found') | to_json }}",
                "dest": str(directory / "found.json"),
                "mode": "0600",
            },
            "vars": {"hosts": list(hosts)},
            "run_once": True,
        },
    ]
    plays = [{"hosts": "all", "gather_facts": False, "vars_files": [str(ROLE / "vars/main.yml")], "tasks": tasks}]
    (directory / "inventory.json").write_text(json.dumps({"all": {"hosts": hosts, "vars": shared}}), encoding="utf-8")
    (directory / "play.json").write_text(json.dumps(plays), encoding="utf-8")
    play(directory, "-i", "inventory.json", "play.json")
    found: list[t.Any] = json.loads((directory / "found.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: f"{CASES[number][0]}{number}")
def test_what_follows_from_a_host_and_from_what_is_set(templated: list[t.Any], number: int) -> None:
    assert templated[number] == CASES[number][3]


def test_what_a_person_has_to_decide_on(templated: list[t.Any]) -> None:
    assert [line.split()[0] for line in templated[-1]] == ["Both", "mallory", "/a", "/b"]


@pytest.mark.parametrize(("subject", "is_let_in"), [("CN=manager1,O=E.", True), ("CN=manager1,O=E.,C=GB", False)])
def test_a_pattern_is_held_against_the_whole_subject(templated: list[t.Any], subject: str, is_let_in: bool) -> None:
    (number,) = [number for number, case in enumerate(CASES) if case[0] == "tls_pattern"]
    assert bool(re.match(templated[number], subject)) is is_let_in
