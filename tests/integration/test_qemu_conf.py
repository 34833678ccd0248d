# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""qemu_conf on real hypervisors: libvirt's own parser and daemon say what is right, and nothing is left behind."""

from __future__ import annotations

import base64
import os
import pathlib
import re
import time
import typing as t

import pytest
import rig
from rig import modules, playbooks
from virconf.libvirt_parser import LibvirtParser

from ansible_collections.hypervisor.hardening.plugins.module_utils import _confkeys
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Host

CONF = "/etc/libvirt/qemu.conf"
VERSIONS = {"bookworm": "9.0.0", "trixie": "11.3.0"}
PASSWORD = "x7Lq-Vq2mZ"


@pytest.fixture(params=VERSIONS)
def host(request: pytest.FixtureRequest) -> t.Iterator[rig.Host]:
    with rig.host(request.param) as fresh:
        yield fresh


@pytest.fixture(params=VERSIONS, scope="module")
def shared(request: pytest.FixtureRequest) -> t.Iterator[rig.Host]:
    """A host for tests that leave it as it was."""
    with rig.host(request.param, f"{request.param}-{os.getpid()}-shared") as fresh:
        yield fresh


@pytest.fixture
def conf(shared: rig.Host) -> t.Iterator[bytes]:
    """The packaged file, put back after the test."""
    before = shared.get(CONF)
    yield before
    shared.put(CONF, before, mode=0o600)


def call(host: rig.Host, *, check_mode: bool = False, **options: t.Any) -> dict[str, t.Any]:
    return modules.call(host, "qemu_conf", check_mode=check_mode, **options)


def answers(host: rig.Host) -> str:
    """The daemon's pid, after it has answered a client."""
    host.run(["virsh", "-c", "qemu:///system", "uri"])
    return host.run(["systemctl", "show", "-p", "MainPID", "libvirtd.service"]).stdout


# --- what is wrong is refused ---


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"security_default_confied": 0}, r"security_default_confied .*Did you mean security_default_confined"),
        ({"seccomp_sandbox": 5}, r"seccomp_sandbox: 5 is not one of -1, 0, 1"),
        ({"seccomp_sandbox": ["1"]}, r"seccomp_sandbox: .* a whole number"),
        ({"namespaces": "mount"}, r"namespaces: 'mount' is a string, but libvirt reads a list of strings"),
        ({"namespaces": ["mount", "pid"]}, r"namespaces: 'pid' is not one of mount"),
        ({"user": 0}, r"user: 0 is a number, but libvirt reads a string"),
        ({"user": "nosuch"}, r"user: this host has no user 'nosuch'"),
        ({"user": "-1"}, r"user: '-1' .* run as root"),
        ({"group": "4294967295"}, r"group: '4294967295' .* run as root"),
        ({"vnc_tls_x509_cert_dir": "/nosuch"}, r"vnc_tls_x509_cert_dir: the directory /nosuch does not exist"),
        ({"hugetlbfs_mount": ""}, r'hugetlbfs_mount: "" keeps libvirt from starting'),
        ({"hugetlbfs_mount": "/srv"}, r"hugetlbfs_mount: /srv is not on a hugetlbfs"),
        # Of these the module has no rule: the words are libvirt's.
        ({"migration_address": "localhost"}, r"libvirt [0-9.]+ refuses .*migration_address must not be the address"),
        ({"nvram": ["/nocolon"]}, r"libvirt [0-9.]+ refuses .*nocolon"),
    ],
)
def test_wrong_settings_are_refused(shared: rig.Host, conf: bytes, settings: dict[str, t.Any], words: str) -> None:
    pid = answers(shared)
    before = shared.run(["stat", "-c", "%i %y %z", CONF]).stdout
    for check_mode in (True, False):
        answer = call(shared, settings=settings, check_mode=check_mode)
        assert answer["failed"]
        assert re.search(words, answer["msg"]), answer["msg"]
        assert "/run/libvirt/hypervisor" not in answer["msg"]
    assert shared.get(CONF) == conf
    assert shared.run(["stat", "-c", "%i %y %z", CONF]).stdout == before
    assert answers(shared) == pid


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            b'seccomp_sandbox = "1"',
            r"refuses what /etc/libvirt/qemu.conf .*/etc/libvirt/qemu.conf: .*'seccomp_sandbox'",
        ),
        (b'namespaces = "mount"', r"refuses .*/etc/libvirt/qemu.conf: .*'namespaces'"),
        (b'namespaces = [ "mount", "pid" ]', r"refuses .*Unknown namespace: pid"),
        (b"user = 0", r"refuses .*/etc/libvirt/qemu.conf: .*'user'"),
        (b'user = "nosuch"', r"refuses .*Failed to parse user 'nosuch'"),
        (b'namespaces = [ "mount"', r"/etc/libvirt/qemu.conf, line \d+: .* Correct it by hand"),
    ],
)
def test_a_wrong_line_that_is_there_already_is_refused_too(
    shared: rig.Host, conf: bytes, line: bytes, words: str
) -> None:
    broken = conf + line + b"\n"
    shared.put(CONF, broken, mode=0o600)
    answer = call(shared, settings={"max_files": 4096})
    assert answer["failed"]
    assert re.search(words, answer["msg"]), answer["msg"]
    assert shared.get(CONF) == broken


