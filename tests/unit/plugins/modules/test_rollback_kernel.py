# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real runs of main() over mounts, huge pages and units that the modules changed before, on a played kernel."""

from __future__ import annotations

import os
import shutil
import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _runner
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Completed, Host
from ansible_collections.hypervisor.hardening.plugins.module_utils._journal import Journal
from ansible_collections.hypervisor.hardening.plugins.modules import (
    hugetlbfs,
    journal_info,
    mount_propagation,
    rollback,
)
from ansible_collections.hypervisor.hardening.tests.unit.plugins.kernel import PRIVATE, SLAVE, PlayedHost
from ansible_collections.hypervisor.hardening.tests.unit.plugins.killed import killed_at
from ansible_collections.hypervisor.hardening.tests.unit.plugins.rollbacks import call, run

NR = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
POOLS = [
    {"size": "2M", "pages": 64, "path": "/dev/hugepages", "mode": "0777", "delegate": ["libvirt-qemu"]},
    {"size": "1G", "path": "/huge1G"},
]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlayedHost:
    host = PlayedHost(tmp_path)
    host.put("/proc/1/mountinfo", PRIVATE)
    host.pool("2048kB", 3)
    host.pool("1048576kB", 0)
    host.daemon(77, 4242)
    host.put("/usr/lib/systemd/system/dev-hugepages.mount", "[Mount]\n")

    def untouched() -> Host:
        host.changed = False
        return host

    monkeypatch.setattr(_runner, "Host", untouched)
    return host


def harden(capsys: pytest.CaptureFixture[str]) -> None:
    for module, arguments in ((mount_propagation, {}), (hugetlbfs, {"pools": POOLS})):
        done = call(module, capsys, **arguments)
        assert done.get("changed") is True, done


def tree(host: PlayedHost) -> dict[str, t.Any]:
    """All but the journal and what libvirt makes in a mount; mounts without their numbers."""
    found: dict[str, t.Any] = {name: state for name, state in host.tree().items() if "/var/lib" not in name}
    lines = [line.split() for line in host.text("/proc/1/mountinfo").splitlines()]
    found["mounts"] = sorted(line[4:] for line in lines)
    left = ("/proc/1/mountinfo", "/dev/hugepages/libvirt", "/dev/hugepages/libvirt/qemu", "/var")
    return {name: state for name, state in found.items() if name not in map(host.path, left)}


def test_check_then_change_then_nothing(host: PlayedHost, capsys: pytest.CaptureFixture[str]) -> None:
    former = tree(host)
    harden(capsys)
    assert tree(host) != former
    hardened = host.tree()
    predicted = run(capsys, all=True, _ansible_check_mode=True)
    assert host.tree() == hardened
    calls = len(host.calls)
    done = run(capsys, all=True)
    assert {**predicted, "invocation": None} == {**done, "invocation": None}
    assert tree(host) == former
    assert done["left_alone"] == []
    assert done["restart_required"] is True, "the daemon knows of mounts that are gone"
    assert "systemctl daemon-reload" in host.calls[calls:]
    assert f"{NR} = 3" in host.calls[calls:]
    shown = {one["before_header"]: (one["before"], one["after"]) for one in done["diff"]}
    assert shown["propagation:/"] == ("propagation:/: shared\n", "propagation:/: private\n")
    assert shown[NR] == (f"{NR}: 64\n", f"{NR}: 3\n")
    assert shown["hugetlbfs:/huge1G"] == (
        "/huge1G: hugetlbfs with pages of 1G, 0:0 0755\n",
        "/huge1G: none\n",
    )
    again = run(capsys, all=True)
    assert (again["changed"], again["put_back"], again["left_alone"]) == (False, [], [])
    assert {entry["state"] for entry in call(journal_info, capsys)["entries"] if not entry["undoes"]} == {"put_back"}


def test_a_daemon_that_knows_of_mounts_is_to_be_told(host: PlayedHost, capsys: pytest.CaptureFixture[str]) -> None:
    harden(capsys)
    host.daemon(78, 5000)
    for role, required in (("hypervisor_mounts", False), ("hypervisor_hugepages", True)):
        predicted = run(capsys, roles=[role], _ansible_check_mode=True)
        assert predicted["restart_required"] is run(capsys, roles=[role])["restart_required"] is required


