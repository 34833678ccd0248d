# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans for qemu.conf on a tree of fixtures: what changes, what is refused, what is hidden."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _qemuconf as room
from ansible_collections.hypervisor.hardening.plugins.module_utils._confkeys import ConfError
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Host, HostError
from ansible_collections.hypervisor.hardening.plugins.module_utils._journal import Journal
from ansible_collections.hypervisor.hardening.tests.unit.plugins.qemuconf_host import CONF, daemon, make

PASSWORD = "tr0ub4dor"


def wanted(settings: t.Any = None, *, extend: t.Any = None, secret: t.Any = None, **options: t.Any) -> room.Wanted:
    return room.Wanted(settings or {}, extend or {}, secret or {}, **options)


def planned(host: Host, want: room.Wanted) -> room.Plan:
    return room.plan(room.observe(host, want), want)


def refused(host: Host, want: room.Wanted) -> list[str]:
    with pytest.raises(ConfError) as error:
        planned(host, want)
    return str(error.value).split("\n")


def test_what_is_so_already_is_no_change(tmp_path: Path) -> None:
    plan = planned(make(tmp_path), wanted({"user": "root", "vnc_listen": None}))
    assert plan.changes == ()
    assert plan.after == CONF
    assert plan.diff == {}
    assert plan.checked_by == "rules only"
    assert ["the whole host" in warning for warning in plan.warnings] == [True], "of the user root, and of nothing else"


def test_keys_are_set_below_their_samples_and_all_else_stays(tmp_path: Path) -> None:
    plan = planned(make(tmp_path), wanted({"user": "libvirt-qemu", "group": "kvm", "max_core": "unlimited"}))
    assert (
        plan.after
        == CONF.replace(b'user = "root"', b'user = "libvirt-qemu"') + b'group = "kvm"\nmax_core = "unlimited"\n'
    )
    assert [str(change) for change in plan.changes] == [
        "user: 'root' -> 'libvirt-qemu'",
        "group: None -> 'kvm'",
        "max_core: None -> 'unlimited'",
    ]


def test_null_removes_the_line(tmp_path: Path) -> None:
    plan = planned(make(tmp_path), wanted({"user": None}))
    assert plan.after == CONF.replace(b'user = "root"   # for now\n', b"")
    assert plan.changes == (room.Change("user", "root", None),)


def test_null_also_removes_what_libvirt_does_not_know(tmp_path: Path) -> None:
    host = make(tmp_path, conf=b"security_default_confied = 0\nuser = 'root'\n")
    plan = planned(host, wanted({"security_default_confied": None}))
    assert plan.after == b"user = 'root'\n"
    assert plan.warnings[:-1] == ()


def test_duplicates_are_folded_also_where_the_first_is_right(tmp_path: Path) -> None:
    host = make(tmp_path, conf=b'user = "root"\nmax_files = 1\nuser = "kvm"\nuser = 3\n')
    plan = planned(host, wanted({"user": "root"}))
    assert plan.after == b'user = "root"\nmax_files = 1\n'
    assert str(plan.changes[0]) == "user: 'root' -> 'root' (2 later lines of the same key removed)"


def test_an_optional_key_may_be_unknown(tmp_path: Path) -> None:
    host = make(tmp_path, conf=b"")
    plan = planned(host, wanted({"sched_core": "full", "max_files": 5}, optional=["sched_core", "max_files"]))
    assert (plan.after, plan.left_out) == (b"max_files = 5\n", ("sched_core",))


def test_null_removes_an_optional_key_too(tmp_path: Path) -> None:
    host = make(tmp_path, conf=b"gone_key = 1\nmax_files = 5\n")
    plan = planned(host, wanted({"gone_key": None}, optional=["gone_key"]))
    assert (plan.after, plan.left_out) == (b"max_files = 5\n", ())


