# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waivers: who accepts which finding, why, and until when."""

from __future__ import annotations

import datetime
import fnmatch
import re
import typing as t
from collections.abc import Collection, Iterable
from dataclasses import dataclass

WAIVABLE = frozenset({"fail", "pending", "unknown", "manual"})
SOON = datetime.timedelta(days=30)
KEYS = ("rule", "hosts", "guests", "objects", "reason", "owner", "expires", "ticket")


class WaiverError(ValueError):
    """Waivers that cannot be used. ``errors`` has a line for each reason; all of them are told at once."""

    def __init__(self, errors: Iterable[str]) -> None:
        self.errors = list(errors)
        super().__init__("\n".join(self.errors))


@dataclass(frozen=True, slots=True)
class Waiver:
    """``hosts``, ``guests`` and ``objects`` are patterns as of a shell; none of a kind stands for all.

    :ivar expires: the last day on which it holds, in UTC.
    """

    rule: str
    reason: str
    owner: str
    expires: datetime.date
    ticket: str = ""
    hosts: tuple[str, ...] = ()
    guests: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()

    def expired(self, today: datetime.date) -> bool:
        return self.expires < today

    def expires_soon(self, today: datetime.date) -> bool:
        return today <= self.expires <= today + SOON

    def covers_host(self, name: str) -> bool:
        return _any_matches(self.hosts, name)

    def covers(self, about: dict[str, str]) -> bool:
        """Whether an object of a finding is meant: ``guests`` means a guest, and what belongs to one."""
        guest = about["name"] if about["type"] == "guest" else about.get("guest")
        if self.guests and (guest is None or not _any_matches(self.guests, guest)):
            return False
        return _any_matches(self.objects, about["name"])

    def plain(self) -> dict[str, t.Any]:
        """As the master lists it."""
        return {
            "rule": self.rule,
            "hosts": list(self.hosts),
            "guests": list(self.guests),
            "objects": list(self.objects),
            "reason": self.reason,
            "owner": self.owner,
            "expires": self.expires.isoformat(),
            "ticket": self.ticket,
        }


def _any_matches(patterns: tuple[str, ...], name: str) -> bool:
    return not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def read(entries: t.Any, rule_ids: Collection[str]) -> list[Waiver]:
    """Read a list of waivers.

    :param rule_ids: those of all rules, selected or not.
    :raises WaiverError: each malformed entry and each unknown rule.
    """
    if not isinstance(entries, list):
        raise WaiverError(["waivers: is no list"])
    errors: list[str] = []
    waivers = []
    for number, entry in enumerate(entries, 1):
        found: list[str] = []
        waiver = _read(entry, rule_ids, found)
        name = entry.get("rule") if isinstance(entry, dict) else None
        where = f"waiver {number} ({name})" if isinstance(name, str) else f"waiver {number}"
        errors += [f"{where}: {error}" for error in found]
        if waiver is not None:
            waivers.append(waiver)
    if errors:
        raise WaiverError(errors)
    return waivers


def _read(entry: t.Any, rule_ids: Collection[str], errors: list[str]) -> Waiver | None:
    if not isinstance(entry, dict):
        errors.append("is no dictionary")
        return None
    errors += [f"{key}: is unknown; there are {', '.join(KEYS)}" for key in entry if key not in KEYS]
    text = {key: _text(entry, key, errors) for key in ("rule", "reason", "owner")}
    if text["rule"] and text["rule"] not in rule_ids:
        errors.append(f"rule: there is no rule {text['rule']}")
    ticket = entry.get("ticket")
    if ticket is not None and not isinstance(ticket, (str, int)):
        errors.append("ticket: is no text")
    patterns = {key: _patterns(entry, key, errors) for key in ("hosts", "guests", "objects")}
    expires = _date(entry.get("expires"), errors)
    if errors or expires is None:
        return None
    return Waiver(
        rule=text["rule"],
        reason=text["reason"],
        owner=text["owner"],
        expires=expires,
        ticket="" if ticket is None else str(ticket),
        hosts=patterns["hosts"],
        guests=patterns["guests"],
        objects=patterns["objects"],
    )


def _text(entry: dict[str, t.Any], key: str, errors: list[str]) -> str:
    value = entry.get(key)
    if isinstance(value, str) and value.strip():
        return value.strip()
    errors.append(f"{key}: is no text" if value is not None else f"{key}: is missing")
    return ""


