# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each fact on which hosts are compared: equal, different, unknown, and in which direction it breaks."""

from __future__ import annotations

import typing as t

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.hypervisor.hardening.plugins.plugin_utils import _parity
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._parityneeds import NEEDS
from ansible_collections.hypervisor.hardening.tests.unit.plugins.fleets import (
    NOW,
    broken,
    found,
    host,
    judged,
    put,
    with_tls,
)

BOTH, TO_ODD, FROM_ODD, AMONG = "both", "to the odd one", "from the odd one", "among"
VALUES = "migration__values"
LOST = {"error": "it could not be collected"}

# id -> (what libvirt does by its own documentation and sources, severity, path, value of the odd host, where it breaks)
ONE_VALUE: dict[str, tuple[str, str, str, t.Any, str]] = {
    "qemu-user": ("N", "critical", "capabilities__dac", {"uid": 0, "gid": 0, "source": "capabilities"}, BOTH),
    "architecture": ("C", "high", "host__architecture", "aarch64", BOTH),
    "libvirt-version": ("P", "medium", "capabilities__libvirt_version", "9.0.0", TO_ODD),
    "qemu-version": ("P", "high", "capabilities__qemu_version", "10.1.0", FROM_ODD),
    "dynamic-ownership": ("N", "high", f"{VALUES}__dynamic_ownership", False, BOTH),
    "remember-owner": ("N", "medium", f"{VALUES}__remember_owner", False, BOTH),
    "security-models": ("P", "high", "capabilities__secmodels", [{"model": "dac", "doi": "0"}], BOTH),
    "mac-enforced": ("N", "high", "mac__enforcing", False, TO_ODD),
    "selinux-booleans": (
        "N", "high", "mac__selinux__booleans", [{"name": "virt_use_nfs", "running": True}], BOTH,
    ),
    "selinux-policy": ("N", "medium", "mac__configured__selinux_policy", "mls", BOTH),
    "namespaces": ("N", "high", f"{VALUES}__namespaces", [], TO_ODD),
    "seccomp": ("N", "high", f"{VALUES}__seccomp_sandbox", False, TO_ODD),
    "cgroup-controllers": ("N", "high", f"{VALUES}__cgroup_controllers", ["cpu"], TO_ODD),
    "cgroup-devices": ("N", "medium", f"{VALUES}__cgroup_device_acl", ["/dev/kvm", "/dev/null", "/dev/x"], BOTH),
    "sched-core": ("N", "medium", f"{VALUES}__sched_core", "full", FROM_ODD),
    "max-core": ("N", "medium", f"{VALUES}__max_core", "unlimited", TO_ODD),
    "memory-backing-dir": ("N", "medium", f"{VALUES}__memory_backing_dir", "/srv/ram", BOTH),
    "lock-manager": ("N", "high", f"{VALUES}__lock_manager", "lockd", BOTH),
    "shared-filesystems": (
        "N", "low", "configuration__qemu_conf__settings", {"shared_filesystems": ["/srv"]}, BOTH,
    ),
    "memfd-create": ("N", "high", "memfd__works", False, TO_ODD),
    "host-name-usable": ("P", "high", "migration__host", "localhost.example.org", TO_ODD),
    "migration-address": ("P", "high", "migration__address", "127.0.0.1", TO_ODD),
    "migration-ports": ("N", "low", "migration__last_port", 49160, BOTH),
    "migration-ports-free": ("P", "high", "migration__taken_ports_total", 64, TO_ODD),
    "tls-force": ("C", "medium", f"{VALUES}__migrate_tls_force", True, BOTH),
    "tls-verify": (
        "N", "medium", "configuration__qemu_conf__settings", {"default_tls_x509_verify": 0}, TO_ODD,
    ),
}  # fmt: skip

# Facts that are compared in another way, each with a test of its own below.
OF_THEIR_OWN = {"host-uuid", "host-name", "tls-material", "tls-authority"}


def three(**changes: t.Any) -> dict[str, t.Any]:
    """Two hosts as they should be, and one with these changes."""
    return {"a": host("a"), "b": host("b"), "odd": host("odd", **changes)}