def test_keys_managed_elsewhere_are_left_alone_wherever_they_are_given(tmp_path: Path) -> None:
    want = wanted(
        {"user": "libvirt-qemu", "max_files": 5},
        extend={"cgroup_device_acl": ["/dev/vfio/1"]},
        secret={"vnc_password": PASSWORD},
        managed_elsewhere=["vnc_password", "user", "cgroup_device_acl", "group"],
    )
    plan = planned(make(tmp_path), want)
    assert [change.key for change in plan.changes] == ["max_files"]
    assert plan.left_alone == ("cgroup_device_acl", "user", "vnc_password"), "nobody gave group"


def test_a_key_managed_elsewhere_is_not_judged(tmp_path: Path) -> None:
    want = wanted({"user": 0, "group": "nosuch"}, managed_elsewhere=["user", "group"])
    assert planned(make(tmp_path), want).changes == ()


def test_a_misspelt_key_managed_elsewhere_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    said = refused(make(tmp_path), wanted({"usr": 1}, managed_elsewhere=["vnc_lsten", "user", "zzz"]))
    assert len(said) == 3
    assert said[0].startswith("managed_elsewhere: vnc_lsten is no key")
    assert "Did you mean vnc_listen" in said[0]
    assert said[1].startswith("managed_elsewhere: zzz is no key")
    assert said[1].endswith("left alone.")
    assert said[2].startswith("usr is no key")


def test_a_key_managed_elsewhere_may_be_one_that_only_another_libvirt_knows(tmp_path: Path) -> None:
    want = wanted({"sched_core": "full"}, managed_elsewhere=["sched_core"], optional=["sched_core"])
    plan = planned(make(tmp_path), want)
    assert (plan.changes, plan.left_out, plan.left_alone) == ((), (), ("sched_core",))


def test_a_list_is_extended(tmp_path: Path) -> None:
    plan = planned(make(tmp_path), wanted(extend={"cgroup_device_acl": ["/dev/vfio/1"]}))
    assert plan.changes[0].after == ["/dev/null", "/dev/full", "/dev/fuse", "/dev/vfio/1"]


def test_a_missing_file_is_empty(tmp_path: Path) -> None:
    plan = planned(make(tmp_path, conf=None), wanted({"vnc_tls": "yes"}))
    assert (plan.before, plan.after) == (None, b"vnc_tls = 1\n")
    assert plan.backup_file is None


def test_nothing_wanted_of_a_missing_file_is_nothing(tmp_path: Path) -> None:
    assert planned(make(tmp_path, conf=None), wanted({"user": None}, backup=True)).changes == ()


def test_all_objections_come_at_once_and_each_names_its_key(tmp_path: Path) -> None:
    said = refused(make(tmp_path), wanted({"user": 0, "usr": "root", "namespaces": "mount", "vnc_listen": "::1"}))
    assert [line.split(":")[0].split(" ")[0] for line in said] == ["user", "usr", "namespaces"]


def test_the_rules_object_all_at_once_too(tmp_path: Path) -> None:
    said = refused(make(tmp_path), wanted({"user": "nosuch", "namespaces": ["pid"], "seccomp_sandbox": 5}))
    assert [line.split(":")[0] for line in said] == ["user", "namespaces", "seccomp_sandbox"]


def test_a_string_that_the_grammar_cannot_write_is_refused(tmp_path: Path) -> None:
    host = make(tmp_path)
    for value in ('"\'"""', "a\0b"):
        (said,) = refused(host, wanted({"vnc_listen": value}))
        assert said.startswith("vnc_listen: ")
    assert refused(host, wanted({"user": "a\0b"}))[0].startswith("user: ")


def test_a_key_is_set_or_extended_not_both(tmp_path: Path) -> None:
    acl = {"cgroup_device_acl": ["/dev/null"]}
    (said,) = refused(make(tmp_path), wanted(acl, extend=acl))
    assert said.startswith("cgroup_device_acl is in settings and in extend")


def test_an_unknown_key_is_not_extended(tmp_path: Path) -> None:
    (said,) = refused(make(tmp_path), wanted(extend={"cgroup_device_acls": ["/dev/null"]}))
    assert "Did you mean cgroup_device_acl" in said


