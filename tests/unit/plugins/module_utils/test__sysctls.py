# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel parameters, running and at boot."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ansible_collections.hypervisor.hardening.plugins.module_utils import _sysctls
from ansible_collections.hypervisor.hardening.plugins.module_utils._kernelconf import Setting
from ansible_collections.hypervisor.hardening.plugins.module_utils._kernelvalues import KernelError, Planned
from ansible_collections.hypervisor.hardening.plugins.module_utils._sysctls import FILE, Sysctl
from ansible_collections.hypervisor.hardening.tests.unit.plugins.kernelhost import KernelHost

KPTR, BPF, YAMA = "kernel.kptr_restrict", "kernel.unprivileged_bpf_disabled", "kernel.yama.ptrace_scope"


@pytest.fixture
def host(tmp_path: Path) -> KernelHost:
    host = KernelHost(tmp_path)
    host.sysctl(KPTR, "0")
    return host


def plan(host: KernelHost, options: dict[str, t.Any], optional: t.Container[str] = ()) -> Planned:
    wanted = _sysctls.wishes(options)
    return _sysctls.plan(_sysctls.read(host, tuple(wanted)), wanted, optional)


def lines(planned: Planned) -> list[str]:
    return (planned.content or "").splitlines()[1:]


def test_the_running_value_and_that_of_the_next_boot(host: KernelHost) -> None:
    found = plan(host, {KPTR: 2})
    assert [(one.path, one.before, one.after) for one in found.values] == [("/proc/sys/kernel/kptr_restrict", "0", "2")]
    assert lines(found) == ["kernel.kptr_restrict = 2"]
    assert [vars(one) for one in found.entries] == [
        {"name": KPTR, "before": "0", "after": "2", "boot": "2", "boot_by": FILE}
    ]


def test_what_is_so_already(host: KernelHost) -> None:
    host.sysctl(KPTR, "2")
    host.sysctl("net.ipv4.tcp_rmem", "4096\t131072\t6291456")
    found = plan(host, {KPTR: "2", "net.ipv4.tcp_rmem": "4096 131072 6291456"})
    assert found.values == ()


def test_nothing_wanted_is_no_file(host: KernelHost) -> None:
    assert plan(host, {}).content is None
    assert plan(host, {KPTR: None}).content is None


@pytest.mark.parametrize(("running", "elsewhere"), [("4", None), ("2", "4"), ("1", "4")])
def test_a_stricter_host_stays_so(host: KernelHost, running: str, elsewhere: str | None) -> None:
    name = "kernel.perf_event_paranoid"
    host.sysctl(name, running)
    if elsewhere:
        host.put("/etc/sysctl.d/10-perf.conf", f"{name} = {elsewhere}\n")
    found = plan(host, {name: ">=2"})
    assert [one.after for one in found.values] == (["2"] if running == "1" else [])
    assert lines(found) == [f"{name} = 4"]


@given(
    st.integers(-1, 5),
    st.none() | st.integers(-1, 5),
    st.integers(0, 4),
    st.sampled_from(["kernel.perf_event_paranoid", KPTR, BPF]),
)
@example(0, 1, 1, BPF)
def test_at_least_never_weakens_and_is_done_in_one_go(
    running: int, elsewhere: int | None, least: int, name: str
) -> None:
    wish = {name: _sysctls.Wish(str(least), least=True)}
    setting = None if elsewhere is None else Setting(str(elsewhere), "/etc/sysctl.d/10-other.conf")
    found = _sysctls.plan({name: Sysctl(name, str(running), setting, None)}, wish, ())
    after = int(found.values[0].after) if found.values else running
    if not found.waiting:
        assert after >= max(least, running)
    assert int(lines(found)[0].split()[-1]) >= max([least, *([elsewhere] if elsewhere is not None else [])])
    again = _sysctls.plan({name: Sysctl(name, str(after), setting, None)}, wish, ())
    assert again.values == ()
    assert again.content == found.content


def test_a_later_file_is_named(host: KernelHost) -> None:
    host.put("/etc/sysctl.d/zzz-operator.conf", f"{KPTR} = 0\n")
    host.put("/etc/sysctl.d/99-sysctl.conf", f"{KPTR} = 0\n")
    found = plan(host, {KPTR: 1})
    assert [one.name for one in found.overridden] == [KPTR]
    assert "/etc/sysctl.d/zzz-operator.conf sets it to 0 at the next boot, after" in found.overridden[0].reason
    assert (found.entries[0].boot, found.entries[0].boot_by) == ("0", "/etc/sysctl.d/zzz-operator.conf")


def test_an_earlier_file_does_not_count(host: KernelHost) -> None:
    host.put("/etc/sysctl.d/99-sysctl.conf", f"{KPTR} = 0\n")
    host.put("/run/sysctl.d/zz-guests.conf", f"{KPTR} = 0\n")
    found = plan(host, {KPTR: 1})
    assert found.overridden == ()
    assert found.entries[0].boot_by == FILE


