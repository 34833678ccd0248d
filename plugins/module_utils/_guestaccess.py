# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The room of access: one guest uses one file or device of the host, through every layer of its confinement."""

from __future__ import annotations

import posixpath
import stat
import typing as t
from dataclasses import dataclass, field

from . import (
    _aagrants,
    _aaobserved,
    _aapolicy,
    _aatext,
    _acl,
    _definition,
    _domainxml,
    _libvirtd,
    _mountinfo,
    _passthrough,
    _qemu,
)
from ._aagrants import ACCESS, Grant, GrantError
from ._host import HardeningError, Host
from ._passthrough import LayerVerdict

if t.TYPE_CHECKING:
    from ._definition import Definition
    from ._journal import Journal

OWNER = "guest_access"
_NEED = {"read": 4, "write": 6}
_ENTER = 1


@dataclass(frozen=True)
class Access:
    """One entry of the module's option, as its documentation describes it."""

    guest: str
    path: str
    access: str = "read"
    present: bool = True


@dataclass(frozen=True)
class Wanted:
    """The options of the module."""

    grants: tuple[Access, ...]


@dataclass(frozen=True)
class Lists:
    """A file or directory with its permission bits, owner and access control list, None where it has none."""

    mode: int
    uid: int
    gid: int
    acl: bytes | None


@dataclass(frozen=True)
class Target:
    """One entry as the host shows it. ``path`` is without symbolic links, ``kind`` as in ``_passthrough.Opened``;
    ``user``, ``uid`` and ``gids`` are those of the guest's QEMU, "" and None where nothing tells; ``layers`` is what
    each layer says now; ``running`` whether the guest runs, ``visible`` whether it sees the file's file system."""

    name: str
    uuid: str
    path: str
    kind: str
    user: str
    uid: int | None
    gids: frozenset[int]
    layers: tuple[LayerVerdict, ...]
    running: bool
    visible: bool


@dataclass(frozen=True)
class State:
    """``targets`` are in the order of the entries, ``lists`` by path."""

    policy: _aaobserved.State
    targets: tuple[Target, ...]
    lists: t.Mapping[str, Lists]


@dataclass(frozen=True)
class ListEdit:
    """An access control list as it is to be; the kernel drops one that says no more than the permission bits."""

    path: str
    before: _acl.Acl
    after: _acl.Acl


@dataclass(frozen=True)
class Plan:
    """``policy`` is AppArmor's part, ``lists`` that of permissions; ``layers`` what each layer says afterwards, entry
    by entry, ``restarts`` which of these then wait for the guest's next start."""

    policy: _aapolicy.Plan
    lists: tuple[ListEdit, ...] = ()
    layers: tuple[tuple[LayerVerdict, ...], ...] = ()
    restarts: tuple[frozenset[str], ...] = ()
    warnings: tuple[str, ...] = ()
    wanted: tuple[Access, ...] = field(default=(), repr=False)

    @property
    def changes(self) -> tuple[str, ...]:
        return (
            *self.policy.changes,
            *(f"the access control list of {edit.path} is not as wanted" for edit in self.lists),
        )

    @property
    def diff(self) -> list[dict[str, str]]:
        shown = [
            {
                "before_header": f"{edit.path} (access control list)",
                "after_header": f"{edit.path} (access control list)",
                "before": edit.before.text,
                "after": edit.after.text,
            }
            for edit in self.lists
        ]
        return [*self.policy.diff, *shown]


def observe(host: Host, wanted: Wanted) -> State:
    """Read the guests' definitions, the files, and AppArmor's policy.

    :raises GrantError: a guest or a file is not there.
    :raises MissingLibrary: there is no lxml.
    """
    around = _passthrough.surroundings(host)
    pids = {guest.name: guest.pid for guest in _libvirtd.guests(host)}
    found = _definitions(host, pids)
    host_mounts = _mountinfo.read(host, 1)
    targets = []
    for entry in wanted.grants:
        if entry.guest not in found:
            raise GrantError(
                f"grants: no guest {entry.guest} is defined on this host or runs. See 'virsh list --all'. Nothing "
                "was done."
            )
        guest, definition = found[entry.guest]
        path = _aaobserved.real_path(host, entry.path)
        opened = _passthrough.opened_path(host, definition, guest.domain, around, path)
        if entry.present and opened.kind in ("missing", "directory"):
            what = "not there" if opened.kind == "missing" else "a directory"
            raise GrantError(
                f"grants: {entry.path} is {what}. Name a file or a device that is there. Nothing was done."
            )
        user = _passthrough.user_of(host, definition, around)
        pid = pids.get(guest.name)
        targets.append(
            Target(
                name=guest.name,
                uuid=guest.uuid,
                path=path,
                kind=opened.kind,
                user=user.name if user else "",
                uid=user.uid if user else None,
                gids=_qemu.groups(host, user) if user else frozenset(),
                layers=tuple(layer for layer in opened.layers if layer.layer != "seccomp"),
                running=pid is not None,
                visible=pid is None or _is_visible(path, host_mounts, _mountinfo.read(host, pid)),
            )
        )
    return State(
        policy=_aaobserved.observe(host, OWNER),
        targets=tuple(targets),
        lists=dict(_lists(host, {target.path for target in targets})),
    )