def test_a_password_belongs_in_secret_settings_and_nothing_else_does(tmp_path: Path) -> None:
    host = make(tmp_path)
    (said,) = refused(host, wanted({"vnc_password": PASSWORD}))
    assert said.startswith("vnc_password")
    assert PASSWORD not in said
    (said,) = refused(host, wanted(secret={"user": "root"}))
    assert said.startswith("user")


def test_a_file_that_libvirt_cannot_parse_is_left_with_its_line_named(tmp_path: Path) -> None:
    host = make(tmp_path, conf=CONF + b'namespaces = [ "mount"\n')
    with pytest.raises(ConfError, match=r"/etc/libvirt/qemu.conf, line \d+: .*Correct it by hand"):
        room.observe(host, wanted())


def test_the_path_is_absolute(tmp_path: Path) -> None:
    with pytest.raises(ConfError, match="absolute"):
        room.observe(make(tmp_path), wanted(path="qemu.conf"))


class TestWarnings:
    def test_of_keys_that_have_no_effect(self, tmp_path: Path) -> None:
        host = make(tmp_path, conf=b"security_default_confied = 0\n")
        (said,) = planned(host, wanted({"user": None})).warnings
        assert "security_default_confied" in said
        assert "Did you mean security_default_confined" in said

    def test_of_values_that_keep_libvirt_from_starting(self, tmp_path: Path) -> None:
        host = make(tmp_path, conf=b'seccomp_sandbox = "1"\n')
        (said,) = planned(host, wanted({"user": None})).warnings
        assert "seccomp_sandbox does not hold a whole number" in said
        assert planned(host, wanted({"seccomp_sandbox": None}, libvirt_check=False)).warnings[:-1] == ()

    def test_of_duplicates(self, tmp_path: Path) -> None:
        host = make(tmp_path, conf=b"max_files = 1\nmax_files = 2\n")
        (said,) = planned(host, wanted({"user": None})).warnings
        assert "max_files 2 times" in said

    @pytest.mark.parametrize(("uid", "mode", "told"), [(0, 0o644, 0), (0, 0o664, 1), (0, 0o602, 1), (65534, 0o600, 1)])
    def test_of_a_file_that_others_can_write(self, tmp_path: Path, uid: int, mode: int, told: int) -> None:
        host = make(tmp_path)
        host.set_owner("/etc/libvirt/qemu.conf", uid, 0, mode)
        warnings = planned(host, wanted({"max_files": 5})).warnings
        assert len([line for line in warnings if "may write it" in line]) == told

    def test_of_a_change_that_only_the_rules_judged(self, tmp_path: Path) -> None:
        host = make(tmp_path)
        assert "virsh" in planned(host, wanted({"user": None})).warnings[0]
        assert "libvirt_check" in planned(host, wanted({"user": None}, libvirt_check=False)).warnings[0]


class TestWithoutVirsh:
    """Neither could libvirt judge the file, nor a restart over it be proven."""

    @pytest.fixture
    def host(self, tmp_path: Path) -> Host:
        host = make(tmp_path)
        daemon(tmp_path, ticks=10**10)
        (tmp_path / "usr/bin/virsh").unlink()
        return host

    def test_a_change_is_refused_with_the_package(self, host: Host) -> None:
        (said,) = refused(host, wanted({"user": None}))
        assert said.startswith("virsh is not installed")
        assert "Install libvirt-clients" in said

    def test_what_is_so_already_is_not(self, host: Host) -> None:
        assert planned(host, wanted({"user": "root"})).changes == ()

    def test_nor_is_what_is_to_go_by_the_rules_alone(self, host: Host) -> None:
        assert planned(host, wanted({"user": None}, libvirt_check=False)).changes

    def test_nor_is_a_file_that_no_daemon_reads(self, host: Host) -> None:
        assert planned(host, wanted({"user": "root"}, path="/srv/qemu.conf")).changes

    def test_nor_is_a_host_without_a_daemon(self, tmp_path: Path) -> None:
        plan = planned(make(tmp_path), wanted({"user": None}))
        assert plan.changes
        assert "virsh" in plan.warnings[0]


