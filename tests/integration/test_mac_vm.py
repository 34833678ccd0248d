# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""apparmor_local and its role where the kernel enforces AppArmor: what a guest gets, and what no other gets."""

from __future__ import annotations

import json
import typing as t

import pytest
import rig
from rig import guests, modules, playbooks

# The emulated machine takes its time.
pytestmark = pytest.mark.timeout(1800)

WEB, DB = "0d3f6a0c-55b5-4d0e-b5a0-4f31d83c1f6a", "7bb2a3c0-1f5e-4c6f-9d53-3a1d0e6f2a11"
PROFILE = f"/etc/apparmor.d/libvirt/libvirt-{WEB}"
GIVEN = "/srv/given/option [1].bin"
POOL = "/data/pool"
Q = "http://libvirt.org/schemas/domain/qemu/1.0"
# QEMU reads the file when it starts, and ends where it cannot.
PASSED = (
    f"<q:commandline xmlns:q='{Q}'><q:arg value='-fw_cfg'/><q:arg value='name=opt/own,file={GIVEN}'/></q:commandline>"
)
# What is loaded: the digest of each profile, as the kernel keeps it, and its mode.
LOADED = "cd /sys/kernel/security/apparmor/policy/profiles && grep -H . */raw_sha256 */mode | sort"
ON_DISK = (
    "cd /etc/apparmor.d && find . -exec stat -c '%n %a %u %Y' {} + | sort && find . -type f | sort | xargs sha256sum"
)
# What the abstraction of each release includes of the operator's.
OF_THE_OPERATOR = {"bookworm": "local/{abstraction}", "trixie": "{abstraction}.d/site"}
# A program under the profile of a guest that runs, as QEMU's user.
TRY = "runuser -u libvirt-qemu -- aa-exec -p libvirt-{uuid} -- /bin/dash -c ': >{path}'"


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def machine(request: pytest.FixtureRequest) -> t.Iterator[rig.VirtualMachine]:
    with rig.vm(request.param) as host:
        host.run(["mkdir", "-p", "/srv/given", POOL])
        host.put(GIVEN, b"x" * 64)
        yield host


@pytest.fixture
def host(machine: rig.VirtualMachine) -> t.Iterator[rig.VirtualMachine]:
    yield machine
    guests.stop_all(machine)
    local(machine)


def local(host: rig.VirtualMachine, *, check_mode: bool = False, **options: t.Any) -> dict[str, t.Any]:
    """Run the module; a failure fails the test."""
    answer = modules.call(host, "apparmor_local", check_mode=check_mode, **options)
    assert not answer.get("failed"), answer
    return answer


def script(host: rig.VirtualMachine, text: str) -> str:
    return host.run(["sh", "-ec", text], timeout=host.patience).stdout


def start(host: rig.VirtualMachine, guest: guests.Guest) -> None:
    """As ``guests.start``, with the patience that the emulated machine takes."""
    host.put(f"/run/{guest.name}.xml", guest.xml().encode())
    guests.virsh(host, "create", f"/run/{guest.name}.xml", timeout=host.patience)


def label(host: rig.VirtualMachine, name: str) -> str:
    return host.get(f"/proc/{guests.pid(host, name)}/attr/current").decode()


def denied(host: rig.VirtualMachine, *command: str, uuid: str) -> bool:
    """Whether this start of a guest fails, and for one denial of the file by the kernel."""
    before = denials(host, uuid)
    answer = host.run(["virsh", "-q", "-c", "qemu:///system", *command], check=False, timeout=host.patience)
    return answer.returncode != 0 and denials(host, uuid) == before + 1


def denials(host: rig.VirtualMachine, uuid: str) -> int:
    """How often the kernel denied a guest's profile the file. It writes names with blanks in hexadecimal digits."""
    wanted = f'apparmor="DENIED".*profile="libvirt-{uuid}".*name={GIVEN.encode().hex().upper()}'
    return int(host.run(["grep", "-c", wanted, "/var/log/audit/audit.log"], check=False).stdout)


def web(**options: t.Any) -> guests.Guest:
    return guests.Guest("web", uuid=WEB, extra=[PASSED], **options)


def db(**options: t.Any) -> guests.Guest:
    return guests.Guest("db", uuid=DB, extra=[PASSED], **options)


def test_a_file_is_for_the_guest_that_it_is_granted_to_and_stays_so(host: rig.VirtualMachine) -> None:
    for guest in (web(), db()):
        host.put(f"/run/{guest.name}.xml", guest.xml().encode())
    assert denied(host, "create", "/run/web.xml", uuid=WEB)
    made = host.get(PROFILE).decode()

    wanted: dict[str, t.Any] = {"grants": [{"path": GIVEN, "guest": WEB}]}
    before, loaded = script(host, ON_DISK), script(host, LOADED)
    predicted = local(host, check_mode=True, **wanted)
    assert predicted["changed"] is True
    assert (script(host, ON_DISK), script(host, LOADED)) == (before, loaded), "check mode changes nothing"
    done = local(host, **wanted)
    assert (done["changed"], done["model"]) == (True, "apparmor")
    assert local(host, **wanted)["changed"] is False

    for _start in range(2):
        start(host, web())
        assert label(host, "web") == f"libvirt-{WEB} (enforce)\n"
        guests.stop(host, "web")
    assert local(host, **wanted)["changed"] is False

    assert denied(host, "create", "/run/db.xml", uuid=DB)

    # Taken away, it is denied again, and what is left is as libvirt made it.
    assert local(host)["changed"] is True
    assert host.get(PROFILE).decode() == made
    assert denied(host, "create", "/run/web.xml", uuid=WEB)


