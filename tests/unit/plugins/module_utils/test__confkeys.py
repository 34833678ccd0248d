# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys and types, from a lens and from the table; values of every kind."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import (
    _confkeys,
    _confkeys_daemons,
    _confkeys_fallback,
)
from ansible_collections.hypervisor.hardening.plugins.module_utils._confkeys import ConfError
from ansible_collections.hypervisor.hardening.tests.unit.plugins.qemuconf_host import LENS_TEXT, make, put


def test_a_lens_tells_keys_and_types() -> None:
    types = _confkeys.lens_types(LENS_TEXT)
    assert types["vnc_listen"] == _confkeys.STRING
    assert types["vnc_password"] == _confkeys.STRING  # two blanks before the name
    assert types["vnc_tls"] == _confkeys.BOOL
    assert types["cgroup_device_acl"] == _confkeys.LIST  # the second one on its line
    assert types["max_core"] == _confkeys.LIMIT
    assert types["auto_dump_max_size"] == _confkeys.SIZE
    assert types["future_key"] == _confkeys.ANY


def test_comments_and_obsolete_keys_of_a_lens_do_not_count() -> None:
    assert not {"gone", "gone_for_good", "clear_emulator_capabilities"} & set(_confkeys.lens_types(LENS_TEXT))


def test_a_text_that_is_no_lens_has_no_keys() -> None:
    assert _confkeys.lens_types("version https://git-lfs.github.com/spec/v1\n") == {}


def test_the_parser_reads_more_than_the_lens_says(tmp_path: Path) -> None:
    keys = _confkeys.known(make(tmp_path))
    assert keys.source == "lens"
    assert keys.types["security_driver"] == keys.types["hugetlbfs_mount"] == _confkeys.STRING_OR_LIST
    assert keys.types["seccomp_sandbox"] == _confkeys.INT
    assert "keepalive_interval" not in keys.types  # this lens does not have it, so no correction adds it


def test_without_a_lens_the_table_answers(tmp_path: Path) -> None:
    keys = _confkeys.known(make(tmp_path, lens=False))
    assert keys.source == "fallback"
    assert keys.types["keepalive_interval"] == _confkeys.INT
    assert keys.types["namespaces"] == _confkeys.LIST
    assert keys.types["max_core"] == _confkeys.LIMIT
    assert len(keys.types) > 110


def test_the_tables_are_small() -> None:
    for table in (_confkeys_fallback, _confkeys_daemons):
        assert Path(str(table.__file__)).stat().st_size <= 4096


# Entries as the lens of libvirt 9.0 has them.
LIBVIRTD = """module Libvirtd =
   let network_entry = bool_entry "listen_tls" | str_entry "tls_port"
   let tls_authorization_entry = str_array_entry "tls_allowed_dn_list"
   let keepalive_entry = int_entry "keepalive_interval" | int_entry "keepalive_count" | bool_entry "keepalive_required"
"""


def test_each_file_has_its_own_lens(tmp_path: Path) -> None:
    host = make(tmp_path)
    put(tmp_path, "/usr/share/augeas/lenses/libvirtd.aug", LIBVIRTD)
    put(tmp_path, "/usr/share/augeas/lenses/libvirt_lockd.aug", 'let e = bool_entry "auto_disk_leases"')
    keys = _confkeys.known(host, "libvirtd.conf")
    assert (keys.source, keys.file) == ("lens", "libvirtd.conf")
    assert keys.types == {
        "listen_tls": _confkeys.BOOL,
        "tls_port": _confkeys.STRING,
        "tls_allowed_dn_list": _confkeys.LIST,
        "keepalive_interval": _confkeys.INT,  # virConfGetValueInt
        "keepalive_count": _confkeys.UINT,
    }
    assert _confkeys.known(host, "qemu-lockd.conf").types == {"auto_disk_leases": _confkeys.BOOL}
    assert "no key of libvirtd.conf to the installed libvirt" in _confkeys.unknown("listen_tsl", keys)
    assert "no libvirt since 7.0 reads this key" in _confkeys.unknown("keepalive_required", keys)


