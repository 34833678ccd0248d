# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""mount_propagation against the kernel's mounts, libvirt's guests and systemd's boot."""

from __future__ import annotations

import os
import pathlib
import typing as t

import pytest
import rig
from rig import guests, modules

PAGES = 80  # of 2 MiB: a memory device of 128 MiB, and some to spare
NR = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
# The mounts of PID 1, and each file below /etc and /var/lib: all that the module could change.
STATE = r"""
cat /proc/1/mountinfo
find /etc /var/lib -xdev -type f -exec cksum {} +
find /etc /var/lib -xdev -printf '%p %m %U %G %C@\n'
"""


# Everything that a test mounts by hand lies below /t.
CLEAN = """
umount --recursive --lazy /t
mount --make-rshared /
rm -rf /t /var/lib/hypervisor-hardening
mkdir /t
mount -t tmpfs none /t
"""


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def machine(request: pytest.FixtureRequest) -> t.Iterator[rig.Host]:
    with rig.host(request.param) as fresh:
        pages = fresh.get(NR)  # the machine's, not the host's
        yield fresh
        pathlib.Path(NR).write_bytes(pages)


@pytest.fixture
def host(machine: rig.Host) -> rig.Host:
    guests.stop_all(machine)
    machine.run(["sh", "-c", CLEAN])
    return machine


def propagation(host: rig.Host, target: str) -> str:
    """What findmnt makes of the mount that a path leads to; of stacked mounts it shows the topmost last."""
    return host.run(["findmnt", "-n", "-o", "PROPAGATION", "--mountpoint", target]).stdout.split()[-1]


def mountinfo(host: rig.Host) -> str:
    return host.run(["cat", "/proc/1/mountinfo"]).stdout


def state(host: rig.Host) -> str:
    return host.run(["sh", "-c", STATE]).stdout


def changed(answer: dict[str, t.Any]) -> bool:
    assert not answer.get("failed"), answer["msg"]
    return bool(answer["changed"])


@pytest.mark.parametrize("path", ["/dev/hugepages", "/hugepages2m"])
def test_memory_is_hot_plugged_into_a_guest_that_the_mount_reaches(host: rig.Host, path: str) -> None:
    """Of a hugetlbfs mounted after the guest's start; the daemon, which looks for mounts once, is restarted."""
    host.run(["systemctl", "stop", "dev-hugepages.mount"])
    host.run(["mount", "--make-rprivate", "/"])
    pages = int(host.get(NR)) + PAGES
    pool = {"size": "2M", "pages": pages, "path": path}
    dimm = guests.dimm(128, hugepages_kib=2048)

    guests.start(host, guests.Guest("early", max_memory_mib=1024))
    mounted = modules.call(host, "hugetlbfs", pools=[pool])
    assert changed(mounted)
    assert mounted["restart_units"] == ["libvirtd.service"]
    assert mounted["guests_pending"] == ["early"]
    guests.restart_libvirtd(host)
    with pytest.raises(rig.RigError, match=r"Unable to move|can't open backing store|Invalid argument|No such file"):
        guests.attach(host, "early", dimm)

    before = state(host)
    predicted = modules.call(host, "mount_propagation", check_mode=True)
    assert changed(predicted)
    assert state(host) == before
    done = modules.call(host, "mount_propagation")
    assert changed(done)
    assert {"target": "/", "before": "private", "after": "shared"} in done["mounts"]
    assert done["mounts"] == predicted["mounts"]
    assert done["guests_pending"] == ["early"]
    assert not changed(modules.call(host, "mount_propagation"))
    with pytest.raises(rig.RigError):
        guests.attach(host, "early", dimm)  # nothing repairs a guest that runs
    guests.stop(host, "early")

    gone = modules.call(host, "hugetlbfs", persist=False, pools=[{"size": "2M", "path": path, "state": "absent"}])
    assert changed(gone)
    guests.restart_libvirtd(host)
    pid = guests.start(host, guests.Guest("late", max_memory_mib=1024))
    assert modules.call(host, "mount_propagation")["guests_pending"] == []
    again = modules.call(host, "hugetlbfs", pools=[pool])
    assert changed(again)
    assert again["guests_pending"] == []
    assert again["restart_required"] is True
    with pytest.raises(rig.RigError, match=r"hugepages are disabled|hugetlbfs filesystem is not mounted|any usable"):
        guests.attach(host, "late", dimm)  # the daemon does not know of the mount yet
    guests.restart_libvirtd(host)
    assert modules.call(host, "hugetlbfs", pools=[pool])["restart_required"] is False
    guests.attach(host, "late", dimm)
    assert guests.pid(host, "late") == pid
    in_guest = host.run(["cat", f"/proc/{pid}/mountinfo"]).stdout
    # Below /dev, where each guest has its own, libvirt brings in the guest's own directory alone.
    assert any(line.split()[4].startswith(path) and " - hugetlbfs " in line for line in in_guest.splitlines())
    smaps = host.run(["grep", "-A30", path, f"/proc/{pid}/smaps"]).stdout
    assert "KernelPageSize:     2048 kB" in smaps


