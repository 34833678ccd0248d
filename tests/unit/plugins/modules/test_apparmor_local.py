# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real runs of main() against a tree of fixtures whose kernel and compiler are played."""

from __future__ import annotations

import json
import os
import time
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args

from ansible_collections.hypervisor.hardening.plugins.module_utils import _aaobserved, _apparmorlocal, _runner
from ansible_collections.hypervisor.hardening.plugins.module_utils._journal import Journal
from ansible_collections.hypervisor.hardening.plugins.modules import apparmor_local
from ansible_collections.hypervisor.hardening.tests.unit.plugins.apparmors import (
    ETC,
    HELPER,
    HELPER_LOCAL,
    OLD,
    PROFILES,
    ArmorHost,
)

WEB, DB = "0d3f6a0c-55b5-4d0e-b5a0-4f31d83c1f6a", "7bb2a3c0-1f5e-4c6f-9d53-3a1d0e6f2a11"
OURS = f"{ETC}/abstractions/libvirt-qemu.d/hypervisor-hardening"
LOCAL = f"{ETC}/local/abstractions/libvirt-qemu"


def profile(uuid: str) -> str:
    return f"{ETC}/libvirt/libvirt-{uuid}"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArmorHost:
    return use(ArmorHost(tmp_path), monkeypatch)


def use(host: ArmorHost, monkeypatch: pytest.MonkeyPatch) -> ArmorHost:
    host.directory("/var/lib/libvirt/qemu", owner=(64055, 994))
    host.define("web", WEB)
    host.define("db", DB)
    monkeypatch.setattr(_runner, "Host", lambda: host)
    return host


def run(capsys: pytest.CaptureFixture[str], **arguments: t.Any) -> dict[str, t.Any]:
    with patch_module_args({"_ansible_diff": True, **arguments}), pytest.raises(SystemExit):
        apparmor_local.main()
    return t.cast("dict[str, t.Any]", json.loads(capsys.readouterr().out))


def refused(capsys: pytest.CaptureFixture[str], host: ArmorHost, **arguments: t.Any) -> str:
    """The message of a run that fails and leaves everything as it was, journal included."""
    before = tree(host, "")
    answer = run(capsys, **arguments)
    assert answer["failed"] is True
    assert answer["changed"] is False
    assert tree(host, "") == before
    return str(answer["msg"])


def tree(host: ArmorHost, below: str = "etc") -> dict[str, bytes]:
    root = Path(host.path("/")) / below
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def starts(host: ArmorHost, name: str, uuid: str, pid: int) -> None:
    """A guest that runs, with what libvirt makes of the template then."""
    host.guest(name, pid, 0)
    if not host.exists(profile(uuid)):
        host.put(profile(uuid), _aaobserved._aatext.guest_profile(host.text(f"{ETC}/libvirt/TEMPLATE.qemu"), uuid))
    time.sleep(0.01)
    host.put(f"{profile(uuid)}.files", '  "/srv/disk.img" rwk,\n')
    time.sleep(0.01)


ONE = [{"path": "/srv/option.rom", "guest": "web"}]