@pytest.mark.parametrize(
    ("line", "settings"),
    [
        (b'seccomp_sandbox = "1"', {"seccomp_sandbox": 1}),
        (b'namespaces = "mount"', {"namespaces": ["mount"]}),
        (b"user = 0", {"user": "+0"}),
        (b'user = "nosuch"', {"user": None}),
    ],
)
def test_a_wrong_line_is_mended_by_setting_its_key(
    shared: rig.Host, conf: bytes, line: bytes, settings: dict[str, t.Any]
) -> None:
    shared.put(CONF, conf + line + b"\n", mode=0o600)
    answer = call(shared, settings=settings)
    assert answer["changed"]
    assert answer["checked_by"] == f"libvirt {VERSIONS[shared.release]}"


def test_what_libvirt_ignores_without_a_word_is_warned_of(shared: rig.Host, conf: bytes) -> None:
    shared.put(CONF, conf + b'security_default_confied = 0\nuser = "root"\nuser = "libvirt-qemu"\n', mode=0o600)
    answer = call(shared, settings={"max_files": 4096}, check_mode=True)
    assert answer["changed"]
    warnings = str(answer["warnings"])
    assert "security_default_confied" in warnings
    assert "user 2 times" in warnings


def test_of_duplicates_the_first_counts_and_the_others_go(shared: rig.Host, conf: bytes) -> None:
    shared.put(CONF, conf + b'user = "root"\nuser = "libvirt-qemu"\n', mode=0o600)
    assert b'\nuser = "root"' in shared.get(CONF)
    answer = call(shared, settings={"user": "libvirt-qemu"})
    assert answer["changes"] == [{"key": "user", "before": "root", "after": "libvirt-qemu"}]
    lines = [line for line in shared.get(CONF).splitlines() if line.startswith(b"user =")]
    assert len(lines) == 1


# --- libvirt agrees ---

# The same values as in the tests of the rules; libvirt itself is asked here, without our rules in between.
TAKEN = [
    'user = "+0"',
    'user = "107"',
    'group = "4294967294"',
    "security_driver = []",
    'security_driver = "none"',
    'security_driver = [ "none" ]',
    "namespaces = []",
    "seccomp_sandbox = -1",
    'cgroup_device_acl = [ "/dev/null", "/nosuch" ]',
    'stdio_handler = "file"',
    'sched_core = "none"',
    "allow_disk_format_probing = 0",
    "hugetlbfs_mount = []",
    "migration_port_max = 65535",
    "remote_display_port_min = 5900",
    "keepalive_interval = -1",
    "max_core = 9223372036854775807",
    'max_core = "unlimited"',
    'user = "-1"',  # taken, and means root: our rule is stricter
    'user = "4294967295"',
    "seccomp_sandbox = 5",
    'deprecation_behavior = "nonsense"',
    "cgroup_device_acl = []",
]
REFUSED = [
    'user = "nosuch"',
    'user = "+root"',
    'user = ""',
    'user = "99999999999"',
    'group = "nosuch"',
    'swtpm_user = "nosuch"',
    'swtpm_group = "nosuch"',
    'security_driver = "dac"',
    'security_driver = ""',
    'security_driver = "SELinux"',
    'security_driver = [ "none", "none" ]',
    'namespaces = [ "pid" ]',
    'cgroup_controllers = [ "cpus" ]',
    'stdio_handler = "syslog"',
    'sched_core = "all"',
    "allow_disk_format_probing = 1",
    'lock_manager = "virtlockd"',
    'default_tls_x509_cert_dir = "/nosuch"',
    'hugetlbfs_mount = ""',
    'hugetlbfs_mount = "/srv"',
    "migration_port_min = 0",
    "migration_port_min = 50000",
    "migration_port_max = 65536",
    "remote_display_port_min = 5899",
    "remote_websocket_port_max = 5000",
    'max_core = "lots"',
    "keepalive_count = -1",
    'user = 0',
    'vnc_tls = 2',
    'vnc_tls = "1"',
    'namespaces = "mount"',
    'keepalive_interval = 2147483648',
    'max_files = 4294967296',
]  # fmt: skip
_ASK = """
import sys
sys.path.insert(0, "/opt/rig-modules")
from ansible_collections.hypervisor.hardening.plugins.module_utils import _libvirtcheck
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Host
for line in sys.stdin.read().splitlines():
    try:
        _libvirtcheck.check(Host(), "/etc/libvirt/qemu.conf", line.encode() + b"\\n")
        print("taken")
    except _libvirtcheck.CheckError as error:
        print("refused", error)
"""


