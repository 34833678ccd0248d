# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What libvirt says of itself. The documents are its own, cut down; the connection is met in tests/integration."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _info_capabilities
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import HostError
from ansible_collections.hypervisor.hardening.plugins.module_utils._infocontext import Context
from ansible_collections.hypervisor.hardening.tests.unit.plugins.documented import mismatches
from ansible_collections.hypervisor.hardening.tests.unit.plugins.domains import domain
from ansible_collections.hypervisor.hardening.tests.unit.plugins.libvirthost import LibvirtHost

# virsh capabilities of Fedora with SELinux.
CAPABILITIES = """<capabilities><host><uuid>ced08b1c-daa5-592d-bee0-1b1eec705fa9</uuid><iommu support='yes'/>
<secmodel><model>selinux</model><doi>0</doi>
<baselabel type='kvm'>system_u:system_r:svirt_t:s0</baselabel>
<baselabel type='qemu'>system_u:system_r:svirt_tcg_t:s0</baselabel></secmodel>
<secmodel><model>dac</model><doi>0</doi><baselabel type='kvm'>+107:+107</baselabel>
<baselabel type='qemu'>+107:+107</baselabel></secmodel></host></capabilities>"""
# libvirt's tests/domaincapsdata, qemu_9.1.0-q35.x86_64+amdsev in short
AMD = """<domainCapabilities><domain>kvm</domain><machine>pc-q35-9.1</machine>
<os supported='yes'><enum name='firmware'><value>efi</value></enum>
<loader supported='yes'><enum name='secure'><value>yes</value><value>no</value></enum></loader></os>
<features><sev supported='yes'><cbitpos>51</cbitpos></sev>
<launchSecurity supported='yes'><enum name='sectype'><value>sev</value><value>sev-snp</value></enum></launchSecurity>
</features></domainCapabilities>"""
NOT_AMD = """<domainCapabilities><domain>kvm</domain><machine>pc-i440fx-7.2</machine>
<os supported='yes'><enum name='firmware'/><loader supported='yes'><enum name='secure'><value>no</value></enum></loader>
</os><features><sev supported='no'/></features></domainCapabilities>"""


class Connected(LibvirtHost):
    """As if this were a host's own root directory, and libvirt said this."""

    heard: t.ClassVar[dict[str, t.Any]] = {}

    def in_child(self, function: t.Callable[[], t.Any], *, timeout: float = 10.0) -> t.Any:
        assert timeout == 10.0
        if not self.heard:
            raise HostError("No answer within 10 seconds; the attempt was ended.")
        return self.heard


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Connected:
    host = Connected(tmp_path)
    monkeypatch.setattr(_info_capabilities, "_elsewhere", lambda host: False)
    Path(host.path("/var/lib/libvirt")).mkdir(parents=True)
    return host


def answer(monkeypatch: pytest.MonkeyPatch, of_domains: str | None = AMD, libvirt: int = 11003000) -> None:
    said = {"libvirt": libvirt, "qemu": 10000002, "capabilities": CAPABILITIES, "domain": of_domains}
    monkeypatch.setattr(Connected, "heard", said)


def look(host: LibvirtHost, *, connect: bool = False) -> dict[str, t.Any]:
    return _info_capabilities.facts(Context(host, connect))


def test_what_libvirt_answers(host: Connected, monkeypatch: pytest.MonkeyPatch) -> None:
    host.daemon(77)
    answer(monkeypatch)
    found = look(host)
    assert (found["connected"], found["reason"]) == (True, "")
    assert (found["libvirt_version"], found["qemu_version"]) == ("11.3.0", "10.0.2")
    assert (found["host_uuid"], found["iommu"]) == ("ced08b1c-daa5-592d-bee0-1b1eec705fa9", True)
    assert (found["mac"], found["dac"]) == (["selinux"], {"uid": 107, "gid": 107, "source": "capabilities"})
    assert found["secmodels"][0] == {
        "model": "selinux",
        "doi": "0",
        "baselabels": {"kvm": "system_u:system_r:svirt_t:s0", "qemu": "system_u:system_r:svirt_tcg_t:s0"},
    }
    assert (found["machine_default"], found["domain_type"]) == ("pc-q35-9.1", "kvm")
    assert (found["firmware"], found["secure_boot"], found["launch_security"]) == (["efi"], True, ["sev", "sev-snp"])
    assert (found["sev"]["state"], found["sev_snp"]["state"]) == ("present", "present")


@pytest.mark.parametrize(
    ("of_domains", "libvirt", "sev", "snp"),
    [
        (AMD.replace("<value>sev-snp</value>", ""), 11003000, "present", "absent"),
        (NOT_AMD, 9000000, "absent", "absent"),
        (NOT_AMD, 10005000, "absent", "absent"),
        (NOT_AMD.replace("'no'/></f", "'yes'/></f"), 9000000, "present", "absent"),
        (NOT_AMD.replace("'no'/></f", "'yes'/></f"), 10005000, "present", "unknown"),
    ],
)
def test_encrypted_guests(
    host: Connected, monkeypatch: pytest.MonkeyPatch, of_domains: str, libvirt: int, sev: str, snp: str
) -> None:
    host.daemon(77)
    answer(monkeypatch, of_domains, libvirt)
    found = look(host)
    assert (found["sev"]["state"], found["sev_snp"]["state"]) == (sev, snp)


