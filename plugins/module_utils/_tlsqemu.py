# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The installed QEMU's own judgement on certificates and keys, without a trace on the host.

A QEMU without a machine is given the object ``tls-creds-x509`` of both ends, in the words of libvirt at the begin of a
migration (qemu_hotplug.c, qemuDomainAddTLSObjects), as the user that guests run as. It refuses what it would refuse
then: files it cannot read, a key of another certificate, an expired one, an unknown authority. The files are on a tmpfs
in a mount namespace that goes with the question.
"""

from __future__ import annotations

import json
import os
import typing as t

from ._host import Host, HostError
from ._mountinfo import ancestors
from ._qemu import User, become
from ._syscalls import CLONE_NEWNS, MS_NODEV, MS_NOSUID, MS_PRIVATE, MS_REC, mount, unshare

if t.TYPE_CHECKING:
    from ._atomic import Whole

SECONDS = 60.0

_RUN = "/run/libvirt"
_ENDS = ("server", "client")
_WORDS = ("-machine", "none", "-nodefaults", "-display", "none", "-qmp", "stdio")


def objections(host: Host, emulator: str, directory: str, files: t.Sequence[Whole], user: User) -> list[str]:
    """What QEMU has against these files as the content of ``directory``, and what keeps it from reading them there.

    :raises HostError: it could not be asked.
    """
    try:
        answer = host.in_child(lambda: _judge(host, emulator, directory, files, user), timeout=SECONDS)
    except OSError as error:
        what = f"{error.strerror} at {error.filename}" if error.filename else error.strerror
        raise HostError(
            f"QEMU cannot be asked about the certificates: {what}. That takes CAP_SYS_ADMIN, for a namespace that "
            f"leaves no traces, and an {emulator} that {user.name} may run."
        ) from None
    return list(dict.fromkeys(answer))


def _judge(host: Host, emulator: str, directory: str, files: t.Sequence[Whole], user: User) -> list[str]:
    """In a child: its own mount namespace, and then a child of that one as the user."""
    unshare(CLONE_NEWNS)
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    place = _RUN if host.exists(_RUN) else "/run"
    mount("tmpfs", host.path(place), "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")
    stage = f"{place}/tls"
    host.make_directory(stage, 0o755)
    for file in files:
        path = f"{stage}/{os.path.basename(file.path)}"
        host.write(path, file.data)
        host.set_owner(path, file.uid, file.gid, file.mode)

    def ask() -> list[str]:
        become(host, user)
        barred = [
            f"QEMU, which runs as {user.name} (uid {user.uid}), does not get past {path}: chmod o+x {path}"
            for path in (directory, *ancestors(directory))
            if host.exists(path) and not os.access(host.path(path), os.X_OK)
        ]
        return barred or _ask(host, emulator, stage)

    found = t.cast("list[str]", host.in_child(ask, timeout=SECONDS / 2))
    return [text.replace(stage, directory) for text in found]


def _ask(host: Host, emulator: str, directory: str) -> list[str]:
    commands: list[dict[str, t.Any]] = [{"execute": "qmp_capabilities"}]
    for end in _ENDS:
        arguments = {"qom-type": "tls-creds-x509", "id": end, "dir": directory, "endpoint": end, "verify-peer": True}
        commands.append({"execute": "object-add", "arguments": arguments})
    commands.append({"execute": "quit"})
    talk = "".join(f"{json.dumps(command)}\n" for command in commands).encode()
    done = host.run([emulator, *_WORDS], stdin=talk, timeout=SECONDS / 3)
    answers = [answer for answer in map(_answer, done.out.splitlines()) if "return" in answer or "error" in answer]
    if len(answers) != len(commands):
        said = (done.err or done.out).strip()
        raise HostError(f"QEMU cannot be asked about the certificates: {emulator} said {said!r}.")
    return [f"{emulator} says: {answer['error']['desc'].rstrip('.')}." for answer in answers if "error" in answer]


def _answer(line: str) -> dict[str, t.Any]:
    try:
        return dict(json.loads(line))
    except (ValueError, TypeError):
        return {}