def test_check_then_change_then_nothing(host: ArmorHost, capsys: pytest.CaptureFixture[str]) -> None:
    wanted: dict[str, t.Any] = {
        "grants": [*ONE, {"path": "/srv/isos", "below": True}],
        "rules": ["deny /dev/snd/* rw,"],
        "pools": True,
    }
    host.put(
        "/etc/libvirt/storage/data.xml",
        "<pool type='dir'><name>data</name><target><path>/data/vm</path></target></pool>",
    )
    # Its profile reads this one anyway.
    host.put(
        "/etc/libvirt/storage/default.xml",
        "<pool type='dir'><name>default</name><target><path>/var/lib/libvirt/images</path></target></pool>",
    )
    before = tree(host)
    predicted = run(capsys, _ansible_check_mode=True, **wanted)
    assert tree(host) == before
    assert Journal(host, by="").entries() == []
    done = run(capsys, **wanted)
    assert {**predicted, "invocation": None, "helper_loaded": True} == {**done, "invocation": None}
    assert done["changed"] is True
    assert host.text(OURS) == (
        "  # BEGIN hypervisor.hardening.apparmor_local\n  deny /dev/snd/* rw,\n"
        '  "/srv/isos/" r,\n  "/srv/isos/**" rk,\n  # END hypervisor.hardening.apparmor_local\n'
    )
    assert host.text(HELPER_LOCAL) == (
        '  # BEGIN hypervisor.hardening.apparmor_local\n  "/data/vm/" r,\n  "/data/vm/**" r,\n'
        f'  deny "{profile(WEB)}" w,\n  # END hypervisor.hardening.apparmor_local\n'
    )
    # As libvirt makes it: virt-aa-helper.c, create_profile.
    assert host.text(profile(WEB)) == (
        f"#include <tunables/global>\n\nprofile libvirt-{WEB} {{\n  #include <abstractions/libvirt-qemu>\n"
        f"  #include <libvirt/libvirt-{WEB}.files>\n"
        '  # BEGIN hypervisor.hardening.apparmor_local\n  "/srv/option.rom" rk,\n'
        "  # END hypervisor.hardening.apparmor_local\n}\n"
    )
    assert {one["path"]: len(one["rules"]) for one in done["files"]} == {OURS: 3, HELPER_LOCAL: 3, profile(WEB): 1}
    assert sum("--replace" in call for call in host.calls) == 1, "only virt-aa-helper's profile is loaded"
    again = run(capsys, **wanted)
    assert (again["changed"], again["diff"]) == (False, [])
    assert again["helper_loaded"] is True


def test_what_is_not_wanted_any_more_goes(host: ArmorHost, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(host)
    run(capsys, grants=[*ONE, {"path": "/srv/isos", "below": True}])
    done = run(capsys)
    assert (done["changed"], done.get("msg")) == (True, None)
    assert {path: data for path, data in tree(host).items() if data} == {
        path: data for path, data in before.items() if data
    }
    assert done["files"] == []
    assert run(capsys)["changed"] is False


def test_an_older_release_reads_another_file_and_what_is_in_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host = use(ArmorHost(tmp_path, OLD), monkeypatch)
    site = host.text(LOCAL)
    run(capsys, grants=[{"path": "/srv/isos", "below": True}])
    assert host.text(LOCAL).startswith(f"{site}\n  # BEGIN")
    assert not host.exists(OURS)
    run(capsys)
    assert host.text(LOCAL) == f"{site}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rules": ["/srv/x rwq"]}, "unexpected TOK_ID, expecting TOK_MODE, which is '/srv/x rwq,'"),
        ({"rules": ["file"]}, "the rule 'file' gives too much: every file"),
        ({"rules": ["/srv/a r, /srv/b r,"]}, "is not one rule"),
        ({"rules": ["include <local/x>"]}, "is not one rule"),
        ({"rules": ["/srv/a r,\n}\nprofile x {\n/** rw,"]}, "is not one rule"),
        ({"grants": [{"path": "/tmp", "below": True}]}, "everything below /tmp is refused"),
        ({"grants": [{"path": "/var/tmp/x", "below": True, "guest": "web"}]}, "everything below /var/tmp/x is refused"),
        (
            {"grants": [{"path": "/var/lib/libvirt/images", "below": True}]},
            "it can read all of /var/lib/libvirt/images/",
        ),
        ({"grants": [{"path": "/dev/mem"}]}, "the memory of the host"),
        ({"grants": [{"path": 'a"b'}]}, "is no absolute path"),
        ({"grants": [{"path": '/a" rw,\n/** rw'}]}, "is no absolute path"),
        ({"grants": [{"path": "/srv/x", "guest": "none"}]}, "no guest none is defined on this host"),
        ({"memfd_fallback": ["none"]}, "no guest none is defined on this host"),
    ],
)
def test_what_is_refused_leaves_no_trace(
    host: ArmorHost, capsys: pytest.CaptureFixture[str], arguments: dict[str, t.Any], message: str
) -> None:
    assert message in refused(capsys, host, **arguments)


def test_a_rule_of_others_that_is_broken_is_found_before_anything_is_written(
    host: ArmorHost, capsys: pytest.CaptureFixture[str]
) -> None:
    host.put(f"{ETC}/abstractions/libvirt-qemu.d/site", "  /srv/site rwq,\n")
    message = refused(capsys, host, grants=[{"path": "/srv/isos"}])
    assert f"error in {ETC}/abstractions/libvirt-qemu.d/site at line 1: syntax error, unexpected TOK_ID" in message