@pytest.mark.parametrize(
    ("device", "parameter", "state"), [(True, "Y", "unknown"), (False, "N", "absent"), (False, None, "absent")]
)
def test_without_a_connection_the_kernel_can_only_rule_it_out(
    host: Connected, device: bool, parameter: str | None, state: str
) -> None:
    host.daemon(77)
    if device:
        host.put("/dev/sev", "")
    if parameter:
        host.put("/sys/module/kvm_amd/parameters/sev_snp", f"{parameter}\n")
        host.put("/sys/module/kvm_amd/parameters/sev", f"{parameter}\n")
    found = look(host)
    assert (found["connected"], found["secmodels"], found["mac"], found["iommu"]) == (False, None, None, None)
    assert "No answer within 10 seconds" in found["reason"]
    assert (found["sev"]["state"], found["sev_snp"]["state"]) == (state, state)
    assert found["sev_device"] is device


def test_an_idle_daemon_is_left_asleep(host: Connected, monkeypatch: pytest.MonkeyPatch) -> None:
    host.listen("/run/libvirt/libvirt-sock")
    answer(monkeypatch)
    assert look(host)["reason"] == "libvirtd is idle and was not woken (connect: false)."
    assert look(host, connect=True)["connected"] is True


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("T", "libvirtd is suspended and would not answer."),
        (None, "libvirtd does not run, and nothing listens for it."),
    ],
)
def test_a_daemon_that_cannot_answer(
    host: Connected, monkeypatch: pytest.MonkeyPatch, state: str | None, reason: str
) -> None:
    answer(monkeypatch)
    if state:
        host.daemon(77, state=state)
    assert look(host, connect=True)["reason"] == reason


def test_a_host_without_libvirt(tmp_path: Path) -> None:
    host = LibvirtHost(tmp_path)
    os.unlink(host.path("/usr/sbin/libvirtd"))
    found = look(host)
    assert (found["connected"], found["reason"]) == (False, "libvirt is not installed.")
    assert found["dac"] == {"uid": None, "gid": None, "source": ""}


def test_whom_qemu_runs_as_without_a_connection(host: Connected) -> None:
    host.put("/etc/passwd", "root:x:0:0::/:/bin/sh\nqemu:x:107:36::/:/bin/false\n")
    host.put("/etc/group", "kvm:x:36:\n")
    host.put("/etc/libvirt/qemu.conf", 'user = "qemu"\ngroup = "+36"\n')
    found = look(host)["dac"]
    assert (found["uid"], found["gid"]) == (107, 36)


def test_what_the_daemon_is_told_of_its_uuid(host: Connected) -> None:
    host.put("/etc/libvirt/libvirtd.conf", 'host_uuid_source = "machine-id"\n')
    found = look(host)
    assert (found["host_uuid_source"], found["host_uuid_configured"]) == ("machine-id", None)


def test_the_tool_for_measurements(host: Connected) -> None:
    host.put("/usr/bin/virt-qemu-sev-validate", "")
    os.chmod(host.path("/usr/bin/virt-qemu-sev-validate"), 0o755)
    assert look(host)["sev_validate"] is True


@pytest.mark.parametrize(
    ("machine", "deprecated"), [("pc-q35-2.12", ["pc-q35-2.12"]), ("pc-q35-10.0", []), ("q35", [])]
)
def test_machines_that_qemu_means_to_drop(
    host: Connected, monkeypatch: pytest.MonkeyPatch, machine: str, deprecated: list[str]
) -> None:
    host.daemon(77)
    answer(monkeypatch)
    # libvirt 11.3 with QEMU 10.0, cut down
    of_guests = (
        "<guest><os_type>hvm</os_type><arch name='x86_64'><machine canonical='pc-q35-10.0' maxCpus='4096'>q35</machine>"
        "<machine maxCpus='4096'>pc-q35-10.0</machine><machine maxCpus='288' deprecated='yes'>pc-q35-2.12</machine>"
        "<machine maxCpus='255' deprecated='yes'>pc-i440fx-2.12</machine></arch></guest></capabilities>"
    )
    said = {**Connected.heard, "capabilities": CAPABILITIES.replace("</capabilities>", of_guests)}
    monkeypatch.setattr(Connected, "heard", said)
    host.put("/etc/libvirt/qemu/web.xml", domain(machine=machine))
    assert look(host)["machines_deprecated"] == deprecated


def test_machines_without_a_connection(host: Connected) -> None:
    assert look(host)["machines_deprecated"] is None


def test_what_guests_can_have_here(host: Connected, monkeypatch: pytest.MonkeyPatch) -> None:
    host.daemon(77)
    machines = "<machine canonical='pc-q35-10.0'>q35</machine>" + "".join(
        f"<machine>{name}</machine>" for name in ("pc-q35-10.0", "pc-q35-2.12", "pc-q35-4.0.1", "microvm", "rhel-9.4-x")
    )
    capabilities = (
        f"<capabilities><host><cpu><arch>x86_64</arch></cpu></host><guest><arch name='x86_64'>{machines}</arch></guest>"
        "<guest><arch name='aarch64'><machine>virt-10.0</machine></arch></guest></capabilities>"
    )
    cpu = "<cpu><mode name='host-model'><model>EPYC</model><feature policy='require' name='aes'/></mode></cpu>"
    host.put("/usr/share/libvirt/cpu_map/x86_EPYC.xml", "<cpus><model name='EPYC'><feature name='avx'/></model></cpus>")
    said = {"capabilities": capabilities, "domain": f"<domainCapabilities>{cpu}</domainCapabilities>"}
    monkeypatch.setattr(Connected, "heard", said)
    found = look(host)
    assert found["machines"] == {"microvm": [""], "pc-q35": ["10.0", "2.12", "4.0.1"], "rhel-9.4-x": [""]}
    assert found["cpu_features"] == ["aes", "avx"]
    assert mismatches("capabilities", found) == []


def test_what_guests_can_have_without_a_connection(host: Connected) -> None:
    found = look(host)
    assert found["machines"] is None and found["cpu_features"] is None
