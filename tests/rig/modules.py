# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules of this collection run on a host of the rig by its own Python, without a controller: 0.3 s each.

For tests that call a module dozens of times. What a controller shows of a run is for ``playbooks``.
"""

from __future__ import annotations

import functools
import io
import json
import pathlib
import tarfile
import typing as t

import ansible

from ._host import Host

_PLACE = "/opt/rig-modules"
_RUN = f"""
import importlib, json, sys
sys.path.insert(0, {_PLACE!r})
from ansible.module_utils.testing import patch_module_args
with patch_module_args(json.load(sys.stdin)):
    importlib.import_module("ansible_collections.hypervisor.hardening.plugins.modules." + sys.argv[1]).main()
"""


def call(host: Host, module: str, *, check_mode: bool = False, **options: t.Any) -> dict[str, t.Any]:
    """Run a module with these options and return its result, of a failure too."""
    words, arguments = prepare(host, module, check_mode=check_mode, **options)
    output = host.run(words, stdin=arguments, check=False, timeout=600)
    assert output.stdout, output.stderr
    answer: dict[str, t.Any] = json.loads(output.stdout)
    return answer


def prepare(host: Host, module: str, *, check_mode: bool = False, **options: t.Any) -> tuple[list[str], bytes]:
    """The command that runs a module on the host, and its standard input."""
    if host.run(["test", "-e", _PLACE], check=False).returncode != 0:
        host.run(["mkdir", _PLACE])
        host.run(["tar", "-C", _PLACE, "-xf", "-"], stdin=_sources())
    arguments = json.dumps({**options, "_ansible_check_mode": check_mode}).encode()
    return ["/usr/bin/python3", "-B", "-c", _RUN, module], arguments


@functools.cache
def _sources() -> bytes:
    checkout = pathlib.Path(__file__).resolve().parents[2]
    core = pathlib.Path(ansible.__file__).parent
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for part in ("module_utils", "release.py"):
            archive.add(core / part, f"ansible/{part}", filter=_source)
        archive.addfile(tarfile.TarInfo("ansible/__init__.py"))
        for part in ("modules", "module_utils"):
            archive.add(
                checkout / "plugins" / part, f"ansible_collections/hypervisor/hardening/plugins/{part}", filter=_source
            )
    return buffer.getvalue()


def _source(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "__pycache__" in entry.name else entry
