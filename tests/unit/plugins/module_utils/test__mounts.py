# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import errno
import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _mounts
from ansible_collections.hypervisor.hardening.plugins.module_utils._journal import Journal
from ansible_collections.hypervisor.hardening.plugins.module_utils._mounts import PropagationError, Wanted
from ansible_collections.hypervisor.hardening.plugins.module_utils._units import NoMechanism
from ansible_collections.hypervisor.hardening.tests.unit.plugins.kernel import PRIVATE, SHARED, SLAVE, PlayedHost

UNIT = "/etc/systemd/system/hypervisor-hardening-propagation-{}.service"


@pytest.fixture
def host(tmp_path: Path) -> PlayedHost:
    return PlayedHost(tmp_path)


def plan(host: PlayedHost, **wanted: t.Any) -> _mounts.Plan:
    asked = Wanted(**wanted)
    return _mounts.plan(_mounts.observe(host, asked), asked)


def mountinfo(*lines: str) -> str:
    """A private / with these mounts: "TARGET [TAGS [DEVICE [ROOT [TYPE]]]]", each one a child of the nearest above."""
    found = [("/", 2)]
    text = ["2 1 8:1 / / rw - ext4 /dev/sda1 rw"]
    for number, line in enumerate(lines, start=3):
        target, tags, device, root, fstype = (*line.split(), *["-"] * 4)[:5]
        above = (entry for entry in found if f"{target}/".startswith(entry[0].rstrip("/") + "/"))
        parent = max(above, key=lambda entry: len(entry[0]))
        found.append((target, number))
        tag = "" if tags == "-" else f" {tags}"
        device = f"0:{number}" if device == "-" else device
        kind = "tmpfs" if fstype == "-" else fstype
        text.append(f"{number} {parent[1]} {device} {'/' if root == '-' else root} {target} rw{tag} - {kind} none rw")
    return "".join(line + "\n" for line in text)


def test_a_host_as_systemd_leaves_it_needs_nothing(host: PlayedHost) -> None:
    found = plan(host)
    assert (found.changes, found.spared, found.warnings, found.diff) == ((), (), (), [])


def test_a_private_host_is_shared_children_first(host: PlayedHost) -> None:
    host.put("/proc/1/mountinfo", PRIVATE)
    found = plan(host)
    assert [change.target for change in found.propagation] == [
        "/sys",
        "/run",
        "/proc",
        "/dev/hugepages",
        "/dev",
        "/",
    ]
    assert [entry.mount.target for entry in found.spared] == ["/run/host"], "what is below it is not worth a word"
    assert found.diff[0]["before"].splitlines()[0] == "/ private"
    assert found.diff[0]["after"].splitlines()[0] == "/ shared"


def test_applied_it_holds_and_is_in_the_journal(host: PlayedHost) -> None:
    host.put("/proc/1/mountinfo", PRIVATE)
    found = plan(host)
    before = host.tree()
    _mounts.check(host, found)
    assert host.tree() == before
    _mounts.apply(host, found, Journal(host, "test"))
    assert plan(host).changes == ()
    entries = Journal(host, "test").entries()
    assert ("propagation:/", "private", "shared") in [(entry.target, entry.before, entry.after) for entry in entries]
    assert len(entries) == len(found.propagation)


def test_broken_off_it_goes_on_where_it_was(host: PlayedHost) -> None:
    host.put("/proc/1/mountinfo", PRIVATE)
    everything = [change.target for change in plan(host).propagation]
    for done in range(len(everything)):
        assert [change.target for change in plan(host).propagation] == everything[done:]
        assert plan(host).warnings == ()
        host.mount("none", everything[done], "", _mounts.MS_SHARED)
    assert plan(host).changes == ()


# Semantics of Documentation/filesystems/sharedsubtree.rst, section 5, and of change_mnt_propagation in fs/pnode.c.
@pytest.mark.parametrize(
    ("word", "tags", "changes"),
    [
        ("shared", "-", True),
        ("shared", "shared:1", False),
        ("shared", "master:1", True),
        ("shared", "shared:1,master:2", False),
        ("shared", "unbindable", True),
        ("private", "-", False),
        ("private", "shared:1", True),
        ("private", "master:1", True),
        ("private", "unbindable", True),
        ("slave", "-", False),
        ("slave", "shared:1", True),
        ("slave", "master:1", False),
        ("slave", "shared:1,master:2", True),
        ("slave", "unbindable", False),
        ("unbindable", "-", True),
        ("unbindable", "shared:1", True),
        ("unbindable", "unbindable", False),
    ],
)
def test_one_mount(host: PlayedHost, word: str, tags: str, changes: bool) -> None:
    host.put("/proc/1/mountinfo", mountinfo(f"/srv {tags}").replace(",", " "))
    found = plan(host, mounts=["/srv"], propagation=word, persist=False)
    assert [str(change) for change in found.propagation] == (
        [f"/srv is {found.propagation[0].before} instead of {word}"] if changes else []
    )


