# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kernel_settings and its role on real hypervisors that share the machine's kernel.

Only parameters of the network are changed here, which each of them has for itself. The others are for test_kernel_vm.
"""

from __future__ import annotations

import pathlib
import typing as t

import pytest
import rig
from rig import guests, modules, playbooks

FILE = "/etc/sysctl.d/zz-hypervisor-hardening.conf"
MARTIANS, FORWARD = "net.ipv4.conf.all.log_martians", "net.ipv4.ip_forward"
# /etc/hosts changes with the hosts of other tests.
LIST_FILES = (
    r"find /etc /var/lib -xdev -type f -not -path /etc/hosts -exec sha256sum {} +; "
    r"find /etc /var/lib -xdev -printf '%p %m %U %G\n'"
)
ROLE = {"hypervisor_verify_enabled": "false"}
# What a level sets without a switch is a parameter of the machine's kvm. A string, as a survey has it.
OWN = {
    "hypervisor_kernel_sysctls": f'{{"{MARTIANS}": 1}}',
    "hypervisor_kernel_module_parameters": '{"kvm.enable_vmware_backdoor": null}',
}


@pytest.fixture(params=["bookworm", "trixie"])
def host(request: pytest.FixtureRequest) -> t.Iterator[rig.Host]:
    with rig.host(request.param) as fresh:
        set_sysctl(fresh, MARTIANS, "0")
        yield fresh


def sysctl(host: rig.Host, name: str) -> str:
    """What the kernel says, inside."""
    return host.run(["sysctl", "-n", name]).stdout.strip()


def set_sysctl(host: rig.Host, name: str, value: str) -> None:
    host.run(["sysctl", "-q", "-w", f"{name}={value}"])


def files(host: rig.Host) -> str:
    return host.run(["sh", "-c", LIST_FILES]).stdout


def call(host: rig.Host, *, check_mode: bool = False, **options: t.Any) -> dict[str, t.Any]:
    """Run the module; a failure fails the test."""
    answer = modules.call(host, "kernel_settings", check_mode=check_mode, **options)
    assert not answer.get("failed"), answer
    return answer


def test_check_then_change_then_nothing(host: rig.Host) -> None:
    machine = pathlib.Path("/proc/sys/net/ipv4/conf/all/log_martians").read_text(encoding="ascii")
    guest = guests.start(host, guests.Guest("bystander"))
    before = files(host)
    predicted = call(host, check_mode=True, sysctls={MARTIANS: 1})
    assert (predicted["changed"], files(host), sysctl(host, MARTIANS)) == (True, before, "0")
    done = call(host, sysctls={MARTIANS: 1})
    assert done["sysctls"] == predicted["sysctls"]
    assert sysctl(host, MARTIANS) == "1"
    after = files(host)
    assert call(host, sysctls={MARTIANS: 1})["changed"] is False
    assert files(host) == after
    # systemd's own reader takes the file, too
    set_sysctl(host, MARTIANS, "0")
    host.run(["/usr/lib/systemd/systemd-sysctl", FILE])
    assert sysctl(host, MARTIANS) == "1"
    assert guests.pid(host, "bystander") == guest
    assert pathlib.Path("/proc/sys/net/ipv4/conf/all/log_martians").read_text(encoding="ascii") == machine


def test_what_libvirt_set_since_boot_stays(host: rig.Host) -> None:
    """A hardening that once wrote ip_forward = 0, and a network of libvirt's that runs."""
    host.put("/etc/sysctl.d/50-cis.conf", f"{FORWARD} = 0\n".encode())
    set_sysctl(host, FORWARD, "1")
    call(host, sysctls={MARTIANS: 1})
    assert sysctl(host, FORWARD) == "1"


def test_a_later_file_is_named_and_really_wins(host: rig.Host) -> None:
    host.put("/etc/sysctl.d/zzz.conf", f"{MARTIANS} = 0\n".encode())
    done = call(host, sysctls={MARTIANS: 1})
    assert [one["name"] for one in done["overridden"]] == [MARTIANS]
    assert done["overridden"][0]["reason"].startswith("/etc/sysctl.d/zzz.conf sets it to 0")
    assert done["sysctls"][0]["boot"] == "0"
    host.run(["/usr/lib/systemd/systemd-sysctl"], check=False)
    assert sysctl(host, MARTIANS) == "0"


def test_a_refusal_leaves_the_host_as_it_was(host: rig.Host) -> None:
    for wrong in ({"net.ipv4.conf.all.log_martian": 1}, {MARTIANS: 1, "net.ipv4.tcp_congestion_control": "none-such"}):
        failed = modules.call(host, "kernel_settings", sysctls=wrong)
        assert failed["failed"] is True
        assert sysctl(host, MARTIANS) == "0"
    assert "tcp_congestion_control: the kernel refused 'none-such'" in failed["msg"]
    assert FILE not in files(host)


def test_the_whole_runs_the_role_unless_it_is_switched_off(host: rig.Host) -> None:
    pid = guests.start(host, guests.Guest("bystander"))
    before = files(host)
    checked = playbooks.play("harden", host.inventory, "--check", "--tags", "kernel", variables={**ROLE, **OWN})
    assert checked.rc == 0, checked.text
    assert files(host) == before
    done = playbooks.play("harden", host.inventory, "--tags", "kernel", variables={**ROLE, **OWN})
    assert done.rc == 0, done.text
    assert done.results("kernel_settings")[0]["changed"] is True
    assert sysctl(host, MARTIANS) == "1"
    again = playbooks.play("harden", host.inventory, "--tags", "kernel", variables={**ROLE, **OWN})
    assert (again.rc, again.changed) == (0, []), again.text
    switched_off = {**ROLE, **OWN, "hypervisor_kernel_enabled": "false"}
    off = playbooks.play("harden", host.inventory, "--tags", "kernel", variables=switched_off)
    assert (off.rc, off.results("kernel_settings")) == (0, [])
    assert guests.pid(host, "bystander") == pid
