# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook audit on real hypervisors: what it says before and after harden, and that it changes nothing."""

from __future__ import annotations

import json
import pathlib
import signal
import time
import typing as t

import pytest
import rig
import yaml
from rig import guests, modules, playbooks

from ansible_collections.hypervisor.hardening.plugins.filter.audit import judge

CONF = "/etc/libvirt/qemu.conf"
WEAK = b"""
user = "root"
security_default_confined = 0
seccomp_sandbox = 0
namespaces = []
dynamic_ownership = 0
relaxed_acs_check = 1
vnc_listen = "0.0.0.0"
vnc_password = "kreuzott"
dump_guest_core = 1
stdio_handler = "file"
swtpm_user = "root"
deprecation_behavior = "none"
"""
SWITCHES = {
    f"hypervisor_qemu_{name}": True
    for name in (
        "unprivileged_user",
        "seccomp",
        "mount_namespace",
        "dynamic_ownership",
        "strict_acs",
        "display_local",
        "swtpm_unprivileged",
        "no_display_password",
    )
}
FIXED_AT_BASELINE = {
    "mount-propagation-shared",
    "qemu-acs-strict",
    "qemu-default-confined",
    "qemu-display-listen-local",
    # Nothing of it is left to encrypt.
    "qemu-display-tls-when-remote",
    "qemu-dynamic-ownership",
    "qemu-mount-namespace-on",
    "qemu-no-debug-knobs",
    "qemu-no-default-display-password",
    "qemu-no-guest-core",
    "qemu-seccomp-on",
    "qemu-stdio-logd",
    "qemu-swtpm-unprivileged",
    "qemu-user-nonroot",
}
FIXED = {
    "baseline": FIXED_AT_BASELINE,
    "hardened": FIXED_AT_BASELINE,
    "strict": FIXED_AT_BASELINE | {"qemu-no-core"},
}
NOT_GOOD = {"fail", "pending", "unknown"}


@pytest.fixture(params=["bookworm", "trixie"])
def host(request: pytest.FixtureRequest) -> t.Iterator[rig.Host]:
    with rig.host(request.param) as fresh:
        yield fresh


@pytest.fixture(scope="module")
def shared() -> t.Iterator[rig.Host]:
    with rig.host("trixie", "audited") as fresh:
        yield fresh


def judged(host: rig.Host) -> dict[str, set[str]]:
    """The states of each rule of all levels, over all its objects, by the module and the filter alone."""
    facts = modules.call(host, "hypervisor_info")
    assert "failed" not in facts, facts
    return by_rule(judge({host.name: facts}, level="strict"), host.name)