def ask(host: rig.Host, lines: t.Sequence[str]) -> list[str]:
    """What libvirt's check says of files of one line each."""
    modules.prepare(host, "qemu_conf")
    done = host.run(["/usr/bin/python3", "-B", "-c", _ASK], stdin="\n".join(lines).encode())
    return done.stdout.splitlines()


def test_the_rules_are_libvirts(shared: rig.Host, conf: bytes) -> None:
    said = dict(zip([*TAKEN, *REFUSED], ask(shared, [*TAKEN, *REFUSED]), strict=True))
    assert {line: said[line] for line in TAKEN} == dict.fromkeys(TAKEN, "taken")
    assert [line for line in REFUSED if not said[line].startswith("refused")] == []


def test_every_key_of_the_lens_is_read_as_its_type_says(shared: rig.Host, conf: bytes) -> None:
    """A value of another type makes the driver name the key: proof that the parser reads it, and as what."""
    keys = _confkeys.known(Host(str(root_of(shared.release))))
    assert keys.source == "lens"
    wrong = {_confkeys.BOOL: '"x"', _confkeys.INT: '"x"', _confkeys.UINT: "-1", _confkeys.LIMIT: "[]"}
    wrong |= {_confkeys.STRING: "0", _confkeys.LIST: '"x"', _confkeys.STRING_OR_LIST: "0", _confkeys.SIZE: "[]"}
    lines = [f"{key} = {wrong[kind]}" for key, kind in keys.types.items()]
    said = dict(zip(keys.types, ask(shared, lines), strict=True))
    assert [key for key, answer in said.items() if not (answer.startswith("refused") and key in answer)] == []


def root_of(release: str) -> pathlib.Path:
    return rig.build(release) / "root"


@pytest.mark.parametrize("release", VERSIONS)
def test_the_table_agrees_with_the_lens(release: str, tmp_path: pathlib.Path) -> None:
    lens, table = _confkeys.known(Host(str(root_of(release)))), _confkeys.known(Host(str(tmp_path)))
    assert (lens.source, table.source) == ("lens", "fallback")
    assert {key: table.types.get(key) for key in lens.types} == dict(lens.types)


ROUND_TRIP: dict[str, t.Any] = {
    "vnc_tls": False,
    "security_default_confined": "yes",
    "seccomp_sandbox": -1,
    "migration_port_min": "49160",
    "max_core": 2**63 - 1,
    "max_files": 4294967295,
    "user": "root",
    "group": "+0",
    "vnc_listen": "fe80::1%eth0 'quoted'",
    "spice_listen": 'say "hello"',
    "migration_host": "größe # no comment",
    "security_driver": ["none"],
    "cgroup_controllers": ["cpu", "devices", "memory"],
    "namespaces": [],
    "hugetlbfs_mount": [],
    "nvram": ["/a:/b", "/c d:/e"],
}
READ: dict[str, t.Any] = {
    **ROUND_TRIP,
    "vnc_tls": 0,
    "security_default_confined": 1,
    "migration_port_min": 49160,
}


def test_libvirt_reads_what_was_meant(shared: rig.Host, conf: bytes) -> None:
    first = call(shared, settings=ROUND_TRIP, extend={"cgroup_device_acl": ["/dev/vfio/1"]})
    assert first["changed"], first
    with LibvirtParser(root_of(shared.release)) as parser:
        reading = parser(shared.get(CONF))
    assert reading.error is None
    read = {key: plain(reading.first[key]) for key in READ}
    assert read == READ
    acl = plain(reading.first["cgroup_device_acl"])
    assert acl == [*built_in_devices(conf), "/dev/vfio/1"]
    second = call(shared, settings=ROUND_TRIP, extend={"cgroup_device_acl": ["/dev/vfio/1"]})
    assert not second["changed"]


