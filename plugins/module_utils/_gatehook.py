# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of the gate's hook: a script of the shell that lets all but a beginning migration pass, and what that runs.

The shell's part is small because it runs for every start, stop and reconnect of a guest, where a status other than 0
costs the guest, and so has to end well with a broken Python, too. The other part is the code of this collection itself,
so that what is tested is what runs; its directory carries a digest of it, so that a change of release is one rename.
"""

from __future__ import annotations

import hashlib
import importlib.util
import typing as t

from ._gate import DIRECTORY, IDENT, REFUSED, SECONDS
from ._host import HardeningError

FRONT = f"{DIRECTORY}/hook"
CODE = f"{DIRECTORY}/gate-"
_PACKAGE = "hypervisor_hardening"

# _gate and all that it imports; a test compares.
MODULES = (
    *("_agreedvalues", "_agreement", "_atomic", "_child", "_confkeys", "_confkeys_daemons", "_confkeys_fallback"),
    *("_confrules", "_definitiondevices", "_domainxml", "_gate", "_gatevalues", "_host", "_hugepages", "_incoming"),
    *("_journal", "_kernelmac", "_libvirtcheck", "_libvirtd", "_memfd", "_mountinfo", "_netdev", "_pools"),
    *("_proc", "_qemu", "_reader", "_statefile", "_syscalls", "_tapverdict", "_tcp", "_virconf"),
)

# The signal ends what hangs where main() cannot bound it.
_MAIN = f"""import signal
import sys
import time

signal.setitimer(signal.ITIMER_REAL, {SECONDS})
begun = time.monotonic()

from {_PACKAGE}._gate import main

sys.exit(main(*sys.argv[1:3], begun))
"""

# {next_one} is only where the installed libvirt knows no directory of hooks: there this script takes the place of the
# operator's own, and runs it. reason holds no more than a line; a shell's variable cannot hold NUL, and XML has none.
_SCRIPT = """#!/bin/sh
# Written by hypervisor.hardening.migration_gate, which removes it with state: absent. What is agreed on stands beside
# it in agreement.json. Whatever else than a migration that begins is called for, this ends with 0: libvirt destroys a
# guest whose hook fails when the daemon reconnects to it.
mode={mode}
gate() {{
  exec 3>&2 2>/dev/null # the shell itself tells there that a child was killed
  reason=$({python} -I -S {code} "$mode" "$1" 2>&1)
  status=$?
  exec 2>&3 3>&-
  case $status in
    0) return 0 ;;
    {refused}) ;;
    *) reason="hypervisor.hardening: the migration gate of $(uname -n) does not work (status $status: $(
         printf '%s' "$reason" | tail -n 1)); run migration_gate again there" ;;
  esac
  if [ "$mode" = enforce ]; then
    printf '%s\\n' "$reason" >&2
    return 1
  fi
  logger -t {ident} -p daemon.warning -- "$reason The guest is let through: the mode is $mode." >/dev/null 2>&1
  return 0
}}
"""

_ALONE = """\
[ "$2/$3" = migrate/begin ] && [ "$mode" != off ] || exit 0
gate "$1"
exit
"""

_BEFORE_ANOTHER = """\
next={next_one}
if [ "$2/$3" != migrate/begin ] || [ "$mode" = off ]; then
  [ -x "$next" ] || exit 0
  exec "$next" "$@"
fi
xml=$(cat)
printf '%s\\n' "$xml" | gate "$1" || exit 1
[ -x "$next" ] || exit 0
printf '%s\\n' "$xml" | "$next" "$@"
exit
"""


class File(t.NamedTuple):
    """A file as it should be."""

    path: str
    content: bytes
    mode: int = 0o644


def files(mode: str, python: str, next_one: str) -> list[File]:
    """The hook's files, in the order in which they are to be written: the one that libvirt runs comes last.

    :param python: the interpreter that is to run it.
    :param next_one: the operator's own hook that this one runs, "" for none.
    """
    sources = {f"{_PACKAGE}/{name}.py": _source(name) for name in MODULES}
    sources[f"{_PACKAGE}/__init__.py"] = b""
    sources["__main__.py"] = _MAIN.encode()
    digest = hashlib.sha256(b"\0".join(name.encode() + b"\0" + sources[name] for name in sorted(sources)))
    code = CODE + digest.hexdigest()[:16]
    rest = _BEFORE_ANOTHER if next_one else _ALONE
    script = (_SCRIPT + rest).format(
        mode=mode, python=python, code=code, refused=REFUSED, ident=IDENT, next_one=next_one
    )
    return [
        *(File(f"{code}/{name}", content) for name, content in sorted(sources.items())),
        File(FRONT, script.encode(), 0o755),
    ]


def mode_of(script: bytes | None) -> str:
    """The mode that an installed script has, "" for none."""
    for line in (script or b"").decode("utf-8", "replace").splitlines():
        if line.startswith("mode="):
            return line[len("mode=") :]
    return ""


def _source(name: str) -> bytes:
    """The source of a module of this package, wherever it was loaded from: the zip file that Ansible sent, too."""
    spec = importlib.util.find_spec(f"{__package__}.{name}")
    source = getattr(spec.loader, "get_source", lambda _name: None)(spec.name) if spec else None
    if source is None:
        raise HardeningError(f"The source of {name} is not in what Ansible sent: this is a defect of the collection.")
    # Ansible's own loader, which tests import by, gives bytes.
    return source if isinstance(source, bytes) else str(source).encode()
