# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts: boot one from an image, reach it, take it down, and clear away what a killed run left.

Everything of a host lives in namespaces of one systemd-nspawn process, in one cgroup and in one directory
(``CACHE/hosts/SCOPE/NAME``), so that taking it down is: kill, remove the cgroup, remove the directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shlex
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from . import _cgroups, _image, _machine, _net
from ._base import (
    RigError,
    boot_id,
    cache_dir,
    check_name,
    locked,
    remove_tree,
    run,
    say,
    scope,
    spawn,
    start_time,
    undisturbed,
    wait_for,
)

_BOOT_PATIENCE = 90.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Host:
    """A disposable hypervisor that is up."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.name: str = facts["name"]
        self.scope: str = facts["scope"]
        self.release: str = facts["release"]
        self.address: str = facts["address"]
        self.supervisor: int = facts["pid"]
        self.directory = pathlib.Path(facts["directory"])
        self.pid1 = _pid1(self.supervisor)

    @property
    def root(self) -> pathlib.Path:
        """The host's root file system as its PID 1 sees it (an absolute symlink below it leads outside)."""
        return pathlib.Path(f"/proc/{self.pid1}/root")

    @property
    def inventory(self) -> pathlib.Path:
        """The inventory file that has this host in the group ``hypervisors``."""
        return self.directory.parent / "inventory.yml"

    def run(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        input: bytes | None = None,
        check: bool = True,
        timeout: float | None = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside through nsenter (about 10 ms), as root, with ``LC_ALL=C`` and output as text.

        :raises RigError: it failed (with ``check``) or took longer than ``timeout`` seconds.
        """
        return self._finish(self._inside(argv), argv, input, check, timeout)

    def ssh(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        input: bytes | None = None,
        check: bool = True,
        timeout: float | None = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside through ssh, the way a user's Ansible comes in.

        :raises RigError: it failed (with ``check``) or took longer than ``timeout`` seconds.
        """
        return self._finish(self.ssh_argv(shlex.join(os.fspath(word) for word in argv)), argv, input, check, timeout)

    def put(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        """Write a file inside, through its symlinks, with this mode.

        :raises RigError: it cannot be written.
        """
        self.run(["sh", "-c", 'cat > "$1" && chmod "$2" "$1"', "put", path, f"{mode:o}"], input=data)

    def get(self, path: str) -> bytes:
        """Read a file inside.

        :raises RigError: it cannot be read.
        """
        result = subprocess.run(self._inside(["cat", path]), capture_output=True, stdin=subprocess.DEVNULL, timeout=60, check=False)
        if result.returncode != 0:
            raise RigError(f"{self.name}: {result.stderr.decode(errors='replace').strip()}")
        return result.stdout

    def reboot(self) -> None:
        """Reboot, keeping the disk; the kernel, its hugepages and its sysctls are the machine's and stay.

        :raises RigError: the host did not come back.
        """
        before = self.pid1
        self.run(["systemctl", "reboot"])
        wait_for(f"{self.name} to go down for the reboot", lambda: not pathlib.Path(f"/proc/{before}").exists(), patience=_BOOT_PATIENCE)
        _wait_for_boot(self)

    def down(self) -> None:
        """Take this host down and remove it."""
        down(self.name)

    def ssh_argv(self, line: str) -> list[str]:
        """The ssh command for a line of the host's shell; for a session, if it is empty."""
        return ["ssh", *_ssh_options(), f"root@{self.address}", *([line] if line else [])]

    def _inside(self, argv: Sequence[str | os.PathLike[str]]) -> list[str]:
        enter = ["nsenter", "-t", str(self.pid1), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "--"]
        environment = ["env", "-i", f"PATH={_PATH}", "HOME=/root", "LC_ALL=C"]
        return [*enter, *environment, *(os.fspath(word) for word in argv)]

    def _finish(
        self,
        command: list[str],
        argv: Sequence[str | os.PathLike[str]],
        input: bytes | None,
        check: bool,
        timeout: float | None,
    ) -> subprocess.CompletedProcess[str]:
        words = " ".join(os.fspath(word) for word in argv)
        try:
            raw = subprocess.run(command, input=input or b"", capture_output=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            raise RigError(f"{self.name}: no end after {timeout:.0f} s: {words}") from None
        out, err = (stream.decode("utf-8", "surrogateescape") for stream in (raw.stdout, raw.stderr))
        if check and raw.returncode != 0:
            raise RigError(f"{self.name}: exit status {raw.returncode} of: {words}\n{(err or out).strip()}")
        return subprocess.CompletedProcess(raw.args, raw.returncode, out, err)


@contextlib.contextmanager
def host(release: str, name: str | None = None, *, hugepages: int = 0) -> Iterator[Host]:
    """A host for the length of a ``with`` block; it also goes when this process is killed and the rig is used again.

    :param hugepages: how many huge pages of the default size to add to the machine's pool.
    """
    chosen = name or f"{release}-{os.getpid()}"
    try:
        yield up(chosen, release, hugepages=hugepages, keep=False)
    finally:
        down(chosen, missing_ok=True)


def up(name: str, release: str, *, hugepages: int = 0, keep: bool = True) -> Host:
    """Boot a host and wait until sshd and libvirtd answer.

    :param keep: the host outlives this process.
    :raises RigError: the name is taken, the image cannot be built, or the host does not answer in time.
    """
    check_name(name)
    begun = time.monotonic()
    _image.build(release)
    try:
        facts = _register(name, release)
        _start(facts)
        host = Host(facts)
        _wait_for_boot(host)
        _write_inventory()
        if hugepages:
            pool = pathlib.Path("/proc/sys/vm/nr_hugepages")
            pool.write_text(str(int(pool.read_text()) + hugepages), encoding="ascii")
        if keep:
            facts["owner"] = None
            _save(facts)
    except _NameTaken:
        raise
    except BaseException:
        down(name, missing_ok=True)
        raise
    say(f"{name} ({release}) is up at {facts['address']} in {time.monotonic() - begun:.1f} s")
    return host


class _NameTaken(RigError):
    pass


def get(name: str) -> Host:
    """A host that is up.

    :raises RigError: there is none of this name.
    """
    for facts in _all_facts():
        if facts["name"] == name and _alive(facts):
            return Host(facts)
    raise RigError(f"no host {name!r} is up: 'rig list' shows those that are, 'rig up {name} --release R' boots one")


def names() -> list[str]:
    """The names of the hosts of this scope, in the order of their addresses."""
    return [facts["name"] for facts in sorted(_all_facts(), key=lambda facts: facts["slot"])]


def down(name: str, *, missing_ok: bool = False) -> None:
    """Take a host down and remove all of it; the last one of the machine also puts the machine's values back.

    :raises RigError: there is no such host (unless ``missing_ok``) or it cannot be removed.
    """
    with undisturbed(), locked("rig"):
        for facts in _all_facts():
            if facts["name"] == name:
                _remove(facts)
                break
        else:
            if not missing_ok:
                raise RigError(f"no host {name!r} is here: 'rig list' shows those that are")
        _tidy()


def reap() -> None:
    """Remove the hosts that are dead, or half up, or whose owner is gone, in every scope."""
    with undisturbed(), locked("rig"):
        for directory in (cache_dir() / "hosts").glob("*"):
            for facts in _all_facts(directory.name):
                if not _alive(facts) or not _owner_lives(facts):
                    say(f"clearing away what a broken-off run left: {facts['scope']}/{facts['name']}")
                    _remove(facts)
        _tidy()


def inventory() -> pathlib.Path:
    """The inventory file of this scope."""
    return _write_inventory()


def _scope_dir(chosen: str | None = None) -> pathlib.Path:
    return cache_dir() / "hosts" / (chosen or scope())


def _all_facts(chosen: str | None = None) -> list[dict[str, Any]]:
    found = []
    for path in sorted(_scope_dir(chosen).glob("*/host.json")):
        with contextlib.suppress(FileNotFoundError):
            found.append(json.loads(path.read_text(encoding="utf-8")))
    return found


def _save(facts: dict[str, Any]) -> None:
    path = pathlib.Path(facts["directory"]) / "host.json"
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _alive(facts: dict[str, Any]) -> bool:
    if facts["boot_id"] != boot_id():
        return False
    # No process yet: its owner is between registering it and starting it.
    return facts["pid"] is None or start_time(facts["pid"]) == facts["pid_start"]


def _owner_lives(facts: dict[str, Any]) -> bool:
    return facts["owner"] is None or start_time(facts["owner"]) == facts["owner_start"]


def _register(name: str, release: str) -> dict[str, Any]:
    """Take the name and an address, before anything is started, so that a killed run leaves a trace to follow."""
    reap()
    with locked("rig"):
        if name in names():
            raise _NameTaken(f"a host {name!r} is up already: take another name, or 'rig down {name}' first")
        if not any((cache_dir() / "hosts").glob("*/*/host.json")):
            _machine.record_baseline()
        net = _net.ensure(_scope_dir(), scope())
        slot = _net.free_slot({facts["slot"] for facts in _all_facts()})
        directory = _scope_dir() / name
        # What is left of a removal that was killed before its last step.
        remove_tree(directory)
        for part in ("upper", "work", "root"):
            (directory / part).mkdir(parents=True)
        facts = {
            "name": name,
            "scope": scope(),
            "release": release,
            "slot": slot,
            "address": _net.address(net, slot),
            "directory": os.fspath(directory),
            "boot_id": boot_id(),
            "pid": None,
            "pid_start": None,
            "owner": os.getpid(),
            "owner_start": start_time(os.getpid()),
        }
        _save(facts)
    return facts


def _start(facts: dict[str, Any]) -> None:
    directory = pathlib.Path(facts["directory"])
    program = [sys.executable, os.fspath(pathlib.Path(__file__).parent), "_boot", os.fspath(directory)]
    own = ["unshare", "--mount", "--net", "--propagation", "private", "--"]
    reading, writing = os.pipe()
    try:
        with (directory / "console.log").open("wb") as log:
            child = spawn([*_cgroups.launch_prefix(facts["scope"], facts["name"]), *own, *program], dies_with_parent=False, stdin=reading, output=log)
        facts.update(pid=child.pid, pid_start=start_time(child.pid))
        _save(facts)
        _cgroups.enter(facts["scope"], facts["name"], child.pid)
        wait_for(f"{facts['name']} to have a network", lambda: _net.is_apart(child.pid), patience=10)
        _net.attach(_scope_dir(), facts["slot"], child.pid)
        config = {
            "name": facts["name"],
            "lower": os.fspath(_image.image_dir(facts["release"]) / "root"),
            "machine_id": uuid.uuid5(uuid.NAMESPACE_DNS, f"{facts['name']}.{facts['scope']}.rig.invalid").hex,
            "hosts": _hosts_file(),
            "public_key": _public_key(),
        }
        os.write(writing, json.dumps(config).encode() + b"\n")
    finally:
        os.close(reading)
        os.close(writing)


def _pid1(supervisor: int) -> int:
    """The host's init: the child of nspawn that is number 1 in its own pid namespace; 0 while there is none."""
    try:
        children = pathlib.Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text(encoding="ascii").split()
        for child in children:
            for line in pathlib.Path(f"/proc/{child}/status").read_text(encoding="ascii", errors="replace").splitlines():
                if line.startswith("NSpid:") and line.split()[-1] == "1":
                    return int(child)
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def _wait_for_boot(host: Host) -> None:
    """Wait for init, sshd, systemd and libvirtd, one after the other."""

    def wait(what: str, ready: Callable[[], bool]) -> None:
        wait_for(f"{what} of {host.name}", lambda: _still_lives(host) and ready(), patience=_BOOT_PATIENCE)

    wait("init", lambda: _pid1(host.supervisor) != 0)
    host.pid1 = _pid1(host.supervisor)
    _cgroups.hand_down(host.scope, host.name)
    wait("sshd", lambda: _says_ssh(host.address))
    wait("systemd", lambda: _is_booted(host))
    host.run(["virsh", "-c", "qemu:///system", "version"], timeout=_BOOT_PATIENCE)


def _still_lives(host: Host) -> bool:
    if start_time(host.supervisor) is None:
        said = (host.directory / "console.log").read_text(errors="replace").strip()[-2000:]
        raise RigError(f"{host.name} died while booting; its console said:\n{said}")
    return True


def _says_ssh(address: str) -> bool:
    try:
        with socket.create_connection((address, 22), timeout=1.0) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _is_booted(host: Host) -> bool:
    state = host.run(["systemctl", "is-system-running"], check=False).stdout.strip()
    return state in ("running", "degraded")


def _remove(facts: dict[str, Any]) -> None:
    """Undo a host, whatever of it there is; the registration goes last, so that a killed removal is repeated."""
    pid = facts["pid"]
    if pid is not None and facts["boot_id"] == boot_id() and start_time(pid) == facts["pid_start"]:
        _kill(pid)
    _cgroups.kill(facts["scope"], facts["name"])
    _net.detach(_scope_dir(facts["scope"]), facts["slot"])
    directory = pathlib.Path(facts["directory"])
    _free_loops(directory)
    _cgroups.remove(facts["scope"], facts["name"])
    for part in ("upper", "work", "root"):
        remove_tree(directory / part)
    remove_tree(directory)


def _kill(supervisor: int) -> None:
    # Init's death takes its whole pid namespace along, and then nspawn ends by itself. The disk is thrown away:
    # an orderly shutdown would only cost time.
    for victim in (_pid1(supervisor), supervisor):
        if victim:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL if victim != supervisor else signal.SIGTERM)
            try:
                wait_for("a process to die", lambda: _gone(supervisor), patience=3)
                return
            except RigError:
                continue
    with contextlib.suppress(ProcessLookupError):
        os.kill(supervisor, signal.SIGKILL)
    wait_for(f"process {supervisor} to die", lambda: _gone(supervisor), patience=10)


def _gone(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return start_time(pid) is None


def _free_loops(directory: pathlib.Path) -> None:
    for path in pathlib.Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if os.fspath(directory) in path.read_text(errors="replace"):
                run(["losetup", "--detach", f"/dev/{path.parent.parent.name}"], check=False)


def _tidy() -> None:
    """When the last host of a scope is gone its network goes; when the last of all is, the machine is put back."""
    hosts = cache_dir() / "hosts"
    for directory in hosts.glob("*"):
        if not any(directory.glob("*/host.json")):
            _net.remove(directory)
            remove_tree(directory)
    if not any(hosts.glob("*/*/host.json")):
        _machine.restore_baseline()


def _hosts_file() -> str:
    lines = [f"{facts['address']} {facts['name']}" for facts in _all_facts()]
    return "127.0.0.1 localhost\n" + "".join(line + "\n" for line in lines)


def _key() -> pathlib.Path:
    """The key that opens every host, made once per cache."""
    key = cache_dir() / "ssh" / "id_ed25519"
    with locked("key"):
        if not key.with_suffix(".pub").exists():
            key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            key.unlink(missing_ok=True)
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "hypervisor-rig", "-f", key])
    return key


def _public_key() -> str:
    return _key().with_suffix(".pub").read_text(encoding="ascii")


def _ssh_options() -> list[str]:
    return [
        "-o", f"IdentityFile={_key()}",
        "-o", "IdentitiesOnly=yes",
        "-o", f"UserKnownHostsFile={_scope_dir() / 'known_hosts'}",
        "-o", "GlobalKnownHostsFile=/dev/null",
        "-o", "StrictHostKeyChecking=yes",
        "-o", "LogLevel=ERROR",
    ]  # fmt: skip


def _write_inventory() -> pathlib.Path:
    """Write known_hosts and inventory anew from the hosts that are registered."""
    directory = _scope_dir()
    directory.mkdir(parents=True, exist_ok=True)
    everyone = sorted(_all_facts(), key=lambda facts: facts["slot"])
    known = ""
    lines = ["---", "hypervisors:", "  hosts:" if everyone else "  hosts: {}"]
    for facts in everyone:
        public = _image.image_dir(facts["release"]) / "root/etc/ssh/ssh_host_ed25519_key.pub"
        known += f"{facts['address']} {public.read_text(encoding='ascii')}"
        lines += [f"    {facts['name']}:", f"      ansible_host: {facts['address']}"]
    lines += [
        "  vars:",
        "    ansible_user: root",
        "    ansible_python_interpreter: /usr/bin/python3",
        f"    ansible_ssh_common_args: {shlex.join(_ssh_options())}",
    ]
    (directory / "known_hosts").write_text(known, encoding="ascii")
    (directory / "inventory.yml").write_text("\n".join(lines) + "\n", encoding="ascii")
    return directory / "inventory.yml"