def plain(value: t.Any) -> t.Any:
    """A value as the driver of LibvirtParser sends it, [kind, content], without its kinds."""
    _kind, content = value
    return [plain(item) for item in content] if isinstance(content, list) else content


def built_in_devices(conf: bytes) -> list[str]:
    """The list in the comment of the packaged file, which is the one that the code has."""
    found = re.search(rb"^#cgroup_device_acl = \[(.*?)\]", conf, re.MULTILINE | re.DOTALL)
    assert found
    return re.findall(r'"([^"]+)"', found[1].decode())


def test_the_daemon_goes_by_it(host: rig.Host) -> None:
    """virsh capabilities shows the numbers that the running driver gives to guests."""
    first = call(host, settings={"user": "root", "group": "root"})
    assert (first["restart_required"], first["restart_units"]) == (True, ["libvirtd.service"])
    assert baselabels(host) != {"+0:+0"}
    host.run(["systemctl", "restart", "libvirtd"])
    assert baselabels(host) == {"+0:+0"}
    assert not call(host, settings={"user": "root", "group": "root"})["restart_required"]


def baselabels(host: rig.Host) -> set[str]:
    text = host.run(["virsh", "-c", "qemu:///system", "capabilities"]).stdout
    model = text.partition("<model>dac</model>")[2].partition("</secmodel>")[0]
    return set(re.findall(r"<baselabel[^>]*>([^<]*)</baselabel>", model))


# --- nothing is left behind ---

_LISTING = r"""
find / -xdev \( -path /proc -o -path /sys -o -path /opt/rig-modules \) -prune -o -printf '%p %y %m %U %G %s %T@ %C@\n'
for below in /run /dev /tmp /srv/huge /dev/hugepages; do
    find $below -xdev -printf '%p %y %m %U %G %s %T@ %C@\n'
done
cat /proc/1/mountinfo
ls /proc/[0-9]* -d | wc -l
"""
# What the host's own services write all the time.
_NOISE = re.compile(
    r"^/(var/log/journal|run/log/journal|run/systemd|run/udev|var/log/wtmp|run/utmp|var/lib/systemd)\b"
    r"|^/(dev/(ptmx|pts|null|shm|console|tty)|run/lock|run/host)\b|^\d+$"
)
CANDIDATE = {
    "user": "root",
    "group": "root",
    "auto_dump_path": "/srv/dump",
    "memory_backing_dir": "/srv/new/ram",
    "hugetlbfs_mount": ["/dev/hugepages", "/srv/huge/part"],
    "mac_filter": 1,
    "vnc_tls_x509_cert_dir": "/srv/pki",
}


def listing(host: rig.Host) -> list[str]:
    lines = host.run(["sh", "-c", _LISTING]).stdout.splitlines()
    return [line for line in lines if not _NOISE.match(line)]


def prepare_traces(host: rig.Host) -> None:
    """Everything that libvirt would touch, with owners and modes that it would change."""
    script = r"""
        mkdir -p /srv/dump /srv/huge /srv/pki
        chown 1234:4321 /srv/dump && chmod 0700 /srv/dump && touch /srv/dump/kept
        mountpoint -q /dev/hugepages || mount -t hugetlbfs none /dev/hugepages
        mount -t hugetlbfs none /srv/huge
        mkdir /srv/huge/part
        chmod 0700 /dev/hugepages /srv/huge /srv/huge/part
        dmidecode=$(command -v dmidecode) || dmidecode=/usr/sbin/dmidecode
        printf '#!/bin/sh\ntouch /dmidecode-ran\n' > $dmidecode
        systemctl stop systemd-tmpfiles-clean.timer apt-daily.timer man-db.timer e2scrub_all.timer 2>/dev/null
        true
    """
    host.run(["sh", "-c", script])


