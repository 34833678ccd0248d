# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each control that every hypervisor must have, seen to fail on a host that lacks it and to pass on one that has it.

What a container cannot show is seen in test_audit_controls_vm.py, all but what is in NOT_LIVE, with the cause: that is
shown by the tables of tests/unit/rules alone.
"""

from __future__ import annotations

import re

import pytest
import rig
from rig import guests, modules

from ansible_collections.hypervisor.hardening.plugins.filter.audit import judge

NOT_LIVE = {
    "selinux-no-permissive-virt-types": "the hosts of the rig have AppArmor",
    "selinux-virt-booleans-minimal": "the hosts of the rig have AppArmor",
    "vfio-noiommu-off": "Debian builds its kernels without the mode",
    "smt-policy": "whose threads share a core is not for a virtual machine to say, and the rule knows that",
    "secure-boot-lockdown": "the rig's virtual machines boot without a firmware that could verify it",
    "libvirt-secrets-encrypted": "libvirt encrypts secrets from 12.1 on",
}
LIVE = [
    "bridge-helper-acl",
    "dev-kvm-permissions",
    "disk-format-explicit",
    "guest-chardev-local",
    "guest-display-secure",
    "guest-host-filesystems-declared",
    "guest-hostdev-allowlisted",
    "guest-memory-files-private",
    "guest-security-supported-platform",
    "guests-in-private-mntns",
    "guests-unprivileged-effective",
    "host-ports-restricted",
    "image-files-private",
    "kvm-kernel-patched-running",
    "libvirt-config-active",
    "libvirt-config-permissions",
    "libvirt-polkit-no-blanket-yes",
    "libvirt-root-equivalents",
    "libvirt-rw-socket-auth",
    "libvirt-tcp-listener-off",
    "libvirt-tls-key-permissions",
    "libvirt-tls-listener-verifies-clients",
    "migration-network-dedicated",
    "migration-tls-forced",
    "nic-anti-spoofing",
    "no-host-mounted-guest-images",
    "no-qemu-cmdline-passthrough",
    "no-seclabel-none-or-root",
    "qemu-cgroup-device-acl",
    "qemu-default-confined",
    "qemu-display-listen-local",
    "qemu-mount-namespace-on",
    "qemu-no-guest-core",
    "qemu-seccomp-on",
    "qemu-security-driver-on",
    "qemu-stdio-logd",
    "qemu-user-nonroot",
    "stale-qemu-binaries",
    "virt-packages-updated",
]

QEMU_CONF = "/etc/libvirt/qemu.conf"
WEAK_QEMU_CONF = b"""
user = "root"
group = "root"
security_driver = "none"
security_default_confined = 0
seccomp_sandbox = 0
namespaces = []
cgroup_controllers = [ "cpu", "memory" ]
vnc_listen = "0.0.0.0"
dump_guest_core = 1
stdio_handler = "file"
"""
WEAK_DAEMON_CONF = b"""
audit_level = 0
auth_unix_rw = "none"
auth_tcp = "none"
tls_no_verify_certificate = 1
"""
IMAGE = "/var/lib/libvirt/images/weak.raw"
WEAK_GUEST = guests.Guest(
    "weak",
    disks=[IMAGE],
    seclabels=["<seclabel type='none'/>"],
    interfaces=["<interface type='network'><source network='default'/></interface>"],
    extra_devices=[
        "<serial type='tcp'><source mode='bind' host='0.0.0.0' service='4555'/></serial>",
        "<graphics type='vnc' listen='0.0.0.0' passwd='kreuzott'/>",
        "<hostdev mode='subsystem' type='pci'><source><address bus='0' slot='31' function='0'/></source></hostdev>",
        "<filesystem type='mount'><source dir='/etc'/><target dir='etc'/></filesystem>",
    ],
    extra=["<q:commandline xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'><q:arg value='-S'/></q:commandline>"],
)
GOOD_GUEST = guests.Guest(
    "good",
    type="kvm",
    machine="q35",
    disks=[IMAGE],
    interfaces=["<interface type='network'><source network='default'/><filterref filter='clean-traffic'/></interface>"],
    extra=["<cpu mode='custom' match='exact'><model fallback='allow'>qemu64</model></cpu>"],
    extra_devices=["<graphics type='vnc' listen='127.0.0.1'/>"],
)

CERTIFICATES = """
set -e
mkdir -p /etc/pki/CA /etc/pki/libvirt/private
cd /etc/pki/CA
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=test-ca -keyout /root/ca.key -out cacert.pem
cd /etc/pki/libvirt
openssl req -newkey rsa:2048 -nodes -subj "/CN=$(hostname)" -keyout private/serverkey.pem -out /root/server.csr
printf 'subjectAltName=DNS:%s\\nextendedKeyUsage=serverAuth\\n' "$(hostname)" >/root/extensions
openssl x509 -req -in /root/server.csr -CA /etc/pki/CA/cacert.pem -CAkey /root/ca.key -CAcreateserial -days 30 \
    -extfile /root/extensions -out servercert.pem