class TestSecrets:
    CONF = f'vnc_listen = "::"\nvnc_password = "{PASSWORD}" # {PASSWORD}\n# spice_password = "{PASSWORD}"\n'.encode()

    def shown(self, plan: room.Plan) -> str:
        return repr(plan.diff) + repr(plan.changes) + "".join(map(str, plan.changes)) + repr(plan.warnings)

    def test_a_new_one_is_written_and_not_shown(self, tmp_path: Path) -> None:
        plan = planned(make(tmp_path), wanted(secret={"vnc_password": PASSWORD}))
        assert f'vnc_password = "{PASSWORD}"\n'.encode() in plan.after
        assert plan.changes == (room.Change("vnc_password", None, "(changed, not shown)"),)
        assert "vnc_password = (changed, not shown)\n" in plan.diff["after"]
        assert PASSWORD not in self.shown(plan)

    def test_an_old_one_is_not_shown_beside_other_changes(self, tmp_path: Path) -> None:
        plan = planned(make(tmp_path, conf=self.CONF), wanted({"vnc_listen": None}))
        assert "vnc_password = (not shown)\n" in plan.diff["before"]
        assert "vnc_password = (not shown)\n" in plan.diff["after"]
        assert PASSWORD not in self.shown(plan)

    def test_a_change_shows_that_it_is_one(self, tmp_path: Path) -> None:
        plan = planned(make(tmp_path, conf=self.CONF), wanted(secret={"vnc_password": "another"}))
        assert plan.changes == (room.Change("vnc_password", "(not shown)", "(changed, not shown)"),)
        assert plan.diff["before"] != plan.diff["after"]
        assert PASSWORD not in self.shown(plan)
        assert "another" not in self.shown(plan)

    def test_a_removed_one_is_not_shown(self, tmp_path: Path) -> None:
        plan = planned(make(tmp_path, conf=self.CONF), wanted(secret={"vnc_password": None}))
        assert plan.changes == (room.Change("vnc_password", "(not shown)", None),)
        assert PASSWORD not in self.shown(plan)

    def test_the_same_again_is_no_change(self, tmp_path: Path) -> None:
        assert planned(make(tmp_path, conf=self.CONF), wanted(secret={"vnc_password": PASSWORD})).changes == ()

    def test_folded_ones_are_not_shown(self, tmp_path: Path) -> None:
        host = make(tmp_path, conf=self.CONF + f"vnc_password = '{PASSWORD}2'\n".encode())
        plan = planned(host, wanted(secret={"vnc_password": PASSWORD}))
        assert plan.changes == (room.Change("vnc_password", "(not shown)", "(not shown)", 1),)
        assert PASSWORD not in self.shown(plan)

    def test_keys_of_a_later_libvirt_that_look_like_one_are_hidden(self, tmp_path: Path) -> None:
        host = make(tmp_path, conf=f'new_password = "{PASSWORD}"\n'.encode())
        assert PASSWORD not in self.shown(planned(host, wanted({"user": "root"})))

    def test_an_objection_does_not_quote_it(self, tmp_path: Path) -> None:
        host = make(tmp_path)
        for value in (86753, [PASSWORD], {"a": PASSWORD}, '"\'"""' + PASSWORD):
            (said,) = refused(host, wanted(secret={"vnc_password": value}))
            assert said.startswith("vnc_password: ")
            assert PASSWORD not in said
            assert "86753" not in said


