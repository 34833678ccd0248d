# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The walk through a room's doors, and the only place that knows AnsibleModule."""

from __future__ import annotations

import importlib
import typing as t

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ._host import HardeningError, Host, MissingLibrary
from ._journal import Journal

SYSTEM_INTERPRETERS = ("/usr/bin/python3", "/usr/libexec/platform-python")


class Plan(t.Protocol):
    """What a room means to do."""

    @property
    def changes(self) -> t.Sequence[object]:
        """The differences between what is and what is wanted; each one's ``str`` names it. Empty: nothing to do."""

    @property
    def diff(self) -> t.Any:
        """The same for ``--diff``, in a shape that ansible-core renders."""

    @property
    def warnings(self) -> t.Sequence[str]:
        """What the operator should know although nothing hinders the plan."""


class Room(t.Protocol):
    """A domain of the host: a module of module_utils with these functions.

    ``plan`` is pure. ``check`` asks the host's own judge without a trace, in check mode too. ``apply`` does exactly
    what the plan says, journal first. ``result`` makes the module's return values: in check mode from the state
    before, otherwise from what was observed after the change.
    """

    def observe(self, host: Host, wanted: t.Any, /) -> t.Any: ...

    def plan(self, state: t.Any, wanted: t.Any, /) -> t.Any: ...

    def check(self, host: Host, plan: t.Any, /) -> None: ...

    def apply(self, host: Host, plan: t.Any, journal: Journal, /) -> None: ...

    def result(self, state: t.Any, plan: t.Any, /) -> dict[str, t.Any]: ...


class NotHeld(HardeningError):
    """After a change was applied, the host does not show it."""


def run(module: AnsibleModule, room: Room, wanted: t.Any) -> t.NoReturn:
    """Walk a changing module through its room and leave through exit_json or fail_json.

    After applying, the host is observed and planned for again; a plan that is not empty is an error.
    """
    host = Host()
    try:
        host.require_root()
        state = room.observe(host, wanted)
        plan: Plan = room.plan(state, wanted)
        room.check(host, plan)
        if plan.changes and not module.check_mode:
            room.apply(host, plan, Journal(host, by=module._name))
            state = room.observe(host, wanted)
            left: Plan = room.plan(state, wanted)
            if left.changes:
                raise NotHeld("Applied, but the host does not show it: " + "; ".join(map(str, left.changes)))
        for warning in plan.warnings:
            module.warn(clean(warning))
        shown = {"diff": plan.diff} if module._diff else {}  # it can be as long as the files
        module.exit_json(changed=bool(plan.changes), **clean({**shown, **room.result(state, plan)}))
    except (HardeningError, OSError) as error:
        fail(module, error, changed=host.changed)


def show(module: AnsibleModule, gather: t.Callable[[Host], dict[str, t.Any]]) -> t.NoReturn:
    """Leave a module that only reads with what ``gather`` returns."""
    try:
        host = Host()
        host.require_root()
        result = gather(host)
    except (HardeningError, OSError) as error:
        fail(module, error)
    module.exit_json(changed=False, **clean(result))


def fail(module: AnsibleModule, error: Exception, *, changed: bool = False) -> t.NoReturn:
    """Leave through fail_json, with the facts that a HardeningError carries; start over for a MissingLibrary."""
    if isinstance(error, MissingLibrary):
        require(module, error.library, package=error.package)
    if isinstance(error, HardeningError):
        module.fail_json(msg=clean(str(error)), changed=changed, **clean(error.facts))
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        module.fail_json(msg=clean(f"{where}{error.strerror or error}"), changed=changed)
    raise error


def clean(value: t.Any) -> t.Any:
    """Replace what is not UTF-8: such bytes came in as surrogates, and a result with them fails the whole task."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if isinstance(value, dict):
        return {clean(key): clean(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(entry) for entry in value]
    return value


def require(module: AnsibleModule, library: str, *, package: str) -> None:
    """Make sure that a library can be imported, if need be under the distribution's own interpreter.

    python3-libvirt and python3-lxml belong to the distribution's Python; where Ansible runs the module under another
    one (a virtual environment), the module starts over under the first system interpreter that has the library.

    :param package: what to install otherwise, named in the failure.
    """
    try:
        importlib.import_module(library)
        return
    except ImportError as error:
        import_error = error
    from ansible.module_utils.common.respawn import has_respawned, probe_interpreters_for_module, respawn_module

    if not has_respawned():
        interpreter = probe_interpreters_for_module(SYSTEM_INTERPRETERS, library)
        if interpreter:
            respawn_module(interpreter)
    module.fail_json(msg=f"{missing_required_lib(library)} Install the package {package}.", exception=str(import_error))


def prefer(module: AnsibleModule, *libraries: str) -> None:
    """As ``require``, but without a failure: where no interpreter of the system has a library, go on without it."""
    from importlib.util import find_spec

    missing = [library for library in libraries if find_spec(library) is None]
    if not missing:
        return
    from ansible.module_utils.common.respawn import has_respawned, probe_interpreters_for_module, respawn_module

    if not has_respawned():
        for library in missing:
            interpreter = probe_interpreters_for_module(SYSTEM_INTERPRETERS, library)
            if interpreter:
                respawn_module(interpreter)