def moves(where: str) -> set[tuple[str, str]]:
    return {
        BOTH: {("a", "odd"), ("odd", "a")},
        TO_ODD: {("a", "odd")},
        FROM_ODD: {("odd", "a")},
    }[where]


def test_no_fact_is_without_a_test() -> None:
    assert {fact.id for fact in _parity.FACTS} == ONE_VALUE.keys() | OF_THEIR_OWN
    assert {need.id for need in NEEDS} == {kind[0] for kind in NEEDED} | {"display-in-migration-ports"}


def test_equal_hosts_fit() -> None:
    group = judged({name: host(name) for name in ("a", "b", "c")})
    assert group["findings"] == []
    assert group["matrix"]["cells"] == [[{"state": "fits", "findings": []}]]
    assert group["agreement"]["errors"] == [] and group["agreement"]["departures"] == []


@pytest.mark.parametrize("id_", ONE_VALUE)
def test_a_difference(id_: str) -> None:
    libvirt, severity, path, value, where = ONE_VALUE[id_]
    group = judged(three(**{path: value}))
    finding = found(group)[id_]
    assert (finding["libvirt"], finding["severity"]) == (libvirt, severity)
    assert finding["odd"] == ["odd"] and finding["known"] == 3
    assert [entry["hosts"] for entry in finding["values"]] == [["a", "b"], ["odd"]]
    assert broken(group, id_) == moves(where)
    sources = {source for source, _to in moves(where)}
    assert finding["guests"]["total"] == 2 * (2 * ("a" in sources) + ("odd" in sources))
    # What another fact is told from as well: a host that forces TLS without any certificates.
    assert found(group).keys() - {"tls-material"} == {id_}


@pytest.mark.parametrize("id_", ONE_VALUE)
def test_a_value_that_is_not_known_is_not_equal(id_: str) -> None:
    section = ONE_VALUE[id_][2].split("__")[0]
    group = judged(three(**{section: LOST}))
    unknown = found(group, "unknown")
    if section == "host":  # without it nobody knows how old the facts are
        assert group["unknown"] == [{"reason": "host: it could not be collected", "hosts": ["odd"]}]
        return
    assert unknown[id_]["odd"] == ["odd"]
    assert "it could not be collected" in unknown[id_]["reasons"][0]["reason"]
    cells = {cell["state"] for row in group["matrix"]["cells"] for cell in row}
    assert cells == {"fits", "unknown", ""}


def test_of_one_odd_host_among_many_one_line_is_told() -> None:
    hosts = {f"kvm{number:02}": host(f"kvm{number:02}") for number in range(50)}
    hosts["odd"] = host("odd", capabilities__dac={"uid": 0, "gid": 0, "source": "capabilities"})
    (finding,) = judged(hosts)["findings"]
    assert (len(finding["odd"]), finding["known"]) == (1, 51)
    assert [(entry["value"], len(entry["hosts"])) for entry in finding["values"]] == [("64055:64055", 50), ("0:0", 1)]
    assert "0:0 before the migration is done" in finding["directions"][0]["happens"]
    assert finding["guests"]["total"] == 102 and len(finding["guests"]["first"]) == 20


def test_where_nobody_is_in_the_majority_all_are_odd() -> None:
    group = judged({"a": host("a"), "b": host("b", migration__values__max_core="5")})
    assert found(group)["max-core"]["odd"] == ["a", "b"]
    assert broken(group, "max-core") == {("a", "b")}


def test_a_user_that_only_an_unloaded_file_tells_is_unknown() -> None:
    hosts = three(capabilities__dac={"uid": 0, "gid": 0, "source": "/etc/libvirt/qemu.conf"})
    hosts["odd"]["libvirt"]["restart_required"] = True
    group = judged(hosts)
    assert "qemu-user" in found(group, "unknown") and "qemu-user" not in found(group)


@pytest.mark.parametrize(
    ("id_", "path"), [("host-uuid", "capabilities__host_uuid"), ("host-name", "migration__hostname")]
)
def test_what_has_to_be_a_hosts_own(id_: str, path: str) -> None:
    hosts = three(**{path: "same"})
    put(hosts["b"], path.split("__"), "same")
    group = judged(hosts)
    assert found(group)[id_]["odd"] == ["b", "odd"]
    assert broken(group, id_) == {("b", "b")}, "b and odd are of one class"
    assert group["matrix"]["classes"][0]["hosts"] == ["b", "odd"]


