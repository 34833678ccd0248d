# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook migration on real hosts: what it says of equal ones and of an odd one, and that it changes nothing."""

from __future__ import annotations

import json
import pathlib
import re
import stat
import tempfile
import typing as t

import pytest
import rig
from rig import guests, playbooks

CONF = "/etc/libvirt/qemu.conf"


@pytest.fixture(scope="module")
def pair() -> t.Iterator[tuple[rig.Host, rig.Host]]:
    with rig.host("trixie", "parity-a") as a, rig.host("trixie", "parity-b") as b:
        yield a, b


def compared(*hosts: rig.Host, flags: t.Sequence[str] = (), rc: int = 0, **variables: t.Any) -> dict[str, t.Any]:
    """The playbook's own result on these hosts."""
    names = ",".join(host.name for host in hosts)
    given = {f"hypervisor_migration_{name}": value for name, value in variables.items()}
    given.setdefault("hypervisor_hosts", names)
    run = playbooks.play("migration", hosts[0].inventory, "--limit", names, *flags, variables=given)
    assert run.rc == rc, run.text
    (result,) = run.results("parity")
    return {**result, "failed_tasks": run.failed, "changed_tasks": run.changed, "text": run.text}


def group_of(directory: pathlib.Path) -> dict[str, t.Any]:
    (group,) = json.loads((directory / "parity.json").read_text(encoding="utf-8"))["groups"]
    return t.cast("dict[str, t.Any]", group)


def ids(group: dict[str, t.Any], state: str = "differs") -> set[str]:
    return {one["id"] for one in group["findings"] if one["state"] == state}


def cell(group: dict[str, t.Any], source: str, destination: str) -> dict[str, t.Any]:
    places = {name: number for number, one in enumerate(group["matrix"]["classes"]) for name in one["hosts"]}
    return t.cast("dict[str, t.Any]", group["matrix"]["cells"][places[source]][places[destination]])


def configured(host: rig.Host, text: str) -> bytes:
    """Add to qemu.conf and load it; returns what was there."""
    before = host.get(CONF)
    host.put(CONF, before + text.encode(), mode=0o600)
    guests.restart_libvirtd(host)
    return before


def test_equal_hosts_fit_and_nothing_is_changed(pair: tuple[rig.Host, rig.Host], tmp_path: pathlib.Path) -> None:
    def everything() -> str:
        return "".join(
            host.run(
                ["sh", "-c", "find /etc /var/lib/libvirt /run/libvirt/qemu -xdev -printf '%p %m %U %G %C@\\n' | sort"]
            ).stdout
            for host in pair
        )

    for host in pair:
        guests.start(host, guests.Guest(f"guest-{host.name}"))
    try:
        before = everything()
        result = compared(*pair, report_dir=str(tmp_path / "r"))
        assert everything() == before
        # What both are told about guests that run; qemu-user and the like are equal.
        group = group_of(tmp_path / "r")
        assert group["findings"] == [] and group["unknown"] == []
        a, b = (host.name for host in pair)
        assert cell(group, a, b)["state"] == cell(group, b, a)["state"] == "fits"
        assert result["changed_tasks"] == [] and result["failures"] == {}
        agreement = result["agreements"][a]["agreement"]
        assert result["agreements"][a] == result["agreements"][b]
        assert (agreement["values"]["qemu_uid"], agreement["values"]["seccomp_sandbox"]) == (64055, True)
        assert agreement["values"]["security_models"] == ["dac"]
        page = (tmp_path / "r/parity.html").read_text(encoding="utf-8")
        assert "<script" not in page and "fits" in page
        assert stat.S_IMODE((tmp_path / "r/parity.html").stat().st_mode) == 0o600
    finally:
        for host in pair:
            guests.stop_all(host)