class TestCheck:
    def test_a_file_that_cannot_be_replaced_is_refused_before_anything_happens(self, tmp_path: Path) -> None:
        host = make(tmp_path)
        os.link(tmp_path / "etc/libvirt/qemu.conf", tmp_path / "etc/libvirt/other")
        with pytest.raises(HostError, match="hard links"):
            room.check(host, planned(host, wanted({"user": None})))
        room.check(host, planned(host, wanted({"user": "root"})))  # nothing to write, nothing to refuse

    def test_a_host_without_libvirt_is_named(self, tmp_path: Path) -> None:
        host = make(tmp_path, conf=None)
        (tmp_path / "etc/libvirt").rmdir()
        with pytest.raises(HostError, match="/etc/libvirt does not exist"):
            room.check(host, planned(host, wanted({"user": "root"})))


class TestApplyAndResult:
    def test_the_file_is_written_after_the_journal(self, tmp_path: Path) -> None:
        host = make(tmp_path)
        want = wanted({"user": "libvirt-qemu"})
        plan = planned(host, want)
        journal = Journal(host, by="qemu_conf")
        room.apply(host, plan, journal)
        assert (tmp_path / "etc/libvirt/qemu.conf").read_bytes() == plan.after
        (entry,) = journal.entries()
        assert entry.content() == CONF
        assert planned(host, want).changes == ()

    def test_a_file_that_changed_meanwhile_is_not_overwritten(self, tmp_path: Path) -> None:
        host = make(tmp_path)
        plan = planned(host, wanted({"user": "libvirt-qemu"}))
        (tmp_path / "etc/libvirt/qemu.conf").write_bytes(b"# somebody else\n")
        with pytest.raises(HostError, match="changed by someone else"):
            room.apply(host, plan, Journal(host, by="qemu_conf"))
        assert (tmp_path / "etc/libvirt/qemu.conf").read_bytes() == b"# somebody else\n"

    def test_the_operators_copy(self, tmp_path: Path) -> None:
        host = make(tmp_path)
        (tmp_path / "etc/libvirt/qemu.conf").chmod(0o640)
        want = wanted({"user": "libvirt-qemu"}, backup=True)
        state = room.observe(host, want)
        plan = room.plan(state, want)
        assert room.result(state, plan)["backup_file"] is None  # check mode makes none
        room.apply(host, plan, Journal(host, by="qemu_conf"))
        name = room.result(room.observe(host, want), plan)["backup_file"]
        copy = Path(host.path(name))
        assert copy.parent == tmp_path / "etc/libvirt"
        assert copy.read_bytes() == CONF
        assert copy.stat().st_mode & 0o777 == 0o640

    def test_a_daemon_that_runs_has_to_be_restarted(self, tmp_path: Path) -> None:
        host = make(tmp_path)
        daemon(tmp_path, ticks=10**10)  # started long after the file was written
        want = wanted({"user": "libvirt-qemu"})
        state = room.observe(host, want)
        before = room.result(state, room.plan(state, wanted()))
        assert (before["restart_required"], before["restart_units"]) == (False, [])
        then = room.result(state, room.plan(state, want))
        assert (then["restart_required"], then["restart_units"]) == (True, ["libvirtd.service"])

    def test_a_change_of_form_only_needs_no_restart(self, tmp_path: Path) -> None:
        host = make(tmp_path, conf=b"max_files = 1\nmax_files = 2\n")
        daemon(tmp_path, ticks=10**10)
        want = wanted({"max_files": 1})
        state = room.observe(host, want)
        plan = room.plan(state, want)
        assert plan.changes
        assert not room.result(state, plan)["restart_required"]

    def test_a_file_that_no_daemon_reads_waits_for_nothing(self, tmp_path: Path) -> None:
        host = make(tmp_path)
        daemon(tmp_path, ticks=10**10)
        want = wanted({"user": "root"}, path="/srv/qemu.conf")
        state = room.observe(host, want)
        plan = room.plan(state, want)
        assert plan.changes
        assert not room.result(state, plan)["restart_required"]
        room.apply(host, plan, Journal(host, by="qemu_conf"))
        assert (tmp_path / "srv/qemu.conf").stat().st_mode & 0o777 == 0o600
