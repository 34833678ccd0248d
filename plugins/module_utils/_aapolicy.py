# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Additions to AppArmor's policy: which files they change, whether the compiler takes them, and how they get loaded.

What ``plan``, ``check`` and ``apply`` of a room are, for rooms that add to the policy.
"""

from __future__ import annotations

import os
import posixpath
import typing as t
from dataclasses import dataclass, field

from . import _aagrants, _aatext
from ._aagrants import GrantError
from ._aaobserved import ABSTRACTION, DIRECTORY, GUESTS, OURS, TEMPLATE, State
from ._aaprofiles import ETC
from ._host import HardeningError, Host

if t.TYPE_CHECKING:
    from ._journal import Journal

# Judge what comes on standard input, and leave no trace in the kernel or the cache (apparmor_parser(8)).
_JUDGE = ("apparmor_parser", "--skip-kernel-load", "--skip-cache", _aatext.STDIN)
_LOAD = ("apparmor_parser", "--replace", "--skip-read-cache", "--write-cache")
_SECONDS = 120.0


class PolicyError(HardeningError):
    """The policy with these additions is refused by AppArmor's own compiler."""


@dataclass(frozen=True)
class Edit:
    """A file as it is to be; ``after`` None: it goes."""

    path: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Plan:
    """``judged``: the profiles with the additions in them, by the name for messages; ``load``: the file of the profile
    to load afterwards, "" for none; ``rules``: the wanted ones by file; ``touched``: guests whose profile changes."""

    edits: tuple[Edit, ...] = ()
    judged: t.Mapping[str, str] = field(default_factory=dict)
    load: str = ""
    rules: t.Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    touched: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()

    @property
    def changes(self) -> tuple[str, ...]:
        loading = (f"the profile of {self.load} is not loaded as it stands there",) if self.load else ()
        return (*(f"{edit.path} is not as wanted" for edit in self.edits), *loading)

    @property
    def diff(self) -> list[dict[str, str]]:
        return [
            {
                "before_header": edit.path,
                "after_header": edit.path,
                "before": edit.before or "",
                "after": edit.after or "",
            }
            for edit in self.edits
        ]


def plan(
    state: State,
    owner: str,
    *,
    everyone: t.Sequence[str] = (),
    own: t.Mapping[str, t.Sequence[str]] | None = None,
    helper: t.Sequence[str] = (),
    warnings: t.Sequence[str] = (),
) -> Plan:
    """What is to be written, judged and loaded, so that these are all rules of a module.

    :param owner: the module.
    :param everyone: the rules for all guests.
    :param own: those of single guests, by UUID.
    :param helper: those for virt-aa-helper.
    :raises GrantError: the installed release reads such rules from nowhere.
    """
    own = own or {}
    if state.deletes:
        helper = [*helper, *(_aagrants.kept(profile(uuid)) for uuid in sorted(own))]
    _refuse_no_place(state, everyone, own, helper)
    edits = [
        *_edit(state, owner, state.helper_local, helper),
        *(
            edit
            for uuid in sorted({*own, *_with_block(state, owner)})
            for edit in _guest_edit(state, owner, uuid, own.get(uuid, []))
        ),
        *_edit(state, owner, state.place, everyone),
    ]
    changed = {edit.path for edit in edits}
    stale = bool(state.helper_stale) and bool(helper)
    rules = {state.helper_local: helper, state.place: everyone, **{profile(uuid): found for uuid, found in own.items()}}
    return Plan(
        edits=tuple(edits),
        judged=_judged(state, edits),
        load=state.helper if (state.helper_local in changed or stale) and not is_off(state) else "",
        rules={path: tuple(found) for path, found in rules.items() if found},
        touched=frozenset(uuid for uuid in state.running if state.place in changed or profile(uuid) in changed),
        warnings=tuple(warnings),
    )


def check(host: Host, plan: Plan) -> None:
    """Have AppArmor's compiler judge the profiles with the additions in them, without loading them.

    :raises PolicyError: it refuses one; nothing was done.
    :raises HostError: a file could not be written, or there is no compiler.
    """
    for edit in plan.edits:
        if host.exists(os.path.dirname(edit.path)):
            host.check_writable(edit.path)
        else:
            host.check_makeable(edit.path)
    for name, text in plan.judged.items():
        answer = host.run(_JUDGE, stdin=text.encode("utf-8", "surrogateescape"), timeout=_SECONDS)
        if answer.rc != 0:
            raise PolicyError(
                f"AppArmor's compiler refuses {name}: {_aatext.refusal(answer.err, text)}. Nothing was done, and "
                "what is loaded is as it was. Mend that rule."
            )