@pytest.mark.parametrize(
    ("file", "key", "kind"),
    [
        ("libvirtd.conf", "tls_allowed_dn_list", _confkeys.LIST),
        ("virtproxyd.conf", "listen_tcp", _confkeys.BOOL),
        ("virtqemud.conf", "auth_unix_rw", _confkeys.STRING),
        ("virtqemud.conf", "listen_tcp", None),
        ("virtlogd.conf", "max_size", _confkeys.LENGTH),
        ("virtlogd.conf", "auth_unix_rw", None),
        ("network.conf", "firewall_backend", _confkeys.STRING),
        ("notes.conf", "user", None),
    ],
)
def test_without_a_lens_a_table_answers_for_the_daemons_files(
    tmp_path: Path, file: str, key: str, kind: str | None
) -> None:
    keys = _confkeys.known(make(tmp_path, lens=False), file)
    assert (keys.source, keys.types.get(key)) == ("fallback", kind)


@pytest.mark.parametrize(
    ("kind", "value", "meant"),
    [
        (_confkeys.BOOL, True, True),
        (_confkeys.BOOL, 0, False),
        (_confkeys.BOOL, 1, True),
        (_confkeys.BOOL, "false", False),
        (_confkeys.BOOL, "True", True),
        (_confkeys.BOOL, " yes ", True),
        (_confkeys.BOOL, "off", False),
        (_confkeys.BOOL, "0", False),
        (_confkeys.INT, -1, -1),
        (_confkeys.INT, "-1", -1),
        (_confkeys.INT, 2**31 - 1, 2**31 - 1),
        (_confkeys.UINT, "+49152", 49152),
        (_confkeys.UINT, 2**32 - 1, 2**32 - 1),
        (_confkeys.LIMIT, "unlimited", "unlimited"),
        (_confkeys.LIMIT, 0, 0),
        (_confkeys.LIMIT, 2**63 - 1, 2**63 - 1),
        (_confkeys.SIZE, "10GiB", "10GiB"),
        (_confkeys.SIZE, "10", 10),
        (_confkeys.STRING, "", ""),
        (_confkeys.STRING, "no", "no"),
        (_confkeys.LIST, [], []),
        (_confkeys.LIST, ["mount"], ["mount"]),
        (_confkeys.STRING_OR_LIST, "none", "none"),
        (_confkeys.STRING_OR_LIST, ["none"], ["none"]),
        (_confkeys.ANY, 7, 7),
        (_confkeys.ANY, ["a"], ["a"]),
    ],
)
def test_values_that_fit(kind: str, value: t.Any, meant: t.Any) -> None:
    converted = _confkeys.convert("key", kind, value)
    assert converted == meant
    assert type(converted) is type(meant)


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        (_confkeys.BOOL, 2, "2 is a number"),
        (_confkeys.BOOL, "maybe", "'maybe' is a string"),
        (_confkeys.BOOL, "", "'' is a string"),
        (_confkeys.BOOL, 1.0, "a number with a fraction"),
        (_confkeys.BOOL, [True], "a list of more than strings"),
        (_confkeys.INT, True, "True is a bool"),
        (_confkeys.INT, 2**31, "from -2147483648 to 2147483647"),
        (_confkeys.INT, "0x10", "'0x10' is a string"),
        (_confkeys.INT, "1_000", "'1_000' is a string"),
        (_confkeys.UINT, -1, "from 0 to 4294967295"),
        (_confkeys.UINT, 2**32, "from 0 to 4294967295"),
        (_confkeys.UINT, "9" * 5000, "a string"),
        (_confkeys.UINT, 1.5, "a number with a fraction"),
        (_confkeys.LIMIT, "Unlimited", '"unlimited"'),
        (_confkeys.LIMIT, -1, '"unlimited"'),
        (_confkeys.LIMIT, 2**63, '"unlimited"'),
        (_confkeys.SIZE, "GiB", "10GiB"),
        (_confkeys.STRING, 0, "Quote it."),
        (_confkeys.STRING, False, "Quote it: YAML reads a bare on, off"),
        (_confkeys.STRING, ["root"], "a list of strings"),
        (_confkeys.STRING, {"a": 1}, "a dictionary"),
        (_confkeys.LIST, "mount", "Make it a list"),
        (_confkeys.LIST, ["mount", 1], "a list of more than strings"),
        (_confkeys.LIST, [["mount"]], "a list of more than strings"),
        (_confkeys.STRING_OR_LIST, 0, "Quote it."),
        (_confkeys.ANY, None, "NoneType"),
        (_confkeys.ANY, {"a": 1}, "a dictionary"),
    ],
)
def test_values_that_do_not_fit_are_refused_by_key_value_and_what_is_read(kind: str, value: t.Any, words: str) -> None:
    with pytest.raises(ConfError) as refused:
        _confkeys.convert("the_key", kind, value)
    message = str(refused.value)
    assert message.startswith("the_key: ")
    assert repr(value) in message
    assert kind in message
    assert words in message