def pin(host: rig.Host, directory: str, propagation: str = "private") -> None:
    host.run(["mkdir", "-p", directory])
    host.run(["mount", "--bind", directory, directory])
    host.run(["mount", f"--make-{propagation}", directory])


def can_pin_namespaces(host: rig.Host, directory: str) -> bool:
    """Whether ``unshare --mount=FILE`` works in a directory. It does on no processor if its mount is shared.

    Linux 6.18 numbers namespaces by processor, and refuses the file of one that has a lower number than its maker's
    (fs/namespace.c, mnt_ns_loop): there one processor may be refused what another one is not.
    """
    worked = False
    for cpu in sorted(os.sched_getaffinity(0)):
        host.run(["touch", f"{directory}/file"])
        tried = host.run(["taskset", "-c", str(cpu), "unshare", f"--mount={directory}/file", "true"], check=False)
        if tried.returncode == 0:
            host.run(["umount", f"{directory}/file"])
            worked = True
    return worked


def test_a_mount_pinned_private_stays_private(host: rig.Host) -> None:
    host.run(["mount", "--make-rprivate", "/"])
    pin(host, "/t/pinned")
    assert can_pin_namespaces(host, "/t/pinned")
    host.run(["mkdir", "/t/held", "/t/tmpfs", "/t/unbindable", "/t/excluded"])
    for directory in ("/t/held", "/t/tmpfs", "/t/unbindable", "/t/excluded"):
        host.run(["mount", "-t", "tmpfs", "none", directory])
    host.run(["mount", "--make-unbindable", "/t/unbindable"])
    host.run(["touch", "/t/held/ns"])
    held = ["sh", "-c", "for cpu in 0 1 2 3; do taskset -c $cpu unshare --mount=/t/held/ns true && exit; done; exit 1"]
    host.run(held)

    done = modules.call(host, "mount_propagation", exclude=["/t/excluded"])
    assert changed(done)
    assert {entry["target"] for entry in done["excluded"]} >= {"/t/pinned", "/t/held", "/t/unbindable", "/t/excluded"}
    for directory, kept in (("/t/pinned", "private"), ("/t/held", "private"), ("/t/excluded", "private")):
        assert propagation(host, directory) == kept
    assert propagation(host, "/t/unbindable").endswith("unbindable")
    assert propagation(host, "/t/tmpfs") == propagation(host, "/") == "shared"
    assert can_pin_namespaces(host, "/t/pinned")
    assert can_pin_namespaces(host, "/t/excluded")

    # The same against the tool that does not spare them: then it is broken, and stays so until somebody repairs it.
    host.run(["mount", "--make-rshared", "/"])
    assert propagation(host, "/t/pinned") == "shared"
    assert not can_pin_namespaces(host, "/t/pinned")


def test_a_mount_pinned_below_a_shared_root_stays_private(host: rig.Host) -> None:
    pin(host, "/t/pinned")
    pin(host, "/t/pinned/slave", "slave")
    host.run(["mkdir", "/t/tmpfs"])
    host.run(["mount", "-t", "tmpfs", "none", "/t/tmpfs"])
    host.run(["mount", "--make-private", "/t/tmpfs"])
    before = mountinfo(host)
    done = modules.call(host, "mount_propagation")
    assert not changed(done)
    assert mountinfo(host) == before
    assert {entry["target"]: entry["propagation"] for entry in done["excluded"]} == {
        "/t/pinned": "private",
        "/t/tmpfs": "private",
    }
    assert changed(modules.call(host, "mount_propagation", mounts=["/", "/t/tmpfs"]))
    assert propagation(host, "/t/tmpfs") == "shared"


