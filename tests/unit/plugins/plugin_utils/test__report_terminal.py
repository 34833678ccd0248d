# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import typing as t
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report_terminal import columns, render, wrapped
from ansible_collections.hypervisor.hardening.tests.unit.plugins.plugin_utils import masters


def test_all_of_it() -> None:
    assert render(masters.compared()) == [
        "Audit of 3 hosts (1 not audited) at level hardened, 2026-11-21T06:50:00Z.",
        "",
        "HOST   SCORE  FAIL  PENDING  UNKNOWN  WAIVED  MANUAL  PASS  N/A",
        "kvm1    15.1     2        1        1       1       1     1    1",
        "kvm2     100     0        0        0       0       0     7    0",
        "kvm3   not audited",
        "all 3     50     2        1        1       1       1     8    1",
        "",
        "Score: 50 of 100, from 32 of 60 points, capped because a critical control fails; 70 of 100 of what",
        "  can be fixed now.",
        "Formula: Weight of what passes, divided by the weight of what applies and is not waived.",
        "",
        "Not audited (1)",
        "  kvm3: unreachable: connection timed out",
        "",
        "Waivers that have expired, and waive nothing (1)",
        "  daemon-no-tcp, hosts kvm1: Old backup client. (platform team, expires 2026-11-01, SEC-17); 1",
        "    finding",
        "Waivers that expire soon (1)",
        "  ksm-off, hosts kvm1: The vendor's appliance needs it. (platform team, expires 2026-12-01, SEC-17);",
        "    1 finding",
        "Waivers without use (1)",
        "  mac-enforcing, hosts kvm1, guests test*: The vendor's appliance needs it. (platform team, expires",
        "    2027-01-31, SEC-17); no host of this run is covered",
        "",
        "Fails or is pending (3)",
        "  critical  QEM-05 qemu-seccomp-on: Seccomp sandbox is on",
        "    fail        observed 0, expected 1",
        "    on          kvm1 (guest web)",
        "    where       /etc/libvirt/qemu.conf",
        "    pending     observed 0, expected 1, until guest restart",
        "    on          kvm1 (guest db)",
        "    where       /etc/libvirt/qemu.conf",
        "    fix         Harden the host (hypervisor_qemu_settings). Advice for qemu-seccomp-on. Effective",
        "                after a restart of the guest.",
        "    danger      What the fix of qemu-seccomp-on can break.",
        "  high      DMN-01 daemon-no-tcp: No libvirt daemon listens on TCP",
        "    fail        observed 0.0.0.0:16509, expected nothing",
        "    on          kvm1",
        "    where       /etc/libvirt/qemu.conf",
        "    fix         Stop the TCP socket unit. Effective after a restart of the daemon.",
        "    danger      What the fix of daemon-no-tcp can break.",
        "",
        "Unknown: not proven, either way (1)",
        "  medium    CPU-02 cpu-mitigated: CPU vulnerabilities mitigated",
        "    unknown     /sys/devices/system/cpu cannot be read.",
        "    on          kvm1",
        "    where       /etc/libvirt/qemu.conf",
        "",
        "Manual: for a person to look at (1)",
        "  medium    NET-03 switch-hardened: Ports are isolated",
        "    manual      A person has to look at the switch.",
        "    on          kvm1",
        "    where       /etc/libvirt/qemu.conf",
        "",
        "Waived: not proven, and accepted (1)",
        "  low       MEM-01 ksm-off: KSM is off",
        "    waived      observed 0, expected 1",
        "    on          kvm1",
        "    where       /etc/libvirt/qemu.conf",
        "    waiver      The vendor's appliance needs it. (platform team, expires 2027-01-31, SEC-17,",
        "                otherwise fail)",
        "",
        "Since the audit of 2026-10-01T06:50:00Z: 1 worse, 1 better, 1 new, 1 gone, 1 other",
        "    worse       daemon-no-tcp, pass -> fail: kvm1",
        "    better      mac-enforcing, fail -> pass: kvm1",
        "    new         ksm-off, absent -> fail: kvm1",
        "    gone        qemu-seccomp-on, fail -> absent: kvm1 (guest old)",
        "    other       cpu-mitigated, fail -> unknown: kvm1",
        "    new host    kvm2",
        "    lost host   kvm3",
    ]


def test_no_host_is_told_as_such() -> None:
    assert render(masters.empty()) == [
        "Audit of 0 hosts at level hardened, 2026-11-21T06:50:00Z.",
        "",
        "HOST   SCORE  FAIL  PENDING  UNKNOWN  WAIVED  MANUAL  PASS  N/A",
        "all 0      -     0        0        0       0       0     0    0",
        "",
        "Score: none, for nothing applies.",
        "Formula: Weight of what passes, divided by the weight of what applies and is not waived.",
    ]


@pytest.mark.parametrize("width", [40, 80, 100, 200])
@pytest.mark.parametrize("master", [masters.compared(), masters.every_combination(), masters.nasty()])
def test_lines_fit_and_do_nothing_to_a_terminal(master: masters.Json, width: int) -> None:
    lines = render(master, width)
    table = lines.index(next(line for line in lines if line.startswith("HOST")))
    # The table of figures cannot be narrower than it is.
    beyond = lines.index("", table)
    assert [line for line in lines[:table] + lines[beyond:] if columns(line) > width] == []
    assert {unicodedata.category(character) for line in lines for character in line} & {"Cc", "Cf", "Cs", "Zl"} == set()
    assert [line for line in lines if line != line.rstrip()] == []


