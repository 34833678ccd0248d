# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""hypervisor_info on real guests, mounts, huge pages, TAP devices and memory, and what the audit's rules make of it.

Expected values come from /proc, sysfs and the host's own tools. Of mandatory access control this kernel may have one or
none: what it has, the tests ask the kernel itself.
"""

from __future__ import annotations

import json
import os
import pathlib
import time
import typing as t

import pytest
import rig
from rig import guests, modules

from ansible_collections.hypervisor.hardening.plugins.module_utils import _weakness
from ansible_collections.hypervisor.hardening.plugins.plugin_utils import _audit, _factpaths, _rules
from ansible_collections.hypervisor.hardening.tests.unit.plugins.documented import mismatches

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONF = "/etc/libvirt/qemu.conf"
MINE = ("guests", "mac", "mounts", "hugepages", "taps", "memfd", "memory")
OF_THE_KERNEL = {"no_mac", "mac_not_enforced"}
WEAK = "namespaces = []\nseccomp_sandbox = 0\n"
CLEAN = """
for path in /sys/class/net/*/tun_flags; do
    [ -e "$path" ] || continue
    name=${path%/tun_flags}
    ip link delete "${name##*/}"
done
umount --recursive --lazy /pages
mount --make-rshared /
true
"""


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def machine(request: pytest.FixtureRequest) -> t.Iterator[rig.Host]:
    with rig.host(request.param) as fresh:
        fresh.put("/root/qemu.conf", fresh.get(CONF), mode=0o600)
        yield fresh


@pytest.fixture
def host(machine: rig.Host) -> t.Iterator[rig.Host]:
    try:
        yield machine
    finally:
        guests.stop_all(machine)
        machine.run(["sh", "-c", CLEAN])


def configure(host: rig.Host, text: str = "") -> None:
    """Debian's qemu.conf with these lines before it (the first of a key counts), loaded."""
    wanted = f"max_core = 0\n{text}".encode() + host.get("/root/qemu.conf")
    if host.get(CONF) != wanted:
        host.put(CONF, wanted, mode=0o600)
        guests.restart_libvirtd(host)
    guests.virsh(host, "uri")


def facts(host: rig.Host) -> dict[str, t.Any]:
    result = modules.call(host, "hypervisor_info")
    assert "hypervisor" in result, result
    found: dict[str, t.Any] = result["hypervisor"]
    errors = {name: found[name] for name in MINE if isinstance(found[name], dict) and "error" in found[name]}
    assert errors == {}
    assert [line for name in MINE for line in mismatches(name, found[name])] == []
    return found


def guest(found: dict[str, t.Any], name: str) -> dict[str, t.Any]:
    (entry,) = [entry for entry in found["guests"] if entry["name"] == name]
    return t.cast("dict[str, t.Any]", entry)


def weak(entry: dict[str, t.Any]) -> set[str]:
    """The weaknesses of a guest by its flags, less those that are the kernel's."""
    return {name for name in _weakness.IDS if entry[name]} - OF_THE_KERNEL


def rules() -> dict[str, _rules.Rule]:
    sections = _factpaths.documented(ROOT / "plugins/modules/hypervisor_info.py")
    loaded = _rules.load([ROOT / "roles/hypervisor_audit/files/rules"], sections)
    return {rule.id: rule for rule in loaded}


RULES = rules()


def states(found: dict[str, t.Any], rule: str, params: dict[str, t.Any] | None = None) -> dict[str, str]:
    """What a rule says of each of its objects."""
    (resolved,) = _rules.with_params([RULES[rule]], {rule: params} if params else {})
    findings = _audit.Evaluation([resolved]).of_rule(resolved, _audit.Host("host", found))
    return {finding["object"]["name"]: finding["state"] for finding in findings}


def proc(host: rig.Host, path: str) -> str:
    return (host.root / "proc" / path).read_text(encoding="utf-8", errors="replace")


def link(host: rig.Host, path: str) -> str:
    return host.run(["readlink", f"/proc/{path}"]).stdout.strip()


