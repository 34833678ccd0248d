# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real runs of main() against a tree of fixtures; access control lists are the kernel's own."""

from __future__ import annotations

import json
import os
import time
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args

from ansible_collections.hypervisor.hardening.plugins.module_utils import _acl, _runner
from ansible_collections.hypervisor.hardening.plugins.modules import apparmor_local, guest_access
from ansible_collections.hypervisor.hardening.tests.unit.plugins.apparmors import ETC, HELPER_LOCAL, ArmorHost
from ansible_collections.hypervisor.hardening.tests.unit.plugins.domains import UUID, domain, seclabel

OTHER = "7bb2a3c0-1f5e-4c6f-9d53-3a1d0e6f2a11"
ROM = "/srv/secret/option.rom"
QEMU = 64055
MOUNTS = "21 1 0:20 / / rw shared:1 - ext4 /dev/vda1 rw\n"


def profile(uuid: str) -> str:
    return f"{ETC}/libvirt/libvirt-{uuid}"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArmorHost:
    host = ArmorHost(tmp_path)
    host.put("/proc/1/mountinfo", MOUNTS)
    host.put("/etc/libvirt/qemu/web.xml", domain())
    host.put("/etc/libvirt/qemu/db.xml", domain(name="db").replace(UUID, OTHER))
    host.directory("/var/lib/libvirt/qemu", 0o750, (QEMU, QEMU))
    host.put(ROM, "rom", 0o640)
    Path(host.path("/srv/secret")).chmod(0o750)
    monkeypatch.setattr(_runner, "Host", lambda: host)
    return host


def run(
    capsys: pytest.CaptureFixture[str], *grants: dict[str, t.Any], module: t.Any = guest_access, **arguments: t.Any
) -> dict[str, t.Any]:
    words = {"grants": list(grants), "_ansible_diff": True, **arguments}
    with patch_module_args(words), pytest.raises(SystemExit):
        module.main()
    return t.cast("dict[str, t.Any]", json.loads(capsys.readouterr().out))


def may(host: ArmorHost, path: str) -> int:
    """What QEMU's user may do with a file."""
    status = host.stat(path)
    stored = host.attributes(path).get(_acl.ATTRIBUTE)
    return _acl.Acl.of(status.st_mode, stored).may(QEMU, (QEMU,), status.st_uid, status.st_gid)


def tree(host: ArmorHost) -> dict[str, t.Any]:
    root = Path(host.path("/"))
    return {
        str(path.relative_to(root)): (
            path.read_bytes() if path.is_file() else b"",
            path.stat().st_mode,
            os.listxattr(path),
        )
        for path in root.rglob("*")
    }


def layers(answer: dict[str, t.Any], number: int = 0) -> dict[str, dict[str, t.Any]]:
    return {layer["layer"]: layer for layer in answer["grants"][number]["layers"]}


READ: dict[str, t.Any] = {"guest": "web", "path": ROM}


