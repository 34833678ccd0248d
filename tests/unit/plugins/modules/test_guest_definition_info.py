# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""guest_definition_info from its arguments to its result, on trees of fixtures."""

from __future__ import annotations

import json
import re
import resource
import sys
import time
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args

from ansible_collections.hypervisor.hardening.plugins.module_utils import _info_definitions, _runner
from ansible_collections.hypervisor.hardening.plugins.module_utils._infocontext import Context
from ansible_collections.hypervisor.hardening.plugins.modules import guest_definition_info, hypervisor_info
from ansible_collections.hypervisor.hardening.tests.unit.plugins.domains import (
    NIC,
    SECRET,
    DomainHost,
    commandline,
    confined,
    domain,
    seclabel,
)

QEMU_CONF = "/etc/libvirt/qemu.conf"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DomainHost:
    host = DomainHost(tmp_path)
    monkeypatch.setattr(_runner, "Host", lambda: host)
    return host


def call(capsys: pytest.CaptureFixture[str], **arguments: t.Any) -> dict[str, t.Any]:
    with patch_module_args(arguments), pytest.raises(SystemExit):
        guest_definition_info.main()
    return t.cast("dict[str, t.Any]", json.loads(capsys.readouterr().out))


def ids(entry: dict[str, t.Any]) -> list[str]:
    return [departure["id"] for departure in entry["departures"]]


def everything(name: str = "bad") -> str:
    """A definition with a password in each place that has one."""
    return domain(
        f"<graphics type='vnc' listen='0.0.0.0' passwd='{SECRET}'/>",
        f"<graphics type='spice' passwd='{SECRET}' passwdValidTo='2030-01-01T00:00:00'/>",
        "<disk type='network' device='disk'><driver type='raw'/><source protocol='https' name='a?token=" + SECRET + "'>"
        f"<cookies><cookie name='c'>{SECRET}</cookie></cookies></source><target dev='vdc'/></disk>",
        NIC,
        name=name,
        os=f"<cmdline>password={SECRET}</cmdline>",
        extra=f"<sysinfo type='fwcfg'><entry name='opt/password'>{SECRET}</entry></sysinfo>"
        f"<description>{SECRET}</description><metadata><x:a xmlns:x='urn:x' password='{SECRET}'/></metadata>"
        + commandline(
            "-object",
            f"secret,id=s,data={SECRET}",
            "-vnc",
            f":1,password={SECRET}",
            "-drive",
            f"file=https://u:{SECRET}@h/{SECRET}",
            "-append",
            SECRET,
            "-fw_cfg",
            f"name=opt/a,string={SECRET}",
            "-x",
            SECRET,
            env={"PASSWORD": SECRET, "PLAIN": SECRET},
        ),
    )


def test_a_host_without_libvirt(host: DomainHost, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys) == {
        "changed": False,
        "guests": [],
        "unreadable": [],
        "invocation": {"module_args": {"names": []}},
    }