def test_a_confined_guest_as_the_kernel_shows_it(host: rig.Host) -> None:
    configure(host)
    pid = guests.start(host, guests.Guest("web", uuid="3f77186c-5d70-46fe-8543-411ebb6bdde8"))
    found = facts(host)
    entry = guest(found, "web")
    status = guests.status(host, pid)
    assert weak(entry) == set()
    assert (entry["pid"], entry["uuid"], entry["managed_by"]) == (
        pid,
        "3f77186c-5d70-46fe-8543-411ebb6bdde8",
        "libvirt",
    )
    assert (str(entry["uid"]), str(entry["gid"])) == (status["Uid"].split()[1], status["Gid"].split()[1])
    assert entry["cap_eff"] == status["CapEff"]
    assert entry["no_new_privs"] is (status["NoNewPrivs"] == "1") is True
    assert entry["seccomp"] == {"mode": int(status["Seccomp"]), "filters": int(status["Seccomp_filters"])}
    assert entry["host_mount_namespace"] is not (link(host, f"{pid}/ns/mnt") != link(host, "1/ns/mnt")) is True
    assert entry["binary"] == link(host, f"{pid}/exe")
    assert entry["cgroup"] == host.run(["cat", f"/proc/{pid}/cgroup"]).stdout.split("::")[1].strip()
    (core,) = [line.split()[4] for line in proc(host, f"{pid}/limits").splitlines() if line.startswith("Max core")]
    assert str(entry["limits"]["core"]) == core == "0"
    words = proc(host, f"{pid}/cmdline").split("\0")
    machine = words[words.index("-machine") + 1].split(",")
    assert entry["machine"] == machine[0]
    assert entry["dump_guest_core"] is ("dump-guest-core=off" not in machine) is False
    assert abs(entry["start_time"] - os.stat(host.root / f"proc/{pid}").st_ctime) < 100
    assert len(json.dumps(entry)) < 1500
    for rule in ("guests-unprivileged-effective", "guests-in-private-mntns", "guests-device-cgroup-effective"):
        assert states(found, rule) == {"web": "pass"}, rule
    assert states(found, "stale-qemu-binaries") == states(found, "guests-reached-by-mounts") == {"web": "pass"}


def test_a_host_without_guests_passes_nothing_about_guests(host: rig.Host) -> None:
    configure(host)
    found = facts(host)
    assert found["guests"] == found["mounts"]["guests"] == found["hugepages"]["guests"] == []
    about_guests = [rule.id for rule in RULES.values() if rule.objects and "guests" in rule.objects.roots]
    assert len(about_guests) > 5
    told = {rule: set(states(found, rule).values()) for rule in about_guests}
    assert {rule: one for rule, one in told.items() if one != {"not_applicable"}} == {}


def test_a_guest_that_its_seclabel_makes_root(host: rig.Host) -> None:
    configure(host)
    label = "<seclabel type='static' model='dac' relabel='no'><label>+0:+0</label></seclabel>"
    rooted = guests.start(host, guests.Guest("rooted", seclabels=[label]))
    none = guests.start(host, guests.Guest("none", seclabels=["<seclabel type='none' model='dac'/>"]))
    guests.start(host, guests.Guest("web"))
    found = facts(host)
    for name, pid in (("rooted", rooted), ("none", none)):
        status = guests.status(host, pid)
        root = "0" in status["Uid"].split() + status["Gid"].split()
        assert guest(found, name)["runs_as_root"] is root
        assert guest(found, name)["capabilities"] is (int(status["CapPrm"], 16) > 0)
    assert guest(found, "rooted")["uid"] == 0
    assert weak(guest(found, "web")) == set()
    told = states(found, "guests-unprivileged-effective")
    assert (told["rooted"], told["web"]) == ("fail", "pass")
    assert told["none"] == ("fail" if guest(found, "none")["runs_as_root"] else "pass")


def test_a_guest_from_before_the_hardening_is_pending(host: rig.Host) -> None:
    configure(host, WEAK)
    early = guests.start(host, guests.Guest("early"))
    assert {"no_seccomp", "host_mount_namespace"} <= weak(guest(facts(host), "early"))
    assert states(facts(host), "guests-unprivileged-effective") == {"early": "fail"}
    wanted = {"namespaces": ["mount"], "seccomp_sandbox": 1}
    hardened = modules.call(host, "qemu_conf", settings=wanted)
    assert hardened["changed"] is True and "early" in hardened["guests_pending"], hardened
    time.sleep(0.05)
    guests.restart_libvirtd(host)
    guests.virsh(host, "uri")
    guests.start(host, guests.Guest("late"))
    found = facts(host)
    assert guest(found, "early")["pid"] == early
    assert guest(found, "early")["older_than_configuration"] is True
    assert weak(guest(found, "late")) == set()
    for rule in ("guests-unprivileged-effective", "guests-in-private-mntns"):
        assert states(found, rule) == {"early": "pending", "late": "pass"}, rule
    # What made it weak is back: then a new start would mend nothing.
    configure(host, WEAK + "keepalive_count = 7\n")
    assert states(facts(host), "guests-unprivileged-effective")["early"] == "fail"


