# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""hypervisor_info on real hosts: kernel, processor, files, groups, storage, packages and packet filter are what the
commands of the host say, and what an operator gets wrong is seen in the facts and judged by the rules."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import socket
import typing as t

import pytest
import rig
from rig import guests, modules

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._audit import Evaluation, Host
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._factpaths import documented
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._rules import Rule, load

ROOT = pathlib.Path(__file__).resolve().parents[2]
# linux/loop.h
LOOP_SET_FD, LOOP_CLR_FD, LOOP_CTL_GET_FREE = 0x4C00, 0x4C01, 0x4C82
CLASSES = (
    "configuration",
    "definitions",
    "secrets",
    "tls_keys",
    "ca_keys",
    "saved",
    "dumps",
    "nvram",
    "hooks",
    "polkit",
)
BLANKET = (
    'polkit.addRule(function(action, subject) { if (action.id == "org.libvirt.unix.manage") { return "yes"; } });\n'
)


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def host(request: pytest.FixtureRequest) -> t.Iterator[rig.Host]:
    with rig.host(request.param) as fresh:
        path = guests.disk(fresh, "/var/lib/libvirt/images/a.img")
        fresh.run(["chmod", "640", path])
        guests.start(fresh, guests.Guest("a", disks=[path]), persistent=True)
        yield fresh


@pytest.fixture(scope="module")
def rules() -> dict[str, Rule]:
    sections = documented(ROOT / "plugins/modules/hypervisor_info.py")
    return {rule.id: rule for rule in load([ROOT / "roles/hypervisor_audit/files/rules"], sections)}


def look(host: rig.Host) -> dict[str, t.Any]:
    result = modules.call(host, "hypervisor_info")
    assert "failed" not in result, result
    found: dict[str, t.Any] = result["hypervisor"]
    return found


def state(facts: dict[str, t.Any], rule: Rule) -> str:
    """The state of a rule on the facts of a host; of one with objects the worst."""
    states = {finding["state"] for finding in Evaluation([rule]).of_rule(rule, Host("host", facts))}
    order = ("fail", "pending", "unknown", "manual", "pass", "not_applicable")
    return next(word for word in order if word in states)


def said(host: rig.Host, *words: str) -> str:
    return host.run(list(words)).stdout.strip()


def test_each_section_answers(host: rig.Host) -> None:
    facts = look(host)
    names = ("kernel", "cpu", "iommu", "ksm", "files", "groups", "storage", "packages", "firewall")
    assert {name: facts[name].get("error") for name in names} == dict.fromkeys(names)


def test_the_kernel_is_as_commands_say(host: rig.Host) -> None:
    kernel = look(host)["kernel"]
    assert kernel["release"] == said(host, "uname", "-r")
    present = {entry["name"]: entry["running"] for entry in kernel["sysctls"] if entry["present"]}
    assert {name: str(value) for name, value in present.items()} == {
        name: said(host, "sysctl", "-n", name) for name in present
    }
    running = said(host, "cat", "/proc/cmdline").split()
    assert set(kernel["cmdline"]["running"]) <= set(running)
    assert len(kernel["cmdline"]["running"]) + kernel["cmdline"]["left_out"] == len(running)


def test_the_processor_is_as_sysfs_says(host: rig.Host) -> None:
    cpu = look(host)["cpu"]
    lines = said(host, "grep", "-r", "", "/sys/devices/system/cpu/vulnerabilities").splitlines()
    told = {path.rpartition("/")[2]: text for path, _colon, text in (line.partition(":") for line in lines)}
    assert {entry["name"]: entry["text"] for entry in cpu["vulnerabilities"]} == told
    lscpu = dict(line.split(":", 1) for line in said(host, "lscpu").splitlines() if ":" in line)
    assert (cpu["vendor"], cpu["model"]) == (lscpu["Vendor ID"].strip(), lscpu["Model name"].strip())


def test_groups_are_as_getent_says(host: rig.Host) -> None:
    for group in look(host)["groups"]["groups"]:
        line = host.run(["getent", "group", group["name"]], check=False).stdout.strip()
        assert group["present"] is bool(line)
        if line:
            assert str(group["gid"]) == line.split(":")[2]
            assert set(filter(None, line.split(":")[3].split(","))) | set(group["primary"]) == set(group["members"])


def test_packages_are_as_dpkg_says(host: rig.Host) -> None:
    packages = look(host)["packages"]
    assert packages["source"] == "dpkg"
    lines = said(host, "dpkg-query", "--show", "--showformat=${db:Status-Abbrev} ${Package} ${Version}\\n").splitlines()
    installed = {name: version for status, name, version in (line.split() for line in lines) if status == "ii"}
    found = {entry["name"]: entry["version"] for entry in packages["installed"]}
    assert {"libvirt-daemon", "qemu-system-x86", "seabios", "swtpm"} <= set(found)
    assert found == {name: installed[name] for name in found}