def test_without_recursion_only_the_named_mounts(host: PlayedHost) -> None:
    host.put("/proc/1/mountinfo", PRIVATE)
    found = plan(host, mounts=["/", "/dev"], propagation="shared")
    assert [change.target for change in found.propagation] == ["/dev", "/"]


@pytest.mark.parametrize("pattern", ["/pin", "/p?n", "/pin*", "/[p]in"])
def test_an_excluded_mount_and_all_below_it(host: PlayedHost, pattern: str) -> None:
    host.put("/proc/1/mountinfo", mountinfo("/pin", "/pin/inner", "/pinned/no/longer"))
    found = plan(host, exclude=[pattern])
    left = ["/"] if pattern == "/pin*" else ["/pinned/no/longer", "/"]
    assert [change.target for change in found.propagation] == left
    assert found.spared[0].reason == f"exclude: {pattern}"
    assert found.warnings == ()


def test_a_pattern_covers_mounts_below_a_directory_that_is_none(host: PlayedHost) -> None:
    host.put("/proc/1/mountinfo", mountinfo("/var/lib/docker/overlay2/abc/merged", "/var/lib/dockers"))
    assert [change.target for change in plan(host).propagation] == ["/var/lib/dockers", "/"]


@pytest.mark.parametrize(
    ("lines", "spared", "warned"),
    [
        (["/pin - 8:1 /pin"], ["/pin"], True),  # mount --bind /pin /pin
        (["/pin - 8:1 /other"], [], False),
        (["/pin", "/pin/ns - 0:4 mnt:[4026532284] nsfs"], ["/pin"], False),
        (["/pin", "/pin/ns - 0:4 net:[4026532284] nsfs"], [], False),
        (["/pin unbindable"], ["/pin"], False),
        (["/net - - - autofs"], ["/net"], False),
        (["/up shared:7", "/up/pin"], ["/up/pin"], True),
        (["/up shared:7", "/up/pin master:8"], ["/up/pin"], True),
        (["/up shared:7", "/up/shared shared:9"], [], False),
    ],
)
def test_pinned_by_its_looks(host: PlayedHost, lines: list[str], spared: list[str], warned: bool) -> None:
    host.put("/proc/1/mountinfo", mountinfo(*lines))
    found = plan(host)
    assert [entry.mount.target for entry in found.spared] == spared
    assert not {change.target for change in found.propagation} & {*spared, *(f"{target}/ns" for target in spared)}
    assert bool(found.warnings) is warned


def test_a_pinned_mount_that_is_named_is_changed(host: PlayedHost) -> None:
    host.put("/proc/1/mountinfo", mountinfo("/pin - 8:1 /pin", "/pin/inner"))
    found = plan(host, mounts=["/", "/pin"])
    assert [change.target for change in found.propagation] == ["/pin/inner", "/pin", "/"]


def test_other_words_spare_only_what_is_excluded(host: PlayedHost) -> None:
    host.put("/proc/1/mountinfo", mountinfo("/pin shared:1 8:1 /pin", "/pin/inner shared:2", "/left shared:3"))
    found = plan(host, propagation="rprivate", exclude=["/left"], persist=False)
    assert [change.target for change in found.propagation] == ["/pin/inner", "/pin"]
    assert [entry.mount.target for entry in found.spared] == ["/left"]


def test_the_mount_below_in_a_stack_is_left_alone(host: PlayedHost) -> None:
    text = mountinfo("/srv") + "9 3 0:9 / /srv rw - tmpfs none rw\n"
    host.put("/proc/1/mountinfo", text)
    state = _mounts.observe(host, Wanted())
    assert state.mounts["/srv"].id == 9


def test_no_mount_point(host: PlayedHost, tmp_path: Path) -> None:
    (tmp_path / "srv").mkdir()
    (tmp_path / "link").symlink_to("srv")
    for target, reason in (
        ("/srv", "part of the mount above it"),
        ("/none", "it does not exist"),
        ("/link", "a symbolic link to srv"),
    ):
        message = rf"{target} is no mount point \(.*{reason}.*Name the mount that holds it \(/\)"
        with pytest.raises(PropagationError, match=message):
            plan(host, mounts=[target])


def test_named_and_excluded(host: PlayedHost) -> None:
    with pytest.raises(PropagationError, match="/dev is named in mounts, and the pattern /dev in exclude covers it"):
        plan(host, mounts=["/dev"], exclude=["/dev"])


def test_paths_are_taken_in_their_plain_form(host: PlayedHost) -> None:
    assert plan(host, mounts=["//dev/", "/dev"]).named == ("/dev",)


def test_the_kernel_refuses(host: PlayedHost) -> None:
    host.put("/proc/1/mountinfo", PRIVATE)
    host.refused["/dev"] = errno.EPERM
    with pytest.raises(PropagationError, match=r"/dev cannot be made shared: .*Nothing was changed.*CAP_SYS_ADMIN"):
        _mounts.check(host, plan(host))
    with pytest.raises(PropagationError, match=r"/dev cannot be made shared: .*is in the journal"):
        _mounts.apply(host, plan(host), Journal(host, "test"))


