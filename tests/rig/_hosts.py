# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of hosts: boot one from an image, take it down, and clear away what a killed run left.

Everything of a host lives in namespaces of one supervisor, in one cgroup and in one directory
(``CACHE/hosts/SCOPE/NAME``), so that taking it down is: kill, remove the cgroup, remove the directory.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence

from . import _cgroups, _image, _machine, _net, _registry, _ssh, _vmboot
from ._base import (
    RigError,
    boot_id,
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
from ._boot import ROOT_DEVICE
from ._host import Host, find_init
from ._registry import Facts
from ._vm import VirtualMachine

# In the directory of a scope, beside the hosts' own; no host can be called so.
_SHARED = ".shared"

# The supervisors that are children of this very process, to be reaped when they end.
_children: dict[int, subprocess.Popen[bytes]] = {}

_numbers = itertools.count(1)


def _unused(prefix: str) -> str:
    return f"{prefix}-{os.getpid()}-{next(_numbers)}"


@contextlib.contextmanager
def vm(
    release: str, name: str | None = None, *, words: Sequence[str] = (), selinux: bool = False
) -> Iterator[VirtualMachine]:
    """A host with a kernel of its own for the length of a ``with`` block.

    :param words: what its first boot has at the end of the kernel's command line.
    :param selinux: that kernel has SELinux in AppArmor's place, permissive unless ``words`` say ``enforcing=1``.
    """
    started = up(name or _unused(f"vm-{release}"), release, vm=True, words=words, selinux=selinux, keep=False)
    assert isinstance(started, VirtualMachine)
    try:
        yield started
    finally:
        down(started.name, missing_ok=True)


@contextlib.contextmanager
def host(release: str, name: str | None = None, *, hugepages: int = 0, shared: bool = False) -> Iterator[Host]:
    """A host for the length of a ``with`` block; it also goes when this process is killed and the rig is used again.

    :param hugepages: how many huge pages of the default size to add to the machine's pool.
    :param shared: it has /srv/shared, one directory that all such hosts of the scope share.
    """
    started = up(name or _unused(release), release, hugepages=hugepages, shared=shared, keep=False)
    try:
        yield started
    finally:
        down(started.name, missing_ok=True)


def up(
    name: str,
    release: str,
    *,
    vm: bool = False,
    words: Sequence[str] = (),
    selinux: bool = False,
    hugepages: int = 0,
    shared: bool = False,
    keep: bool = True,
) -> Host:
    """Boot a host and wait until sshd and libvirtd answer.

    :param vm: it is a virtual machine, with a kernel of its own.
    :param words: what that kernel gets at the end of its command line.
    :param selinux: that kernel has SELinux in AppArmor's place.
    :param shared: see ``host``; a virtual machine has no such directory.
    :param keep: the host outlives this process.
    :raises RigError: the name is taken, the image cannot be built, or the host does not answer in time.
    """
    check_name(name)
    if vm and shared:
        raise RigError("a virtual machine has no directory that it shares with other hosts: leave one of the two out")
    if vm and hugepages:
        raise RigError(f"{name} has memory of its own: it takes its huge pages from that, not from the machine's pool")
    if selinux and not vm:
        raise RigError(f"{name} has the machine's kernel: SELinux needs one of its own, that of a virtual machine")
    begun = time.monotonic()
    disk = _image.build(f"{'selinux' if selinux else 'vm'}-{release}") if vm else None
    image = _image.build(release)
    reap()
    mark = uuid.uuid4().hex
    try:
        facts = _register(mark, name, release, image, disk, shared)
        if disk:
            (pathlib.Path(facts["directory"]) / _vmboot.WORDS).write_text(" ".join(words), encoding="ascii")
            # To wait for it means to come in by ssh already.
            with locked("publish"):
                _write_lists(_registry.scope_dir(), _registry.everyone())
        _start(facts)
        started = _open(facts)
        started.wait_for_boot()
        publish()
        if hugepages:
            _machine.add_hugepages(hugepages)
        if keep:
            facts["owner"] = None
            _registry.save(facts)
    except BaseException:
        _clear([facts for facts in _registry.everyone() if facts["id"] == mark])
        raise
    say(f"{name} ({release}) is up at {started.address} in {time.monotonic() - begun:.1f} s")
    return started


def _open(facts: Facts) -> Host:
    return VirtualMachine(facts) if facts.get("disk") else Host(facts)


def get(name: str) -> Host:
    """A host that is up.

    :raises RigError: there is none of this name.
    """
    for facts in _registry.everyone():
        if facts["name"] == name and _registry.lives(facts):
            return _open(facts)
    raise RigError(f"no host {name!r} is up: 'rig list' shows those that are, 'rig up {name} --release R' boots one")


def names() -> list[str]:
    """The names of the hosts of this scope, in the order of their addresses."""
    return [facts["name"] for facts in _registry.everyone()]


def down(name: str, *, missing_ok: bool = False) -> None:
    """Take a host down and remove all of it; the last one of the machine also puts the machine's values back.

    :raises RigError: there is no such host (unless ``missing_ok``) or it cannot be removed.
    """
    found = [facts for facts in _registry.everyone() if facts["name"] == name]
    if not found and not missing_ok:
        raise RigError(f"no host {name!r} is here: 'rig list' shows those that are")
    _clear(found)
    if names():
        publish()


def reap() -> None:
    """Remove the hosts, of all scopes, that are dead, or half up, or whose owner is gone."""
    dead = [facts for name in _registry.scopes_up() for facts in _registry.everyone(name) if not _registry.lives(facts)]
    for facts in dead:
        say(f"clearing away what a broken-off run left: {facts['scope']}/{facts['name']}")
    _clear(dead)


def publish() -> pathlib.Path:
    """Write known_hosts and the inventory of this scope anew, tell its hosts of each other; return the inventory."""
    directory = _registry.scope_dir()
    directory.mkdir(parents=True, exist_ok=True)
    with locked("publish"):
        hosts = _registry.everyone()
        _write_lists(directory, hosts)
        for facts in hosts:
            # One that is on its way up has it from its boot, or gets it at its own end of it.
            with contextlib.suppress(RigError):
                _open(facts).put("/etc/hosts", _ssh.hosts_file(hosts).encode())
    return directory / "inventory.yml"


def _write_lists(directory: pathlib.Path, hosts: list[Facts]) -> None:
    (directory / "known_hosts").write_text(_ssh.known_hosts(hosts), encoding="ascii")
    (directory / "inventory.yml").write_text(_ssh.inventory(hosts), encoding="ascii")


def _register(
    mark: str, name: str, release: str, image: pathlib.Path, disk: pathlib.Path | None, shared: bool
) -> Facts:
    """Take the name and an address, before anything is started, so that a killed run leaves a trace to follow."""
    with locked("rig"):
        if name in names():
            raise RigError(f"a host {name!r} is up already: take another name, or 'rig down {name}' first")
        if not _registry.scopes_up():
            _machine.record_baseline()
        net = _net.ensure(_registry.scope_dir(), scope())
        slot = _net.free_slot({facts["slot"] for facts in _registry.everyone()})
        directory = _registry.scope_dir() / name
        # What is left of a removal that was killed before its last step.
        _cgroups.remove(scope(), name)
        remove_tree(directory)
        for part in ("upper", "work", "root"):
            (directory / part).mkdir(parents=True)
        if shared:
            (_registry.scope_dir() / _SHARED).mkdir(exist_ok=True)
        facts = {
            "id": mark,
            "name": name,
            "scope": scope(),
            "release": release,
            "image": os.fspath(image),
            "disk": disk and os.fspath(disk),
            "slot": slot,
            "address": _net.address(net, slot),
            "directory": os.fspath(directory),
            "shared": os.fspath(_registry.scope_dir() / _SHARED) if shared else None,
            "boot_id": boot_id(),
            "pid": None,
            "pid_start": None,
            "owner": os.getpid(),
            "owner_start": start_time(os.getpid()),
        }
        _registry.save(facts)
    return facts


def _start(facts: Facts) -> None:
    directory = pathlib.Path(facts["directory"])
    program = [sys.executable, os.fspath(pathlib.Path(__file__).parent), "_boot", os.fspath(directory)]
    own = ["unshare", "--mount", "--net", "--propagation", "private", "--"]
    prefix = _cgroups.launch_prefix(facts["scope"], facts["name"])
    reading, writing = os.pipe()
    try:
        with (directory / "console.log").open("ab") as log:
            child = spawn([*prefix, *own, *program], dies_with_parent=False, stdin=reading, output=log)
        _children[child.pid] = child
        facts.update(pid=child.pid, pid_start=start_time(child.pid))
        _registry.save(facts)
        _cgroups.enter(facts["scope"], facts["name"], child.pid)
        wait_for(f"{facts['name']} to have a network", lambda: _net.is_apart(child.pid), patience=10)
        _net.attach(_registry.scope_dir(), facts["slot"], child.pid, for_qemu=bool(facts["disk"]))
        config = {
            "name": facts["name"],
            "address": facts["address"],
            "image": facts["image"],
            "disk": facts["disk"],
            "machine_id": uuid.uuid5(uuid.NAMESPACE_DNS, f"{facts['name']}.{facts['scope']}.rig.invalid").hex,
            "hosts": _ssh.hosts_file(_registry.everyone()),
            "public_key": _ssh.public_key(),
            "shared": facts["shared"],
        }
        os.write(writing, json.dumps(config).encode() + b"\n")
    finally:
        os.close(reading)
        os.close(writing)


def _clear(hosts: list[Facts]) -> None:
    with undisturbed(), locked("rig"):
        for facts in hosts:
            # As it is now: it may have a process since, or be gone already and its name be taken again.
            for present in _registry.everyone(facts["scope"]):
                if present["id"] == facts["id"]:
                    _remove(present)
        _tidy()


def _remove(facts: Facts) -> None:
    """Undo a host, whatever of it there is; the registration goes last, so that a killed removal is repeated."""
    _ssh.close(pathlib.Path(facts["directory"]))
    pid = facts["pid"]
    if pid is not None and facts["boot_id"] == boot_id() and start_time(pid) == facts["pid_start"]:
        _kill(pid)
    _cgroups.kill(facts["scope"], facts["name"])
    directory = pathlib.Path(facts["directory"])
    _free_loops(directory)
    _cgroups.remove(facts["scope"], facts["name"])
    for part in ("upper", "work", "root"):
        remove_tree(directory / part)
    remove_tree(directory)


def _kill(supervisor: int) -> None:
    # Init's death takes its whole pid namespace along, and then nspawn ends by itself. The disk is thrown away:
    # an orderly shutdown would only cost time.
    for victim in (find_init(supervisor), supervisor):
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
    if pid in _children and _children[pid].poll() is not None:
        del _children[pid]
    return start_time(pid) is None


def _free_loops(directory: pathlib.Path) -> None:
    """Loop devices are the machine's; one of the host's has its backing file on the host's root file system."""
    with contextlib.suppress(FileNotFoundError):
        root = (directory / ROOT_DEVICE).read_text(encoding="ascii")
        said = run(["losetup", "--json", "--output", "NAME,BACK-MAJ:MIN"]).stdout
        for loop in json.loads(said)["loopdevices"] if said else []:
            if loop["back-maj:min"].strip() == root:
                run(["losetup", "--detach", loop["name"]], check=False)


def _tidy() -> None:
    """When the last host of a scope is gone its network goes; when the last of all is, the machine is put back."""
    up_now = _registry.scopes_up()
    for directory in _registry.hosts_dir().glob("*"):
        if directory.name not in up_now:
            _net.remove(directory)
            remove_tree(directory)
    if not up_now:
        _machine.restore_baseline()