def test_check_mode_and_a_refusal_leave_no_trace(host: rig.Host) -> None:
    prepare_traces(host)
    call(host, settings={}, check_mode=True)
    before = listing(host)
    answer = call(host, settings=CANDIDATE, check_mode=True)
    assert answer["changed"], answer
    assert answer["checked_by"] == f"libvirt {VERSIONS[host.release]}"
    assert listing(host) == before

    answer = call(host, settings={**CANDIDATE, "migration_address": "localhost"})
    assert "migration_address must not" in answer["msg"], answer
    assert listing(host) == before

    # The same question asked plainly leaves the traces that this test looks for.
    assert call(host, settings=CANDIDATE, path="/root/etc/qemu.conf", check_mode=True)["failed"]  # no such directory
    host.run(["mkdir", "-p", "/root/asked/etc"])
    assert call(host, settings=CANDIDATE, path="/root/asked/etc/qemu.conf")["changed"]
    host.run(["unshare", "-m", "-n", "virsh", "-c", "qemu:///embed?root=/root/asked", "uri"])
    changed = {line.split()[0] for line in set(listing(host)) ^ set(before)}
    assert {"/srv/dump", "/srv/new/ram", "/srv/huge/part/libvirt", "/dmidecode-ran"} <= changed, changed


def test_a_check_that_is_killed_leaves_no_trace(host: rig.Host) -> None:
    prepare_traces(host)
    words, arguments = modules.prepare(host, "qemu_conf", settings=CANDIDATE, check_mode=True)
    before = listing(host)
    for delay in (0.10, 0.14, 0.18, 0.22, 0.26):
        host.run(["timeout", "-s", "KILL", str(delay), *words], stdin=arguments, check=False)
    time.sleep(1)  # a virsh that had just begun ends by itself
    assert listing(host) == before


def test_the_check_is_quick(shared: rig.Host, conf: bytes) -> None:
    begun = time.monotonic()
    assert ask(shared, ["user = 'root'"] * 20) == ["taken"] * 20
    each = (time.monotonic() - begun) / 20
    print(f"libvirt {VERSIONS[shared.release]} judges a file in {each * 1000:.0f} ms")
    assert each < 0.5


# --- hosts that are not as usual ---


def test_without_virsh_nothing_is_written_that_no_restart_could_prove(host: rig.Host) -> None:
    before = host.get(CONF)
    host.run(["mv", "/usr/bin/virsh", "/usr/bin/virsh.away"])
    answer = call(host, settings={"namespaces": ["mount"]})
    assert (answer["failed"], answer["changed"]) == (True, False)
    assert "Install libvirt-clients" in answer["msg"]
    assert host.get(CONF) == before
    answer = call(host, settings={"namespaces": ["mount"]}, libvirt_check=False)
    assert (answer["changed"], answer["checked_by"]) == (True, "rules only")


def test_without_libvirts_driver_the_rules_decide_and_say_so(host: rig.Host) -> None:
    host.run(["sh", "-c", "rm /usr/lib/*-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so"])
    answer = call(host, settings={"migration_address": "localhost"}, check_mode=True)
    assert answer["checked_by"] == "rules only"
    assert "QEMU driver, which this host does not have" in str(answer["warnings"])
    host.run(["sh", "-c", "rm -r /usr/share/augeas/lenses"])
    answer = call(host, settings={"namespaces": ["mount"]})
    assert (answer["changed"], answer["keys_from"]) == (True, "fallback")
    answer = call(host, extend={"cgroup_device_acl": ["/dev/vfio/1"]})
    assert "test_libvirtd_qemu.aug" in answer["msg"]


def test_libvirts_check_can_be_switched_off(shared: rig.Host, conf: bytes) -> None:
    answer = call(shared, settings={"migration_address": "localhost"}, libvirt_check=False, check_mode=True)
    assert answer["checked_by"] == "rules only"
    assert "libvirt_check is off" in str(answer["warnings"])


def test_where_libvirt_cannot_be_asked_without_a_trace_it_is_not_asked(shared: rig.Host, conf: bytes) -> None:
    """As in a container without CAP_SYS_ADMIN."""
    words, arguments = modules.prepare(shared, "qemu_conf", settings={"max_files": 4096})
    done = shared.run(["setpriv", "--bounding-set=-sys_admin", "--", *words], stdin=arguments, check=False)
    assert "CAP_SYS_ADMIN" in done.stdout
    assert "libvirt_check: false" in done.stdout
    assert shared.get(CONF) == conf


@pytest.mark.parametrize("way", ["stopped", "suspended"])
def test_a_daemon_that_is_down_or_hangs_does_not_stop_a_change(host: rig.Host, way: str) -> None:
    if way == "stopped":
        host.run(
            ["sh", "-c", "systemctl stop libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirtd.service"]
        )
    else:
        host.run(["pkill", "-STOP", "-x", "libvirtd"])
    begun = time.monotonic()
    answer = call(host, settings={"namespaces": ["mount"]})
    assert answer["changed"], answer
    assert answer["restart_required"]
    assert time.monotonic() - begun < 30