def test_the_gravest_comes_first_and_each_place_is_named() -> None:
    lines = render(masters.every_combination())
    start = lines.index("Fails or is pending (20)")
    end = lines.index("Unknown: not proven, either way (10)")
    severities = [line.split()[0] for line in lines[start:end] if "TST-01" in line]
    assert severities == list(masters.SEVERITIES)
    for state in ("fail", "pending", "unknown", "manual", "waived"):
        assert sum(f"kvm1 (guest guest-{state})" in line for line in lines) == len(masters.SEVERITIES)


def test_nothing_hostile_is_left_out() -> None:
    master = masters.nasty()
    text = "\n".join(render(master, 1_000_000))
    for word in ("fail", "pending", "unknown", "manual", "waived"):
        assert f"    {word} " in text
    for number in (len(masters.NASTY_NAMES),):
        assert f"Not audited ({number})" in text
        assert f"Unknown: not proven, either way ({number})" in text
        assert f"Waived: not proven, and accepted ({number})" in text
    assert r"\u202eexe.tpircs\u202c" in text and "(10240 characters)" in text


def test_a_selection_is_told() -> None:
    selection = {"only": ["qemu", "mac"], "skip": [], "disabled": ["ksm-off"]}
    assert render(masters.small() | {"selection": selection})[0].endswith(
        "2026-11-21T06:50:00Z. Selection: only qemu, mac;"
    )


def test_why_a_failure_is_back_is_told() -> None:
    finding = masters.finding("x", "fail", reason="the waiver of ops has expired on 2026-11-01")
    lines = render(masters.master([masters.host("kvm1", [finding])]))
    assert "    reason      the waiver of ops has expired on 2026-11-01" in lines


def test_a_long_title_goes_on_below_its_beginning() -> None:
    rules = {"x": masters.rule("x", severity="high", title="word " * 20)}
    lines = render(masters.master([masters.host("kvm1", [masters.finding("x", "fail")])], rules), width=60)
    start = next(number for number, line in enumerate(lines) if "TST-01" in line)
    assert lines[start].startswith("  high      TST-01 x: word word")
    assert lines[start + 1].startswith("            word")


def test_one_host_needs_no_sum() -> None:
    lines = render(masters.master([masters.host("kvm1", [masters.finding("x", "pass")])]))
    assert lines[0].startswith("Audit of 1 host at")
    assert not any(line.startswith("all") for line in lines)


def test_a_waiver_of_a_rule_that_is_gone_is_told_last() -> None:
    waivers = {"unused": [masters.listed_waiver("gone-rule"), masters.listed_waiver("ksm-off")]}
    lines = render(masters.small() | {"waivers": waivers})
    told = [line for line in lines if "hosts kvm1:" in line]
    assert [line.split(",")[0].strip() for line in told] == ["ksm-off", "gone-rule"]


def test_what_came_with_a_new_guest_and_passes_is_only_counted() -> None:
    master = masters.compared()
    passes = masters.change("mac-enforcing", None, "pass", object={"type": "guest", "name": "fresh"})
    master["comparison"]["new"].append(passes)
    lines = render(master)
    assert any(line.endswith("1 worse, 1 better, 2 new, 1 gone, 1 other") for line in lines)
    assert not any("fresh" in line for line in lines)


@pytest.mark.parametrize(
    # Unicode Standard Annex 11: W and F take two columns; combining characters take none.
    ("text", "width"),
    [("abc", 3), ("客户", 4), ("e\u0301", 1), ("\uff8a", 1), ("\uff21", 2), ("", 0)],
)
def test_columns(text: str, width: int) -> None:
    assert columns(text) == width


def test_wide_names_keep_the_table_straight() -> None:
    hosts = [masters.host(name, [masters.finding("x", "fail")]) for name in ("客户机", "kvm-long-name")]
    lines = [line for line in render(masters.master(hosts)) if line.startswith(("客", "kvm", "all", "HOST"))]
    assert len({columns(line) for line in lines}) == 1


@settings(deadline=None)
@given(
    st.text(alphabet="ab 客\u0301", max_size=80),
    st.sampled_from(["", "  ", "    fail        "]),
    st.integers(20, 60),
)
def test_wrapping_loses_nothing(text: str, head: str, width: int) -> None:
    line = f"{head}x{text}"
    parts = wrapped(line, width)
    assert all(columns(part) <= width for part in parts)
    assert [part.strip() for part in parts if not part.strip()] == [] or not text.strip()
    assert "".join(parts).replace(" ", "") == line.replace(" ", "")


def test_hosts_alike_are_told_together() -> None:
    lines = render(masters.fleet(hosts=30, guests=2))
    assert len([line for line in lines if "rule-0:" in line]) <= 4


def test_a_value_that_says_nothing_is_called_so() -> None:
    finding = masters.finding("x", "fail", observed="", expected="")
    lines = render(masters.master([masters.host("kvm1", [finding])]))
    assert "    fail        observed nothing, expected nothing" in lines


def test_types() -> None:
    lines: t.Any = render(masters.small())
    assert isinstance(lines, list) and {type(line) for line in lines} == {str}
