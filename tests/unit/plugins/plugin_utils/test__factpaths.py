# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._factpaths import (
    Shape,
    UnknownPath,
    documented,
    reads,
)
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._query import compile_query

RETURN = '''
RETURN = r"""
hypervisor:
  type: dict
  contains:
    host:
      type: dict
      contains:
        name: {type: str}
        time: {type: float}
        os: {type: dict, contains: {id: {type: str}, id_like: {type: list, elements: str}}}
    guests:
      type: list
      elements: dict
      contains:
        name: {type: str}
        no_seccomp: {type: bool}
        disks: {type: list, elements: dict, contains: {path: {type: str}}}
    parameters: {type: dict}
    anything: {type: raw}
"""
raise SystemExit("it is read, not executed")
'''


@pytest.fixture
def sections(tmp_path: Path) -> dict[str, Shape]:
    (tmp_path / "info.py").write_text(RETURN, encoding="utf-8")
    return documented(tmp_path / "info.py")


@pytest.mark.parametrize(
    ("expression", "paths"),
    [
        ("host.name", {"host.name"}),
        ("host.os.id == 'debian' && host.time > `0`", {"host.os.id", "host.time"}),
        ("host.os.id_like[]", {"host.os.id_like"}),
        ("contains(host.os.id_like, 'debian')", {"host.os.id_like"}),
        ("guests[?no_seccomp].name", {"guests[].no_seccomp", "guests[].name"}),
        ("guests[*].disks[].path", {"guests[].disks[].path"}),
        ("guests[].disks[?path == root().host.name].path", {"guests[].disks[].path", "host.name"}),
        ("guests[0].name", {"guests[].name"}),
        ("guests[:2].name", {"guests[].name"}),
        ("guests[] | [0].name", {"guests[].name"}),
        ("guests[].{n: name}[?n == 'x']", {"guests[].name"}),
        ("guests[].[name, no_seccomp][]", {"guests[].name", "guests[].no_seccomp"}),
        ("sort_by(guests, &name)[].no_seccomp", {"guests[].name", "guests[].no_seccomp"}),
        ("map(&disks[].path, guests)", {"guests[].disks[].path"}),
        ("max_by(guests, &name).no_seccomp", {"guests[].name", "guests[].no_seccomp"}),
        ("(host || host).name", {"host.name"}),
        ("(guests || `[]`)[].name", {"guests[].name"}),
        ("not_null(host.name, 'x')", {"host.name"}),
        ("!(host.name)", {"host.name"}),
        ("host.os.*", {"host.os"}),
        ('parameters."net.ipv4.ip_forward"', {"parameters.net.ipv4.ip_forward"}),
        ("parameters.kvm.nested[].x", {"parameters.kvm.nested"}),
        ("anything.goes[].here", {"anything.goes"}),
        ("`1`", set()),
    ],
)
def test_follows_an_expression_to_the_facts(expression: str, paths: set[str], sections: dict[str, Shape]) -> None:
    found = reads(compile_query(expression).node, sections)
    deeper = {path for path in found.paths if not path.startswith(("anything.goes[]", "parameters.kvm.nested[]"))}
    assert deeper | {path.split("[]")[0] for path in found.paths - deeper} == paths
    assert found.roots == {path.split(".")[0].split("[")[0] for path in paths}


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("hosts.name", "the document has no hosts; near: host"),
        ("host.nam", "host has no nam; near: name"),
        ("host.os.ID", "host.os has no ID"),
        ("host.name == null", "the document has no null .the value null is written `null`"),
        ("guests.name", r"guests is a list, which has no key name: write guests\[\].name"),
        ("guests[].seccomp", r"guests\[\] has no seccomp; near: no_seccomp"),
        ("guests[?name == host.name]", r"guests\[\] has no host"),
        ("guests[?name == root().hots.name]", "has no hots; near: host"),
        ("guests[].disks[?path == 'x'].target", r"guests\[\].disks\[\] has no target"),
        ("guests[].{n: name} | [?name == 'x']", "what is before it has no name"),
        ("sort_by(guests, &nam)", r"guests\[\] has no nam"),
        ("!host.name", r"no key name; !a.b is \(!a\).b, write !\(a.b\)"),
        ("host.name.first", "host.name is a single value"),
        ("host[]", "host is no list"),
        ("host.name[0]", "host.name is no list"),
        ("host[?name]", "host is no list"),
        ("guests.*", "guests is no dictionary"),
        ("host.os.id_like[].x", r"host.os.id_like\[\] is a single value"),
    ],
)
def test_refuses_what_is_documented_nowhere(expression: str, message: str, sections: dict[str, Shape]) -> None:
    with pytest.raises(UnknownPath, match=message):
        reads(compile_query(expression).node, sections)


def test_a_file_without_return_values_is_refused(tmp_path: Path) -> None:
    (tmp_path / "info.py").write_text("x = 1", encoding="utf-8")
    with pytest.raises(UnknownPath, match=r"info\.py documents no return values"):
        documented(tmp_path / "info.py")


def test_the_documentation_of_the_module_can_be_followed() -> None:
    module = Path(__file__).resolve().parents[4] / "plugins/modules/hypervisor_info.py"
    found: t.Any = reads(compile_query("host.os.id").node, documented(module))
    assert found.paths == {"host.os.id"}