def test_check_then_change_then_nothing(host: ArmorHost, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(host)
    predicted = run(capsys, READ, _ansible_check_mode=True)
    assert tree(host) == before
    done = run(capsys, READ)
    assert {**predicted, "invocation": None} == {**done, "invocation": None}
    assert (done["changed"], done["guests_pending"]) == (True, [])
    assert (done["grants"][0]["granted"], done["grants"][0]["restart"]) == (True, False)
    assert f'  "{ROM}" rk,\n' in host.text(profile(UUID))
    assert f'  deny "{profile(UUID)}" w,\n' in host.text(HELPER_LOCAL)
    assert (may(host, ROM), may(host, "/srv/secret"), may(host, "/srv")) == (4, 1, 5)
    assert {one["after_header"] for one in done["diff"]} == {
        profile(UUID), HELPER_LOCAL, f"{ROM} (access control list)", "/srv/secret (access control list)"
    }  # fmt: skip
    again = run(capsys, READ)
    assert (again["changed"], again["diff"]) == (False, [])
    assert again["grants"] == done["grants"]


def test_taken_away_it_is_as_before_but_for_the_directories(
    host: ArmorHost, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, {**READ, "access": "write"})
    assert may(host, ROM) == 6
    done = run(capsys, {**READ, "state": "absent"})
    assert done["changed"] is True
    assert done["grants"][0]["granted"] is False
    assert layers(done)["apparmor"]["stops"] is True
    assert not host.exists(profile(UUID))
    assert "deny" not in host.text(HELPER_LOCAL)
    assert host.attributes(ROM) == {}
    assert host.stat(ROM).st_mode & 0o777 == 0o640
    assert run(capsys, {**READ, "state": "absent"})["changed"] is False


def test_what_another_guest_has_stays(host: ArmorHost, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, READ, {**READ, "guest": OTHER})
    done = run(capsys, {**READ, "state": "absent"})
    assert done["changed"] is True
    assert may(host, ROM) == 4
    assert f'"{ROM}" rk' in host.text(profile(OTHER))
    run(capsys, {**READ, "guest": "db", "state": "absent"})
    assert may(host, ROM) == 0


def test_another_access_takes_the_place_of_the_former(host: ArmorHost, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, {**READ, "access": "write"})
    run(capsys, READ)
    assert f'"{ROM}" rk,' in host.text(profile(UUID))
    assert f'"{ROM}" rwk,' not in host.text(profile(UUID))


def test_it_and_apparmor_local_leave_each_others_rules(host: ArmorHost, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, READ)
    run(capsys, {"path": "/srv/other", "guest": "web"}, module=apparmor_local)
    text = host.text(profile(UUID))
    assert f'"{ROM}" rk,' in text
    assert '"/srv/other" rk,' in text
    assert run(capsys, READ)["changed"] is False
    assert run(capsys, module=apparmor_local)["changed"] is True
    assert f'"{ROM}" rk,' in host.text(profile(UUID))
    assert f'  deny "{profile(UUID)}" w,\n' in host.text(HELPER_LOCAL)


def test_a_guest_that_runs_has_it_when_it_is_started_anew(host: ArmorHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.guest("web", 41, 0)
    host.put(profile(UUID), f"profile libvirt-{UUID} {{\n  #include <libvirt/libvirt-{UUID}.files>\n}}\n")
    time.sleep(0.01)
    host.put(f"{profile(UUID)}.files", "")
    time.sleep(0.01)
    for _run in range(2):
        done = run(capsys, READ)
        assert done["guests_pending"] == ["web"]
        assert {name for name, layer in layers(done).items() if layer["restart"]} == {"apparmor"}
    time.sleep(0.01)
    host.put(f"{profile(UUID)}.files", "")
    assert run(capsys, READ)["guests_pending"] == []


def test_a_device_needs_the_device_list_which_is_for_all_guests(
    host: ArmorHost, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    host.put("/dev/ttyUSB0", "", 0o660)
    done = run(capsys, {"guest": "web", "path": "/dev/ttyUSB0", "access": "write"})
    assert done["grants"][0]["granted"] is False
    assert layers(done)["apparmor"]["stops"] is False
    assert layers(done)["mount_namespace"]["stops"] is True
    assert "cgroup_device_acl of qemu.conf" in layers(done)["mount_namespace"]["grant"]
    assert "The access control list of /dev/ttyUSB0 goes with the node; a rule of udev keeps it." in str(
        done["warnings"]
    )
    host.put("/etc/libvirt/qemu.conf", 'cgroup_device_acl = ["/dev/null", "/dev/ttyUSB0"]\n')
    assert run(capsys, {"guest": "web", "path": "/dev/ttyUSB0", "access": "write"})["grants"][0]["granted"] is True


def test_a_file_system_that_was_mounted_later(host: ArmorHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.guest("web", 41, 0)
    host.put("/proc/1/mountinfo", f"{MOUNTS}30 21 0:44 / /srv rw - ext4 /dev/vdb rw\n")
    host.put("/proc/41/mountinfo", MOUNTS)
    done = run(capsys, READ)
    assert layers(done)["propagation"]["stops"] is True
    assert layers(done)["propagation"]["restart"] is True
    assert done["guests_pending"] == ["web"]
    host.put("/proc/41/mountinfo", f"{MOUNTS}99 21 0:44 / /srv rw - ext4 /dev/vdb rw\n")
    assert layers(run(capsys, READ))["propagation"]["stops"] is False


def test_a_label_of_selinux_is_said(host: ArmorHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.put("/sys/fs/selinux/enforce", "1")
    host.labels[ROM] = "system_u:object_r:default_t:s0"
    done = run(capsys, READ)
    assert layers(done)["selinux"]["stops"] is True
    assert "virt_content_t to read it" in layers(done)["selinux"]["grant"]
    assert done["grants"][0]["granted"] is False
    assert not host.exists(profile(UUID))


def test_a_guest_without_a_label_needs_no_rule(host: ArmorHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.put("/etc/libvirt/qemu/web.xml", domain(extra=seclabel("type='none'")))
    done = run(capsys, READ)
    assert done["grants"][0]["granted"] is True
    assert not host.exists(profile(UUID))


def test_a_guest_of_roots_needs_no_list(host: ArmorHost, capsys: pytest.CaptureFixture[str]) -> None:
    label = seclabel("type='static' model='dac' relabel='no'", "<label>root:root</label>")
    host.put("/etc/libvirt/qemu/web.xml", domain(extra=label))
    host.put(ROM, "rom", 0o600, (1000, 1000))
    run(capsys, READ)
    assert host.attributes(ROM) == {}


@pytest.mark.parametrize(
    ("grant", "message"),
    [
        ({"guest": "none", "path": ROM}, "no guest none is defined on this host"),
        ({"guest": "web", "path": "/srv/none"}, "/srv/none is not there"),
        ({"guest": "web", "path": "/srv/secret"}, "/srv/secret is a directory"),
        ({"guest": "web", "path": "/dev/mem"}, "the memory of the host"),
        ({"guest": "web", "path": "/srv/own"}, "/srv/own belongs to libvirt-qemu itself, and mode 0200 keeps it out"),
    ],
)
def test_what_is_refused_leaves_no_trace(
    host: ArmorHost, capsys: pytest.CaptureFixture[str], grant: dict[str, t.Any], message: str
) -> None:
    host.put("/dev/mem")
    host.put("/srv/own", "", 0o200, (QEMU, QEMU))
    before = tree(host)
    done = run(capsys, grant)
    assert (done["failed"], done["changed"]) == (True, False)
    assert message in done["msg"]
    assert tree(host) == before


def test_if_loading_fails_the_lists_come_back(host: ArmorHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.broken = True
    done = run(capsys, READ)
    assert done["failed"] is True
    assert "Unable to replace.  Permission denied" in done["msg"]
    assert (host.attributes(ROM), host.attributes("/srv/secret")) == ({}, {})
    assert not host.exists(profile(UUID))


def test_every_return_value_is_documented(host: ArmorHost, capsys: pytest.CaptureFixture[str]) -> None:
    documented = yaml.safe_load(guest_access.RETURN)
    done = run(capsys, READ)
    assert set(done) - {"changed", "diff", "invocation", "warnings"} == set(documented)
    assert set(done["grants"][0]) == set(documented["grants"]["contains"])
    assert set(layers(done)["dac"]) == set(documented["grants"]["contains"]["layers"]["contains"])