def test_a_destination_that_runs_qemu_as_root_is_named(pair: tuple[rig.Host, rig.Host], tmp_path: pathlib.Path) -> None:
    a, b = pair
    before = configured(b, '\nuser = "root"\n')
    try:
        result = compared(a, b, report_dir=str(tmp_path), fail_on=["critical"], rc=2)
        group = group_of(tmp_path)
        (finding,) = (one for one in group["findings"] if one["id"] == "qemu-user")
        values = {entry["value"].split(":")[0]: entry["hosts"] for entry in finding["values"]}
        assert values == {"64055": [a.name], "0": [b.name]}
        said = {one["happens"] for one in finding["directions"]}
        assert any("gives the guest's disks to 0:" in text and "then runs as root" in text for text in said)
        assert cell(group, a.name, b.name)["findings"][0] == "qemu-user"
        (error,) = result["agreements"][a.name]["errors"]
        assert f"64055 ({a.name})" in error and f"0 ({b.name})" in error
        assert any(b.name in line and "qemu-user (critical)" in line for line in result["failures"][b.name])
        assert {task.name for task in result["failed_tasks"]} == {"Fail where a host cannot take or give guests"}
        chosen = compared(a, b, agreement={"qemu_uid": 64055})
        assert chosen["agreements"][a.name]["errors"] == []
        assert chosen["agreements"][a.name]["agreement"]["values"]["qemu_uid"] == 64055
    finally:
        b.put(CONF, before, mode=0o600)
        guests.restart_libvirtd(b)


@pytest.mark.parametrize(
    ("setting", "id_"),
    [
        ("dynamic_ownership = 0", "dynamic-ownership"),
        ("seccomp_sandbox = 0", "seccomp"),
        ("namespaces = []", "namespaces"),
        ('migration_address = "127.0.0.1"', "migration-address"),
        ("remember_owner = 0", "remember-owner"),
    ],
)
def test_a_setting_that_libvirt_does_not_compare(
    pair: tuple[rig.Host, rig.Host], tmp_path: pathlib.Path, setting: str, id_: str
) -> None:
    a, b = pair
    before = configured(b, f"\n{setting}\n")
    try:
        compared(a, b, report_dir=str(tmp_path))
    finally:
        b.put(CONF, before, mode=0o600)
        guests.restart_libvirtd(b)
    group = group_of(tmp_path)
    assert ids(group) == {id_}
    assert cell(group, a.name, b.name)["findings"] == [id_]


def test_a_file_that_the_daemon_has_not_loaded_makes_unknown_not_equal(
    pair: tuple[rig.Host, rig.Host], tmp_path: pathlib.Path
) -> None:
    a, b = pair
    guests.virsh(b, "list")  # awake, so that it goes by the former file
    before = b.get(CONF)
    b.put(CONF, before + b"\nseccomp_sandbox = 0\n", mode=0o600)
    try:
        compared(a, b, report_dir=str(tmp_path))
    finally:
        b.put(CONF, before, mode=0o600)
        guests.restart_libvirtd(b)
    group = group_of(tmp_path)
    assert "seccomp" in ids(group, "unknown") and "seccomp" not in ids(group)
    assert cell(group, a.name, b.name)["state"] == "unknown"


def test_one_uuid_twice_is_told(pair: tuple[rig.Host, rig.Host], tmp_path: pathlib.Path) -> None:
    a, b = pair
    uuid = re.search(r"<uuid>(.*)</uuid>", guests.virsh(a, "capabilities"))
    assert uuid
    before = b.get("/etc/libvirt/libvirtd.conf")
    b.put("/etc/libvirt/libvirtd.conf", f'host_uuid = "{uuid[1]}"\n'.encode(), mode=0o600)
    guests.restart_libvirtd(b)
    try:
        compared(a, b, report_dir=str(tmp_path))
    finally:
        b.put("/etc/libvirt/libvirtd.conf", before, mode=0o600)
        guests.restart_libvirtd(b)
    assert ids(group_of(tmp_path)) == {"host-uuid"}


def test_a_fixed_port_that_is_taken_there_breaks_in_one_direction(
    pair: tuple[rig.Host, rig.Host], tmp_path: pathlib.Path
) -> None:
    a, b = pair
    fixed = "<graphics type='vnc' port='5955' autoport='no' listen='127.0.0.1'/>"
    chosen = "<graphics type='vnc' autoport='yes' listen='127.0.0.1'/>"
    guests.start(a, guests.Guest("fixed", extra_devices=[fixed]))
    guests.start(b, guests.Guest("free", extra_devices=[chosen]))
    try:
        compared(a, b, report_dir=str(tmp_path / "free"))
        assert ids(group_of(tmp_path / "free")) == set()
        guests.start(b, guests.Guest("taker", extra_devices=[fixed]))
        compared(a, b, report_dir=str(tmp_path / "taken"))
    finally:
        guests.stop_all(a)
        guests.stop_all(b)
    group = group_of(tmp_path / "taken")
    (finding,) = group["findings"]
    assert finding["id"] == "display-port"
    assert {"host": a.name, "guest": "fixed"} in finding["guests"]["first"]
    assert "Port 5955 is taken there" in finding["directions"][0]["happens"]