def test_a_binary_that_was_replaced(host: rig.Host) -> None:
    configure(host)
    copy = "/usr/bin/qemu-system-x86_64-copy"
    host.run(["cp", "/usr/bin/qemu-system-x86_64", copy])
    pid = guests.start(host, guests.Guest("old", extra_devices=[f"<emulator>{copy}</emulator>"]))
    assert states(facts(host), "stale-qemu-binaries") == {"old": "pass"}
    host.run(["rm", copy])
    assert link(host, f"{pid}/exe") == f"{copy} (deleted)"
    found = facts(host)
    assert (guest(found, "old")["binary"], guest(found, "old")["deleted_binary"]) == (copy, True)
    assert states(found, "stale-qemu-binaries") == {"old": "fail"}


def test_a_monitor_on_the_network(host: rig.Host) -> None:
    configure(host)
    passed = (
        "<commandline xmlns='http://libvirt.org/schemas/domain/qemu/1.0'><arg value='-monitor'/>"
        "<arg value='tcp:127.0.0.1:4444,server=on,wait=off'/></commandline>"
    )
    guests.start(host, guests.Guest("open", extra=[passed]))
    guests.start(host, guests.Guest("web"))
    found = facts(host)
    assert "127.0.0.1:4444" in host.run(["ss", "-ltn"]).stdout
    assert guest(found, "open")["control_on_network"] == ["-monitor tcp:127.0.0.1:4444,server=on,wait=off"]
    assert guest(found, "web")["control_on_network"] == []


def test_helpers_beside_a_guest(host: rig.Host) -> None:
    configure(host)
    share = "<filesystem type='mount'><driver type='virtiofs'/><source dir='/srv'/><target dir='x'/></filesystem>"
    memory = "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"
    guests.start(host, guests.Guest("helped", extra_devices=[share], extra=[memory]))
    found = facts(host)
    helpers = guest(found, "helped")["helpers"]
    assert {helper["name"] for helper in helpers} == {"virtiofsd"}
    for helper in helpers:
        status = guests.status(host, helper["pid"])
        assert (str(helper["uid"]), helper["seccomp"]) == (status["Uid"].split()[1], int(status["Seccomp"]))
        assert helper["private_user_namespace"] is (link(host, f"{helper['pid']}/ns/user") != link(host, "1/ns/user"))
        words = proc(host, f"{helper['pid']}/cmdline")
        assert "sandbox" not in words
        assert (helper["virtiofsd_sandbox"], helper["virtiofsd_seccomp"]) == ("namespace", "kill")
    # The parent has but waited for its child since it made the sandbox: its seccomp is what it is.
    modes = {helper["seccomp"] for helper in helpers}
    assert states(found, "virtiofsd-sandboxed") == {"helped": "pass" if modes == {2} else "fail"}


def test_mandatory_access_control_as_the_kernel_has_it(host: rig.Host) -> None:
    configure(host)
    guests.start(host, guests.Guest("web"))
    found = facts(host)
    mac = found["mac"]
    in_kernel = "selinuxfs" in proc(host, "filesystems") or (
        host.run(["cat", "/sys/module/apparmor/parameters/enabled"], check=False).stdout.strip() == "Y"
    )
    assert bool(mac["model"]) is in_kernel
    assert mac["apparmor"]["broad_grants"] == [], "what Debian ships grants nothing broad"
    assert "/etc/apparmor.d/abstractions/libvirt-qemu" in mac["apparmor"]["files"]
    assert mac["configured"]["selinux"] == ""
    assert {daemon["name"] for daemon in mac["daemons"]} >= {"libvirtd", "virtlogd"}
    assert states(found, "selinux-no-permissive-virt-types") != {}
    if not in_kernel:
        assert (mac["enforcing"], mac["mode"], mac["configured"]["enforcing"]) == (False, "", False)
        assert guest(found, "web")["label"] == {"model": "", "value": "", "mode": ""}
        assert list(states(found, "lsm-enforcing").values()) == ["fail"]
        for rule in ("guests-confined-effective", "apparmor-guest-profiles-enforce", "apparmor-local-overrides-narrow"):
            assert set(states(found, rule).values()) == {"not_applicable"}, rule


