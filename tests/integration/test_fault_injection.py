# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A crash or a full disk at any moment: the old file or the new one, whole, and the journal before both."""

from __future__ import annotations

import io
import json
import pathlib
import tarfile
import typing as t

import ansible
import pytest
import rig

TESTS = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def host() -> t.Iterator[rig.Host]:
    with rig.host("trixie") as fresh:
        fresh.run(["tar", "-x", "-C", "/root"], stdin=_payload())
        yield fresh


def _payload() -> bytes:
    """What the module needs besides Python: ansible-core's module_utils and the collection's plugins."""
    buffer = io.BytesIO()
    core = pathlib.Path(ansible.__file__).parent
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("ansible/__init__.py"))
        for name in ("release.py", "module_utils"):
            archive.add(core / name, f"ansible/{name}")
        for name in ("modules", "module_utils"):
            archive.add(TESTS.parent / "plugins" / name, f"ansible_collections/hypervisor/hardening/plugins/{name}")
        archive.add(TESTS / "faults/faults.py", "faults.py")
    return buffer.getvalue()


@pytest.mark.parametrize("action", ["kill", "ENOSPC", "EIO"])
def test_every_system_call_from_the_first_write_to_the_exit(host: rig.Host, action: str) -> None:
    ended = host.run(["python3", "/root/faults.py", action], timeout=900)
    told = json.loads(ended.stdout.splitlines()[-1])
    print(f"{action}: {told['injected']} system calls, {told['by_name']}")
    assert told["wrong"] == {}
    # A journal entry and the file: each is written, flushed, renamed, and its directory flushed.
    names = told["by_name"]
    assert names["rename"] == 2
    assert names["fsync"] == 4
    assert told["injected"] > 50
