# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may open /dev/kvm."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _kvmdevice
from ansible_collections.hypervisor.hardening.plugins.module_utils._journal import Journal
from ansible_collections.hypervisor.hardening.plugins.module_utils._kernelvalues import KernelError
from ansible_collections.hypervisor.hardening.tests.unit.plugins.kernelhost import KernelHost

QEMU = (64055, 994)  # libvirt-qemu, and the group kvm


@pytest.fixture
def host(tmp_path: Path) -> KernelHost:
    host = KernelHost(tmp_path)
    host.put("/dev/kvm", "", 0o666)
    host.directory("/var/lib/libvirt/qemu", 0o750, QEMU)
    return host


def wish(mode: str = "0660", group: str = "kvm", owner: str = "root") -> _kvmdevice.Wish:
    return _kvmdevice.wish({"owner": owner, "group": group, "mode": mode})


def plan(host: KernelHost, wanted: _kvmdevice.Wish) -> _kvmdevice.Change | None:
    return _kvmdevice.plan(_kvmdevice.read(host, wanted), wanted)


def test_it_is_closed_to_others(host: KernelHost) -> None:
    change = plan(host, wish())
    assert str(change) == "/dev/kvm is 0666 root root instead of 0660 root kvm"
    assert change
    _kvmdevice.apply(host, change, Journal(host, by="test"))
    assert plan(host, wish()) is None
    entry = Journal(host, by="").entries()[0]
    assert (entry.kind, entry.target) == ("value", "owner:/dev/kvm")
    assert entry.before == {"uid": 0, "gid": 0, "mode": 0o666}
    assert entry.after == {"uid": 0, "gid": 994, "mode": 0o660}


def test_the_rule_of_udev() -> None:
    # udev(7)
    assert wish().rule().splitlines()[1:] == [
        'SUBSYSTEM=="misc", KERNEL=="kvm", OWNER="root", GROUP="kvm", MODE="0660"'
    ]


def test_a_host_without_the_device(host: KernelHost, tmp_path: Path) -> None:
    (tmp_path / "dev/kvm").unlink()
    assert plan(host, wish()) is None


@pytest.mark.parametrize(
    ("mode", "group", "owner"),
    [("0600", "kvm", "root"), ("0640", "kvm", "root"), ("0660", "users", "root"), ("0066", "kvm", "libvirt-qemu")],
)
def test_guests_are_not_locked_out(host: KernelHost, mode: str, group: str, owner: str) -> None:
    with pytest.raises(KernelError, match="guests run as libvirt-qemu, which could not open /dev/kvm"):
        plan(host, wish(mode, group, owner))


def test_whoever_runs_guests_may_be_a_member(host: KernelHost) -> None:
    host.put("/etc/group", "root:x:0:\nkvm:x:994:alice,libvirt-qemu\nqemu:x:107:\n")
    host.directory("/var/lib/libvirt/qemu", 0o750, (64055, 107))
    assert plan(host, wish())
    # group(5) does not name whom passwd(5) gives it as primary group: Debian's libvirt-qemu.
    host.put("/etc/group", "root:x:0:\nkvm:x:994:alice\nqemu:x:107:\n")
    assert plan(host, wish())
    host.put("/etc/passwd", "root:x:0:0::/root:/bin/sh\nlibvirt-qemu:x:64055:107::/:/bin/false\n")
    with pytest.raises(KernelError, match="usermod --append --groups kvm libvirt-qemu"):
        plan(host, wish())


def test_qemu_as_root_opens_everything(host: KernelHost) -> None:
    host.put("/etc/libvirt/qemu.conf", 'user = "root"\ngroup = "root"\n')
    assert plan(host, wish("0600"))


def test_a_host_without_libvirt(host: KernelHost, tmp_path: Path) -> None:
    (tmp_path / "var/lib/libvirt/qemu").rmdir()
    assert plan(host, wish("0600"))


@pytest.mark.parametrize(("owner", "group", "what"), [("nobody9", "kvm", "user nobody9"), ("root", "kmv", "group kmv")])
def test_unknown_names(host: KernelHost, owner: str, group: str, what: str) -> None:
    with pytest.raises(KernelError, match=f"this host has no {what}"):
        plan(host, wish(group=group, owner=owner))


@pytest.mark.parametrize(
    ("mode", "group"), [("660", 'kvm", RUN+="/bin/x'), ("rw", "kvm"), ("432", "a b"), ("9999", "kvm"), ("04660", "kvm")]
)
def test_what_can_be_no_rule(mode: str, group: str) -> None:
    with pytest.raises(KernelError):
        wish(mode, group)