def test_a_container_that_ends_meanwhile_is_no_failure(host: PlayedHost) -> None:
    host.put("/proc/1/mountinfo", PRIVATE + "1500 1459 0:9 / /ctr rw - tmpfs none rw\n")
    found = plan(host)
    assert "/ctr" in [change.target for change in found.propagation]
    host.put("/proc/1/mountinfo", PRIVATE)
    host.refused["/ctr"] = errno.EINVAL
    _mounts.check(host, found)
    _mounts.apply(host, found, Journal(host, "test"))
    assert plan(host).changes == ()


def test_guests_that_stay_outside(host: PlayedHost) -> None:
    host.put("/proc/1/mountinfo", PRIVATE)
    host.guest("before", 11, PRIVATE)
    host.guest("reached", 12, SLAVE)
    assert _mounts.observe(host, Wanted()).guests_pending == ("before",)
    assert _mounts.observe(host, Wanted(propagation="rprivate")).guests_pending == ()
    assert _mounts.observe(host, Wanted(mounts=("/dev",))).guests_pending == (), "every guest has a /dev of its own"


def test_another_init(host: PlayedHost, tmp_path: Path) -> None:
    (tmp_path / "run/systemd/system").rmdir()
    host.put("/proc/1/comm", "runit\n")
    with pytest.raises(NoMechanism, match=r"runit.*boot script.*mount --make-rshared /"):
        plan(host)
    assert plan(host, persist=False).changes == ()


@pytest.mark.parametrize(
    ("files", "wanted", "written"),
    [
        ({}, {}, False),
        ({}, {"propagation": "rprivate"}, True),
        ({"/run/systemd/container": "systemd-nspawn\n"}, {}, False),
        ({"/run/systemd/container": "lxc\n"}, {}, True),
        ({"/etc/fstab": "# / private\nUUID=1 / ext4 rw,private 0 1\n"}, {}, True),
        ({"/etc/fstab": "UUID=1 / ext4 rw,rshared 0 1\n"}, {}, False),
        ({"/etc/fstab": "UUID=1 / ext4 rw,private 0 1\n"}, {"propagation": "private"}, False),
        ({"/run/systemd/generator/dev.mount": "[Mount]\nOptions=rw,slave\n"}, {"mounts": ["/dev"]}, True),
        ({"/run/systemd/generator/dev.mount": "[Mount]\nOptions=rw\n"}, {"mounts": ["/dev"]}, False),
        ({"/etc/systemd/system/dev.mount.d/x.conf": "[Mount]\nOptions=private\n"}, {"mounts": ["/dev"]}, True),
    ],
)
def test_what_is_written_for_the_next_boot(
    host: PlayedHost, files: dict[str, str], wanted: dict[str, t.Any], written: bool
) -> None:
    for path, text in files.items():
        host.put(path, text)
    found = plan(host, **wanted)
    assert bool(found.units) is written
    assert plan(host, **{**wanted, "persist": False}).units == ()


def test_the_units(host: PlayedHost) -> None:
    host.put("/run/systemd/container", "lxc\n")
    found = plan(host, mounts=["/", "/dev/hugepages"])
    root, below = found.units
    assert root.file.path == UNIT.format("-")
    assert root.file.wanted_by == "sysinit.target"
    assert "ExecStart=/bin/mount --make-rshared /\n" in (root.file.text or "")
    assert below.file.path == UNIT.format("dev-hugepages")
    assert below.file.wanted_by == "dev-hugepages.mount"
    assert "After=dev-hugepages.mount\nBindsTo=dev-hugepages.mount\n" in (below.file.text or "")
    _mounts.apply(host, found, Journal(host, "test"))
    assert plan(host, mounts=["/", "/dev/hugepages"]).changes == ()
    # Where the boot does it by itself, our unit is one too many.
    host.put("/run/systemd/container", "systemd-nspawn\n")
    again = plan(host, mounts=["/", "/dev/hugepages"])
    assert [str(change) for change in again.changes] == [
        f"{UNIT.format(name)} is still there" for name in ("-", "dev-hugepages")
    ]


def test_result(host: PlayedHost) -> None:
    host.put("/proc/1/mountinfo", PRIVATE.replace(" / / rw,relatime", " / / rw,relatime master:5"))
    wanted = Wanted(propagation="shared")
    before = _mounts.observe(host, wanted)
    found = _mounts.plan(before, wanted)
    expected = [{"target": "/", "before": "slave", "after": "shared,slave"}]
    assert _mounts.result(before, found)["mounts"] == expected, "in check mode"
    host.put("/proc/1/mountinfo", SHARED)
    assert _mounts.result(_mounts.observe(host, wanted), found)["mounts"][0]["after"] == "shared"