def _patterns(entry: dict[str, t.Any], key: str, errors: list[str]) -> tuple[str, ...]:
    """A list, or a single pattern. One that is empty would cover all, which nobody has written."""
    if entry.get(key) is None and key not in entry:
        return ()
    value = [entry[key]] if isinstance(entry[key], str) else entry[key]
    if isinstance(value, list) and value and all(isinstance(one, str) and one for one in value):
        return tuple(value)
    errors.append(f"{key}: is no list of patterns; leave it out to cover all")
    return ()


def _date(value: t.Any, errors: list[str]) -> datetime.date | None:
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return datetime.date(value.year, value.month, value.day)
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value):
        try:
            return datetime.date.fromisoformat(value)
        except ValueError:
            pass
    errors.append("expires: is missing" if value is None else f"expires: {value!r} is no date like 2026-11-21")
    return None


class Book:
    """Applies waivers to findings, and remembers what each was good for."""

    def __init__(self, waivers: Iterable[Waiver], today: datetime.date) -> None:
        self.today = today
        self.waivers = list(waivers)
        self.used = [0] * len(self.waivers)
        self.seen_host = [False] * len(self.waivers)
        self.by_rule: dict[str, list[int]] = {}
        for number, waiver in enumerate(self.waivers):
            self.by_rule.setdefault(waiver.rule, []).append(number)

    def apply(self, host: str, findings: list[dict[str, t.Any]]) -> list[dict[str, t.Any]]:
        """Waive findings in place; those whose waiver has expired come first."""
        numbers = {
            rule: covering
            for rule, all_of_rule in self.by_rule.items()
            if (covering := [number for number in all_of_rule if self.waivers[number].covers_host(host)])
        }
        for covering in numbers.values():
            for number in covering:
                self.seen_host[number] = True
        if not numbers:
            return findings
        expired = [finding for finding in findings if self._waive(finding, numbers.get(finding["rule"], []))]
        if not expired:
            return findings
        again = {id(finding) for finding in expired}
        return [*expired, *(finding for finding in findings if id(finding) not in again)]

    def _waive(self, finding: dict[str, t.Any], numbers: list[int]) -> bool:
        """Whether the finding would be waived, had not the waiver expired."""
        if not numbers or finding["state"] not in WAIVABLE:
            return False
        covering = [number for number in numbers if self.waivers[number].covers(finding["object"])]
        for number in covering:
            self.used[number] += 1
        held = next((self.waivers[one] for one in covering if not self.waivers[one].expired(self.today)), None)
        if held:
            plain = held.plain()
            finding["waiver"] = {key: plain[key] for key in ("reason", "owner", "expires", "ticket")}
            finding["waiver"]["state"] = finding["state"]
            finding["state"] = "waived"
            return False
        if covering:
            last = max((self.waivers[one] for one in covering), key=lambda waiver: waiver.expires)
            again = f"the waiver of {last.owner} has expired on {last.expires.isoformat()}"
            finding["reason"] = f"{again}; {finding['reason']}" if finding["reason"] else again
        return bool(covering)

    def report(self, evaluated: Collection[str]) -> dict[str, list[dict[str, t.Any]]]:
        """``expired``, ``expiring`` within 30 days, and ``unused``, each with ``findings``, how many it is about.

        :param evaluated: the ids of the rules of this run; whether the others' waivers are of use, nobody can say.
        """
        told = [{**waiver.plain(), "findings": used} for waiver, used in zip(self.waivers, self.used, strict=True)]
        unused = [
            {**one, "why": "nothing that it covers falls short" if seen else "no host of this run is covered"}
            for waiver, one, seen in zip(self.waivers, told, self.seen_host, strict=True)
            if not one["findings"] and one["rule"] in evaluated and not waiver.expired(self.today)
        ]
        pairs = list(zip(self.waivers, told, strict=True))
        return {
            "expired": sorted((one for w, one in pairs if w.expired(self.today)), key=_by_date),
            "unused": sorted(unused, key=_by_date),
            "expiring": sorted((one for w, one in pairs if w.expires_soon(self.today)), key=_by_date),
        }


def _by_date(one: dict[str, t.Any]) -> tuple[t.Any, ...]:
    return one["expires"], one["rule"], one["hosts"], one["guests"], one["objects"]