def by_rule(master: dict[str, t.Any], name: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for entry in master["hosts"]:
        if entry["name"] == name:
            for finding in entry["findings"]:
                found.setdefault(finding["rule"], set()).add(finding["state"])
    return found


def audit(host: rig.Host, *flags: str, **variables: t.Any) -> playbooks.Run:
    given = {f"hypervisor_audit_{name}": value for name, value in variables.items()}
    return playbooks.play("audit", host.inventory, "--limit", host.name, *flags, variables=given)


def everything(host: rig.Host) -> str:
    """Every file below /etc, /var/lib and /run/libvirt with its times, the mounts, and the daemon's process."""
    return "".join(
        host.run(argv).stdout
        for argv in (
            ["sh", "-c", "find /etc /var/lib /run/libvirt -xdev -printf '%p %m %U %G %s %C@\\n' | sort"],
            # A session over ssh brings its own below /run/user.
            ["sh", "-c", "findmnt -r -n -o TARGET,SOURCE,FSTYPE,PROPAGATION | grep -v '^/run/user/'"],
            ["systemctl", "show", "-p", "MainPID,ActiveState", "libvirtd.service"],
        )
    )


@pytest.mark.parametrize("level", ["baseline", "hardened", "strict"])
def test_what_harden_claims_to_fix_is_fixed_and_nothing_else_changes(host: rig.Host, level: str) -> None:
    host.put(CONF, host.get(CONF) + WEAK, mode=0o600)
    host.run(["mount", "--make-rprivate", "/"])
    guests.restart_libvirtd(host)
    before = judged(host)
    run = playbooks.play(
        "harden", host.inventory, "--limit", host.name, variables={"hypervisor_level": level, **SWITCHES}
    )
    assert run.rc == 0, run.text
    after = judged(host)
    assert {rule for rule in before if before[rule] != after[rule]} == FIXED[level]
    assert {rule: after[rule] for rule in FIXED[level] if after[rule] & NOT_GOOD} == {}
    assert all(before[rule] & NOT_GOOD for rule in FIXED[level])


def test_the_playbook_changes_nothing_and_writes_what_it_found(host: rig.Host, tmp_path: pathlib.Path) -> None:
    guests.start(host, guests.Guest("plain"))
    host.run(["true"])
    reports = str(tmp_path / "reports")
    before = everything(host)
    for flags in ((), ("--check",)):
        run = audit(host, *flags, report_dir=reports, formats=["json", "html", "markdown", "junit", "sarif", "csv"])
        assert run.rc == 0, run.text
        assert run.changed == []
        assert everything(host) == before
    files = {path.name for path in (tmp_path / "reports").iterdir()}
    assert files == {f"audit.{suffix}" for suffix in ("json", "html", "md", "xml", "sarif", "csv")}
    master = json.loads((tmp_path / "reports/audit.json").read_text(encoding="utf-8"))
    assert master["schema"] == "hypervisor.hardening/audit/1"
    assert [(entry["name"], entry["state"]) for entry in master["hosts"]] == [(host.name, "audited")]
    assert by_rule(master, host.name)["guests-unprivileged-effective"] == {"pass"}

    host.put(CONF, host.get(CONF) + b"vnc_listen = '0.0.0.0'\n", mode=0o600)
    run = audit(host, report_dir=reports, previous=f"{reports}/audit.json")
    assert run.rc == 0, run.text
    master = json.loads((tmp_path / "reports/audit.json").read_text(encoding="utf-8"))
    assert "qemu-display-listen-local" in {change["rule"] for change in master["comparison"]["worse"]}


def test_guests_are_told_apart(shared: rig.Host) -> None:
    guests.start(shared, guests.Guest("before"))
    before = shared.get(CONF)
    try:
        shared.put(CONF, before + b'user = "root"\nseccomp_sandbox = 0\n', mode=0o600)
        guests.restart_libvirtd(shared)
        guests.start(shared, guests.Guest("weak"))
        run = playbooks.play("harden", shared.inventory, "--limit", shared.name, variables=SWITCHES)
        assert run.rc == 0, run.text
        guests.start(shared, guests.Guest("unlabelled", seclabels=["<seclabel type='none' model='dac'/>"]))
        arguments = (
            "<q:commandline xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'><q:arg value='-S'/></q:commandline>"
        )
        guests.start(shared, guests.Guest("arguments", extra=[arguments]))
        guests.start(shared, guests.Guest("good"))
        facts = modules.call(shared, "hypervisor_info")
    finally:
        guests.stop_all(shared)
        shared.put(CONF, before, mode=0o600)
        guests.restart_libvirtd(shared)
    findings = judge({shared.name: facts}, level="strict")["hosts"][0]["findings"]
    states = {(one["rule"], one["object"]["name"]): one["state"] for one in findings}
    assert states["guests-unprivileged-effective", "weak"] in NOT_GOOD
    assert states["guests-unprivileged-effective", "good"] == "pass"
    assert states["no-seclabel-none-or-root", "unlabelled"] in NOT_GOOD
    assert states["no-seclabel-none-or-root", "good"] == "pass"
    assert states["no-qemu-cmdline-passthrough", "arguments"] in NOT_GOOD
    assert states["no-qemu-cmdline-passthrough", "good"] == "pass"


def test_fail_on_tells_a_host_that_falls_short_from_one_that_could_not_be_read(shared: rig.Host) -> None:
    run = audit(shared, fail_on="critical")
    assert [task.name for task in run.failed] == ["Fail where the host falls short"], run.text
    assert any(line.startswith(f"{shared.name}: MAC-01 lsm-enforcing") for line in run.failed[0].result["msg"])

    waiver = {
        "rule": "lsm-enforcing",
        "reason": "this kernel has none",
        "owner": "tests",
        "expires": time.strftime("%Y-%m-%d", time.gmtime(time.time() + 86400)),
    }
    run = audit(shared, only=["lsm-enforcing"], fail_on=["critical"], waivers=[waiver])
    assert run.rc == 0, run.text
    expired = {**waiver, "expires": "2026-01-31"}
    run = audit(shared, only=["lsm-enforcing"], fail_on=["critical"], waivers=[expired])
    assert [task.name for task in run.failed] == ["Fail where the host falls short"], run.text


def test_a_malformed_waiver_stops_the_run_before_a_host_is_read(shared: rig.Host, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "waivers.yml"
    file.write_text("- rule: lsm-enforcing\n  owner: nobody\n- rule: no-such-rule\n  reason: none\n", encoding="utf-8")
    run = audit(shared, waivers_file=str(file))
    assert run.rc != 0
    assert [task.name for task in run.failed] == ["Check rules and waivers before a host is touched"], run.text
    assert run.results("hypervisor_info") == []
    for said in ("no-such-rule", "expires"):
        assert said in run.text


def test_an_own_rule_is_judged_and_a_survey_sends_strings(shared: rig.Host, tmp_path: pathlib.Path) -> None:
    (tmp_path / "own.yml").write_text(
        """
- id: own-release
  code: OWN-1
  title: The host is of our release
  category: host
  severity: low
  level: baseline
  checks:
    - truth: running
      query: host.os.id
      expected: {is: debian}
      evidence: {source: /etc/os-release}
  why: We run one distribution.
  breaks: Nothing.
  remediation: {mode: advise, advice: Install Debian., activation: reboot}
  references: [our handbook]
""",
        encoding="utf-8",
    )
    strings = {"only": "own-release", "skip": "", "params": "{}", "connect": "false", "formats": "json"}
    run = audit(shared, rules=str(tmp_path), report_dir=str(tmp_path / "reports"), **strings)
    assert run.rc == 0, run.text
    master = json.loads((tmp_path / "reports/audit.json").read_text(encoding="utf-8"))
    assert by_rule(master, shared.name) == {"own-release": {"pass"}}


def test_harden_ends_with_an_audit_where_that_is_wanted(shared: rig.Host) -> None:
    limited = ("--limit", shared.name, "--tags", "audit")
    for wanted, audits in (("true", 1), ("false", 0)):
        run = playbooks.play("harden", shared.inventory, *limited, variables={"hypervisor_audit_enabled": wanted})
        assert run.rc == 0, run.text
        assert len(run.results("hypervisor_info")) == audits, run.text


def test_serial_and_a_host_that_is_not_there(tmp_path: pathlib.Path) -> None:
    with rig.host("bookworm", "one") as one, rig.host("trixie", "two"):
        known = yaml.safe_load(one.inventory.read_text(encoding="utf-8"))["hypervisors"]
        known["hosts"]["gone"] = {"ansible_host": "127.0.0.1", "ansible_port": 9}
        inventory = tmp_path / "inventory.yml"
        inventory.write_text(yaml.safe_dump({"hypervisors": known}), encoding="utf-8")
        role = {"role": "hypervisor.hardening.hypervisor_audit"}
        play = {"hosts": "one,two,gone", "gather_facts": False, "serial": 1, "roles": [role]}
        reports = str(tmp_path / "reports")
        variables = {"hypervisor_audit_report_dir": reports, "hypervisor_audit_only": ["lsm-enforcing"]}
        run = playbooks.play([play], inventory, variables=variables)
    assert {(task.host, task.outcome) for task in run.failed} == {("gone", "unreachable")}, run.text
    master = json.loads((tmp_path / "reports/audit.json").read_text(encoding="utf-8"))
    states = {entry["name"]: entry["state"] for entry in master["hosts"]}
    assert states == {"one": "audited", "two": "audited", "gone": "not_audited"}


def test_a_host_without_libvirt() -> None:
    with rig.host("bookworm", "bare") as bare:
        bare.run(["dpkg", "--purge", "--force-depends", "libvirt-daemon-system", "libvirt-daemon"])
        found = judged(bare)
    assert found["qemu-seccomp-on"] == {"not_applicable"}
    assert found["lsm-enforcing"] == {"fail"}


@pytest.mark.parametrize("library", ["libvirt", "lxml"])
def test_without_a_library_what_needs_it_is_unknown(shared: rig.Host, library: str) -> None:
    paths = shared.run(["sh", "-c", f"ls -d /usr/lib/python3/dist-packages/{library}*"]).stdout.split()
    guests.start(shared, guests.Guest("defined"))
    for path in paths:
        shared.run(["mv", path, path + ".away"])
    try:
        found = judged(shared)
    finally:
        for path in paths:
            shared.run(["mv", path + ".away", path])
        guests.stop(shared, "defined")
    assert found["lsm-enforcing"] == {"fail"}
    if library == "lxml":
        assert found["no-seclabel-none-or-root"] == {"unknown"}


def test_with_the_daemon_down_nothing_is_woken(shared: rig.Host) -> None:
    shared.run(["systemctl", "stop", "libvirtd.service"])
    try:
        found = judged(shared)
        assert shared.run(["systemctl", "is-active", "libvirtd.service"], check=False).stdout == "inactive\n"
    finally:
        shared.run(["systemctl", "start", "libvirtd.service"])
    assert found["qemu-seccomp-on"] & {"pass"}


def test_with_the_daemon_stopped_by_a_signal_the_answer_comes_in_bounded_time(shared: rig.Host) -> None:
    pid = shared.run(["cat", "/run/libvirtd.pid"]).stdout.strip()
    shared.run(["kill", f"-{signal.SIGSTOP.value}", pid])
    try:
        begun = time.monotonic()
        found = judged(shared)
        assert time.monotonic() - begun < 40
    finally:
        shared.run(["kill", f"-{signal.SIGCONT.value}", pid])
    assert found["lsm-enforcing"] == {"fail"}


def test_twenty_guests_fit_into_64_kib_and_300_definitions_take_bounded_time(shared: rig.Host) -> None:
    for number in range(20):
        guests.start(shared, guests.Guest(f"guest-{number:02}", memory_mib=32), persistent=True)
    try:
        facts = modules.call(shared, "hypervisor_info")["hypervisor"]
        assert [guest["name"] for guest in facts["guests"]] == [f"guest-{number:02}" for number in range(20)]
        assert len(json.dumps(facts)) <= 64 * 1024
        one = shared.get("/etc/libvirt/qemu/guest-00.xml").decode()
        for number in range(300):
            shared.put(f"/etc/libvirt/qemu/many-{number:03}.xml", one.replace("guest-00", f"many-{number:03}").encode())
        begun = time.monotonic()
        found = judged(shared)
        assert time.monotonic() - begun < 20
        assert found["guests-unprivileged-effective"] == {"pass"}
    finally:
        shared.run(["sh", "-c", "rm -f /etc/libvirt/qemu/many-*.xml"])
        guests.stop_all(shared)


@pytest.mark.parametrize(
    "hostile",
    [
        "<!DOCTYPE d [<!ENTITY e SYSTEM 'file:///etc/shadow'>]><domain><name>&e;</name></domain>",
        "<domain><name>deep</name>" + "<a>" * 100_000 + "</a>" * 100_000 + "</domain>",
        "<domain><name>long</name><description>" + "x" * 5_000_000 + "</description></domain>",
        "<domain><name>cut",
    ],
    ids=["entity", "100,000 nested elements", "5 MB", "cut off"],
)
def test_a_hostile_definition_is_unknown_and_hides_no_other(shared: rig.Host, hostile: str) -> None:
    guests.start(shared, guests.Guest("honest", seclabels=["<seclabel type='none' model='dac'/>"]), persistent=True)
    shared.put("/etc/libvirt/qemu/hostile.xml", hostile.encode())
    try:
        begun = time.monotonic()
        facts = modules.call(shared, "hypervisor_info")
        assert time.monotonic() - begun < 15
    finally:
        shared.run(["rm", "/etc/libvirt/qemu/hostile.xml"])
        guests.stop(shared, "honest")
    findings = judge({shared.name: facts}, level="strict")["hosts"][0]["findings"]
    states = {one["object"]["name"]: one["state"] for one in findings if one["rule"] == "no-seclabel-none-or-root"}
    assert states["honest"] == "fail"
    assert states["hostile"] == "unknown"