def test_device_nodes_are_as_stat_says(host: rig.Host) -> None:
    for node in look(host)["files"]["devices"]:
        there = host.run(["stat", "--format=%04a %U %G", node["name"]], check=False).stdout.strip()
        assert (f"{node['mode']} {node['owner']} {node['group']}" if node["present"] else "") == there


def test_the_distribution_leaves_no_deviation(host: rig.Host, rules: dict[str, Rule]) -> None:
    facts = look(host)
    assert {name: facts["files"][name]["deviations"] for name in CLASSES} == {name: [] for name in CLASSES}
    assert facts["files"]["definitions"]["checked"] == 2
    assert facts["storage"]["images"] == {"checked": 1, "truncated": False, "deviations": [], "deviations_total": 0}
    assert facts["storage"]["uses"] == []
    wanted = {
        "libvirt-root-equivalents": "pass",
        "libvirt-polkit-no-blanket-yes": "pass",
        "libvirt-config-permissions": "pass",
        "libvirt-hooks-trusted": "not_applicable",
        "libvirt-tls-key-permissions": "not_applicable",
        "image-files-private": "pass",
        "no-host-mounted-guest-images": "pass",
        "dev-kvm-permissions": "pass",
        "bridge-helper-acl": "not_applicable",
        "guest-memory-files-private": "pass",
        "host-ports-restricted": "fail",
        "user-namespaces-not-broken": "pass",
        # the kernel is another machine's, and nothing is known of updates
        "kvm-kernel-patched-running": "unknown",
        "virt-packages-updated": "unknown",
        # no module of a vendor, no device of a guest
        "kvm-nested-off": "not_applicable",
        "iommu-effective": "not_applicable",
        "vfio-unsafe-interrupts-off": "not_applicable",
        "vfio-noiommu-off": "not_applicable",
    }
    assert {name: state(facts, rules[name]) for name in wanted} == wanted


# rule, what an operator does, what undoes it
MISTAKES = [
    ("libvirt-config-permissions", "chmod 644 /etc/libvirt/qemu/a.xml", "chmod 600 /etc/libvirt/qemu/a.xml"),
    ("libvirt-config-permissions", "chmod o+w /etc/libvirt/libvirtd.conf", "chmod o-w /etc/libvirt/libvirtd.conf"),
    (
        "libvirt-config-permissions",
        "chown nobody /etc/libvirt/qemu/networks/default.xml",
        "chown root /etc/libvirt/qemu/networks/default.xml",
    ),
    ("libvirt-root-equivalents", "useradd bob; gpasswd -a bob libvirt", "userdel bob"),
    ("libvirt-root-equivalents", "useradd -g kvm bob", "userdel bob"),
    (
        "libvirt-polkit-no-blanket-yes",
        f"echo '{BLANKET}' > /etc/polkit-1/rules.d/10-all.rules",
        "rm /etc/polkit-1/rules.d/10-all.rules",
    ),
    (
        "bridge-helper-acl",
        "mkdir -p /etc/qemu; echo allow all > /etc/qemu/bridge.conf; chmod u+s /usr/lib/qemu/qemu-bridge-helper",
        "rm /etc/qemu/bridge.conf; chmod u-s /usr/lib/qemu/qemu-bridge-helper",
    ),
    (
        "libvirt-hooks-trusted",
        "echo '#!/bin/sh' > /etc/libvirt/hooks/network; chmod 777 /etc/libvirt/hooks/network",
        "rm /etc/libvirt/hooks/network",
    ),
    (
        "libvirt-tls-key-permissions",
        "mkdir -p /etc/pki/libvirt/private; touch /etc/pki/libvirt/private/serverkey.pem",
        "rm -r /etc/pki/libvirt",
    ),
    (
        "libvirt-tls-key-permissions",
        "mkdir -p /etc/pki/CA/private; touch /etc/pki/CA/private/cakey.pem; chmod 600 /etc/pki/CA/private/cakey.pem",
        "rm -r /etc/pki/CA",
    ),
    ("image-files-private", "chmod o+r /var/lib/libvirt/images/a.img", "chmod o-r /var/lib/libvirt/images/a.img"),
    ("dev-kvm-permissions", "chmod 666 /dev/kvm", "chmod 660 /dev/kvm"),
    (
        "guest-memory-files-private",
        "mkdir -p /var/lib/systemd/coredump; touch /var/lib/systemd/coredump/core.qemu",
        "rm -r /var/lib/systemd/coredump",
    ),
    (
        "user-namespaces-not-broken",
        "echo 'install vhost_net /bin/false' > /etc/modprobe.d/baseline.conf",
        "rm /etc/modprobe.d/baseline.conf",
    ),
]