def test_what_is_for_all_guests_is_for_each_that_starts_from_then_on(host: rig.VirtualMachine) -> None:
    start(host, guests.Guest("early"))
    pid = guests.pid(host, "early")
    started = host.get(f"/proc/{pid}/stat")
    assert local(host)["guests_pending"] == []
    profile = host.get(f"/proc/{pid}/attr/current").decode().partition(" ")[0]
    loaded = script(host, f"{LOADED} | grep {profile}")
    done = local(host, grants=[{"path": "/srv/given", "below": True}])
    assert (done["changed"], done["guests_pending"]) == (True, ["early"])
    for guest in (web(), db()):
        start(host, guest)
        assert label(host, guest.name) == f"libvirt-{guest.uuid} (enforce)\n"
    assert local(host, grants=[{"path": "/srv/given", "below": True}])["guests_pending"] == ["early"]
    # It was not touched.
    assert script(host, f"{LOADED} | grep {profile}") == loaded
    assert host.get(f"/proc/{pid}/stat").split()[21] == started.split()[21]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rules": ["/srv/x rwq"]}, "which is '/srv/x rwq,'"),
        ({"rules": ["capability sys_admin"]}, "gives too much"),
        ({"grants": [{"path": "/tmp", "below": True, "guest": WEB}]}, "everything below /tmp is refused"),
    ],
)
def test_a_bad_rule_never_reaches_the_loaded_policy(
    host: rig.VirtualMachine, options: dict[str, t.Any], message: str
) -> None:
    local(host, grants=[{"path": GIVEN, "guest": WEB}])
    before, loaded = script(host, ON_DISK), script(host, LOADED)
    answer = modules.call(host, "apparmor_local", **options)
    assert answer["failed"] is True
    assert message in answer["msg"]
    assert answer["changed"] is False
    assert (script(host, ON_DISK), script(host, LOADED)) == (before, loaded)


def test_a_bad_rule_of_the_operators_is_named_before_anything_is_written(host: rig.VirtualMachine) -> None:
    abstraction = "abstractions/libvirt-qemu"
    site = f"/etc/apparmor.d/{OF_THE_OPERATOR[host.release].format(abstraction=abstraction)}"
    script(host, f"mkdir -p {site.rpartition('/')[0]}; touch {site}; cp -a {site} /run/site; echo '  /x rwq,' >>{site}")
    try:
        before, loaded = script(host, ON_DISK), script(host, LOADED)
        answer = modules.call(host, "apparmor_local", grants=[{"path": GIVEN, "guest": WEB}])
        assert answer["failed"] is True
        # Where the file is the one that has our rules, too, it is judged with them, and the rule is named.
        assert (site if host.release == "trixie" else "which is '/x rwq,'") in answer["msg"]
        assert (script(host, ON_DISK), script(host, LOADED)) == (before, loaded)
    finally:
        script(host, f"cp -a /run/site {site}")


def without_memfd(host: rig.VirtualMachine, **options: t.Any) -> dict[str, t.Any]:
    """Run the module where the kernel answers memfd_create(2) as one before 3.17 does."""
    words, arguments = modules.prepare(host, "apparmor_local", **options)
    properties = ["-p", "SystemCallFilter=~memfd_create", "-p", "SystemCallErrorNumber=ENOSYS"]
    run = ["systemd-run", "--quiet", "--wait", "--pipe", *properties, *words]
    answer: dict[str, t.Any] = json.loads(host.run(run, stdin=arguments, check=False, timeout=host.patience).stdout)
    assert not answer.get("failed"), answer
    return answer


def test_the_rule_for_memfd_lets_one_guests_file_through(host: rig.VirtualMachine) -> None:
    done = local(host, memfd_fallback=[WEB])
    assert (done["changed"], done["memfd_create"]) == (False, True)
    done = without_memfd(host, memfd_fallback=[WEB])
    assert (done["changed"], done["memfd_create"]) == (True, False)
    for name, uuid in (("web", WEB), ("db", DB)):
        start(host, guests.Guest(name, uuid=uuid))
    allowed = [f"/tmp/memfd-{WEB}-aB3xY9", "/tmp/memfd-aB3xY9"]
    others = [f"/tmp/memfd-{DB}-aB3xY9", "/tmp/memfd-aB3xY9z", "/tmp/memfd-", "/tmp/other", "/var/tmp/memfd-aB3xY9"]

    def may(uuid: str, path: str) -> bool:
        answer = host.run(["sh", "-c", TRY.format(uuid=uuid, path=path)], check=False, timeout=host.patience)
        host.run(["rm", "-f", path], timeout=host.patience)
        return answer.returncode == 0

    assert [path for path in (*allowed, *others) if may(WEB, path)] == allowed
    assert [path for path in (*allowed, *others) if may(DB, path)] == []
    assert without_memfd(host, memfd_fallback=[WEB])["changed"] is False


