# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""hypervisor_info on real hosts: what it says of libvirt, its daemons, sockets, listeners and files, against what ss,
systemctl, virsh and libvirt itself say."""

from __future__ import annotations

import json
import pathlib
import re
import time
import typing as t
from xml.etree import ElementTree

import pytest
import rig
from rig import guests, modules

from ansible_collections.hypervisor.hardening.plugins.module_utils._info import SECTIONS
from ansible_collections.hypervisor.hardening.plugins.plugin_utils import _audit, _factpaths, _rules
from ansible_collections.hypervisor.hardening.tests.unit.plugins.documented import mismatches

ROOT = pathlib.Path(__file__).resolve().parents[2]
MINE = (
    *("host", "libvirt", "daemons", "sockets", "listeners", "configuration", "capabilities"),
    *("logging", "tls", "secrets"),
)
RELEASES = {"bookworm": ("12", "9.0.0"), "trixie": ("13", "11.3.0")}
QEMU_CONF = "/etc/libvirt/qemu.conf"
DAEMON_CONF = "/etc/libvirt/libvirtd.conf"
DROP_IN = "/etc/systemd/system/libvirtd.socket.d/mode.conf"
SOCKET = "/run/libvirt/libvirt-sock"
SOCKETS = ("libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket")
LIBRARY = "/usr/lib/python3/dist-packages/libvirt.py"
VNC = "<graphics type='vnc' port='-1' autoport='yes' listen='{}'/>"


def kept(path: str) -> str:
    return "/root/" + path.rpartition("/")[2]


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def machine(request: pytest.FixtureRequest) -> t.Iterator[rig.Host]:
    with rig.host(request.param) as fresh:
        for path in (QEMU_CONF, DAEMON_CONF):
            fresh.put(kept(path), fresh.get(path), mode=0o600)
        yield fresh


@pytest.fixture
def host(machine: rig.Host) -> t.Iterator[rig.Host]:
    try:
        yield machine
    finally:
        machine.run(["systemctl", "kill", "--signal=CONT", "libvirtd"], check=False)
        for path in (QEMU_CONF, DAEMON_CONF):
            machine.put(path, machine.get(kept(path)), mode=0o600)
        machine.run(["rm", "-rf", DROP_IN.rpartition("/")[0], "/etc/libvirt/virtqemud.conf"])
        machine.run(["systemctl", "daemon-reload"])
        # systemd makes no socket anew for a service that runs
        machine.run(["systemctl", "stop", "libvirtd-tcp.socket", "libvirtd", *SOCKETS])
        machine.run(["systemctl", "reset-failed"])
        machine.run(["systemctl", "start", *SOCKETS, "libvirtd"])
        guests.virsh(machine, "uri")
        guests.stop_all(machine)


def look(host: rig.Host, *, connect: bool = False) -> dict[str, t.Any]:
    result = modules.call(host, "hypervisor_info", connect=connect)
    assert "failed" not in result, result
    assert result["changed"] is False
    found: dict[str, t.Any] = result["hypervisor"]
    return found


def state(facts: dict[str, t.Any], rule_id: str, name: str | None = None) -> str:
    """What a rule makes of the facts, of one object if it has several."""
    findings = {
        one["object"]["name"]: one["state"]
        for rule in RULES
        if rule.id == rule_id
        for one in _audit.Evaluation([rule]).of_rule(rule, _audit.Host("host", facts))
    }
    return str(findings[name or "host"])


RULES = _rules.load(
    [ROOT / "roles/hypervisor_audit/files/rules"], _factpaths.documented(ROOT / "plugins/modules/hypervisor_info.py")
)


def test_facts_are_as_documented(host: rig.Host) -> None:
    guests.start(host, guests.Guest("web"))
    facts = look(host)
    assert list(facts) == list(SECTIONS)
    assert [found for section in MINE for found in mismatches(section, facts[section])] == []
    assert [section for section, found in facts.items() if isinstance(found, dict) and set(found) == {"error"}] == []


def test_the_host_and_its_libvirt(host: rig.Host) -> None:
    facts = look(host)
    version, libvirt = RELEASES[host.release]
    assert (facts["host"]["os"]["id"], facts["host"]["os"]["version"]) == ("debian", version)
    assert facts["host"]["hostname"] == host.run(["hostname"]).stdout.strip()
    assert facts["host"]["kernel"] == host.run(["uname", "-r"]).stdout.strip()
    found = facts["libvirt"]
    assert (found["version"], found["layout"], found["active"]) == (libvirt, "monolithic", True)
    said = guests.virsh(host, "version")
    assert found["qemu_version"] == re.findall(r"Running hypervisor: QEMU (\S+)", said)[0]
    assert (found["restart_required"], found["built_with"]["polkit"]) == (False, True)
    # both of Debian's are built after the commit, and with a glibc that has explicit_bzero
    assert found["secure_erase"]["state"] == "present"
    symbols = host.run(["grep", "-c", "explicit_bzero", found["version_from"]]).stdout.strip()
    assert int(symbols) >= 1


def test_sockets_are_as_systemctl_and_stat_have_them(host: rig.Host) -> None:
    found = {entry["name"]: entry for entry in look(host)["sockets"]}
    assert {SOCKET, f"{SOCKET}-ro", "/run/libvirt/libvirt-admin-sock", "16509", "16514"} <= set(found)
    for entry in found.values():
        show = host.run(["systemctl", "show", "-p", "SocketMode,UnitFileState,Listen", entry["unit"]]).stdout
        unit = dict(line.split("=", 1) for line in show.splitlines())
        assert (entry["unit_mode"], "enabled" if entry["enabled"] else "disabled") == (
            unit["SocketMode"],
            unit["UnitFileState"],
        )
        assert entry["name"].removeprefix("/run/") in unit["Listen"]
        if entry["exists"]:
            shown = host.run(["stat", "-c", "%04a %U %G", entry["name"]]).stdout.split()
            assert [entry["mode"], entry["owner"], entry["group"]] == shown
    listening = host.run(["ss", "-Hxl"]).stdout
    assert {name for name in found if found[name]["listening"]} == {name for name in found if f" {name} " in listening}


def test_a_drop_in_of_a_socket_is_pending_until_it_is_restarted(host: rig.Host) -> None:
    host.run(["mkdir", "-p", DROP_IN.rpartition("/")[0]])
    host.put(DROP_IN, b"[Socket]\nSocketMode=0600\n")
    host.run(["systemctl", "daemon-reload"])
    facts = look(host)
    (found,) = [entry for entry in facts["sockets"] if entry["name"] == SOCKET]
    assert (found["unit_mode"], found["mode"], found["open_to"]) == ("0600", "0666", "others")
    (daemon,) = [entry for entry in facts["daemons"] if entry["name"] == "libvirtd"]
    assert daemon["units_newer"] == [DROP_IN]
    assert state(facts, "libvirt-config-active", "libvirtd") == "fail"
    host.run(["systemctl", "stop", "libvirtd"])
    host.run(["systemctl", "restart", "libvirtd.socket"])
    (found,) = [entry for entry in look(host)["sockets"] if entry["name"] == SOCKET]
    assert (found["mode"], found["open_to"]) == ("0600", "owner")


def test_a_socket_without_authentication_is_root_for_all(host: rig.Host) -> None:
    assert state(look(host), "libvirt-rw-socket-auth", SOCKET) == "pass"
    host.put(DAEMON_CONF, b'auth_unix_rw = "none"\n' + host.get(DAEMON_CONF), mode=0o600)
    guests.restart_libvirtd(host)
    facts = look(host)
    assert state(facts, "libvirt-rw-socket-auth", SOCKET) == "fail"
    host.run(["useradd", "--no-create-home", "mallory"], check=False)
    command = ["setpriv", "--reuid=mallory", "--regid=mallory", "--clear-groups"]
    assert "qemu" in host.run([*command, "virsh", "-c", "qemu:///system", "uri"]).stdout


def test_listeners_are_those_of_ss(host: rig.Host) -> None:
    assert look(host)["listeners"] == []
    host.run(["systemctl", "stop", "libvirtd"])
    host.run(["systemctl", "start", "libvirtd-tcp.socket"])
    facts = look(host)
    (found,) = facts["listeners"]
    assert (found["port"], found["kind"], found["process"], found["loopback"]) == (
        *(16509, "systemd"),
        *("libvirtd-tcp.socket", False),
    )
    assert state(facts, "libvirt-tcp-listener-off") == "fail"
    (socket,) = [entry for entry in facts["sockets"] if entry["name"] == "16509"]
    assert (socket["listening"], socket["enabled"], socket["authentication"]) == (True, False, "sasl")
    assert ":16509 " in host.run(["ss", "-Hltn"]).stdout


def test_consoles_of_guests_that_listen(host: rig.Host) -> None:
    pid = guests.start(host, guests.Guest("open", extra_devices=[VNC.format("0.0.0.0")]))
    guests.start(host, guests.Guest("local", extra_devices=[VNC.format("127.0.0.1")]))
    facts = look(host)
    found = {entry["guest"]: entry for entry in facts["listeners"] if entry["kind"] == "qemu"}
    assert set(found) == {"open", "local"}
    assert (found["open"]["pid"], found["open"]["loopback"], found["local"]["loopback"]) == (pid, False, True)
    shown = host.run(["ss", "-Hltnp"]).stdout
    assert re.search(rf"0\.0\.0\.0:{found['open']['port']}\s.*pid={pid},", shown)
    assert state(facts, "qemu-display-listen-local") == "fail"


def test_capabilities_are_those_of_virsh(host: rig.Host) -> None:
    found = look(host)["capabilities"]
    assert (found["connected"], found["reason"]) == (True, "")
    capabilities = ElementTree.fromstring(guests.virsh(host, "-r", "capabilities"))
    assert found["host_uuid"] == capabilities.findtext("host/uuid")
    assert [one["model"] for one in found["secmodels"]] == [
        model.text for model in capabilities.findall("host/secmodel/model")
    ]
    label = next(label.text for label in capabilities.iter("baselabel") if (label.text or "").startswith("+"))
    assert (label, found["dac"]["source"]) == (f"+{found['dac']['uid']}:+{found['dac']['gid']}", "capabilities")
    domain = ElementTree.fromstring(guests.virsh(host, "domcapabilities"))
    assert (found["machine_default"], found["domain_type"]) == (domain.findtext("machine"), domain.findtext("domain"))
    sev = domain.find("features/sev")
    assert sev is not None
    assert (found["sev"]["state"] == "present") == (sev.get("supported") == "yes")
    assert found["sev_snp"]["state"] in ("present", "absent")


def test_an_idle_daemon_sleeps_on_unless_it_is_to_be_asked(host: rig.Host) -> None:
    host.run(["systemctl", "stop", "libvirtd"])
    found = look(host)["capabilities"]
    assert host.run(["systemctl", "is-active", "libvirtd"], check=False).stdout.strip() == "inactive"
    assert (found["connected"], found["secmodels"]) == (False, None)
    assert found["reason"] == "libvirtd is idle and was not woken (connect: false)."
    # 64055 is the number that Debian's postinst gives libvirt-qemu
    assert found["dac"]["uid"] == 64055
    assert look(host, connect=True)["capabilities"]["connected"] is True
    assert host.run(["systemctl", "is-active", "libvirtd"]).stdout.strip() == "active"


def test_a_daemon_that_hangs_costs_nothing(host: rig.Host) -> None:
    host.run(["systemctl", "kill", "--signal=STOP", "libvirtd"])
    begun = time.monotonic()
    facts = look(host, connect=True)
    assert time.monotonic() - begun < 10
    assert facts["libvirt"]["suspended"] is True
    assert facts["capabilities"]["reason"] == "libvirtd is suspended and would not answer."


def test_a_daemon_that_is_down(host: rig.Host) -> None:
    host.run(["systemctl", "stop", "libvirtd", *SOCKETS])
    facts = look(host, connect=True)
    assert (facts["libvirt"]["active"], facts["libvirt"]["idle"]) == (False, False)
    assert facts["capabilities"]["reason"] == "libvirtd does not run, and nothing listens for it."


def test_a_host_without_python3_libvirt(host: rig.Host) -> None:
    host.run(["mv", LIBRARY, f"{LIBRARY}.away"])
    try:
        found = look(host)["capabilities"]
    finally:
        host.run(["mv", f"{LIBRARY}.away", LIBRARY])
    assert found["connected"] is False
    assert "python3-libvirt" in found["reason"]


def test_what_libvirt_ignores_and_what_it_refuses(host: rig.Host) -> None:
    text = b'security_default_confied = 0\nuser = "libvirt-qemu"\nuser = "root"\nvnc_password = "x7"\n'
    host.put(QEMU_CONF, text, mode=0o600)
    guests.restart_libvirtd(host)
    guests.virsh(host, "uri")  # libvirt takes it without a word
    facts = look(host)
    found = facts["configuration"]["qemu.conf"]
    assert found["unknown"] == [{"key": "security_default_confied", "nearest": "security_default_confined"}]
    assert found["duplicates"] == [{"key": "user", "count": 2}]
    assert found["settings"] == {"security_default_confied": 0, "user": "libvirt-qemu", "vnc_password": "(set)"}
    assert "x7" not in json.dumps(facts)
    assert state(facts, "trap-misspelt-keys", QEMU_CONF) == "fail"
    assert state(facts, "trap-duplicate-keys", QEMU_CONF) == "fail"
    assert state(facts, "trap-refused-file", QEMU_CONF) == "pass"
    host.put(QEMU_CONF, b"max_files = 5\nuser = root\n", mode=0o600)
    facts = look(host)
    assert facts["configuration"]["qemu.conf"]["error"].startswith("line 2:")
    assert state(facts, "trap-refused-file", QEMU_CONF) == "fail"
    assert state(facts, "qemu-default-confined") == "fail"  # it is not what the daemon has loaded
    host.run(["mkdir", "-p", "/tmp/embed/etc"])
    host.put("/tmp/embed/etc/qemu.conf", host.get(QEMU_CONF), mode=0o600)
    refused = host.run(["virsh", "-c", "qemu:///embed?root=/tmp/embed", "uri"], check=False)
    assert refused.returncode != 0 and "qemu.conf:2:" in refused.stderr


def test_a_changed_configuration_is_pending_until_a_restart(host: rig.Host) -> None:
    host.put(DAEMON_CONF, host.get(DAEMON_CONF) + b"max_clients = 4000\n", mode=0o600)
    host.put(QEMU_CONF, host.get(QEMU_CONF) + b"max_queued = 5\n", mode=0o600)
    facts = look(host)
    (daemon,) = [entry for entry in facts["daemons"] if entry["name"] == "libvirtd"]
    assert daemon["configuration_newer"] == [QEMU_CONF, DAEMON_CONF]
    assert facts["libvirt"]["restart_required"] is True
    assert state(facts, "libvirt-config-active", "libvirtd") == "pending"
    guests.restart_libvirtd(host)
    guests.virsh(host, "uri")
    assert state(look(host), "libvirt-config-active", "libvirtd") == "pass"


def test_a_file_that_nobody_reads(host: rig.Host) -> None:
    host.put("/etc/libvirt/virtqemud.conf", b'auth_unix_rw = "polkit"\n', mode=0o600)
    facts = look(host)
    assert facts["configuration"]["virtqemud.conf"]["read_by"] == ""
    assert state(facts, "trap-unread-file", "/etc/libvirt/virtqemud.conf") == "fail"
