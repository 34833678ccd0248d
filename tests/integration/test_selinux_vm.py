# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SELinux in a virtual machine, as far as Debian's policy carries: labels, booleans and contexts, enforced for real."""

from __future__ import annotations

import re
import typing as t

import pytest
import rig
from rig import guests, modules, playbooks
from rig.confinement import start_ticks

# The emulated machine takes its time.
pytestmark = pytest.mark.timeout(2400)

# The label that the policy's virtual_domain_context names, and a pair of categories (libvirt's drvqemu.rst).
LABEL = re.compile(r"system_u:system_r:svirt_t:s0:(c\d+,c\d+)\Z")
# selinux_check_access(3): the kernel's own decision, in enforcing mode.
ASK = """
import selinux, sys
for context in sys.argv[2:]:
    try:
        selinux.selinux_check_access(sys.argv[1], context, "file", "write")
        print("yes")
    except PermissionError:
        print("no")
"""


@pytest.fixture(scope="module")
def machine() -> t.Iterator[rig.Host]:
    with rig.vm("trixie", selinux=True) as fresh:
        yield fresh


@pytest.fixture
def host(machine: rig.Host) -> t.Iterator[rig.Host]:
    yield machine
    machine.run(["setenforce", "0"])
    guests.stop_all(machine)


def label(host: rig.Host, pid: int) -> str:
    return host.get(f"/proc/{pid}/attr/current").decode().rstrip("\0\n")


def file_label(host: rig.Host, path: str) -> str:
    """As the file system has it (xattr(7)), not as a tool renders it."""
    words = ["getfattr", "--only-values", "--absolute-names", "-n", "security.selinux", path]
    return host.run(words).stdout.rstrip("\0\n")


def mac(host: rig.Host) -> dict[str, t.Any]:
    facts: dict[str, t.Any] = modules.call(host, "hypervisor_info")["hypervisor"]["mac"]
    return facts


def enforce(host: rig.Host) -> None:
    # TCG makes code while it runs; under KVM no guest needs this.
    host.run(["setsebool", "virt_use_execmem", "on"])
    host.run(["setenforce", "1"])


def test_permissive_is_told_as_no_wall_and_the_facts_are_selinuxs_own(host: rig.Host) -> None:
    assert host.run(["getenforce"]).stdout == "Permissive\n"
    pid = guests.start(host, guests.Guest("s0"))
    assert LABEL.match(label(host, pid))
    (told,) = modules.call(host, "guest_confinement_info")["guests"]
    assert (told["label"]["value"], told["label"]["mode"]) == (label(host, pid), "permissive")
    assert {weakness["id"] for weakness in told["weaknesses"]} >= {"mac_not_enforced"}

    host.run(["setsebool", "virt_use_nfs", "on"])
    facts = mac(host)
    assert (facts["model"], facts["mode"], facts["enforcing"]) == ("selinux", "permissive", False)
    said = dict(line.split(" --> ") for line in host.run(["getsebool", "-a"]).stdout.splitlines())
    told_of = {one["name"]: one["running"] for one in facts["selinux"]["booleans"]}
    assert told_of["virt_use_nfs"] is True
    assert told_of == {name: said[name] == "on" for name in told_of}
    assert set(told_of) >= {name for name in said if name.startswith("virt_")}
    host.run(["setsebool", "virt_use_nfs", "off"])
    assert {one["name"]: one["permissive"] for one in facts["selinux"]["types"]}.items() >= {
        ("svirt_t", False),
        ("virtd_t", False),
    }
    assert {one["name"]: one["confined"] for one in facts["daemons"]}["libvirtd"] is True


def test_enforced_a_guest_is_kept_from_the_image_of_another(host: rig.Host) -> None:
    enforce(host)
    # A place of the operator's own, with the context that it is given in the policy's file.
    host.run(["semanage", "fcontext", "-a", "-t", "virt_image_t", "/srv/images(/.*)?"], timeout=300)
    host.run(["mkdir", "-p", "/srv/images"])
    labels = {}
    for name in ("s1", "s2"):
        image = guests.disk(host, f"/srv/images/{name}.img")
        host.run(["restorecon", "-R", "/srv/images"])
        assert file_label(host, image).split(":")[2] == "virt_image_t"
        found = label(host, guests.start(host, guests.Guest(name, disks=[image])))
        categories = LABEL.match(found)
        assert categories
        assert file_label(host, image) == f"system_u:object_r:svirt_image_t:s0:{categories[1]}"
        labels[name] = (found, file_label(host, image))
    asked = ["python3", "-c", ASK, labels["s1"][0], labels["s1"][1], labels["s2"][1], "system_u:object_r:etc_t:s0"]
    assert host.run(asked).stdout.split() == ["yes", "no", "no"]
    for told in modules.call(host, "guest_confinement_info")["guests"]:
        assert told["label"]["mode"] == "enforcing"
        assert not {weakness["id"] for weakness in told["weaknesses"]} & {"no_mac", "mac_not_enforced"}