def test_a_broad_grant_of_an_operator_is_found(host: rig.Host) -> None:
    path = "/etc/apparmor.d/local/abstractions/libvirt-qemu"
    host.run(["mkdir", "-p", "/etc/apparmor.d/local/abstractions"])
    before = host.run(["cat", path], check=False).stdout
    host.put(path, b"# shared directories\n/srv/share/** rw,\n/dev/** rw,\n")
    try:
        mac = facts(host)["mac"]
        assert [(entry["path"], entry["line"], entry["rule"]) for entry in mac["apparmor"]["broad_grants"]] == [
            (path, 3, "/dev/** rw")
        ]
        assert path in mac["apparmor"]["files"]
        # The files of a host whose kernel has AppArmor.
        assert list(states({"mac": {**mac, "model": "apparmor"}}, "apparmor-local-overrides-narrow").values()) == [
            "fail"
        ]
    finally:
        host.put(path, before.encode())


def test_a_private_root_and_a_guest_that_stays_outside(host: rig.Host) -> None:
    configure(host)
    assert list(states(facts(host), "mount-propagation-shared").values()) == ["pass"]
    host.run(["mount", "--make-rprivate", "/"])
    guests.start(host, guests.Guest("outside"))
    found = facts(host)
    assert host.run(["findmnt", "-n", "-o", "PROPAGATION", "/"]).stdout.strip() == "private"
    assert found["mounts"]["root"] == {"propagation": "private", "shared": False}
    assert found["mounts"]["shared_after_boot"] is True
    assert {"name": "/", "propagation": "private"} in found["mounts"]["private"]
    assert found["mounts"]["guests"][0]["reached"] is False
    assert list(states(found, "mount-propagation-shared").values()) == ["fail"]
    assert states(found, "guests-reached-by-mounts") == {"outside": "fail"}

    host.run(["mount", "--make-rshared", "/"])
    host.run(["mkdir", "-p", "/pages"])
    host.run(["mount", "-t", "hugetlbfs", "none", "/pages"])
    inside = guests.start(host, guests.Guest("inside"))
    found = facts(host)
    told = {entry["name"]: entry for entry in found["mounts"]["guests"]}
    seen = proc(host, f"{inside}/mountinfo")
    assert " /pages " in seen and " /pages " not in proc(host, f"{guests.pid(host, 'outside')}/mountinfo")
    assert (told["inside"]["reached"], told["inside"]["hugetlbfs_missing"]) == (True, [])
    assert told["outside"]["reached"] is False
    assert "/pages" in told["outside"]["hugetlbfs_missing"]
    assert list(states(found, "mount-propagation-shared").values()) == ["pass"]
    assert states(found, "guests-reached-by-mounts") == {"inside": "pass", "outside": "pending"}


def test_the_directories_of_guests_files(host: rig.Host) -> None:
    configure(host, 'memory_backing_dir = "/dev/shm"\n')
    found = facts(host)["mounts"]["directories"]
    for entry in found:
        shown = host.run(["stat", "-c", "%u %g %a", entry["name"]]).stdout.split()
        assert [entry["uid"], entry["gid"]] == [int(shown[0]), int(shown[1])]
        assert int(entry["mode"], 8) == int(shown[2], 8)
        mount = host.run(["findmnt", "-n", "-o", "TARGET,FSTYPE,VFS-OPTIONS", "--target", entry["name"]]).stdout.split()
        assert [entry["mount"], entry["fstype"]] == mount[:2]
        assert entry["nosuid"] is ("nosuid" in mount[2].split(","))
    (backing,) = [entry for entry in found if entry["purpose"] == "memory_backing"]
    assert (backing["name"], backing["world_writable"]) == ("/dev/shm", True)
    assert states(facts(host), "memory-backing-dir-safe") == {"/dev/shm": "fail"}
    configure(host)
    assert set(states(facts(host), "memory-backing-dir-safe").values()) <= {"pass", "not_applicable"}


