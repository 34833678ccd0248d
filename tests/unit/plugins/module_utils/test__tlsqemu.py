# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How QEMU is asked, with a program that plays it; the real one answers in tests/integration. Needs root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _tlsqemu
from ansible_collections.hypervisor.hardening.plugins.module_utils._atomic import Whole
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Host, HostError
from ansible_collections.hypervisor.hardening.plugins.module_utils._qemu import User

NOBODY = User("nobody", 65534, 65534)
# Answers each command with what the file says that it names, or else with success.
PLAYED = """\
#!/bin/sh
echo '{"QMP": {"version": {}, "capabilities": []}}'
while read -r line; do
    directory=$(echo "$line" | sed -n 's/.*"dir": "\\([^"]*\\)".*/\\1/p')
    if [ -n "$directory" ] && ! cat "$directory"/*.pem >/dev/null; then
        echo "{\\"error\\": {\\"class\\": \\"GenericError\\", \\"desc\\": \\"Cannot read $directory.\\"}}"
    else
        echo '{"timestamp": {}, "event": "SOMETHING"}'
        echo '{"return": {}}'
    fi
done
"""


@pytest.fixture
def emulator(tmp_path: Path) -> str:
    for directory in (tmp_path, *tmp_path.parents[:-2]):
        os.chmod(directory, 0o755)
    path = tmp_path / "qemu"
    path.write_text(PLAYED)
    path.chmod(0o755)
    return str(path)


def ask(emulator: str, *files: Whole, directory: str = "/etc/pki/qemu") -> list[str]:
    return _tlsqemu.objections(Host(), emulator, directory, files, NOBODY)


def key(gid: int) -> Whole:
    return Whole("/etc/pki/qemu/server-key.pem", b"secret", 0, gid, 0o640)


def test_it_reads_the_files_as_the_user_of_guests(emulator: str) -> None:
    before = Path("/proc/self/mountinfo").read_bytes()
    assert ask(emulator, key(65534)) == []
    assert ask(emulator, key(0)) == [f"{emulator} says: Cannot read /etc/pki/qemu."], (
        "once for both ends, with its place"
    )
    assert Path("/proc/self/mountinfo").read_bytes() == before
    assert not os.path.exists("/run/tls") and not os.path.exists("/run/libvirt/tls")


def test_a_directory_that_it_does_not_get_past(emulator: str, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (told,) = ask(emulator, key(65534), directory=f"{closed}/pki")
    assert told == f"QEMU, which runs as nobody (uid 65534), does not get past {closed}: chmod o+x {closed}"


@pytest.mark.parametrize("script", ["#!/bin/sh\necho broken >&2\n", "#!/bin/sh\necho '{\"QMP\": {}}'\necho '[]'\n"])
def test_a_qemu_that_does_not_answer(emulator: str, script: str) -> None:
    Path(emulator).write_text(script)
    with pytest.raises(HostError, match="QEMU cannot be asked about the certificates"):
        ask(emulator, key(65534))


def test_a_qemu_that_is_not_there(emulator: str) -> None:
    with pytest.raises(HostError, match="is not installed"):
        ask(f"{emulator}-not", key(65534))


def test_a_qemu_that_the_user_may_not_run(emulator: str) -> None:
    os.chmod(emulator, 0o700)
    with pytest.raises(HostError, match=f"Permission denied at {emulator}.* that nobody may run"):
        ask(emulator, key(65534))