def test_the_helper_reads_what_images_of_a_pool_are_built_on(host: rig.VirtualMachine) -> None:
    script(
        host,
        f"""
        cd {POOL}
        qemu-img create -q -f raw base 16M
        qemu-img create -q -f qcow2 -b base -F raw top
        virsh -q pool-define-as data dir --target {POOL}
        """,
    )
    built = (
        f"<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{POOL}/top'/>"
        "<target dev='vda' bus='virtio'/></disk>"
    )
    try:
        done = local(host, pools=True)
        assert done["changed"] is True
        assert done["helper_loaded"] is True
        (file,) = done["files"]
        assert file["rules"] == [f'"{POOL}/" r', f'"{POOL}/**" r']
        start(host, guests.Guest("built", uuid=WEB, extra_devices=[built]))
        files = host.get(f"/etc/apparmor.d/libvirt/libvirt-{WEB}.files").decode()
        assert f'"{POOL}/base" rk,' in files
        assert local(host, pools=True)["changed"] is False
    finally:
        guests.stop_all(host)
        guests.virsh(host, "pool-undefine", "data")


def test_access_opens_what_keeps_one_guest_out_and_no_other(host: rig.VirtualMachine) -> None:
    private = GIVEN.rpartition("/")[0]
    script(host, f"chmod 0700 {private}; chmod 0600 {private}/*")
    wanted: dict[str, t.Any] = {"grants": [{"guest": "web", "path": GIVEN}]}
    try:
        host.put("/run/web.xml", web().xml().encode())
        guests.virsh(host, "define", "/run/web.xml")
        # Permissions keep it out before AppArmor is asked (fs/namei.c, inode_permission).
        with pytest.raises(rig.RigError):
            guests.virsh(host, "start", "web", timeout=host.patience)
        before, loaded = script(host, ON_DISK), script(host, LOADED)
        predicted = modules.call(host, "guest_access", check_mode=True, **wanted)
        assert (script(host, ON_DISK), script(host, LOADED)) == (before, loaded)
        done = modules.call(host, "guest_access", **wanted)
        assert done.get("changed") is True, done
        assert done["grants"] == predicted["grants"]
        assert done["grants"][0]["granted"] is True
        assert modules.call(host, "guest_access", **wanted)["changed"] is False
        for _start in range(2):
            guests.virsh(host, "start", "web", timeout=host.patience)
            assert label(host, "web") == f"libvirt-{WEB} (enforce)\n"
            guests.virsh(host, "destroy", "web")
        # To it permissions are open by now.
        host.put("/run/db.xml", db().xml().encode())
        assert denied(host, "create", "/run/db.xml", uuid=DB)
        # guest_access names guests that are there.
        taken = modules.call(host, "guest_access", grants=[{"guest": WEB, "path": GIVEN, "state": "absent"}])
        assert taken.get("changed") is True, taken
        with pytest.raises(rig.RigError):
            guests.virsh(host, "start", "web", timeout=host.patience)
        assert host.run(["stat", "-c", "%a", GIVEN]).stdout == "600\n"
    finally:
        script(host, f"chmod 0755 {private}; chmod 0644 {private}/*")


def test_the_role_holds_it_and_says_what_does_not_confine(host: rig.VirtualMachine) -> None:
    plays = [{"hosts": host.name, "gather_facts": False, "roles": ["hypervisor.hardening.hypervisor_mac"]}]
    # Strings, as a survey sends them.
    variables = {"hypervisor_mac_deny_sound": "true", "hypervisor_mac_pools": "false"}
    script(host, "aa-complain /etc/apparmor.d/usr.sbin.libvirtd")
    try:
        before, loaded = script(host, ON_DISK), script(host, LOADED)
        checked = playbooks.play(plays, host.inventory, "--check", variables=variables)
        assert checked.rc == 0, checked.text
        assert (script(host, ON_DISK), script(host, LOADED)) == (before, loaded)
        done = playbooks.play(plays, host.inventory, variables=variables)
        assert done.rc == 0, done.text
        assert done.changed == checked.changed == ["Hold the local additions to AppArmor's policy"]
        (result,) = done.results("apparmor_local")
        # Debian 13 ships one for virtiofsd that confines nothing.
        others = ["virtiofsd"] if host.release == "trixie" else []
        assert sorted(result["not_enforced"]) == ["libvirtd", "libvirtd//qemu_bridge_helper", *others]
        assert "libvirtd does not confine" in done.text
        facts = modules.call(host, "hypervisor_info")["hypervisor"]["mac"]
        assert facts["apparmor"]["denies_sound"] is True
        assert facts["apparmor"]["broad_grants"] == []
        again = playbooks.play(plays, host.inventory, variables=variables)
        assert (again.rc, again.changed) == (0, [])
    finally:
        script(host, "aa-enforce /etc/apparmor.d/usr.sbin.libvirtd")