def test_huge_pages_as_sysfs_and_statfs_show_them(host: rig.Host) -> None:
    configure(host)
    host.run(["mkdir", "-p", "/pages", "/no-pages"])
    found = facts(host)["hugepages"]
    for pool in found["pools"]:
        base = f"/sys/kernel/mm/hugepages/hugepages-{pool['kib']}kB"
        assert pool["pages"] + pool["surplus"] == int(host.get(f"{base}/nr_hugepages"))
        assert pool["free"] == int(host.get(f"{base}/free_hugepages"))
    assert {entry["name"] for entry in found["mounts"]} == set(
        host.run(["findmnt", "-n", "-t", "hugetlbfs", "-o", "TARGET"]).stdout.split()
    )
    assert found["configured"] == {"hugetlbfs_mount": None}
    assert states(facts(host), "hugepage-paths-are-hugetlbfs") == {"/dev/hugepages": "pass"}
    assert states(facts(host), "hugetlbfs-permissions") == {"/dev/hugepages": "pass"}

    host.run(["mount", "-t", "hugetlbfs", "-o", "mode=1777", "none", "/pages"])
    found = facts(host)
    assert states(found, "hugetlbfs-permissions") == {"/dev/hugepages": "pass", "/pages": "fail"}
    assert states(found, "hugepage-paths-are-hugetlbfs") == {"/dev/hugepages": "pass", "/pages": "pending"}, (
        "the daemon looks for mounts once, at its start"
    )
    host.put(CONF, b'hugetlbfs_mount = [ "/dev/hugepages", "/no-pages" ]\n' + host.get(CONF), mode=0o600)
    found = facts(host)
    assert [(entry["name"], entry["hugetlbfs"]) for entry in found["hugepages"]["paths"]] == [
        ("/dev/hugepages", True), ("/no-pages", False)
    ]  # fmt: skip
    assert host.run(["stat", "-f", "-c", "%T", "/no-pages"]).stdout.strip() != "hugetlbfs"
    assert states(found, "hugepage-paths-are-hugetlbfs") == {"/dev/hugepages": "pass", "/no-pages": "fail"}
    host.put(CONF, b"max_core = 0\n" + host.get("/root/qemu.conf"), mode=0o600)
    guests.restart_libvirtd(host)


def test_a_tap_made_by_hand(host: rig.Host) -> None:
    configure(host)
    assert facts(host)["taps"]["interfaces"] == []
    assert list(states(facts(host), "no-stale-taps").values()) == ["not_applicable"]
    host.run(["ip", "link", "add", "br7", "type", "bridge"])
    host.run(["ip", "tuntap", "add", "dev", "mytap0", "mode", "tap", "user", "64055"])
    host.run(["ip", "link", "set", "mytap0", "master", "br7"])
    host.put("/run/wants.xml", guests.Guest("wants", interfaces=[guests.ethernet("mytap0")]).xml().encode())
    guests.virsh(host, "define", "/run/wants.xml")
    try:
        found = facts(host)
        (tap,) = found["taps"]["interfaces"]
        assert (tap["name"], tap["kind"], tap["owner"], tap["bridge"]) == ("mytap0", "tap", 64055, "br7")
        assert (tap["held_by"], tap["persistent"], tap["stale"]) == ([], True, True)
        assert {"name": "br7", "ports": ["mytap0"]} in found["taps"]["bridges"]
        assert [(entry["guest"], entry["verdict"], entry["conflict"]) for entry in found["taps"]["wanted"]] == [
            ("wants", "stale", True)
        ]
        assert states(found, "no-stale-taps") == {"mytap0": "fail"}
        assert states(found, "no-stale-taps", {"kept": ["mytap0"]}) == {"mytap0": "pass"}
        assert states(found, "guest-device-names-free") == {"wants: mytap0": "fail"}
        with pytest.raises(rig.RigError, match="already exists"):
            guests.virsh(host, "start", "wants")
    finally:
        host.run(["ip", "link", "delete", "br7"])


def test_a_tap_that_a_guest_takes_as_it_is(host: rig.Host) -> None:
    configure(host)
    host.run(["ip", "tuntap", "add", "dev", "mytap0", "mode", "tap"])
    pid = guests.start(host, guests.Guest("takes", interfaces=[guests.ethernet("mytap0", managed=False)]))
    found = facts(host)
    (tap,) = found["taps"]["interfaces"]
    comm = proc(host, f"{pid}/comm").strip()
    assert tap["held_by"] == [{"pid": pid, "comm": comm, "guest": "takes"}]
    assert (tap["stale"], tap["reserved_for_guest"]) == (False, True)
    assert states(found, "no-stale-taps") == {"mytap0": "pass"}
    assert states(found, "guest-device-names-free") == {"takes: mytap0": "pass"}