def plan(state: State, wanted: Wanted) -> Plan:
    """What is to be changed in AppArmor's policy and in access control lists, and what that leaves to others.

    :raises GrantError: AppArmor's rule would give too much, or permissions cannot be given.
    """
    pairs = tuple(zip(wanted.grants, state.targets))
    rules = _rules(state, pairs)
    policy = _aapolicy.plan(state.policy, OWNER, own=rules) if state.policy.model == "apparmor" else _aapolicy.Plan()
    lists = dict(_list_edits(state, pairs, rules))
    layers, restarts = [], []
    for entry, target in pairs:
        after = tuple(_after(layer, entry, target, rules, lists) for layer in _with_mounts(target))
        layers.append(after)
        waiting = target.uuid in state.policy.older or target.uuid in policy.touched
        restarts.append(frozenset(_waits(target, waiting, lists)))
    return Plan(
        policy=policy,
        lists=tuple(lists.values()),
        layers=tuple(layers),
        restarts=tuple(restarts),
        warnings=tuple(_warnings(pairs, lists)),
        wanted=wanted.grants,
    )


def check(host: Host, plan: Plan) -> None:
    """Have AppArmor's compiler judge its part; see ``_aapolicy.check``."""
    _aapolicy.check(host, plan.policy)


def apply(host: Host, plan: Plan, journal: Journal) -> None:
    """Set the access control lists, then AppArmor's policy; if that fails, the former lists come back."""
    done: list[ListEdit] = []
    try:
        for edit in plan.lists:
            journal.record_value(f"acl:{edit.path}", edit.before.render().hex(), edit.after.render().hex())
            host.set_attribute(edit.path, _acl.ATTRIBUTE, edit.after.render())
            done.append(edit)
        if plan.policy.changes:
            _aapolicy.apply(host, plan.policy, journal)
    except (HardeningError, OSError) as error:
        for edit in reversed(done):
            host.set_attribute(edit.path, _acl.ATTRIBUTE, edit.before.render())
        raise GrantError(
            f"{error} The {len(done)} access control lists that were set are the former ones again."
        ) from None


def result(state: State, plan: Plan) -> dict[str, t.Any]:
    """The module's return values, which in check mode are those that the change would have."""
    grants = []
    for entry, target, layers, waiting in zip(plan.wanted, state.targets, plan.layers, plan.restarts):
        shown = [
            {
                "layer": layer.layer,
                "stops": layer.stops,
                "why": layer.why,
                "grant": layer.grant,
                "restart": layer.layer in waiting,
            }
            for layer in layers
        ]
        grants.append(
            {
                "guest": target.name,
                "path": target.path,
                "access": entry.access,
                "granted": entry.present and all(layer.stops is not True for layer in layers),
                "restart": bool(waiting),
                "layers": shown,
            }
        )
    return {"grants": grants, "guests_pending": sorted({one["guest"] for one in grants if one["restart"]})}


def _definitions(host: Host, running: t.Collection[str]) -> dict[str, tuple[_domainxml.Guest, Definition]]:
    """The guests by name and by UUID; a configured definition counts rather than the one that runs."""
    found: dict[str, tuple[_domainxml.Guest, Definition]] = {}
    for directory in (_domainxml.DEFINITIONS, _domainxml.STATUS):
        for guest in _domainxml.each(host, directory):
            if isinstance(guest, _domainxml.Unreadable) or guest.name in found:
                continue
            if directory == _domainxml.DEFINITIONS or guest.name in running:
                found[guest.name] = found[guest.uuid] = (guest, _definition.of(guest))
    return found


def _lists(host: Host, paths: t.Collection[str]) -> t.Iterator[tuple[str, Lists]]:
    """The lists of files and of the directories above them."""
    for path in sorted({each for one in paths for each in (one, *_mountinfo.ancestors(one))}):
        status = host.stat_optional(path)
        if status is not None:
            acl = host.attributes(path).get(_acl.ATTRIBUTE)
            yield path, Lists(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, acl)


def _is_visible(path: str, host: t.Sequence[_mountinfo.Mount], guest: t.Sequence[_mountinfo.Mount]) -> bool:
    """Whether a path leads to the same file system for the guest; /dev is its own and none of this."""
    if path.startswith("/dev/") or not guest:
        return True
    here, there = (_mount_of(path, mounts) for mounts in (host, guest))
    return here is None or there is None or (here.device, here.root) == (there.device, there.root)