@pytest.mark.parametrize("number", range(3))
def test_mistakes_are_seen_while_they_last(host: rig.Host, rules: dict[str, Rule], number: int) -> None:
    """The first mistake of each rule, then the second, then the third: a call for each one would take long."""
    of_rule: dict[str, list[tuple[str, str]]] = {}
    for name, mistake, undo in MISTAKES:
        of_rule.setdefault(name, []).append((mistake, undo))
    made = {name: several[number] for name, several in of_rule.items() if number < len(several)}
    try:
        for mistake, _undo in made.values():
            host.run(["sh", "-ec", mistake])
        facts = look(host)
    finally:
        for _mistake, undo in made.values():
            host.run(["sh", "-c", undo])
    assert {name: state(facts, rules[name]) for name in made} == dict.fromkeys(made, "fail")


def test_no_mistake_is_seen_afterwards(host: rig.Host, rules: dict[str, Rule]) -> None:
    facts = look(host)
    assert {state(facts, rules[name]) for name in {one[0] for one in MISTAKES}} == {"pass", "not_applicable"}


def test_a_saved_guest_that_others_can_read(host: rig.Host, rules: dict[str, Rule]) -> None:
    guests.start(host, guests.Guest("s"))
    guests.virsh(host, "save", "s", "/var/lib/libvirt/qemu/save/s.save")
    path = "/var/lib/libvirt/qemu/save/s.save"
    try:
        assert look(host)["files"]["saved"]["deviations"] == []
        # out of reach: the directory above is closed to others
        host.run(["chmod", "644", path])
        assert look(host)["files"]["saved"]["deviations"] == []
        mode = said(host, "stat", "--format=%a", "/var/lib/libvirt/qemu")
        host.run(["chmod", "o+x", "/var/lib/libvirt/qemu"])
        try:
            # as another user finds it, too
            assert host.run(["runuser", "-u", "nobody", "--", "head", "-c1", path], check=False).returncode == 0
            facts = look(host)
        finally:
            host.run(["chmod", mode, "/var/lib/libvirt/qemu"])
        assert [entry["path"] for entry in facts["files"]["saved"]["deviations"]] == [path]
        assert state(facts, rules["guest-memory-files-private"]) == "fail"
    finally:
        host.run(["rm", "-f", path])


def test_a_storage_pool(host: rig.Host, rules: dict[str, Rule]) -> None:
    guests.virsh(host, "pool-define-as", "p", "dir", "--target", "/srv/p")
    guests.virsh(host, "pool-build", "p")
    guests.virsh(host, "pool-start", "p")
    guests.virsh(host, "vol-create-as", "p", "v.qcow2", "16M", "--format", "qcow2")
    try:
        facts = look(host)["storage"]
        (pool,) = [pool for pool in facts["pools"] if pool["name"] == "p"]
        assert [pool[key] for key in ("type", "path", "active", "autostart", "remote")] == [
            "dir",
            "/srv/p",
            True,
            False,
            False,
        ]
        assert facts["images"]["deviations"] == []
        host.run(["chmod", "644", "/srv/p/v.qcow2"])
        facts = look(host)
        assert [entry["path"] for entry in facts["storage"]["images"]["deviations"]] == ["/srv/p/v.qcow2"]
        assert state(facts, rules["image-files-private"]) == "fail"
    finally:
        guests.virsh(host, "pool-destroy", "p")
        guests.virsh(host, "pool-undefine", "p")
        host.run(["rm", "-r", "/srv/p"])


@contextlib.contextmanager
def loop_device(path: str) -> t.Iterator[str]:
    """A loop device of the machine, which the hosts of the rig see in their sysfs."""
    control = os.open("/dev/loop-control", os.O_RDWR)
    try:
        number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
    finally:
        os.close(control)
    image, device = os.open(path, os.O_RDWR), os.open(f"/dev/loop{number}", os.O_RDWR)
    try:
        fcntl.ioctl(device, LOOP_SET_FD, image)
        try:
            yield f"/dev/loop{number}"
        finally:
            fcntl.ioctl(device, LOOP_CLR_FD)
    finally:
        os.close(image)
        os.close(device)


