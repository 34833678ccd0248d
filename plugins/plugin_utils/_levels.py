# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which settings of qemu.conf a level asks for, and which are left alone."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

LEVELS = ("baseline", "hardened", "strict")
PASSWORD_KEYS = frozenset({"vnc_password", "spice_password", "rdp_password"})
MAC_KEYS = frozenset({"security_driver", "security_require_confined"})


class LevelError(ValueError):
    """A level, a switch or a control that cannot be understood."""


@dataclass(frozen=True)
class Control:
    """A hardening measure of qemu.conf: the level from which on it holds, its settings, and its switch."""

    id: str
    level: str
    settings: dict[str, t.Any]
    switch: t.Any = True


@dataclass
class Choice:
    """What goes to the ``qemu_conf`` module. ``optional`` keys may be unknown to an older libvirt."""

    settings: dict[str, t.Any] = field(default_factory=dict)
    secret_settings: dict[str, t.Any] = field(default_factory=dict)
    extend: dict[str, t.Any] = field(default_factory=dict)
    optional: list[str] = field(default_factory=list)
    left_alone: list[dict[str, str]] = field(default_factory=list)


def choose(
    controls: t.Iterable[Control],
    level: str,
    own: dict[str, t.Any],
    mac: bool | None,
    *,
    secret: t.Mapping[str, t.Any] | None = None,
    extend: t.Mapping[str, t.Any] | None = None,
) -> Choice:
    """Merge the controls of a level, and of all levels below it, with the operator's own settings, which win.

    :param own: the operator's settings, key to value.
    :param mac: whether the host's kernel has AppArmor or SELinux; None where that was not asked. Without one,
        ``security_driver`` and ``security_require_confined`` are left alone: the first cannot name a driver, and the
        second would keep every guest from starting.
    :param secret: the operator's passwords, which also win.
    :param extend: the operator's additions to lists.
    :raises LevelError: an unknown level, or a switch that is neither true nor false.
    """
    if level not in LEVELS:
        raise LevelError(f"The level {level!r} is unknown; it is one of {', '.join(LEVELS)}.")
    reached = LEVELS[: LEVELS.index(level) + 1]
    wanted: dict[str, t.Any] = {}
    for control in controls:
        if control.level in reached and _switched_on(control):
            wanted.update(control.settings)
    secret, extend = secret or {}, extend or {}
    optional = wanted.keys() - own.keys() - secret.keys()
    passwords = {key: wanted.pop(key) for key in PASSWORD_KEYS & wanted.keys()}
    wanted.update(own)
    choice = Choice()
    for source, chosen in (
        (wanted, choice.settings),
        ({**passwords, **secret}, choice.secret_settings),
        (extend, choice.extend),
    ):
        for key, value in sorted(source.items()):
            if key in MAC_KEYS and mac is False:
                choice.left_alone.append({"key": key, "reason": "the kernel has neither AppArmor nor SELinux"})
            else:
                chosen[key] = value
    choice.optional = sorted(optional & (choice.settings.keys() | choice.secret_settings.keys()))
    return choice


def _switched_on(control: Control) -> bool:
    """A survey sends its answers as strings."""
    switch = control.switch.strip().lower() if isinstance(control.switch, str) else control.switch
    if switch in (True, "true", "yes", "on", "1"):
        return True
    if switch in (False, "false", "no", "off", "0", "", None):
        return False
    raise LevelError(f"The switch of {control.id} is {control.switch!r}; it is either true or false.")