def apply(host: Host, plan: Plan, journal: Journal) -> None:
    """Write the files, virt-aa-helper's first; load its profile, and have the others judged once more where they are.

    :raises PolicyError: that failed. The files are then the former ones, and so is what is loaded.
    """
    done = []
    try:
        for edit in plan.edits:
            directory = posixpath.dirname(edit.path)
            if not host.exists(directory):
                journal.record_value(f"directory:{directory}", None, "made")
                host.make_directory(directory, 0o755)
            data = None if edit.after is None else edit.after.encode("utf-8", "surrogateescape")
            done.append(journal.record_file(edit.path, data))
            if data is None:
                host.remove(edit.path)
            else:
                former = (edit.before or "").encode("utf-8", "surrogateescape")
                host.write(edit.path, data, expected=former, mode=0o644)
        if plan.edits:
            _must(host, (*_JUDGE, TEMPLATE))
        if plan.load:
            host.changed = True
            _must(host, (*_LOAD, plan.load))
    except (HardeningError, OSError) as error:
        for entry in reversed(done):
            journal.restore(entry)
        if plan.load:
            host.run((*_LOAD, plan.load), timeout=_SECONDS)
        raise PolicyError(f"{error} The {len(done)} files that were written are the former ones again.") from None


def profile(uuid: str) -> str:
    return f"{GUESTS}/libvirt-{uuid}"


def _with_block(state: State, owner: str) -> list[str]:
    """The guests whose profile on disk has a block of ours."""
    return [
        posixpath.basename(path)[len("libvirt-") :]
        for path, text in state.texts.items()
        if path.startswith(f"{GUESTS}/libvirt-") and _aatext.block(text, owner)
    ]


def is_off(state: State) -> bool:
    return f"{ETC}/disable/{posixpath.basename(state.helper)}" in state.disabled


def _refuse_no_place(
    state: State, everyone: t.Sequence[str], own: t.Mapping[str, t.Sequence[str]], helper: t.Sequence[str]
) -> None:
    if everyone and not state.place:
        raise GrantError(
            f"The installed release reads no additions for all guests: {ETC}/{ABSTRACTION} includes neither "
            f"{DIRECTORY} nor local/{ABSTRACTION}. Nothing was done. Give each grant its guest, or install "
            "libvirt's profiles."
        )
    if helper and not state.helper_local:
        raise GrantError(
            "The installed release reads no additions to virt-aa-helper's profile, which it takes to keep what is for "
            "one guest, and to read pools. Nothing was done. Install libvirt's profiles."
        )
    if own and TEMPLATE not in state.texts:
        raise GrantError(f"{TEMPLATE} is missing, of which a guest's profile is made. Nothing was done.")


def _edit(state: State, owner: str, path: str, rules: t.Sequence[str]) -> t.Iterator[Edit]:
    """A file of additions, unless it is right. One that is ours alone goes when it is empty."""
    if not path:
        return
    before = state.texts.get(path)
    after = _aatext.with_block(before or "", owner, _aagrants.lines(rules))
    if not after and posixpath.basename(path) == OURS:
        if before is not None:
            yield Edit(path, before, None)
    elif after != (before or ""):
        yield Edit(path, before, after)


def _guest_edit(state: State, owner: str, uuid: str, rules: t.Sequence[str]) -> t.Iterator[Edit]:
    """A guest's own profile. One that is as libvirt would make it goes, unless the guest runs under it."""
    path = profile(uuid)
    before = state.texts.get(path)
    made = _made(state, uuid)
    after = _aatext.with_block(made if before is None else before, owner, _aagrants.lines(rules), inside=True)
    if after == before:
        return
    yield Edit(path, before, None if after == made and uuid not in state.running else after)


def _made(state: State, uuid: str) -> str:
    try:
        return _aatext.guest_profile(state.texts.get(TEMPLATE, ""), uuid)
    except ValueError as error:
        raise GrantError(f"{TEMPLATE} is no template of libvirt's: {error}. Nothing was done.") from None


def _judged(state: State, edits: t.Sequence[Edit]) -> dict[str, str]:
    """The profiles that the edited files end up in, whole, by a name for messages."""
    after = {edit.path: edit.after for edit in edits}

    def text(path: str) -> str:
        return after.get(path, state.texts.get(path)) or ""

    common = text(state.place)
    if state.read_by == DIRECTORY:
        common += "".join(f"  include <{DIRECTORY}/{name}>\n" for name in state.beside)
    contents = {ABSTRACTION: text(f"{ETC}/{ABSTRACTION}"), **({state.read_by: common} if state.read_by else {})}
    found = {}
    for path, new in after.items():
        if path == state.helper_local:
            include = posixpath.relpath(path, ETC)
            found[f"virt-aa-helper's profile with {path}"] = _aatext.inlined(text(state.helper), {include: text(path)})
        elif path == state.place:
            found[f"the profile of a guest with {path}"] = _aatext.inlined(text(TEMPLATE), contents)
        elif new is not None:
            # libvirt writes it when the guest starts.
            files = {f"libvirt/{posixpath.basename(path)}.files": ""}
            found[path] = _aatext.inlined(new, {**contents, **files})
    return found


def _must(host: Host, command: t.Sequence[str]) -> None:
    answer = host.run(command, timeout=_SECONDS)
    if answer.rc != 0:
        raise PolicyError(f"{' '.join(command)} failed: {answer.err.strip()}.")