def test_hardened_again_and_put_back_again(host: PlayedHost, capsys: pytest.CaptureFixture[str]) -> None:
    former = tree(host)
    for _time in range(2):
        harden(capsys)
        run(capsys, all=True)
        assert tree(host) == former
    assert run(capsys, all=True)["changed"] is False


def test_one_role_alone(host: PlayedHost, capsys: pytest.CaptureFixture[str]) -> None:
    harden(capsys)
    done = run(capsys, roles=["hypervisor_hugepages"])
    assert {one["by"] for one in done["put_back"]} == {"hugetlbfs"}
    assert host.text(NR) == "3\n"
    assert " / / rw,relatime shared:900 - overlay" in host.text("/proc/1/mountinfo")
    done = run(capsys, roles=["hypervisor_mounts"])
    assert {one["by"] for one in done["put_back"]} == {"mount_propagation"}
    assert "shared:" not in host.text("/proc/1/mountinfo")


def test_pages_that_a_guest_has_are_not_taken(host: PlayedHost, capsys: pytest.CaptureFixture[str]) -> None:
    harden(capsys)
    host.guest("web", 11, SLAVE)
    host.put("/proc/11/status", "Name:\tqemu\nHugetlbPages:\t  65536 kB\n")
    host.put(NR.replace("/nr_", "/free_"), "32\n")
    before = host.tree()
    failed = call(rollback, capsys, all=True)
    assert (failed["failed"], failed["changed"]) == (True, False)
    assert "Guests with huge pages: web." in failed["msg"]
    assert host.tree() == before


def test_a_mount_that_a_guest_uses_stays(host: PlayedHost, capsys: pytest.CaptureFixture[str]) -> None:
    harden(capsys)
    host.put("/huge1G/libvirt/qemu/7-web/pages")
    before = host.tree()
    failed = call(rollback, capsys, all=True)
    assert (failed["failed"], failed["changed"]) == (True, False)
    assert "/huge1G is in use and stays mounted: /huge1G/libvirt/qemu/7-web" in failed["msg"]
    assert host.tree() == before


def test_a_delegated_directory_in_use_stays(host: PlayedHost, capsys: pytest.CaptureFixture[str]) -> None:
    harden(capsys)
    host.put("/dev/hugepages/libvirt-qemu/pages")
    failed = call(rollback, capsys, all=True)
    assert "/dev/hugepages/libvirt-qemu is in use and stays: pages." in failed["msg"]


def test_guests_that_were_to_see_mounts_are_named(host: PlayedHost, capsys: pytest.CaptureFixture[str]) -> None:
    harden(capsys)
    host.guest("web", 11, SLAVE)
    done = run(capsys, roles=["hypervisor_mounts"])
    assert "which were started to see it: web." in str(done["warnings"])


def test_values_that_somebody_has_changed_stay(host: PlayedHost, capsys: pytest.CaptureFixture[str]) -> None:
    harden(capsys)
    host.put(NR, "65\n")
    host.put("/proc/1/mountinfo", host.text("/proc/1/mountinfo").replace("/dev rw,nosuid shared:900", "/dev rw,nosuid"))
    done = run(capsys, all=True)
    # /dev is private again, as it was before: nothing is lost.
    assert [one["target"] for one in done["left_alone"]] == [NR]
    assert host.text(NR) == "65\n"
    done = run(capsys, all=True, overwrite=[NR])
    assert (done["changed"], host.text(NR)) == (True, "3\n")


def test_a_drop_in_of_somebody_else_keeps_its_directory(host: PlayedHost, capsys: pytest.CaptureFixture[str]) -> None:
    harden(capsys)
    place = "/etc/systemd/system/dev-hugepages.mount.d"
    host.put(f"{place}/own.conf", "[Mount]\n")
    done = run(capsys, all=True)
    assert os.listdir(host.path(place)) == ["own.conf"]
    assert done["left_alone"] == [{"target": f"directory:{place}", "reason": "it holds own.conf"}]


def test_a_value_of_the_kernel(host: PlayedHost, capsys: pytest.CaptureFixture[str]) -> None:
    path = "/proc/sys/kernel/kptr_restrict"
    host.put(path, "2\n")
    Journal(host, "kernel_settings").record_value(path, "0", "2")
    # The played one is for pools of pages; this is a plain file.
    host.write_kernel = Host(host.root).write_kernel  # type: ignore[method-assign]
    assert run(capsys, all=True)["changed"] is True
    assert host.text(path).strip() == "0"
    assert run(capsys, all=True)["changed"] is False


