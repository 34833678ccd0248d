# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SELinux in a virtual machine of Debian, as far as Debian's policy carries: labels, booleans and contexts for real."""

from __future__ import annotations

import re
import typing as t

import pytest
import rig
from rig import guests, modules, playbooks
from rig.confinement import start_ticks

# The emulated machine takes its time.
pytestmark = pytest.mark.timeout(1800)

IMAGES = "/var/lib/libvirt/images"
# The label that the policy's virtual_domain_context names, and a pair of categories (libvirt's drvqemu.rst).
LABEL = re.compile(r"system_u:system_r:svirt_t:s0:(c\d+,c\d+)\Z")


@pytest.fixture(scope="module")
def host() -> t.Iterator[rig.Host]:
    with rig.vm("trixie", selinux=True) as fresh:
        yield fresh


def label(host: rig.Host, pid: int) -> str:
    return host.run(["cat", f"/proc/{pid}/attr/current"]).stdout.rstrip("\0\n")


def file_label(host: rig.Host, path: str) -> str:
    """As the file system has it, not as a tool renders it (xattr(7))."""
    text = host.run(["getfattr", "--only-values", "--absolute-names", "-n", "security.selinux", path]).stdout
    return text.rstrip("\0\n")


def mac(host: rig.Host) -> dict[str, t.Any]:
    facts: dict[str, t.Any] = modules.call(host, "hypervisor_info")["hypervisor"]["mac"]
    return facts


def test_each_guest_has_a_label_of_its_own_and_its_image_with_it(host: rig.Host) -> None:
    assert host.run(["getenforce"]).stdout == "Permissive\n"
    categories = []
    for name in ("s1", "s2"):
        image = guests.disk(host, f"{IMAGES}/{name}.img")
        assert file_label(host, image).split(":")[2] == "virt_image_t", "as the policy's file_contexts say"
        found = LABEL.match(label(host, guests.start(host, guests.Guest(name, disks=[image]))))
        assert found
        assert file_label(host, image) == f"system_u:object_r:svirt_image_t:s0:{found[1]}"
        categories.append(found[1])
    assert categories[0] != categories[1]
    told = {one["name"]: one for one in modules.call(host, "guest_confinement_info")["guests"]}
    for name, pair in zip(("s1", "s2"), categories, strict=True):
        assert told[name]["label"]["value"].endswith(pair)
        assert told[name]["label"]["mode"] == "permissive"
        weak = {weakness["name"] for weakness in told[name]["weaknesses"]}
        assert "no_mac" not in weak
        assert "mac_not_enforced" in weak
    guests.stop_all(host)


def test_booleans_types_and_mode_are_as_selinuxs_own_tools_say(host: rig.Host) -> None:
    facts = mac(host)
    assert (facts["model"], facts["mode"], facts["enforcing"]) == ("selinux", "permissive", False)
    said = dict(line.split(" --> ") for line in host.run(["getsebool", "-a"]).stdout.splitlines())
    booleans = {one["name"]: one["running"] for one in facts["selinux"]["booleans"]}
    assert booleans
    assert booleans == {name: said[name] == "on" for name in booleans}
    assert {name for name in said if name.startswith("virt_")} <= set(booleans)
    host.run(["setsebool", "virt_use_nfs", "on"])
    running = {one["name"]: (one["running"], one["configured"]) for one in mac(host)["selinux"]["booleans"]}
    assert running["virt_use_nfs"] == (True, "")
    host.run(["setsebool", "virt_use_nfs", "off"])