def test_a_secret_value_is_not_quoted() -> None:
    with pytest.raises(ConfError) as refused:
        _confkeys.convert("vnc_password", _confkeys.STRING, 86753, secret=True)
    assert "86753" not in str(refused.value)
    assert "a number" in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "value", "suits"),
    [
        (_confkeys.BOOL, 1, True),
        (_confkeys.BOOL, "1", False),  # in a file a quoted number is a string, and libvirt refuses it
        (_confkeys.INT, "1", False),
        (_confkeys.INT, -1, True),
        (_confkeys.STRING, 0, False),
        (_confkeys.LIST, "mount", False),
        (_confkeys.LIMIT, "unlimited", True),
        (_confkeys.STRING_OR_LIST, ["none"], True),
    ],
)
def test_what_a_file_holds_is_not_converted(kind: str, value: t.Any, suits: bool) -> None:
    assert _confkeys.suits(kind, value) is suits


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("security_default_confied", "security_default_confined"),
        ("namespace", "namespaces"),
        ("vnc_lisen", "vnc_listen"),
    ],
)
def test_an_unknown_key_comes_with_the_nearest_known_one(tmp_path: Path, key: str, near: str) -> None:
    message = _confkeys.unknown(key, _confkeys.known(make(tmp_path)))
    assert message.startswith(key)
    assert f"Did you mean {near}" in message


def test_an_unknown_key_like_no_other_comes_alone(tmp_path: Path) -> None:
    assert "Did you mean" not in _confkeys.unknown("zzz", _confkeys.known(make(tmp_path)))


def test_a_key_that_libvirt_no_longer_reads_is_no_typo(tmp_path: Path) -> None:
    message = _confkeys.unknown("clear_emulator_capabilities", _confkeys.known(make(tmp_path)))
    assert "no effect" in message
    assert "Did you mean" not in message


def test_extending_starts_from_the_sample_and_repeats_nothing(tmp_path: Path) -> None:
    sample = _confkeys.sample(make(tmp_path))
    assert _confkeys.extended("cgroup_device_acl", ["/dev/b", "/dev/full", "/dev/a", "/dev/b"], sample) == [
        *("/dev/null", "/dev/full", "/dev/fuse"),
        *("/dev/b", "/dev/a"),
    ]


@pytest.mark.parametrize("key", ["capability_filters", "namespaces", "vnc_listen"])
def test_only_a_sample_that_is_the_default_is_extended(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfError, match=f"{key} cannot be extended: libvirt does not say"):
        _confkeys.extended(key, ["x"], _confkeys.sample(make(tmp_path)))


@pytest.mark.parametrize("text", [None, "module Test =\n", 'let conf = "cgroup_device_acl = 1\n"', 'let conf = "= ="'])
def test_without_a_usable_sample_nothing_is_extended(tmp_path: Path, text: str | None) -> None:
    host = make(tmp_path)
    sample = Path(host.path(_confkeys.SAMPLE))
    sample.unlink()
    if text is not None:
        sample.write_text(text)
    with pytest.raises(ConfError, match=r"test_libvirtd_qemu\.aug"):
        _confkeys.extended("cgroup_device_acl", ["/dev/b"], _confkeys.sample(host))


@pytest.mark.parametrize("more", ["/dev/b", [1], None, {"a": "b"}])
def test_what_is_added_is_a_list_of_strings(tmp_path: Path, more: t.Any) -> None:
    with pytest.raises(ConfError, match=r"cgroup_device_acl: .* a list of strings there"):
        _confkeys.extended("cgroup_device_acl", more, _confkeys.sample(make(tmp_path)))


@pytest.mark.parametrize(
    ("key", "exists"),
    [
        ("future_key", True),  # the lens has it, the table does not
        ("sched_core", True),  # a later libvirt has it
        ("clear_emulator_capabilities", True),  # an earlier one had it
        ("sched_cor", False),
        ("gone_for_good", False),
        ("", False),
    ],
)
def test_a_key_exists_where_any_libvirt_has_it(tmp_path: Path, key: str, exists: bool) -> None:
    assert _confkeys.exists(key, _confkeys.known(make(tmp_path))) is exists
