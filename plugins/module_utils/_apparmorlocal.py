# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The room of local additions to AppArmor's policy: rules for guests, kept where the installed release reads them."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from . import _aagrants, _aaobserved, _aapolicy, _aaprofiles
from ._aagrants import Grant, GrantError
from ._aaobserved import State
from ._aapolicy import Plan
from ._aaprofiles import ETC
from ._host import Host

if t.TYPE_CHECKING:
    from ._journal import Journal

OWNER = "apparmor_local"


@dataclass(frozen=True)
class Wanted:
    """The options of the module, as its documentation describes them."""

    grants: tuple[Grant, ...] = ()
    rules: tuple[str, ...] = ()
    pools: bool = False
    memfd_fallback: tuple[str, ...] = ()


def observe(host: Host, wanted: Wanted) -> State:
    """Read the policy's files, what is loaded, and the guests."""
    paths = [grant.path for grant in wanted.grants]
    return _aaobserved.observe(host, OWNER, paths, memfd=bool(wanted.memfd_fallback))


def plan(state: State, wanted: Wanted) -> Plan:
    """What is to be written, judged and loaded.

    :raises GrantError: something is wanted that would give too much, of a guest that is not known, or that this release
        reads from nowhere.
    """
    if state.model != "apparmor":
        asked = wanted.grants or wanted.rules or wanted.memfd_fallback
        runs = f"it runs {state.model}" if state.model else "it runs no mandatory access control at all"
        return Plan(warnings=(f"This kernel does not run AppArmor ({runs}), so no rule was written.",) if asked else ())
    everyone = [_aagrants.verbatim(rule) for rule in wanted.rules]
    own: dict[str, list[str]] = {}
    for grant in wanted.grants:
        into = own.setdefault(uuid_of(state, grant.guest, "grants"), []) if grant.guest else everyone
        into += _aagrants.rules(grant, state.real.get(grant.path, grant.path))
    for guest in wanted.memfd_fallback:
        uuid = uuid_of(state, guest, "memfd_fallback")
        if state.memfd_works is False:
            own.setdefault(uuid, []).extend(_aagrants.memfd_fallback(state.memfd_directory, uuid))
    known = state.texts.get(state.helper, "")
    pools = [path for path in state.pools if f" {path}/** r," not in known] if wanted.pools else []
    helper = [rule for path in pools for rule in _aagrants.pool(path)]
    return _aapolicy.plan(
        state,
        OWNER,
        everyone=everyone,
        own=own,
        helper=helper,
        warnings=tuple(_warnings(state, wanted, own)),
    )


def check(host: Host, plan: Plan) -> None:
    """See ``_aapolicy.check``."""
    _aapolicy.check(host, plan)


def apply(host: Host, plan: Plan, journal: Journal) -> None:
    """See ``_aapolicy.apply``."""
    _aapolicy.apply(host, plan, journal)


def result(state: State, plan: Plan) -> dict[str, t.Any]:
    """The module's return values; in check mode ``loaded`` is as it is now."""
    names = {uuid: name for name, uuid in state.uuids.items()}
    pending = sorted(names[uuid] for uuid in state.older | plan.touched if uuid in state.running)
    others = [entry for entry in state.profiles if not _aaprofiles.GUEST_RE.match(entry["name"])]
    return {
        "model": state.model,
        "profiles": others,
        "not_enforced": [entry["name"] for entry in state.profiles if entry["mode"] not in _aaprofiles.ENFORCED],
        "disabled": list(state.disabled),
        "force_complain": list(state.force_complain),
        "files": [{"path": path, "rules": list(found)} for path, found in plan.rules.items()],
        "guests_pending": pending,
        "helper_loaded": None if state.helper_stale is None else not state.helper_stale,
        "memfd_create": state.memfd_works,
    }


def uuid_of(state: State, guest: str, option: str) -> str:
    """The UUID of a guest that is given by its name or UUID.

    :raises GrantError: there is no such guest.
    """
    if _aaprofiles.GUEST_RE.match(f"libvirt-{guest.lower()}"):
        return guest.lower()
    if guest not in state.uuids:
        raise GrantError(
            f"{option}: no guest {guest} is defined on this host or runs. See 'virsh list --all', or give its UUID. "
            "Nothing was done."
        )
    return state.uuids[guest]


def _warnings(state: State, wanted: Wanted, own: t.Mapping[str, t.Sequence[str]]) -> t.Iterator[str]:
    shared = [grant.path for grant in wanted.grants if grant.access == "write" and not grant.guest]
    if shared:
        yield (
            f"Every guest may write to {', '.join(shared)}: nothing keeps guests apart there. Name the one "
            "that needs it."
        )
    if own and state.deletes and _aapolicy.is_off(state):
        yield (
            f"virt-aa-helper's profile is switched off ({ETC}/disable), so nothing keeps it from deleting the profile "
            "of a guest that stops, and what is granted to one guest is lost then."
        )
    if wanted.memfd_fallback and state.memfd_works is None:
        yield f"No rule for memfd_fallback was written: {state.memfd_reason}."