def test_a_name_without_an_address() -> None:
    assert broken(judged(three(migration__addresses=[])), "host-name-usable") == {("a", "odd")}
    named = three(migration__addresses=[], migration__host="192.0.2.7")
    assert found(judged(named)) == {}


@pytest.mark.parametrize(
    ("change", "moves_broken", "told"),
    [
        ({"expires": NOW.timestamp() - 1}, {("a", "odd")}, "server-cert.pem has expired"),
        ({"names": ["other.example.org"]}, {("a", "odd")}, "is for other.example.org, not for odd"),
        ({"reason": "broken"}, {("a", "odd")}, "server-cert.pem cannot be read"),
        ({"names": ["odd"]}, set(), ""),
        ({"names": ["*"]}, set(), ""),
    ],
)
def test_certificates(change: dict[str, t.Any], moves_broken: set[tuple[str, str]], told: str) -> None:
    hosts = {name: with_tls(host(name)) for name in ("a", "b")}
    group = judged({**hosts, "odd": with_tls(host("odd"), **change)})
    assert broken(group, "tls-material") == moves_broken
    assert not told or told in found(group)["tls-material"]["directions"][0]["happens"]


@pytest.mark.parametrize(
    ("problem", "moves_broken"),
    [
        ("server-key.pem is not the key of server-cert.pem.", {("a", "odd")}),
        ("client-key.pem cannot be read by QEMU.", {("odd", "a")}),
        ("ca-cert.pem does not vouch for server-cert.pem and client-cert.pem.", {("a", "odd"), ("odd", "a")}),
    ],
)
def test_what_the_host_itself_finds_wrong_with_its_certificates(
    problem: str, moves_broken: set[tuple[str, str]]
) -> None:
    hosts = {name: with_tls(host(name)) for name in ("a", "b", "odd")}
    hosts["odd"]["tls"]["uses"][0]["problems"] = [problem]
    assert broken(judged(hosts), "tls-material") == moves_broken


def test_a_host_without_a_client_certificate_cannot_send() -> None:
    hosts = {name: with_tls(host(name)) for name in ("a", "b", "odd")}
    hosts["odd"]["tls"]["uses"][0]["missing"] = ["client-cert.pem"]
    assert broken(judged(hosts), "tls-material") == {("odd", "a")}


def test_a_host_without_any_certificates() -> None:
    hosts = {"a": with_tls(host("a")), "b": with_tls(host("b")), "odd": host("odd")}
    assert broken(judged(hosts), "tls-material") == moves(BOTH)


def test_other_authorities() -> None:
    hosts = {name: with_tls(host(name)) for name in ("a", "b", "odd")}
    hosts["odd"]["tls"]["certificates"][0]["digest"] = "0ddba11"
    assert broken(judged(hosts), "tls-authority") == moves(BOTH)


NFS = {
    "name": "/srv", "fstype": "nfs4", "id": "store:/images", "recognised": True, "listed": False,
    "guests": [], "unlisted": [],
}  # fmt: skip
USED = {**NFS, "guests": ["web"], "unlisted": ["web"]}
LOCAL = {**USED, "name": "/", "fstype": "ext4", "id": "", "recognised": False}
CPU = {"mode": "custom", "model": "EPYC", "lacks": [], "beyond": [], "guests": ["web"]}
PAGES = {"guest": "web", "kib": 2048, "pages": 512}
WANTED = {"guest": "web", "interface": "tap-web"}