def test_a_loop_device_on_a_guests_disk(host: rig.Host, rules: dict[str, Rule]) -> None:
    image = "/var/lib/libvirt/images/a.img"
    with loop_device(f"{host.root}{image}") as name:
        facts = look(host)
    assert [use for use in facts["storage"]["uses"] if use["by"] == name] == [
        {"name": image, "how": "loop", "by": name, "guests": ["a"]}
    ]
    assert state(facts, rules["no-host-mounted-guest-images"]) == "fail"
    assert [use for use in look(host)["storage"]["uses"] if use["by"] == name] == []


def connects(host: rig.Host, port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection((host.address, port), timeout=1).close()
        return True
    return False


@contextlib.contextmanager
def iptables(host: rig.Host, *rules: str) -> t.Iterator[None]:
    for rule in rules:
        host.run(["iptables", *rule.split()])
    try:
        yield
    finally:
        host.run(["iptables", "-P", "INPUT", "ACCEPT"])
        host.run(["iptables", "-F", "INPUT"])


@pytest.mark.parametrize(
    ("filter_rules", "verdict", "reachable"),
    [
        ((), "open", True),
        (("-A INPUT -p tcp --dport 5900 -j DROP",), "closed", False),
        (("-A INPUT -p tcp --dport 5901 -j DROP",), "open", True),
        (
            ("-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT", "-A INPUT -p tcp --dport 5900 -j REJECT"),
            "closed",
            False,
        ),
        (
            ("-A INPUT -s 192.0.2.1 -j ACCEPT", "-A INPUT -p tcp -m multiport --dports 5900,5901 -j DROP"),
            "restricted",
            False,
        ),
        (("-A INPUT -p tcp --dport 5900 -j ACCEPT", "-A INPUT -p tcp --dport 5000:6000 -j DROP"), "open", True),
    ],
)
def test_the_packet_filter_does_what_the_facts_say(
    host: rig.Host, filter_rules: tuple[str, ...], verdict: str, reachable: bool
) -> None:
    host.run(["systemd-run", "--quiet", "--unit=listener", "python3", "-m", "http.server", "5900"])
    try:
        host.run(
            ["sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do ss -Hltn | grep -q :5900 && exit; sleep 0.3; done; exit 1"]
        )
        with iptables(host, *filter_rules):
            ports = {port["name"]: port for port in look(host)["firewall"]["ports"]}
            assert (ports["consoles"]["ipv4"], connects(host, 5900)) == (verdict, reachable)
    finally:
        host.run(["systemctl", "stop", "listener"])


def test_a_filter_that_drops_by_default(host: rig.Host, rules: dict[str, Rule]) -> None:
    def drop(command: str) -> None:
        host.run([command, "-A", "INPUT", "-i", "lo", "-j", "ACCEPT"])
        host.run([command, "-A", "INPUT", "-p", "tcp", "--dport", "22", "-j", "ACCEPT"])
        host.run([command, "-P", "INPUT", "DROP"])

    try:
        drop("iptables")
        assert state(look(host), rules["host-ports-restricted"]) == "fail"  # IPv6 is open still
        drop("ip6tables")
        facts = look(host)
    finally:
        for command in ("iptables", "ip6tables"):
            host.run([command, "-P", "INPUT", "ACCEPT"])
            host.run([command, "-F", "INPUT"])
    assert {(port["ipv4"], port["ipv6"]) for port in facts["firewall"]["ports"]} == {("closed", "closed")}
    assert state(facts, rules["host-ports-restricted"]) == "pass"


def test_a_kernel_waits_for_a_boot(host: rig.Host, rules: dict[str, Rule]) -> None:
    release = said(host, "uname", "-r")
    install = "mkdir -p /lib/modules/$1 && touch /lib/modules/$1/modules.dep /boot/vmlinuz-$1"
    host.run(["sh", "-ec", install, "sh", release])
    try:
        assert look(host)["kernel"]["reboot"] == {"required": False, "reasons": []}
        later = "99" + release.lstrip("0123456789")
        host.run(["sh", "-ec", install, "sh", later])
        assert look(host)["kernel"]["newest"] == later
        assert look(host)["kernel"]["reboot"]["required"] is True
    finally:
        host.run(["sh", "-c", "rm -r /lib/modules /boot/vmlinuz-*"])


def test_the_host_is_left_as_it_was(host: rig.Host) -> None:
    stamp = "/run/before"
    look(host)
    host.run(["touch", stamp])
    look(host)
    newer = said(host, "find", "/etc", "/var", "/usr", "/boot", "/root", "/srv", "-newer", stamp).splitlines()
    # the rig writes /etc/hosts whenever another host comes up
    assert [path for path in newer if path != "/etc/hosts" and not path.startswith("/var/log/")] == []
