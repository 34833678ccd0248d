# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import typing as t

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.hypervisor.hardening.plugins.filter.audit_failures import FilterModule
from ansible_collections.hypervisor.hardening.tests.unit.plugins.plugin_utils import masters

audit_failures = FilterModule().filters()["audit_failures"]


def test_tells_what_falls_short() -> None:
    master = masters.small()
    every = audit_failures(master, ["fail"])
    assert every
    assert audit_failures(master, "fail") == every
    assert audit_failures(master) == audit_failures(master, "") == []
    assert audit_failures(master, '["fail"]', host=master["hosts"][0]["name"]) == [
        line for line in every if line.startswith(f"{master['hosts'][0]['name']}:")
    ]


@pytest.mark.parametrize(
    ("master", "fail_on", "message"),
    [({}, ["fail"], "no result of an audit"), (masters.small(), ["passed"], "fail_on: passed is none of critical")],
)
def test_refuses_in_words(master: t.Any, fail_on: t.Any, message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=f"audit_failures: .*{message}"):
        audit_failures(master, fail_on)