def test_harden_verify_and_audit_while_selinux_is_enforced(host: rig.Host) -> None:
    enforce(host)
    pid = guests.start(host, guests.Guest("throughout"))
    ticks = start_ticks(host, pid)
    variables = {
        "hypervisor_level": "strict",
        "hypervisor_qemu_unprivileged_user": True,
        "hypervisor_qemu_seccomp": True,
        "hypervisor_qemu_mount_namespace": True,
    }
    first = playbooks.play("harden", host.inventory, variables=variables)
    assert first.rc == 0, first.text
    second = playbooks.play("harden", host.inventory, variables=variables)
    assert (second.rc, second.changed) == (0, []), second.text
    assert (guests.pid(host, "throughout"), start_ticks(host, pid)) == (pid, ticks)
    guests.stop(host, "throughout")
    assert LABEL.match(label(host, guests.start(host, guests.Guest("after"))))
    verified = playbooks.play("verify", host.inventory, variables={"hypervisor_level": "strict"})
    assert verified.rc == 0, verified.text
    audited = playbooks.play("audit", host.inventory)
    assert (audited.rc, audited.changed) == (0, []), audited.text
    assert host.run(["getenforce"]).stdout == "Enforcing\n"
    # The files that harden writes have the contexts that the policy gives them.
    assert file_label(host, "/etc/libvirt/qemu.conf").split(":")[2] == "virt_etc_t"


def test_the_role_changes_the_policy_as_asked_and_it_can_be_taken_back(host: rig.Host) -> None:
    host.run(["mkdir", "-p", "/data/site"])
    host.run(["chcon", "-t", "default_t", "/data/site"])
    host.run(["semanage", "permissive", "--add", "svirt_t"], timeout=600)
    host.run(["setsebool", "-P", "virt_use_nfs", "on"], timeout=600)
    for words in (["pool-define-as", "site", "dir", "--target", "/data/site"], ["pool-start", "site"]):
        guests.virsh(host, *words)
    former = policy(host)
    assert former[1:] == ["svirt_t", "virt_use_nfs --> on", "default_t", "default_t"]
    plays = [{"hosts": host.name, "gather_facts": False, "roles": ["hypervisor.hardening.hypervisor_mac"]}]
    # Strings, as a survey sends them.
    asked = {f"hypervisor_mac_selinux_{name}": "true" for name in ("enforce_types", "pools")}
    variables = {**asked, "hypervisor_mac_selinux_booleans": {"virt_use_nfs": "off"}}
    checked = playbooks.play(plays, host.inventory, "--check", variables=variables)
    assert (checked.rc, policy(host)) == (0, former), checked.text
    done = playbooks.play(plays, host.inventory, variables=variables)
    assert done.rc == 0, done.text
    assert done.changed == checked.changed == ["Hold the local changes to SELinux's policy"]
    assert policy(host)[1:] == ["", "virt_use_nfs --> off", "virt_image_t", "virt_image_t"]
    again = playbooks.play(plays, host.inventory, variables=variables)
    assert (again.rc, again.changed) == (0, []), again.text

    enforce(host)
    image = guests.disk(host, "/data/site/s3.img")
    assert file_label(host, image).split(":")[2] == "virt_image_t", "from its directory"
    guests.start(host, guests.Guest("s3", disks=[image]))
    guests.stop(host, "s3")
    host.run(["rm", image])

    taken_back = playbooks.play("rollback", host.inventory, variables={"hypervisor_rollback_roles": "hypervisor_mac"})
    assert taken_back.rc == 0, taken_back.text
    assert policy(host) == former


def policy(host: rig.Host) -> list[str]:
    """What SELinux's own tools say: other permissive types, svirt_t if it is one, a boolean, and the label of a pool by
    the policy and as it is."""
    permissive = host.run(["semanage", "permissive", "--list", "--noheading"], timeout=300).stdout.split()
    own = "svirt_t" if "svirt_t" in permissive else ""
    boolean = host.run(["getsebool", "virt_use_nfs"]).stdout.strip()
    wanted = host.run(["matchpathcon", "-n", "/data/site"]).stdout.split(":")[2]
    others = " ".join(sorted(set(permissive) - {"svirt_t"}))
    return [others, own, boolean, wanted, file_label(host, "/data/site").split(":")[2]]