def test_configured_and_running_are_told_apart(host: DomainHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.define(confined())
    host.define(confined("idle"), "idle")
    host.put("/etc/libvirt/qemu/autostart/web.xml", confined())
    pid = host.start(domain(extra=seclabel("type='none'")))
    host.start(confined("once"), "once")
    host.start(confined("gone"), "gone", alive=False)
    guests = call(capsys)["guests"]
    assert [
        (one["name"], one["source"], one["transient"], one["autostart"], one["pid"] is not None, ids(one))
        for one in guests
    ] == [
        ("idle", "configured", False, False, False, []),
        ("once", "running", True, False, True, []),
        ("web", "configured", False, True, False, []),
        ("web", "running", False, True, True, ["seclabel_none"]),
    ]
    assert guests[3]["pid"] == pid
    assert [one["path"] for one in guests[2:]] == ["/etc/libvirt/qemu/web.xml", "/run/libvirt/qemu/web.xml"]


def test_names(host: DomainHost, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        host.define(confined(name), name)
    host.define("<domain>", "c")
    assert [one["name"] for one in call(capsys, names=["b"])["guests"]] == ["b"]
    result = call(capsys, names="b,c")
    assert ([one["name"] for one in result["guests"]], [one["name"] for one in result["unreadable"]]) == (["b"], ["c"])
    result = call(capsys, names=["b", "nosuch"])
    assert result["failed"]
    assert "nosuch" in result["msg"] and "virsh list --all" in result["msg"]


def test_no_secret_is_anywhere(host: DomainHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.define(everything(), "bad")
    host.start(everything(), "bad")
    host.define(f"<domain>{SECRET}</broken>", "broken")
    result = call(capsys, _ansible_diff=True)
    assert SECRET not in json.dumps(result)
    assert SECRET not in json.dumps(_info_definitions.facts(Context(host)))
    for one in result["guests"]:
        assert one["passwords"] == [
            "graphics vnc",
            "graphics spice",
            "disk vdc cookies",
            "os cmdline",
            "sysinfo",
            "qemu:env PASSWORD",
            "qemu:arg -object",
            "qemu:arg -vnc",
            "qemu:arg -drive",
        ]
        assert [display["password"] for display in one["graphics"]] == [True, True]
    assert [one["name"] for one in result["unreadable"]] == ["broken"]


HOSTILE = {
    "entities": ("<!DOCTYPE d [<!ENTITY a 'b'>]><domain><name>x</name></domain>", "<!DOCTYPE"),
    "external": ('<!DOCTYPE d SYSTEM "file:///etc/shadow"><domain/>', "<!DOCTYPE"),
    "deep": ("<domain><name>x</name>" + "<a>" * 100_000 + "</a>" * 100_000 + "</domain>", "not well-formed"),
    "large": ("<domain><name>x</name><description>" + "x" * 5_000_000 + "</description></domain>", "4194304 bytes"),
    "many": ("<domain><name>x</name><devices>" + "<disk/>" * 500_000 + "</devices></domain>", "20000 elements"),
    "no_name": ("<domain/>", "no <name>"),
    "other": ("<network><name>x</name></network>", "<network>"),
    "binary": ("\x00\x01", "not well-formed"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files(host: DomainHost, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    text, reason = HOSTILE[kind]
    host.define(text, kind)
    host.define(confined(), "web")
    begun = time.process_time()
    result = call(capsys)
    assert time.process_time() - begun < 5
    assert [one["name"] for one in result["guests"]] == ["web"]
    (bad,) = result["unreadable"]
    assert (bad["source"], bad["name"], bad["path"]) == ("configured", kind, f"/etc/libvirt/qemu/{kind}.xml")
    assert reason in bad["reason"]


def test_the_most_that_is_read(host: DomainHost, capsys: pytest.CaptureFixture[str]) -> None:
    """The costliest definition that is not refused: bounded in time, memory and result."""
    disk = "<disk rawio='yes'><source file='/a'/></disk>"
    host.define(domain(disk * 9_950, extra=commandline(*["-device", "x" * 50] * 10)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.process_time()
    result = call(capsys)
    assert time.process_time() - begun < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 * 1024  # KiB
    (guest,) = result["guests"]
    assert (len(guest["disks"]), guest["cut"]) == (128, ["disks"])
    assert sorted(set(ids(guest))) == ["disk_format", "qemu_arguments", "rawio"]
    assert len(json.dumps(result)) < 64 * 1024
    assert len(json.dumps(_info_definitions.facts(Context(host)))) < 8 * 1024


@pytest.mark.parametrize(
    "name",
    ["<script>alert(1)</script>", "a&b", "$(reboot)", "{{ lookup('pipe', 'id') }}", "ä" * 200, "n" * 3000, "../x"],
)
def test_hostile_names(host: DomainHost, capsys: pytest.CaptureFixture[str], name: str) -> None:
    escaped = name.replace("&", "&amp;").replace("<", "&lt;")
    host.define(confined(escaped), "x")
    (guest,) = call(capsys)["guests"]
    assert guest["name"] == (name if len(name) <= 512 else name[:511] + "…")


def test_bytes_that_are_not_utf_8_in_a_file_name(host: DomainHost, capsys: pytest.CaptureFixture[str]) -> None:
    Path(host.path("/etc/libvirt/qemu")).mkdir(parents=True)
    with open(host.path("/etc/libvirt/qemu").encode() + b"/caf\xe9.xml", "wb") as stream:
        stream.write(b"<domain>")
    assert call(capsys)["unreadable"][0]["name"] == "caf\ufffd"


def test_files_that_are_none(host: DomainHost, capsys: pytest.CaptureFixture[str]) -> None:
    Path(host.path("/etc/libvirt/qemu/dir.xml")).mkdir(parents=True)
    Path(host.path("/etc/libvirt/qemu/loop.xml")).symlink_to("loop.xml")
    host.put("/etc/libvirt/qemu/networks/default.xml", "<network/>")
    reasons = {one["name"]: one["reason"] for one in call(capsys)["unreadable"]}
    assert reasons == {"dir": "Is a directory", "loop": "Too many levels of symbolic links"}


def test_300_guests(host: DomainHost, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(300):
        name = f"guest{number:03d}"
        host.define(confined(name), name)
        if number < 100:
            host.start(confined(name), name)
    begun = time.process_time()
    result = call(capsys)
    assert time.process_time() - begun < 5
    assert len(result["guests"]) == 400
    assert not any(ids(one) for one in result["guests"])


def test_without_lxml(host: DomainHost, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lxml", None)
    monkeypatch.setattr(_runner, "SYSTEM_INTERPRETERS", ())
    assert call(capsys)["guests"] == [], "without a definition no library is needed"
    host.define(confined())
    result = call(capsys)
    assert result["failed"]
    assert "python3-lxml" in result["msg"]


def test_check_mode_is_the_same(host: DomainHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.define(confined())
    before = sorted(str(path) for path in Path(host.root).rglob("*"))
    assert call(capsys, _ansible_check_mode=True) == call(capsys)
    assert sorted(str(path) for path in Path(host.root).rglob("*")) == before


def test_every_key_is_documented_and_there(host: DomainHost, capsys: pytest.CaptureFixture[str]) -> None:
    full = domain(
        "<graphics type='vnc'/><serial type='tcp'><source mode='bind' host='h' service='1'/></serial>",
        "<hostdev mode='subsystem' type='usb'><source><vendor id='1'/><product id='2'/></source></hostdev>",
        "<filesystem><source dir='/srv'/><target dir='s'/></filesystem><tpm model='m'><backend type='emulator'/></tpm>",
        "<vsock><cid auto='yes'/></vsock>",
        "<disk><driver type='raw'/><source file='/a'/><backingStore><source file='/b'/></backingStore></disk>",
        NIC,
        extra=seclabel("type='none'") + commandline("-bios", "/a") + "<launchSecurity type='sev'/>",
    )
    host.define(full)
    host.define("<domain>", "bad")
    result = call(capsys)
    matching(yaml.safe_load(guest_definition_info.RETURN), result, ignore=("changed", "invocation"))
    facts = _info_definitions.facts(Context(host))
    sections = yaml.safe_load(hypervisor_info.RETURN)["hypervisor"]["contains"]
    matching(sections["definitions"]["contains"], facts)


def matching(documented: dict[str, t.Any], value: dict[str, t.Any], ignore: t.Collection[str] = ()) -> None:
    """The keys of a value are those that are documented, and each has its type."""
    kinds = {"str": str, "bool": bool, "int": int, "list": list, "dict": dict, "float": float}
    assert sorted(set(value) - set(ignore)) == sorted(documented)
    for key, entry in documented.items():
        inner: t.Any = value[key]
        assert inner is None or isinstance(inner, kinds[entry["type"]]), key
        if "contains" in entry and inner:
            children: list[t.Any] = inner if isinstance(inner, list) else [inner]
            for one in children:
                matching(entry["contains"], one)


def test_the_ids_are_documented(host: DomainHost) -> None:
    source = Path(sys.modules[_info_definitions.__name__].__file__ or "").with_name("_departures.py").read_text()
    given = set(re.findall(r'yield "(\w+)",', source)) | {"plain_password"}
    documented = yaml.safe_load(guest_definition_info.RETURN)["guests"]["contains"]["departures"]["description"]
    assert set(re.findall(r"V\((\w+)\)", " ".join(documented))) == given


def test_facts_for_the_audit(host: DomainHost) -> None:
    host.define(domain(NIC, extra=seclabel("type='none'")))
    other = NIC.replace("01:02:03", "01:02:09").replace("clean-traffic", "none")
    bare = re.sub("<filterref.*</filterref>", "", NIC) + other
    host.start(domain(bare))
    host.start(domain(extra=seclabel("type='none'"), name="once"), "once")
    host.define("<domain>", "broken")
    facts = {one["name"]: one for one in _info_definitions.facts(Context(host))["guests"]}
    web, once, broken = facts["web"], facts["once"], facts["broken"]
    assert [one["id"] for one in web["configured"]] == ["seclabel_none"]
    assert web["running"] == []
    assert [(one["name"], one["filter"], one["filter_running"]) for one in web["interfaces"]] == [
        ("web/52:54:00:01:02:03", "clean-traffic", ""),
        ("web/52:54:00:01:02:09", "none", "none"),
    ]
    # A guest that is gone when it ends: what it runs with is all that is known.
    assert (once["persistent"], once["active"], once["configured"]) == (False, True, once["running"])
    assert [one["id"] for one in once["running"]] == ["seclabel_none"]
    assert (broken["persistent"], broken["configured"], broken["running"], broken["traits"]) == (True, None, [], None)
    assert broken["interfaces"] is None


def test_facts_are_small(host: DomainHost) -> None:
    for number in range(20):
        name = f"guest{number:03d}"
        host.define(confined(name), name)
        host.start(confined(name), name)
    assert len(json.dumps(_info_definitions.facts(Context(host)))) < 20 * 1024


def test_an_allow_list_does_not_pass_what_it_was_not_shown(host: DomainHost) -> None:
    host.define(domain(*(f"<filesystem><source dir='/srv/{number}'/></filesystem>" for number in range(9))))
    (web,) = _info_definitions.facts(Context(host))["guests"]
    assert [one["where"] for one in web["configured"]][-2:] == ["/srv/6", "and more"]


def test_two_files_that_call_themselves_the_same(host: DomainHost) -> None:
    host.define(domain(extra=seclabel("type='none'")), "a")
    host.define(confined(), "b")
    facts = _info_definitions.facts(Context(host))["guests"]
    assert [(one["name"], len(one["configured"])) for one in facts] == [("web", 1), ("web", 0)]


def test_virtualization_that_a_model_has(host: DomainHost, capsys: pytest.CaptureFixture[str]) -> None:
    """QEMU takes it out of a model unless it is asked for, and libvirt then writes so into the running definition."""
    host.put("/proc/cpuinfo", "flags : svm\n")
    host.put(
        "/usr/share/libvirt/cpu_map/x86_EPYC.xml",
        "<cpus><model name='EPYC'><!-- <feature name='vmx'/> --><feature name='svm'/></model></cpus>",
    )
    epyc = "<cpu mode='custom' match='exact'><model fallback='forbid'>EPYC</model>{}</cpu>"
    host.define(domain(cpu=epyc.format("")))
    host.start(domain(cpu=epyc.format("")))
    host.start(domain(cpu=epyc.format("<feature policy='disable' name='svm'/>"), name="off"), "off")
    host.start(domain(cpu=epyc.format("").replace("EPYC", "../x"), name="odd"), "odd")
    found = {(one["name"], one["source"]): ids(one) for one in call(capsys)["guests"]}
    assert found == {
        ("odd", "running"): [],
        ("off", "running"): [],
        ("web", "configured"): [],
        ("web", "running"): ["nested_virtualization"],
    }