# need, what of it a guest of host a needs, what the odd host changes, what is told
NEEDED: list[tuple[str, dict[str, t.Any], dict[str, t.Any], str]] = [
    ("machine-type", {"guests": [{"name": "web", "machine": "pc-q35-10.0"}]},
     {"capabilities__machines": {"pc-q35": ["9.0"]}}, "pc-q35-10.0"),
    ("machine-type", {"guests": [{"name": "web", "machine": "microvm"}]},
     {"capabilities__machines": {"pc-q35": ["9.0"]}}, "the machine type microvm"),
    ("cpu", {"migration__cpus": [CPU]}, {"capabilities__cpu_features": ["aes"]}, "avx, avx2 is missing"),
    ("cpu", {"migration__cpus": [{**CPU, "lacks": ["avx"]}]},
     {"capabilities__cpu_features": ["aes"]}, ": avx2 is missing"),
    ("cpu", {"migration__cpus": [{**CPU, "mode": "host-passthrough"}]}, {"cpu__model": "another"}, "meets a another"),
    ("hugepage-mount", {"migration__hugepages": [PAGES]}, {"hugepages__mounts": []}, "no mount for pages of 2M"),
    ("hugepage-mount", {"migration__hugepages": [PAGES]},
     {"hugepages__configured": {"hugetlbfs_mount": ["/srv"]}}, "no mount for pages of 2M"),
    ("hugepage-free", {"migration__hugepages": [PAGES]},
     {"hugepages__pools": [{"kib": 2048, "free": 511}]}, "512 pages of 2M, of which 511 are free"),
    ("storage", {"migration__filesystems": [USED]}, {"migration__filesystems": []}, "is not mounted there"),
    ("storage", {"migration__filesystems": [USED]},
     {"migration__filesystems": [{**NFS, "id": "store:/others"}]}, "Another file system"),
    ("display-port", {"migration__displays": [{"guest": "web", "port": 5901}]},
     {"listeners": [{"port": 5901}]}, "Port 5901"),
    ("tap-name", {"taps__wanted": [WANTED]},
     {"taps__interfaces": [{"name": "tap-web", "reserved_for_guest": False}]}, "tap-web is there already"),
]  # fmt: skip


@pytest.mark.parametrize(("id_", "needs", "changes", "told"), NEEDED)
def test_what_a_guest_needs(id_: str, needs: dict[str, t.Any], changes: dict[str, t.Any], told: str) -> None:
    hosts = {"a": host("a", **needs), "b": host("b"), "odd": host("odd", **changes)}
    if id_ == "storage":
        hosts["b"]["migration"]["filesystems"] = [NFS]
    group = judged(hosts)
    finding = found(group)[id_]
    assert finding["odd"] == ["odd"]
    assert finding["guests"] == {"total": 1, "first": [{"host": "a", "guest": "web"}]}
    assert told in finding["directions"][0]["happens"]
    assert broken(group, id_) == {("a", "odd")}
    assert found(group).keys() == {id_}


@pytest.mark.parametrize(("id_", "needs", "changes", "told"), NEEDED)
def test_what_no_guest_needs_may_be_missing(
    id_: str, needs: dict[str, t.Any], changes: dict[str, t.Any], told: str
) -> None:
    assert id_ not in found(judged({"a": host("a"), "b": host("b"), "odd": host("odd", **changes)}))
    hosts = {"odd": host("odd", **needs, **{path: value for path, value in changes.items() if path not in needs})}
    assert id_ not in found(judged(hosts)), "there is no other host"


def test_storage_that_is_not_shared_is_told_of_all() -> None:
    group = judged({"a": host("a", migration__filesystems=[LOCAL]), "b": host("b")})
    assert broken(group, "storage") == {("a", "b")}
    listed = {**LOCAL, "listed": True, "unlisted": [], "id": "abc"}
    group = judged({name: host(name, migration__filesystems=[listed]) for name in ("a", "b")})
    assert found(group) == {}


def test_storage_that_does_not_answer_is_unknown() -> None:
    group = judged({name: host(name, migration__filesystems=[{**USED, "id": None}]) for name in ("a", "b")})
    assert "storage" in found(group, "unknown")


def test_a_fixed_display_port_within_the_ports_of_migrations() -> None:
    hosts = three()
    hosts["a"]["migration"]["displays"] = [{"guest": "web", "port": 49200}]
    group = judged(hosts)
    assert broken(group, "display-in-migration-ports") == {("a", "b")}


def test_a_port_that_only_the_guest_itself_has_is_free_elsewhere() -> None:
    hosts = three()
    hosts["a"]["migration"]["displays"] = [{"guest": "web", "port": 5901}]
    hosts["a"]["listeners"] = [{"port": 5901}]
    assert found(judged(hosts)) == {}