def _mount_of(path: str, mounts: t.Sequence[_mountinfo.Mount]) -> _mountinfo.Mount | None:
    """The mount that has a path: the deepest, and of those on one directory the last."""
    above = [mount for mount in mounts if _mountinfo.is_below(path, mount.target)]
    return max(enumerate(above), key=lambda pair: (len(pair[1].target), pair[0]))[1] if above else None


def _rules(state: State, pairs: t.Sequence[tuple[Access, Target]]) -> dict[str, list[str]]:
    """AppArmor's rules by guest: those that earlier calls gave, and these."""
    found = {
        posixpath.basename(path)[len("libvirt-") :]: [line.strip().rstrip(",") for line in block]
        for path, text in state.policy.texts.items()
        if (block := _aatext.block(text, OWNER)) and path.startswith(f"{_aaobserved.GUESTS}/libvirt-")
    }
    for entry, target in pairs:
        mine = found.setdefault(target.uuid, [])
        for access in ACCESS:
            for rule in _rule(entry, target, access):
                mine[:] = [one for one in mine if one != rule]
        if entry.present and any(layer.layer == "apparmor" and layer.stops for layer in target.layers):
            mine += _rule(entry, target, entry.access)
    return {uuid: rules for uuid, rules in found.items() if rules}


def _rule(entry: Access, target: Target, access: str) -> tuple[str, ...]:
    return _aagrants.rules(Grant(entry.path, access), target.path)


def _list_edits(
    state: State, pairs: t.Sequence[tuple[Access, Target]], rules: t.Mapping[str, t.Sequence[str]]
) -> t.Iterator[tuple[str, ListEdit]]:
    """The access control lists that change, by path."""
    former = {path: _acl.Acl.of(one.mode, one.acl) for path, one in state.lists.items()}
    after = dict(former)
    for entry, target in sorted(pairs, key=lambda pair: pair[0].present):
        uid = target.uid
        if not uid:
            continue
        if not entry.present:
            kept = any(
                rule in found for found in rules.values() for way in ACCESS for rule in _rule(entry, target, way)
            )
            if target.path in after and not kept and after[target.path].names(uid):
                after[target.path] = after[target.path].without_user(uid)
            continue
        for path in (target.path, *_mountinfo.ancestors(target.path)):
            one = state.lists[path]
            need = _NEED[entry.access] if path == target.path else _ENTER
            if after[path].may(uid, target.gids, one.uid, one.gid) & need == need:
                continue
            if uid == one.uid:
                raise GrantError(
                    f"grants: {path} belongs to {target.user} itself, and mode {one.mode:04o} keeps it out, which no "
                    "access control list changes. Nothing was done. See chmod."
                )
            after[path] = after[path].with_user(uid, need)
    for path, acl in after.items():
        if acl != former[path]:
            yield path, ListEdit(path, former[path], acl)


def _with_mounts(target: Target) -> tuple[LayerVerdict, ...]:
    if target.visible:
        verdict = LayerVerdict("propagation", False, "its file system is mounted where the guest lives", "")
    else:
        verdict = LayerVerdict(
            "propagation",
            True,
            "its file system was mounted after the guest started, and did not reach it",
            "start the guest anew; mount_propagation has later mounts reach guests",
        )
    return (*target.layers, verdict)


def _after(
    layer: LayerVerdict,
    entry: Access,
    target: Target,
    rules: t.Mapping[str, t.Sequence[str]],
    lists: t.Mapping[str, ListEdit],
) -> LayerVerdict:
    """What a layer says once the plan is done."""
    if not entry.present:
        return layer
    if (
        layer.layer == "apparmor"
        and layer.stops
        and _rule(entry, target, entry.access)[0] in rules.get(target.uuid, ())
    ):
        return LayerVerdict("apparmor", False, "a rule in the profile of this guest alone", "")
    if layer.layer == "dac" and target.uid:
        what = "read and write" if entry.access == "write" else "read"
        return LayerVerdict("dac", False, f"{target.user} may {what} it, as which other guests run, too", "")
    return layer


def _waits(target: Target, is_older: bool, lists: t.Mapping[str, ListEdit]) -> t.Iterator[str]:
    """The layers whose change the guest has when it is started anew."""
    if not target.running:
        return
    if is_older:
        yield "apparmor"
    if target.path.startswith("/dev/") and target.path in lists:
        yield "dac"  # libvirt makes the guest's own node then, with its list (qemu_namespace.c)
    if not target.visible:
        yield "propagation"


def _warnings(pairs: t.Sequence[tuple[Access, Target]], lists: t.Mapping[str, ListEdit]) -> t.Iterator[str]:
    for entry, target in pairs:
        if entry.present and target.uid is None:
            yield f"Nobody knows as which user {target.name} runs, so permissions of {target.path} are as they were."
        if target.path.startswith("/dev/") and target.path in lists:
            yield f"The access control list of {target.path} goes with the node; a rule of udev keeps it."