def test_a_disk_on_storage_of_the_host_alone_is_told(pair: tuple[rig.Host, rig.Host], tmp_path: pathlib.Path) -> None:
    a, b = pair
    image = guests.disk(a, "/var/lib/libvirt/images/alone.img")
    guests.start(a, guests.Guest("alone", disks=[image]))
    try:
        compared(a, b, report_dir=str(tmp_path))
    finally:
        guests.stop_all(a)
    group = group_of(tmp_path)
    assert ids(group) == {"storage"}
    assert cell(group, a.name, b.name)["state"] == "breaks" and cell(group, b.name, a.name)["state"] == "fits"


def test_a_part_of_the_hosts_is_never_equal_and_cached_facts_are_judged_without_a_connection(
    pair: tuple[rig.Host, rig.Host], tmp_path: pathlib.Path
) -> None:
    a, b = pair
    both = f"{a.name},{b.name}"

    def play(*names: str, **variables: t.Any) -> dict[str, t.Any]:
        # ansible-runner, and so AWX, says itself where facts are kept. What it was told once it keeps in its directory.
        runner = pathlib.Path(tempfile.mkdtemp(dir=tmp_path))
        (runner / "env").mkdir()
        (runner / "env/settings").write_text(json.dumps({"fact_cache": str(tmp_path / "cache")}), encoding="utf-8")
        given = {f"hypervisor_migration_{name}": value for name, value in variables.items()}
        run = playbooks.play(
            "migration", a.inventory, "--limit", ",".join(names), artifacts=runner,
            variables={"hypervisor_hosts": both, **given},
        )  # fmt: skip
        assert run.rc == 0, run.text
        (result,) = run.results("parity")
        return {**result, "read": len(run.results("hypervisor_info"))}

    first = play(a.name, slice=True, hosts=[a.name])
    assert first["read"] == 1 and first["agreements"][a.name]["agreement"] is None
    # Not all hosts have been read yet.
    half = play(a.name, gather=False)
    assert half["read"] == 0 and half["summary"]["groups"][both]["unknown_hosts"] == 1
    play(b.name, slice=True, hosts=[b.name])
    whole = play(a.name, gather=False)
    assert whole["read"] == 0
    assert whole["summary"]["groups"][both] == {"hosts": 2, "unknown_hosts": 0, "findings": {}, "ids": []}
    assert whole["agreements"][a.name]["agreement"] is not None
    old = play(a.name, gather=False, max_age=0)
    assert old["summary"]["groups"][both]["unknown_hosts"] == 2


def test_check_mode_says_the_same(pair: tuple[rig.Host, rig.Host]) -> None:
    result = compared(*pair, flags=["--check"])
    assert result["summary"]["groups"] == compared(*pair)["summary"]["groups"]


def test_different_releases_break_from_the_newer_to_the_older(
    pair: tuple[rig.Host, rig.Host], tmp_path: pathlib.Path
) -> None:
    new = pair[0]
    with rig.host("bookworm", "parity-old") as old:
        guests.start(new, guests.Guest("modern"))
        guests.start(old, guests.Guest("classic"))
        try:
            compared(old, new, report_dir=str(tmp_path))
        finally:
            guests.stop_all(new)
        group = group_of(tmp_path)
        findings = {one["id"]: one for one in group["findings"]}
        down, up = cell(group, new.name, old.name)["findings"], cell(group, old.name, new.name)["findings"]
        assert {"libvirt-version", "qemu-version", "machine-type"} <= set(down)
        assert set(up).isdisjoint({"libvirt-version", "qemu-version", "machine-type"})
        # libvirt's default of max_core, and its list of devices, are others in the newer release.
        assert "max-core" in up and {"cgroup-devices"} <= set(up) & set(down)
        machine = old.run(["sh", "-c", "virsh -q capabilities | grep -c pc-i440fx-10.0"], check=False).stdout.strip()
        assert machine == "0"
        assert findings["machine-type"]["guests"]["first"] == [{"host": new.name, "guest": "modern"}]
        assert "pc-i440fx-10.0" in findings["machine-type"]["directions"][0]["happens"]