def test_if_loading_fails_the_former_files_come_back(host: ArmorHost, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, grants=ONE)
    before = tree(host)
    host.broken = True
    answer = run(capsys, grants=[{"path": "/srv/isos", "guest": "db"}])
    assert answer["failed"] is True
    assert "Unable to replace.  Permission denied" in answer["msg"]
    assert tree(host) == before
    host.broken = False
    assert run(capsys, grants=ONE)["changed"] is False


def test_a_file_that_another_writes_meanwhile_is_left_to_them(
    host: ArmorHost, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(*_words: t.Any) -> None:
        host.put(OURS, "# another's\n")

    monkeypatch.setattr(_apparmorlocal, "check", check)
    answer = run(capsys, grants=[*ONE, {"path": "/srv/isos"}])
    assert answer["failed"] is True
    assert "was changed by someone else while this run was planning" in answer["msg"]
    assert host.text(OURS) == "# another's\n"
    assert not host.exists(profile(WEB))


def test_what_a_broken_run_left_in_our_own_file_is_no_hindrance(
    host: ArmorHost, capsys: pytest.CaptureFixture[str]
) -> None:
    marks = "  # {} hypervisor.hardening.apparmor_local\n"
    host.put(OURS, marks.format("BEGIN") + "  /srv/x rwq,\n" + marks.format("END"))
    assert run(capsys, grants=[{"path": "/srv/isos"}])["changed"] is True
    assert "rwq" not in host.text(OURS)


def test_a_profile_that_was_written_and_not_loaded_is_loaded(
    host: ArmorHost, capsys: pytest.CaptureFixture[str]
) -> None:
    former = host.text(HELPER)
    run(capsys, grants=ONE)
    loaded = tree(host, "sys")
    host.put(HELPER, former.replace("/**.img r", "/**.raw r"))
    done = run(capsys, grants=ONE)
    assert (done["changed"], done["helper_loaded"]) == (True, True)
    assert tree(host, "sys") != loaded
    assert run(capsys, grants=ONE)["changed"] is False


def test_guests_that_run_wait_for_their_next_start(host: ArmorHost, capsys: pytest.CaptureFixture[str]) -> None:
    starts(host, "web", WEB, 41)
    starts(host, "db", DB, 42)
    assert run(capsys)["guests_pending"] == []
    assert run(capsys, _ansible_check_mode=True, grants=ONE)["guests_pending"] == ["web"]
    assert run(capsys, grants=ONE)["guests_pending"] == ["web"]
    shared = [*ONE, {"path": "/srv/isos", "below": True}]
    assert run(capsys, grants=shared)["guests_pending"] == ["db", "web"]
    starts(host, "web", WEB, 43)
    assert run(capsys, grants=shared)["guests_pending"] == ["db"]
    # What is taken away waits as well.
    assert run(capsys)["guests_pending"] == ["db", "web"]
    assert host.text(profile(WEB)).count("#include") == 3, "it still runs under it"
    assert "hypervisor.hardening" not in host.text(profile(WEB))


def test_a_grant_follows_links_and_takes_names_as_they_are(host: ArmorHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.put("/data/real/rom [1]{a,b}*.bin")
    host.link("/srv/roms", "../data/real")
    host.link("/srv/rom", "/srv/roms/rom [1]{a,b}*.bin")
    done = run(capsys, grants=[{"path": "/srv/rom", "access": "write", "guest": DB.upper()}])
    (one,) = [one for one in done["files"] if one["path"] == profile(DB)]
    assert one["rules"] == [r'"/data/real/rom \[1\]\{a,b\}\*.bin" rwk']


def test_the_file_of_memfd_is_for_one_guest_where_the_call_fails(
    host: ArmorHost, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_aaobserved._memfd, "probe", lambda *_words: (True, ""))
    done = run(capsys, memfd_fallback=["web"])
    assert (done["changed"], done["memfd_create"], done["files"]) == (False, True, [])
    monkeypatch.setattr(_aaobserved._memfd, "probe", lambda *_words: (False, "memfd_create: Permission denied"))
    done = run(capsys, memfd_fallback=["web"])
    assert done["memfd_create"] is False
    (one,) = [one for one in done["files"] if one["path"] == profile(WEB)]
    letters = "[A-Za-z0-9]" * 6
    assert one["rules"] == [f'owner "/tmp/memfd-{{{WEB}-,}}{letters}" rw']
    assert not host.exists(OURS)
    assert not host.exists(profile(DB))
    monkeypatch.setattr(_aaobserved._memfd, "probe", lambda *_words: (None, "nobody knows"))
    done = run(capsys, memfd_fallback=["web"])
    assert "No rule for memfd_fallback was written: nobody knows." in str(done["warnings"])


def test_profiles_that_do_not_confine_are_said(host: ArmorHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.put(PROFILES, f"libvirtd (complain)\nvirt-aa-helper (enforce)\nlibvirt-{WEB} (complain)\nman (enforce)\n")
    host.link(f"{ETC}/force-complain/usr.sbin.libvirtd", "../usr.sbin.libvirtd")
    done = run(capsys)
    assert done["model"] == "apparmor"
    assert done["profiles"] == [{"name": "libvirtd", "mode": "complain"}, {"name": "virt-aa-helper", "mode": "enforce"}]
    assert done["not_enforced"] == ["libvirtd", f"libvirt-{WEB}"]
    assert done["force_complain"] == [f"{ETC}/force-complain/usr.sbin.libvirtd"]
    assert done["disabled"] == []


def test_without_the_helpers_profile_nothing_keeps_what_is_for_one_guest(
    host: ArmorHost, capsys: pytest.CaptureFixture[str]
) -> None:
    host.link(f"{ETC}/disable/usr.lib.libvirt.virt-aa-helper", HELPER)
    done = run(capsys, grants=ONE)
    assert "what is granted to one guest is lost then" in str(done["warnings"])
    assert not any("--replace" in call for call in host.calls)


def test_a_helper_that_leaves_profiles_alone_is_denied_nothing(
    host: ArmorHost, capsys: pytest.CaptureFixture[str]
) -> None:
    host.put("/usr/lib/libvirt/virt-aa-helper", "\x7fELF  #include if exists <libvirt/%s.files>\n")
    assert [one["path"] for one in run(capsys, grants=ONE)["files"]] == [profile(WEB)]
    assert not host.exists(HELPER_LOCAL)
    assert not any("--replace" in call for call in host.calls)


def test_a_kernel_without_apparmor(host: ArmorHost, capsys: pytest.CaptureFixture[str]) -> None:
    os.unlink(host.path("/sys/module/apparmor/parameters/enabled"))
    before = tree(host)
    done = run(capsys, grants=ONE)
    assert (done["changed"], done["model"], done["files"], done["profiles"]) == (False, "", [], [])
    assert "it runs no mandatory access control at all" in str(done["warnings"])
    assert tree(host) == before


def test_a_kernel_without_apparmor_is_no_matter_where_nothing_is_wanted(
    host: ArmorHost, capsys: pytest.CaptureFixture[str]
) -> None:
    os.unlink(host.path("/sys/module/apparmor/parameters/enabled"))
    host.put("/sys/fs/selinux/enforce", "1")
    done = run(capsys)
    assert (done["changed"], done["model"], done.get("warnings")) == (False, "selinux", None)


def test_a_grant_to_every_guest_that_may_be_written_is_warned_of(
    host: ArmorHost, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run(capsys, grants=[{"path": "/srv/shared", "access": "write"}])
    assert "Every guest may write to /srv/shared" in str(done["warnings"])


def test_a_release_that_reads_nothing(host: ArmorHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.put(f"{ETC}/abstractions/libvirt-qemu", "  /dev/kvm rw,\n")
    assert "reads no additions for all guests" in refused(capsys, host, grants=[{"path": "/srv/isos"}])
    host.put(HELPER, "profile virt-aa-helper {\n}\n")
    assert "reads no additions to virt-aa-helper's profile" in refused(capsys, host, grants=ONE)


def test_every_return_value_is_documented(host: ArmorHost, capsys: pytest.CaptureFixture[str]) -> None:
    documented = set(yaml.safe_load(apparmor_local.RETURN))
    done = run(capsys, grants=ONE)
    assert set(done) - {"changed", "diff", "invocation", "warnings"} == documented