def test_a_device_that_waits_for_a_guest_is_no_conflict() -> None:
    hosts = three(taps__interfaces=[{"name": "tap-web", "reserved_for_guest": True}])
    hosts["a"]["taps"]["wanted"] = [WANTED]
    assert found(judged(hosts)) == {}


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ("unreachable", "unreachable"),
        (None, "no facts"),
        ({}, "the facts have no host"),
        (host("c", host__time=NOW.timestamp() - 3601), "the facts are 60 min old, and may be 60 min"),
        (host("c", host__time=NOW.timestamp() + 3601), "the facts are 60 min from the future"),
        (host("c", host__time=None), "host.time is not known"),
        (host("c", libvirt__installed=False), "libvirt is not installed"),
    ],
)
def test_a_host_without_fresh_facts_is_unknown(facts: t.Any, reason: str) -> None:
    group = judged({"a": host("a"), "b": host("b"), "c": facts})
    (entry,) = group["unknown"]
    assert entry["hosts"] == ["c"] and entry["reason"].startswith(reason)
    assert [[cell["state"] for cell in row] for row in group["matrix"]["cells"]] == [
        ["fits", "unknown"],
        ["unknown"] * 2,
    ]


def test_in_a_part_of_the_fleet_nothing_is_equal() -> None:
    group = judged(three(mac__enforcing=False), partial=True)
    assert found(group).keys() == {"mac-enforced"}
    states = {cell["state"] for row in group["matrix"]["cells"] for cell in row}
    assert states == {"breaks", "unknown", ""}
    assert group["agreement"]["agreement"] is None


@pytest.mark.parametrize(
    "section", ["capabilities", "migration", "tls", "hugepages", "taps", "mac", "memfd", "listeners"]
)
@pytest.mark.parametrize("strange", [[], "text", 7, {"values": 3}, [{"name": []}], {"deep": [[[[]]]]}])
def test_facts_of_another_kind_cost_the_others_nothing(section: str, strange: t.Any) -> None:
    group = judged({"a": host("a"), "b": host("b"), "odd": {**host("odd"), section: strange}})
    assert group["hosts"] == ["a", "b", "odd"]
    states = [cell["state"] for row in group["matrix"]["cells"] for cell in row]
    assert "fits" in states


def test_many_values_are_compared_with_that_of_most_hosts() -> None:
    hosts = {
        f"h{number}": host(f"h{number}", **{f"{VALUES}__memory_backing_dir": f"/{number}"}) for number in range(60)
    }
    hosts |= {f"m{number}": host(f"m{number}") for number in range(60)}
    finding = found(judged(hosts))["memory-backing-dir"]
    assert len(finding["odd"]) == 60 and len(finding["values"]) == 61


PLANTS = {
    id_: (path, value)
    for id_, (_libvirt, _severity, path, value, _where) in ONE_VALUE.items()
    if id_ not in ("host-name-usable",)
}


def fleet(size: int, planted: t.Mapping[int, str]) -> dict[str, t.Any]:
    shared = host("shared")
    hosts = {}
    for number in range(size):
        name = f"kvm{number:05}"
        if number in planted:
            path, value = PLANTS[planted[number]]
            hosts[name] = host(name, **{path: value})
        else:
            hosts[name] = {
                **shared,
                "capabilities": {**shared["capabilities"], "host_uuid": name},
                "migration": {**shared["migration"], "hostname": name},
            }
    return hosts


def check(size: int, planted: t.Mapping[int, str]) -> None:
    told = {id_: set(one["odd"]) for id_, one in found(judged(fleet(size, planted))).items()}
    wanted: dict[str, set[str]] = {}
    for number, id_ in planted.items():
        wanted.setdefault(id_, set()).add(f"kvm{number:05}")
        if id_ == "tls-force":  # without certificates it cannot do what it asks for
            wanted.setdefault("tls-material", set()).add(f"kvm{number:05}")
    assert told == wanted


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.integers(0, 999), st.sampled_from(sorted(PLANTS)), max_size=30))
def test_every_planted_difference_among_1000_hosts_is_found_and_none_invented(planted: dict[int, str]) -> None:
    check(1000, planted)


def test_every_planted_difference_among_10000_hosts_is_found_and_none_invented() -> None:
    ids = sorted(PLANTS)
    check(10_000, {number * 97: ids[number % len(ids)] for number in range(100)})