def test_memfd_create_as_qemus_user(host: rig.Host) -> None:
    configure(host)
    found = facts(host)
    asked = "import os, sys; os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[1])); os.memfd_create('x', 3)"
    owner = host.run(["stat", "-c", "%u %g", "/var/lib/libvirt/qemu"]).stdout.split()
    tried = host.run(["/usr/bin/python3", "-c", asked, *owner], check=False)
    memfd = found["memfd"]
    assert [str(memfd["uid"]), str(memfd["gid"])] == owner
    assert memfd["works"] is (tried.returncode == 0)
    assert memfd["memfd_noexec"] == int(host.run(["sysctl", "-n", "vm.memfd_noexec"]).stdout)
    assert memfd["fallback"]["mode"] == host.run(["stat", "-c", "%a", "/tmp"]).stdout.strip()
    assert list(states(found, "memfd-works").values()) == ["pass" if memfd["works"] else "fail"]


def test_a_kernel_that_refuses_memfd_create(host: rig.Host) -> None:
    """As under a seccomp filter that does not know the call: it is answered with an error."""
    configure(host)
    words, arguments = modules.prepare(host, "hypervisor_info")
    traced = "trace=memfd_create,setresuid,setresgid,setgroups"
    refused = ["strace", "-f", "-qq", "-o", "/run/trace", "-e", traced, "-e", "inject=memfd_create:error=ENOSYS"]
    found = json.loads(host.run([*refused, *words], stdin=arguments, timeout=120).stdout)["hypervisor"]
    assert (found["memfd"]["works"], found["memfd"]["reason"]) == (False, "memfd_create: Function not implemented")
    assert list(states(found, "memfd-works").values()) == ["fail"]
    calls = [line.split(maxsplit=1) for line in host.get("/run/trace").decode().splitlines()]
    # Python's own libraries may call it for themselves.
    (prober,) = {pid for pid, call in calls if call.startswith('memfd_create("hypervisor-hardening"')}
    uid, gid = found["memfd"]["uid"], found["memfd"]["gid"]
    own = [call.split(" = ")[0].rstrip() for pid, call in calls if pid == prober]
    assert own[:3] == ["setgroups(0, [])", f"setresgid({gid}, {gid}, {gid})", f"setresuid({uid}, {uid}, {uid})"]
    assert own[3].endswith("MFD_CLOEXEC|MFD_ALLOW_SEALING)")


def test_memory_and_swap(host: rig.Host) -> None:
    configure(host)
    guests.start(host, guests.Guest("web", memory_mib=96))
    guests.start(host, guests.Guest("grows", memory_mib=64, max_memory_mib=512))
    found = facts(host)["memory"]
    (total,) = [line.split()[1] for line in proc(host, "meminfo").splitlines() if line.startswith("MemTotal:")]
    assert found["total_kib"] == int(total)
    assert found["guests_kib"] == (96 + 512) << 10
    assert [entry["name"] for entry in found["swap"]] == [
        line.split()[0] for line in proc(host, "swaps").splitlines()[1:]
    ]
    assert list(states(facts(host), "host-memory-reserve").values()) == ["pass"]
    # Where the kernel has the memory controller elsewhere (version 1), systemd's property limits nothing.
    host.run(["systemctl", "set-property", "--runtime", "machine.slice", "MemoryMax=4G"])
    try:
        shown = host.run(["cat", "/sys/fs/cgroup/machine.slice/memory.max"], check=False).stdout.strip()
        limited = facts(host)["memory"]["machine_slice"]
        assert limited == {"exists": True, "max_bytes": int(shown) if shown.isdigit() else None, "high_bytes": None}
    finally:
        host.run(["systemctl", "set-property", "--runtime", "machine.slice", "MemoryMax=infinity"])
    guests.start(host, guests.Guest("huge", memory_mib=64, max_memory_mib=(int(total) >> 10) + 1024))
    assert list(states(facts(host), "host-memory-reserve").values()) == ["fail"]


def test_nothing_on_the_host_changes(host: rig.Host) -> None:
    configure(host)
    guests.start(host, guests.Guest("web"))
    facts(host)
    # The rig writes /etc/hosts when another test's host comes or goes.
    listed = "find /etc /run/libvirt /var/lib -xdev ! -path /etc/hosts ! -path /etc -printf '%p %m %U %G %C@ %s\\n'"
    state = ["sh", "-c", f"cat /proc/1/mountinfo; {listed}"]
    before = host.run(state).stdout
    facts(host)
    assert host.run(state).stdout == before