def test_a_later_file_that_agrees_is_no_matter(host: KernelHost) -> None:
    host.put("/etc/sysctl.d/zzz-operator.conf", f"{KPTR} = 2\n")
    assert plan(host, {KPTR: ">=1"}).overridden == ()


def test_a_pattern_of_a_later_file_does_not_count(host: KernelHost) -> None:
    # sysctl.d(5): an exact name beats a pattern
    host.put("/etc/sysctl.d/zzz-operator.conf", "kernel.*_restrict = 0\n")
    assert plan(host, {KPTR: 1}).overridden == ()


def test_a_value_that_could_not_be_taken_back_is_avoided(host: KernelHost) -> None:
    # Documentation/admin-guide/sysctl/kernel.rst: 1 stays until a boot, 2 refuses the same and can be changed
    host.sysctl(BPF, "0")
    found = plan(host, {BPF: ">=1"})
    assert [(one.after, one.final) for one in found.values] == [("2", False)]
    assert lines(found) == [f"{BPF} = 2"]


def test_what_only_a_boot_changes(host: KernelHost) -> None:
    host.sysctl("kernel.kexec_load_disabled", "1")
    found = plan(host, {"kernel.kexec_load_disabled": 0})
    assert found.values == ()
    assert str(found.waiting[0]).startswith("kernel.kexec_load_disabled: it is 1, which the kernel changes no more")
    assert lines(found) == ["kernel.kexec_load_disabled = 0"]


def test_what_cannot_be_taken_back_is_said(host: KernelHost) -> None:
    host.sysctl("kernel.kexec_load_disabled", "0")
    found = plan(host, {"kernel.kexec_load_disabled": 1})
    assert [one.final for one in found.values] == [True]
    assert found.warnings == ("kernel.kexec_load_disabled = 1 cannot be taken back before the next boot.",)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("net.ipv4.ip_forward", 0),
        ("net.ipv4.conf.all.forwarding", False),
        ("net.ipv6.conf.all.forwarding", 0),
        ("net.ipv4.conf.all.rp_filter", 1),
        ("net.ipv4.conf.br0.rp_filter", "1"),
        ("net.bridge.bridge-nf-call-iptables", 1),
        ("net.bridge.bridge-nf-call-arptables", 0),
        ("net.ipv6.conf.all.disable_ipv6", 1),
        ("net.ipv6.conf.default.disable_ipv6", True),
        ("kernel.modules_disabled", 1),
        ("user.max_user_namespaces", 0),
    ],
)
def test_what_breaks_hypervisors_is_said(host: KernelHost, name: str, value: t.Any) -> None:
    host.sysctl(name, "7")
    assert plan(host, {name: value}).warnings[0].startswith(f"{name} = {int(value)} ")


def test_harmless_values_of_the_same_parameters(host: KernelHost) -> None:
    host.sysctl("net.ipv4.ip_forward", "0")
    host.sysctl("net.ipv4.conf.all.rp_filter", "1")
    assert plan(host, {"net.ipv4.ip_forward": 1, "net.ipv4.conf.all.rp_filter": 2}).warnings == ()


def test_an_unknown_parameter_is_refused_unless_it_is_optional(host: KernelHost) -> None:
    with pytest.raises(KernelError, match=r"this kernel has no kernel\.kptr_restict, or not before a module is loaded"):
        plan(host, {"kernel.kptr_restict": 1})
    found = plan(host, {"kernel.kptr_restict": 1}, {"kernel.kptr_restict"})
    assert (found.values, found.content) == ((), None)
    assert [one.name for one in found.left_alone] == ["kernel.kptr_restict"]


def test_names_with_slashes() -> None:
    # sysctl.d(5): an interface's name can have a dot, and then has a slash here; slashes first swap the two
    assert _sysctls.path("net.ipv4.conf.enp3s0/200.forwarding") == "/proc/sys/net/ipv4/conf/enp3s0.200/forwarding"
    assert list(_sysctls.wishes({"net/ipv4/conf/enp3s0.200/forwarding": 1})) == ["net.ipv4.conf.enp3s0/200.forwarding"]


@pytest.mark.parametrize("name", ["", "kernel", "kernel.", "kernel..x", "../x.y", "kernel.*", "kernel.a b", "a.//.b"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(KernelError, match="is no name of a kernel parameter"):
        _sysctls.wishes({name: 1})


@pytest.mark.parametrize("value", ["", "  ", "a\nb", 1.5, [1], ">=x"])
def test_values_that_are_none(value: t.Any) -> None:
    with pytest.raises(KernelError):
        _sysctls.wishes({KPTR: value})