rm -f /root/ca.key /etc/pki/CA/cacert.srl
chmod 0600 private/serverkey.pem
"""
EVERYBODY = """
polkit.addRule(function(action, subject) {
    if (action.id == "org.libvirt.unix.manage") return polkit.Result.YES;
});
"""
# As apt keeps them: a repository's Release file, and its list of packages.
LISTS = "/var/lib/apt/lists/security.example_dists_trixie-security"
RELEASE = b"Origin: Debian\nLabel: Debian-Security\nSuite: stable-security\nCodename: trixie-security\n"
UPDATE = b"Package: libvirt-daemon\nVersion: 99.0\nArchitecture: amd64\n\n"


@pytest.fixture(scope="module")
def weak() -> dict[str, set[str]]:
    with rig.host("trixie") as host:
        weaken(host)
        return states(host)


@pytest.fixture(scope="module")
def good() -> dict[str, set[str]]:
    with rig.host("trixie") as host:
        strengthen(host)
        return states(host)


def script(host: rig.Host, text: str) -> None:
    host.run(["sh", "-ec", text])


def listen(host: rig.Host, *sockets: str) -> None:
    """libvirtd takes on a socket only while it does not run."""
    script(
        host, f"systemctl stop libvirtd.service; systemctl start {' '.join(sockets)}; systemctl start libvirtd.service"
    )


def lists(host: rig.Host, packages: bytes) -> None:
    host.put(f"{LISTS}_InRelease", RELEASE)
    host.put(f"{LISTS}_main_binary-amd64_Packages", packages)


def kernel(host: rig.Host, release: str) -> None:
    script(
        host, f"mkdir -p /boot /lib/modules/{release}; touch /boot/vmlinuz-{release} /lib/modules/{release}/modules.dep"
    )


def weaken(host: rig.Host) -> None:
    script(host, CERTIFICATES)
    host.put(QEMU_CONF, host.get(QEMU_CONF) + WEAK_QEMU_CONF, mode=0o600)
    host.put("/etc/libvirt/libvirtd.conf", host.get("/etc/libvirt/libvirtd.conf") + WEAK_DAEMON_CONF)
    script(host, f"truncate --size 1M {IMAGE}; chmod 0644 {IMAGE}")
    script(host, f"for n in 0 1 2 3 4 5 6 7; do mknod /dev/loop$n b 7 $n; done; losetup --find {IMAGE}")
    listen(host, "libvirtd-tcp.socket", "libvirtd-tls.socket")
    guests.virsh(host, "net-start", "default")
    host.put("/run/weak.xml", WEAK_GUEST.xml().encode())
    guests.virsh(host, "define", "/run/weak.xml")
    script(host, "sed -i \"s/ type='raw'//\" /etc/libvirt/qemu/weak.xml")
    guests.start(host, guests.Guest("running"))
    # The flavour is what follows the version: only a kernel of the running one's is a later one.
    kernel(host, re.sub(r"^[\d.]+", "99.0.0", host.run(["uname", "-r"]).stdout.strip()))
    lists(host, UPDATE)
    script(
        host,
        """
        cp /usr/bin/qemu-system-x86_64 /usr/bin/new; mv /usr/bin/new /usr/bin/qemu-system-x86_64
        chmod 0666 /dev/kvm /etc/libvirt/libvirtd.conf
        useradd --no-create-home stranger; usermod --append --groups libvirt stranger
        chmod u+s /usr/lib/qemu/qemu-bridge-helper; mkdir -p /etc/qemu; echo 'allow all' >/etc/qemu/bridge.conf
        chmod 0755 /var/lib/libvirt/qemu
        chmod 0777 /var/lib/libvirt/qemu/save; install -m 0666 /dev/null /var/lib/libvirt/qemu/save/weak.save
        chmod 0644 /etc/pki/libvirt/private/serverkey.pem
        touch /etc/libvirt/qemu.conf
        """,
    )
    host.put("/etc/polkit-1/rules.d/10-everybody.rules", EVERYBODY.encode())


def strengthen(host: rig.Host) -> None:
    script(host, CERTIFICATES)
    settings = b'migrate_tls_force = 1\nmigration_address = "198.51.100.7"\n'
    host.put(QEMU_CONF, host.get(QEMU_CONF) + settings, mode=0o600)
    listen(host, "libvirtd-tls.socket")
    guests.virsh(host, "net-start", "default")
    script(host, f"truncate --size 1M {IMAGE}; chmod 0600 {IMAGE}")
    host.put("/run/good.xml", GOOD_GUEST.xml().encode())
    guests.virsh(host, "define", "/run/good.xml")
    guests.start(host, guests.Guest("running"))
    kernel(host, host.run(["uname", "-r"]).stdout.strip())
    lists(host, b"")
    script(
        host,
        """
        chmod u+s /usr/lib/qemu/qemu-bridge-helper; mkdir -p /etc/qemu; echo 'allow br0' >/etc/qemu/bridge.conf
        for tables in iptables ip6tables; do
            $tables -A INPUT -i lo -j ACCEPT; $tables -A INPUT -p tcp --dport 22 -j ACCEPT; $tables -P INPUT DROP
        done
        """,
    )


def states(host: rig.Host) -> dict[str, set[str]]:
    """The states of each rule on a host, over all its objects."""
    facts = modules.call(host, "hypervisor_info")
    assert "failed" not in facts, facts
    found: dict[str, set[str]] = {}
    for finding in judge({host.name: facts}, level="strict")["hosts"][0]["findings"]:
        found.setdefault(finding["rule"], set()).add(finding["state"])
    return found


@pytest.mark.parametrize("rule", LIVE)
def test_it_fails_where_it_lacks(weak: dict[str, set[str]], rule: str) -> None:
    """``pending`` where a reboot or a restart of the daemon would mend it."""
    assert weak[rule] & {"fail", "pending"}


@pytest.mark.parametrize("rule", LIVE)
def test_it_passes_where_it_holds(good: dict[str, set[str]], rule: str) -> None:
    """A rule that leaves the rest to a person is ``manual`` where the part that it can see holds."""
    assert good[rule] & {"pass", "manual"}