def test_owner_mode_and_attributes_stay_and_a_backup_is_made(host: rig.Host) -> None:
    host.run(
        [
            "sh",
            "-c",
            f"chown root:kvm {CONF}; chmod 0640 {CONF}; setfacl -m u:65534:r {CONF}; setfattr -n user.a -v b {CONF}",
        ]
    )
    facts = ["sh", "-c", f"stat -c '%U %G %a' {CONF}; getfacl -np {CONF}; getfattr -d -m user {CONF}"]
    before, data = host.run(facts).stdout, host.get(CONF)
    answer = call(host, settings={"max_files": 4096}, backup=True)
    assert answer["changed"]
    assert host.run(facts).stdout == before
    assert host.get(answer["backup_file"]) == data
    assert host.run(["stat", "-c", "%U %G", answer["backup_file"]]).stdout == "root kvm\n"


# --- passwords ---


def needles() -> set[bytes]:
    """The password, and what it looks like inside base64 at each of the three offsets."""
    found = {PASSWORD.encode()}
    for offset in range(3):
        text = base64.b64encode(b"x" * offset + PASSWORD.encode()).rstrip(b"=")
        start = -(-offset * 8 // 6)
        found.add(text[start : len(text) - 1])
    return found


def hits(directory: pathlib.Path) -> list[str]:
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert files
    return [str(path) for path in files if any(needle in path.read_bytes() for needle in needles())]


def test_the_words_of_libvirt_do_not_quote_a_password(shared: rig.Host, conf: bytes) -> None:
    """It names values that it refuses, and they may happen to hold the same text."""
    lines = f'vnc_password = "{PASSWORD}"\nmigration_address = "localhost-{PASSWORD}"\n'
    shared.put(CONF, conf + lines.encode(), mode=0o600)
    answer = call(shared, settings={"max_files": 4096})
    assert answer["msg"].endswith("localhost-(not shown)")
    assert PASSWORD not in str(answer)


def test_a_password_is_nowhere(host: rig.Host, tmp_path: pathlib.Path) -> None:
    def task(**options: t.Any) -> dict[str, t.Any]:
        return {"hypervisor.hardening.qemu_conf": options, "ignore_errors": True, "register": "answer"}

    secret = {"vnc_password": "{{ password }}"}
    tasks = [
        {**task(secret_settings=secret), "check_mode": True},
        task(secret_settings=secret),
        {"ansible.builtin.debug": {"var": "answer"}},
        task(settings={"vnc_listen": "::1"}, backup=True),  # beside it in the file
        task(settings={"migration_address": "localhost"}),  # libvirt refuses
        task(settings={"vnc_password": "{{ password }}"}),  # we refuse
        task(secret_settings={"vnc_password": ["{{ password }}"]}),
        task(secret_settings={"vnc_password": '{{ password }}"\'"""'}),
        task(secret_settings={"vnc_password": None}, settings={"vnc_listen": None}),
    ]
    for log in ("console", "syslog"):
        host.run(["logger", f"{log} works"])
    run = playbooks.play(
        [{"hosts": host.name, "gather_facts": False, "tasks": tasks}],
        host.inventory,
        "-vvv",
        "--diff",
        artifacts=tmp_path,
        variables={"password": PASSWORD},
    )
    ended = [task for task in run.tasks if task.action.endswith("qemu_conf") and task.outcome in ("ok", "failed")]
    outcomes = [(task.outcome, task.changed) for task in ended]
    assert outcomes == [("ok", True)] * 3 + [("failed", False)] * 4 + [("ok", True)], [task.result for task in ended]
    assert "(changed, not shown)" in run.text
    assert "vnc_password" in run.text
    assert hits(tmp_path / "artifacts") == []

    logs = host.run(["journalctl", "--no-pager", "--output=export"]).stdout.encode("utf-8", "surrogateescape")
    assert b"Invoked with" in logs
    assert [line for line in logs.splitlines() if any(needle in line for needle in needles())] == []

    # On the host itself it stood where it belongs: in the file, in the copies that were asked for and in the journal.
    script = f"grep -rlF -e {PASSWORD} / --exclude-dir=proc --exclude-dir=sys --exclude-dir=dev 2>/dev/null"
    found = host.run(["sh", "-c", script], check=False).stdout.split()
    assert [path for path in found if not re.match(r"/etc/libvirt/qemu.conf\..*~$", path)] == []
    assert found, "the backup holds it"
    assert host.run(["stat", "-c", "%a", *found]).stdout.split() == ["600"] * len(found)
