# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The room of local changes to SELinux's policy: booleans by need, types that are enforced, labels of storage pools."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, field

from . import _pools, _selinux
from ._host import HardeningError, Host
from ._kernelmac import kernel_mac
from ._reader import Reader

if t.TYPE_CHECKING:
    from ._journal import Journal

# What gives svirt_t files of a network file system that has no labels (refpolicy's virt.te).
_OF_POOLS = {"netfs": "virt_use_nfs", "gluster": "virt_use_fusefs"}
_LABEL = "virt_image_t"
# semanage takes no pattern with one.
_BLANK_RE = re.compile(r"\s")
_SECONDS = 300.0  # each command compiles the policy anew


class SelinuxError(HardeningError):
    """The policy cannot be changed as wanted."""


@dataclass(frozen=True)
class Wanted:
    """The options of the module, as its documentation describes them."""

    booleans: t.Mapping[str, bool] = field(default_factory=dict)
    minimal: bool = False
    enforce_types: bool = False
    pools: bool = False


@dataclass(frozen=True)
class Pool:
    """A storage pool that is a directory: the type of its label now, and whether the policy's files give it that."""

    name: str
    path: str
    label: str
    persistent: bool


@dataclass(frozen=True)
class State:
    """``booleans`` and ``types`` as ``_selinux`` has them; ``needed``: the booleans that pools need, with the pool."""

    model: str
    mode: str
    booleans: tuple[dict[str, t.Any], ...] = ()
    types: tuple[dict[str, t.Any], ...] = ()
    pools: tuple[Pool, ...] = ()
    needed: t.Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """One change: the command that makes it, and the value before and after for the journal."""

    what: str
    target: str
    before: t.Any
    after: t.Any
    command: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """The changes in their order."""

    steps: tuple[Step, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def changes(self) -> tuple[str, ...]:
        return tuple(step.what for step in self.steps)

    @property
    def diff(self) -> list[dict[str, str]]:
        return [
            {
                "before_header": step.target,
                "after_header": step.target,
                "before": f"{step.before}\n",
                "after": f"{step.after}\n",
            }
            for step in self.steps
        ]


def observe(host: Host, wanted: Wanted) -> State:
    """Read booleans, types and pools; nothing of that where SELinux does not run."""
    model, mode = kernel_mac(host)
    if model != "selinux":
        return State(model, mode)
    policy = _selinux.configured(host).get("SELINUXTYPE", "")
    found = _pools.read(Reader(host))
    directories = [pool for pool in found if pool.is_directory and pool.path != "/" and host.exists(pool.path)]
    return State(
        model=model,
        mode=mode,
        booleans=tuple(_selinux.booleans(host, policy)),
        types=tuple(_selinux.types(host)) if wanted.enforce_types else (),
        pools=tuple(_pool(host, pool) for pool in directories if pool.type not in _OF_POOLS) if wanted.pools else (),
        needed={_OF_POOLS[pool.type]: pool.name for pool in found if pool.type in _OF_POOLS},
    )


def plan(state: State, wanted: Wanted) -> Plan:
    """What is to be switched, enforced and labelled.

    :raises SelinuxError: a boolean is wanted that the loaded policy does not have.
    """
    if state.model != "selinux":
        asked = wanted.booleans or wanted.minimal or wanted.enforce_types or wanted.pools
        runs = f"it runs {state.model}" if state.model else "it runs no mandatory access control at all"
        return Plan(warnings=(f"This kernel does not run SELinux ({runs}), so nothing was set.",) if asked else ())
    known = {entry["name"] for entry in state.booleans}
    unknown = sorted(set(wanted.booleans) - known)
    if unknown:
        raise SelinuxError(
            f"booleans: the loaded policy has no {', '.join(unknown)}. It has: {', '.join(sorted(known))}. Nothing was "
            "done."
        )
    steps = (*_switched(state, wanted), *_enforced(state), *_labelled(state))
    return Plan(steps, tuple(_warnings(state, wanted)))


def check(host: Host, plan: Plan) -> None:
    """See whether the commands are there.

    :raises SelinuxError: one is not.
    """
    for command in sorted({step.command[0] for step in plan.steps}):
        if not host.has_command(command):
            raise SelinuxError(
                f"{command} is not installed, and nothing else changes the policy. Nothing was done. Install "
                "policycoreutils (setsebool, restorecon) and policycoreutils-python-utils (semanage)."
            )


def apply(host: Host, plan: Plan, journal: Journal) -> None:
    """Run the commands.

    :raises SelinuxError: one fails. Those before it stay.
    """
    for step in plan.steps:
        journal.record_value(step.target, step.before, step.after)
        host.changed = True
        answer = host.run(step.command, timeout=_SECONDS)
        if answer.rc != 0:
            raise SelinuxError(f"{' '.join(step.command)} failed: {answer.err.strip()}. What came before it stays.")


def result(state: State, plan: Plan) -> dict[str, t.Any]:
    """The module's return values."""
    return {
        "model": state.model,
        "mode": state.mode,
        "booleans": [entry["name"] for entry in state.booleans if entry["running"]],
        "needed": dict(state.needed),
        "permissive": [entry["name"] for entry in state.types if entry["permissive"]],
        "pools": [{"name": pool.name, "path": pool.path, "label": pool.label} for pool in state.pools],
    }


def _pool(host: Host, pool: _pools.Pool) -> Pool:
    return Pool(
        pool.name, pool.path, _selinux.file_type(host, pool.path), _selinux.is_persistent(host, pool.path, _LABEL)
    )


def _warnings(state: State, wanted: Wanted) -> t.Iterator[str]:
    for name, user in state.needed.items():
        if wanted.booleans.get(name) is False:
            yield f"{name} is to be off, and the pool {user} needs it."
    for pool in state.pools:
        if _BLANK_RE.search(pool.path):
            yield f"The pool {pool.name} was not labelled: semanage takes no path with a blank, as in {pool.path!r}."


def _switched(state: State, wanted: Wanted) -> t.Iterator[Step]:
    """Booleans: what is asked for; with ``minimal`` all others off, but for those that pools need."""
    for entry in state.booleans:
        name = entry["name"]
        to = wanted.booleans.get(name)
        if to is None and wanted.minimal:
            to = name in state.needed
        # A value that was never made persistent is that of the policy, and may differ from the running one.
        if to is None or (entry["running"] == to and entry["configured"] in ("", _selinux.word(to))):
            continue
        before = [entry["running"], entry["configured"]]
        what = f"{name} is not {_selinux.word(to)}"
        yield Step(what, f"selinux:boolean:{name}", before, to, ("setsebool", "-P", f"{name}={_selinux.word(to)}"))


def _enforced(state: State) -> t.Iterator[Step]:
    """Types that somebody made permissive (semanage-permissive(8)). A policy that brings one so cannot be talked out of
    it: the command fails then, and says so."""
    for entry in state.types:
        if entry["permissive"]:
            name = entry["name"]
            command = ("semanage", "permissive", "--delete", name)
            yield Step(f"{name} is permissive", f"selinux:permissive:{name}", True, False, command)


def _labelled(state: State) -> t.Iterator[Step]:
    """Pools: the label for what is in them, kept over a relabelling, and set on the directory alone. New images get it
    from there; those that exist may be in use, under labels of their guests."""
    for pool in state.pools:
        if _BLANK_RE.search(pool.path):
            continue
        if not pool.persistent:
            pattern = f"{re.escape(pool.path)}(/.*)?"
            command = ("semanage", "fcontext", "--add", "--type", _LABEL, pattern)
            yield Step(f"{pool.path} has no lasting label", f"selinux:fcontext:{pattern}", None, _LABEL, command)
        if pool.label != _LABEL:
            target = f"selinux:label:{pool.path}"
            yield Step(f"{pool.path} is not {_LABEL}", target, pool.label, _LABEL, ("chcon", "-t", _LABEL, pool.path))