def test_the_eight_words(host: rig.Host) -> None:
    """What findmnt shows after the module is what it shows after mount(8) with the same word."""
    host.run(["mkdir", "-p", "/t/one", "/t/two"])
    for directory in ("/t/one", "/t/two"):
        host.run(["mount", "-t", "tmpfs", "none", directory])
        host.run(["mkdir", f"{directory}/below"])
        host.run(["mount", "-t", "tmpfs", "none", f"{directory}/below"])
    words = ("rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "private", "runbindable", "rprivate")
    for word in words:
        host.run(["mount", f"--make-{word}", "/t/two"])
        call: dict[str, t.Any] = {"mounts": ["/t/one"], "propagation": word, "persist": False}
        if word == "rshared":  # below a shared mount a private one looks pinned
            call["mounts"] = ["/t/one", "/t/one/below"]
        modules.call(host, "mount_propagation", **call)
        shown = [propagation(host, f"{tree}{part}") for part in ("", "/below") for tree in ("/t/one", "/t/two")]
        assert shown[0] == shown[1], word
        assert shown[2] == shown[3], word
        assert not changed(modules.call(host, "mount_propagation", **call)), word


def test_of_stacked_mounts_the_topmost_counts(host: rig.Host) -> None:
    host.run(["mkdir", "/t/stack"])
    for name in ("lower", "upper"):
        host.run(["mount", "-t", "tmpfs", name, "/t/stack"])
    for _mount in range(2):
        host.run(["mount", "--make-private", "/t/stack"])
    done = modules.call(host, "mount_propagation", mounts=["/t/stack"], propagation="rslave", persist=False)
    assert not changed(done), "what is private gets nothing, as a slave would then"
    assert changed(
        modules.call(host, "mount_propagation", mounts=["/t/stack"], propagation="unbindable", persist=False)
    )
    upper = [line for line in mountinfo(host).splitlines() if " - tmpfs upper " in line]
    lower = [line for line in mountinfo(host).splitlines() if " - tmpfs lower " in line]
    assert [" unbindable " in line for line in (*upper, *lower)] == [True, False]


def test_acts_where_pid_1_lives(host: rig.Host) -> None:
    """Run from a mount namespace of its own, as a service with PrivateMounts= would."""
    host.run(["mount", "--make-rprivate", "/"])
    words, arguments = modules.prepare(host, "mount_propagation")
    host.run(["unshare", "--mount", "--propagation", "private", *words], stdin=arguments)
    assert propagation(host, "/") == "shared"


def test_nothing_is_written_where_systemd_does_it(host: rig.Host) -> None:
    files = host.run(["sh", "-c", "find /etc | sort"]).stdout
    host.run(["mount", "--make-rprivate", "/"])
    assert changed(modules.call(host, "mount_propagation"))
    assert host.run(["sh", "-c", "find /etc | sort"]).stdout == files
    host.reboot()
    assert propagation(host, "/") == "shared"
    assert not changed(modules.call(host, "mount_propagation"))


def test_what_systemd_would_not_do_is_kept_by_a_unit(host: rig.Host) -> None:
    host.run(["mkdir", "/data"])
    host.put("/etc/fstab", b"none /data tmpfs private 0 0\n")
    host.reboot()
    assert propagation(host, "/data") == "private"
    options: dict[str, t.Any] = {"mounts": ["/", "/data"]}
    before = state(host)
    assert changed(modules.call(host, "mount_propagation", check_mode=True, **options))
    assert state(host) == before
    assert changed(modules.call(host, "mount_propagation", **options))
    assert not changed(modules.call(host, "mount_propagation", **options))
    unit = "hypervisor-hardening-propagation-data.service"
    assert host.run(["systemctl", "is-enabled", unit]).stdout.strip() == "enabled"
    host.reboot()
    assert propagation(host, "/data") == "shared"
    assert host.run(["systemctl", "is-active", unit]).stdout.strip() == "active"
    assert host.run(["systemctl", "--failed", "--plain", "--no-legend"]).stdout == ""
    assert not changed(modules.call(host, "mount_propagation", **options))
    # Without the line of fstab the unit is one too many.
    host.put("/etc/fstab", b"none /data tmpfs defaults 0 0\n")
    host.run(["systemctl", "daemon-reload"])
    assert changed(modules.call(host, "mount_propagation", **options))
    assert host.run(["systemctl", "cat", unit], check=False).returncode != 0
    host.reboot()
    assert propagation(host, "/data") == "shared"
