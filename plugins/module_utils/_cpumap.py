# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processor models as the installed libvirt has them (src/cpu_map): which features a model stands for."""

from __future__ import annotations

import re
import typing as t

from ._host import Host

DIRECTORY = "/usr/share/libvirt/cpu_map"

_COMMENT_RE = re.compile(r"<!--.*?-->", re.DOTALL)
_PARENT_RE = re.compile(r"<model name='([\w.+-]+)'\s*/>")
_FEATURE_RE = re.compile(r"<feature name='([\w.+-]+)'([^>]*)>")
_DEPTH = 8


def features(host: Host, model: str) -> frozenset[str] | None:
    """What a model of x86 has, those of the models that it is built on included; None where libvirt has no such model.

    A feature that is ``removed`` there is not known to the processors any more and is no part of a guest.
    """
    found: set[str] = set()
    for _depth in range(_DEPTH):
        text = host.text_optional(f"{DIRECTORY}/x86_{model}.xml") if re.fullmatch(r"[\w.+-]+", model) else None
        if text is None:
            return None
        text = _COMMENT_RE.sub("", text)
        found |= {name for name, rest in _FEATURE_RE.findall(text) if "removed='yes'" not in rest}
        parent = _PARENT_RE.search(text)
        if parent is None:
            return frozenset(found)
        model = parent[1]
    return None


def of_element(host: Host, element: t.Any) -> list[str] | None:
    """The features that a ``<cpu>`` or a ``<mode>`` of libvirt's comes to, sorted: those of its model, more and less by
    its own; None where the model is not known."""
    base = features(host, (element.findtext("model") or "").strip())
    if base is None:
        return None
    own = {one.get("name"): one.get("policy", "require") for one in element.findall("feature")}
    wanted = {name for name, policy in own.items() if policy in ("require", "force")}
    refused = {name for name, policy in own.items() if policy in ("disable", "forbid")}
    return sorted(base - refused | wanted)