def test_what_the_kernel_keeps_until_it_boots_hinders_nothing_else(
    host: PlayedHost, capsys: pytest.CaptureFixture[str]
) -> None:
    kexec, pointers = "/proc/sys/kernel/kexec_load_disabled", "/proc/sys/kernel/kptr_restrict"
    for path in (kexec, pointers):
        host.put(path, "1\n")
        Journal(host, by="kernel_settings").record_value(path, "0", "1")
    # The played one is for pools of pages; these are plain files.
    host.write_kernel = Host(host.root).write_kernel  # type: ignore[method-assign]
    done = run(capsys, all=True, overwrite=[kexec])
    assert [one["target"] for one in done["put_back"]] == [pointers]
    assert done["left_alone"] == [{"target": kexec, "reason": "the kernel takes no other value before the next boot"}]
    # After the boot it is what it was.
    host.put(kexec, "0\n")
    assert run(capsys, all=True)["left_alone"] == []


def test_a_service_that_was_masked_and_stopped(
    host: PlayedHost, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = "/etc/systemd/system/ksmtuned.service"
    active: set[str] = set()
    calls = []

    def systemctl(argv: t.Sequence[str], **_options: t.Any) -> Completed:
        calls.append(" ".join(argv))
        if argv[1] == "start":
            assert host.stat_optional(mask, follow=False) is None, "it is masked"
            assert calls[-2] == "systemctl daemon-reload"
            active.add(argv[-1])
        return Completed(tuple(argv), 0 if argv[1] != "is-active" or argv[-1] in active else 3, "", "")

    monkeypatch.setattr(host, "run", systemctl)
    journal = Journal(host, "kernel_settings")
    journal.record_value("unit:ksmtuned.service", "active", "inactive")
    journal.record_value(f"link:{mask}", None, "/dev/null")
    host.link(mask, "/dev/null")
    done = run(capsys, all=True)
    assert [one["kind"] for one in done["put_back"]] == ["link", "unit"]
    assert active == {"ksmtuned.service"}
    assert run(capsys, all=True)["changed"] is False


def test_owner_group_and_mode_of_a_device(host: PlayedHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.put("/dev/kvm", mode=0o660)
    Journal(host, "kernel_settings").record_value(
        "owner:/dev/kvm", {"uid": 0, "gid": 994, "mode": 0o666}, {"uid": 0, "gid": 0, "mode": 0o660}
    )
    done = run(capsys, all=True)
    assert host.calls[-1] == "chown 0:994 0666 /dev/kvm"
    assert (done["diff"][0]["before"], done["diff"][0]["after"]) == ("/dev/kvm: 0:0 0660\n", "/dev/kvm: 0:994 0666\n")
    assert run(capsys, all=True)["changed"] is False


def test_what_is_not_known_is_left_alone(host: PlayedHost, capsys: pytest.CaptureFixture[str]) -> None:
    Journal(host, "of_tomorrow").record_value("flux:capacitor", None, 88)
    done = run(capsys, all=True, overwrite=["flux:capacitor"])
    assert done["changed"] is False
    assert done["left_alone"][0]["target"] == "flux:capacitor"
    (entry,) = call(journal_info, capsys)["entries"]
    assert (entry["kind"], entry["state"]) == ("unknown", "unknown")


def test_a_run_that_was_killed_is_finished_by_the_next(
    host: PlayedHost, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    former = tree(host)
    for module, arguments in ((mount_propagation, {"propagation": "shared"}), (hugetlbfs, {"pools": POOLS})):
        assert call(module, capsys, **arguments).get("changed") is True
    kept = tmp_path.with_name(f"{tmp_path.name}-kept")
    shutil.copytree(tmp_path, kept, symlinks=True)
    kernel = [(host, name) for name in ("mount", "unmount", "write_kernel")]
    number = 0
    while killed_at(number, lambda: run(capsys, all=True), *kernel):
        done = run(capsys, all=True)
        assert (tree(host), done["left_alone"]) == (former, []), f"killed before change number {number}"
        shutil.rmtree(tmp_path)
        shutil.copytree(kept, tmp_path, symlinks=True)
        number += 1
    assert number > 20
