# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""tls_credentials and the role's part for TLS, with real migrations of a running guest between two hosts."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest
import rig
from rig import certificates, guests, modules, playbooks

from ansible_collections.hypervisor.hardening.plugins.filter.audit import judge

FILES = {
    "ca_cert": "ca-cert.pem",
    "server_cert": "server-cert.pem",
    "server_key": "server-key.pem",
    "client_cert": "client-cert.pem",
    "client_key": "client-key.pem",
}
DIRECTORY = "/etc/pki/qemu"
QEMU_CONF = "/etc/libvirt/qemu.conf"
GUEST = guests.Guest("mover")
# Where the module and QEMU could leave something; elsewhere a host that has just booted goes on by itself.
STATE = r"""
find /etc /var/lib/hypervisor-hardening /var/lib/libvirt -xdev -type f -exec cksum {} +
find /etc /var/lib/hypervisor-hardening /var/lib/libvirt /run/tls -xdev -printf '%p %m %U %G %C@\n'
find /run /tmp /root -maxdepth 2 -name '*tls*' -print
"""
ACQUAINT = """
mkdir -p -m 0700 /root/.ssh; cd /root/.ssh
test -e id_ed25519 || ssh-keygen -q -t ed25519 -N '' -f id_ed25519
echo 'StrictHostKeyChecking accept-new' >config
"""
Credentials = dict[str, t.Any]


@pytest.fixture(scope="module")
def authority() -> t.Iterator[certificates.Authority]:
    with certificates.authority() as made:
        yield made


@pytest.fixture(scope="module")
def other() -> t.Iterator[certificates.Authority]:
    with certificates.authority("other-ca") as made:
        yield made


@pytest.fixture(scope="module")
def machines() -> t.Iterator[tuple[rig.Host, rig.Host]]:
    with rig.host("trixie", "source") as source, rig.host("trixie", "target") as target:
        for here, there in ((source, target), (target, source)):
            here.run(["sh", "-ec", ACQUAINT])
            there.run(["sh", "-ec", "mkdir -p -m 0700 /root/.ssh"])
            public = here.get("/root/.ssh/id_ed25519.pub")
            there.run(["sh", "-c", "cat >>/root/.ssh/authorized_keys"], stdin=public)
        for host in (source, target):
            host.put("/root/qemu.conf", host.get(QEMU_CONF))
        yield source, target


@pytest.fixture
def hosts(machines: tuple[rig.Host, rig.Host]) -> tuple[rig.Host, rig.Host]:
    """As they were at first: without certificates, with qemu.conf as it was installed, without guests."""
    for host in machines:
        guests.stop_all(host)
        host.run(["rm", "-rf", "/etc/pki", "/var/lib/hypervisor-hardening", "/srv/pki"])
        if host.get(QEMU_CONF) != host.get("/root/qemu.conf"):
            host.run(["cp", "/root/qemu.conf", QEMU_CONF])
            guests.restart_libvirtd(host)
    return machines


def credentials(authority: certificates.Authority, name: str, **server: t.Any) -> Credentials:
    """What the module takes for a host; ``server``: what is special about its server's certificate."""
    shown = authority.issue(name, server.pop("purposes", ["server"]), **server)
    calling = authority.issue(name, ["client"])
    return dict(zip(FILES, (authority.certificate, *shown, *calling), strict=True))


def place(host: rig.Host, given: Credentials, *, key_mode: int = 0o640, directory: str = DIRECTORY) -> None:
    """By hand, as an administrator would."""
    host.run(["mkdir", "-p", directory])
    for option, name in FILES.items():
        host.put(f"{directory}/{name}", given[option].encode(), mode=key_mode if "key" in name else 0o644)
        host.run(["chgrp", "libvirt-qemu", f"{directory}/{name}"])


def migrate(source: rig.Host, target: rig.Host, *flags: str) -> str:
    """Move the guest; what virsh says when that fails, "" when it works."""
    words = ["virsh", "migrate", "--live", *flags, GUEST.name, f"qemu+ssh://{target.name}/system"]
    done = source.run(words, check=False, timeout=120)
    assert (done.returncode == 0) == (done.stderr.strip() == ""), done
    return done.stderr


def call(host: rig.Host, *, check_mode: bool = False, **options: t.Any) -> dict[str, t.Any]:
    return modules.call(host, "tls_credentials", check_mode=check_mode, **options)


def state(host: rig.Host) -> set[str]:
    return set(host.run(["sh", "-c", STATE], check=False).stdout.splitlines())


def facts(host: rig.Host) -> dict[str, t.Any]:
    found: dict[str, t.Any] = modules.call(host, "hypervisor_info")["hypervisor"]
    return found


def problems(host: rig.Host) -> list[str] | None:
    (found,) = [use["problems"] for use in facts(host)["tls"]["uses"] if use["name"] == "migrate"]
    return t.cast("list[str] | None", found)


def findings(host: rig.Host) -> dict[str, set[str]]:
    """What the audit makes of the certificates."""
    found: dict[str, set[str]] = {}
    for finding in judge({host.name: {"hypervisor": facts(host)}}, level="strict")["hosts"][0]["findings"]:
        if finding["rule"] in ("migration-tls-verify", "libvirt-tls-cert-health"):
            found.setdefault(finding["rule"], set()).add(finding["state"])
    return found


def on_controller(directory: pathlib.Path, given: dict[str, Credentials]) -> dict[str, str]:
    """The files of each host on the controller, and the variables of the role that read them."""
    for host, texts in given.items():
        for option, text in texts.items():
            (directory / f"{host}-{option}").write_text(text, encoding="utf-8")
    return {
        f"hypervisor_migration_tls_{option}": f"{{{{ lookup('ansible.builtin.file', '{directory}/' "
        f"~ inventory_hostname ~ '-{option}') }}}}"
        for option in FILES
    }


def play(host: rig.Host, variables: dict[str, t.Any], *flags: str, serial: int = 0, **more: t.Any) -> playbooks.Run:
    role = {"role": "hypervisor.hardening.hypervisor_migration"}
    told = {"hypervisor_migration_tls_enabled": True, **variables}
    plays = [{"hosts": "hypervisors", "gather_facts": False, "become": True, "vars": told, "roles": [role]}]
    if serial:
        plays[0]["serial"] = serial
    return playbooks.play(plays, host.inventory, "--tags", "tls", *flags, **more)


def forced(host: rig.Host) -> bool:
    return b"\nmigrate_tls_force = 1\n" in host.get(QEMU_CONF)


def daemon(host: rig.Host) -> str:
    """Which start of the daemon this is; one without guests ends by itself when nobody has connected for 2 minutes."""
    return host.run(["systemctl", "show", "-P", "InvocationID", "libvirtd.service"]).stdout


def test_a_running_guest_moves_over_tls_and_back(
    hosts: tuple[rig.Host, rig.Host], authority: certificates.Authority, tmp_path: pathlib.Path
) -> None:
    source, target = hosts
    process = guests.start(source, GUEST)
    assert "Unable to access credentials" in migrate(source, target, "--tls"), "before, it does not work"
    assert guests.pid(source, GUEST.name) == process
    variables = on_controller(tmp_path, {host.name: credentials(authority, host.name) for host in hosts})

    before = {host.name: (state(host), daemon(host)) for host in hosts}
    tried = play(source, variables, "--check", "--diff")
    assert (tried.rc, len(tried.changed)) == (0, 2), tried.text
    assert {host.name: state(host) for host in hosts} == {name: was for name, (was, _daemon) in before.items()}

    done = play(source, variables)
    assert (done.rc, len(done.changed)) == (0, 2), done.text
    assert [result["files"] for result in done.results("tls_credentials")] == [list(FILES.values())] * 2
    assert {result["checked_by"] for result in done.results("tls_credentials")} == {"/usr/bin/qemu-system-x86_64"}
    assert done.results("daemon_restart") == []
    assert daemon(source) == before[source.name][1]
    assert guests.pid(source, GUEST.name) == process
    assert play(source, variables).changed == [], "the second run changes nothing"
    assert [problems(host) for host in hosts] == [[], []]

    assert migrate(source, target, "--tls") == ""
    assert (guests.running(source), guests.running(target)) == ([], [GUEST.name])
    assert migrate(target, source, "--tls") == ""
    assert (guests.running(source), guests.running(target)) == ([GUEST.name], [])


def test_migrations_without_tls_are_refused_when_all_hosts_passed(
    hosts: tuple[rig.Host, rig.Host], authority: certificates.Authority, tmp_path: pathlib.Path
) -> None:
    source, target = hosts
    process = guests.start(source, GUEST)
    variables: dict[str, t.Any] = dict(
        on_controller(tmp_path, {host.name: credentials(authority, host.name) for host in hosts})
    )
    variables["hypervisor_migration_tls_force"] = True
    variables["hypervisor_migration_tls_directory"] = "/srv/pki"
    tried = play(source, variables, "--check")
    assert tried.rc == 0, tried.text
    assert not any(map(forced, hosts))

    done = play(source, variables)
    assert done.rc == 0, done.text
    assert all(map(forced, hosts))
    assert guests.pid(source, GUEST.name) == process
    assert play(source, variables).changed == []
    assert [problems(host) for host in hosts] == [[], []]

    refusal = migrate(source, target)
    assert "TLS" in refusal, refusal
    assert guests.pid(source, GUEST.name) == process
    assert migrate(source, target, "--tls") == ""
    assert guests.running(target) == [GUEST.name]


@pytest.mark.parametrize("why", ["failed", "limit", "serial", "slice", "authority", "group"])
def test_nothing_is_forced_unless_all_hosts_are_known_to_have_passed(
    hosts: tuple[rig.Host, rig.Host],
    authority: certificates.Authority,
    other: certificates.Authority,
    tmp_path: pathlib.Path,
    why: str,
) -> None:
    source, target = hosts
    given = {host.name: credentials(authority, host.name) for host in hosts}
    flags: list[str] = []
    if why == "failed":
        given[target.name]["server_key"] = given[source.name]["server_key"]
    if why == "authority":
        given[target.name] = credentials(other, target.name)
    if why == "limit":
        flags = ["--limit", source.name]
    variables: dict[str, t.Any] = {**on_controller(tmp_path, given), "hypervisor_migration_tls_force": True}
    if why == "slice":
        variables["hypervisor_migration_slice"] = "true"
    if why == "group":  # of two groups each host is all there is
        variables["hypervisor_migration_group"] = "{{ inventory_hostname }}"
    done = play(source, variables, *flags, serial=1 if why == "serial" else 0)
    assert done.rc == (2 if why == "failed" else 0), done.text
    assert [task.host for task in done.failed] == ([target.name] if why == "failed" else [])
    if why == "group":
        assert all(map(forced, hosts))
        return
    assert not any(map(forced, hosts))
    told = {task.host: task.result["msg"] for task in done.tasks if task.action == "ansible.builtin.debug"}
    assert all("migrate_tls_force stays as it is" in text for text in told.values())
    assert set(told) == ({source.name} if why in ("failed", "limit") else {source.name, target.name})
    assert ("slice" if why == "slice" else target.name) in told[source.name]


def test_an_expired_certificate_is_refused_reported_and_renewed(
    hosts: tuple[rig.Host, rig.Host], authority: certificates.Authority
) -> None:
    source, target = hosts
    process = guests.start(source, GUEST)
    assert not call(source, **credentials(authority, source.name)).get("failed")
    expired = credentials(authority, target.name, begin=-9, days=-1)
    before = state(target)
    for check_mode in (True, False):
        refused = call(target, check_mode=check_mode, **expired)
        assert refused["failed"] and "server-cert.pem (target) has expired on" in refused["msg"]
    assert state(target) == before

    place(target, expired)
    assert "has expired" in call(target)["msg"], "without anything given, what is there is judged"
    assert problems(target) == ["server-cert.pem is not accepted: certificate has expired."]
    (found,) = [one for one in facts(target)["tls"]["certificates"] if one["name"].endswith("server-cert.pem")]
    assert found["days_left"] < 0
    assert findings(target) == {"migration-tls-verify": {"fail"}, "libvirt-tls-cert-health": {"fail", "pass"}}
    assert "The server certificate /etc/pki/qemu/server-cert.pem has expired" in migrate(source, target, "--tls")
    assert guests.pid(source, GUEST.name) == process

    soon = credentials(authority, target.name, begin=-9, days=12)
    renewed = call(target, **soon)
    assert (renewed["changed"], renewed["days_left"], renewed["renew_soon"]) == (True, 11, True)
    assert not call(target, renew_days=5)["renew_soon"]
    assert findings(target)["migration-tls-verify"] == {"pass"}
    assert guests.pid(source, GUEST.name) == process
    assert migrate(source, target, "--tls") == "", "neither the daemon nor the guest had to be restarted"


def test_a_guest_that_runs_goes_by_renewed_certificates(
    hosts: tuple[rig.Host, rig.Host], authority: certificates.Authority, other: certificates.Authority
) -> None:
    """The next authority: with the new one on one side alone a migration fails, so it is the new ones that are used."""
    source, target = hosts
    process = guests.start(source, GUEST)
    for host in hosts:
        assert not call(host, **credentials(authority, host.name)).get("failed")
    assert call(source, **credentials(other, source.name))["changed"]
    assert guests.pid(source, GUEST.name) == process
    assert "known issuer" in migrate(source, target, "--tls")
    assert call(target, **credentials(other, target.name))["changed"]
    assert guests.pid(source, GUEST.name) == process
    assert migrate(source, target, "--tls") == ""


def test_a_key_that_qemu_cannot_read(hosts: tuple[rig.Host, rig.Host], authority: certificates.Authority) -> None:
    source, target = hosts
    process = guests.start(source, GUEST)
    given = {host.name: credentials(authority, host.name) for host in hosts}
    place(source, given[source.name])
    place(target, given[target.name], key_mode=0o600)
    assert "Error while reading file" in migrate(source, target, "--tls")
    assert problems(target) == [
        f"{DIRECTORY}/{name} cannot be read by QEMU, which runs as uid 64055."
        for name in ("server-key.pem", "client-key.pem")
    ]
    mended = call(target, **given[target.name])
    assert set(mended["files"]) >= {"server-key.pem", "client-key.pem"}
    assert problems(target) == []
    assert guests.pid(source, GUEST.name) == process
    assert migrate(source, target, "--tls") == ""


def test_no_key_is_shown_anywhere(
    hosts: tuple[rig.Host, rig.Host], authority: certificates.Authority, tmp_path: pathlib.Path
) -> None:
    source, target = hosts
    place(source, credentials(authority, source.name), key_mode=0o644)
    given = {host.name: credentials(authority, host.name) for host in hosts}
    (tmp_path / "pki").mkdir()
    variables = on_controller(tmp_path / "pki", given)
    kept = tmp_path / "artifacts"
    for name in ("predicted", "done", "refused"):
        (kept / name).mkdir(parents=True)
    predicted = play(source, variables, "-vvv", "--check", "--diff", artifacts=kept / "predicted")
    done = play(source, variables, "-vvv", "--diff", artifacts=kept / "done")
    on_controller(
        tmp_path / "pki", {target.name: {**given[target.name], "server_key": given[source.name]["client_key"]}}
    )
    refused = play(source, variables, "-vvv", "--diff", artifacts=kept / "refused")
    runs = (predicted, done, refused)
    assert [run.rc for run in runs] == [0, 0, 2], [task.result.get("msg") for run in runs for task in run.failed]
    for run in (predicted, done):
        assert "(changed, not shown)" in json.dumps(run.results("tls_credentials"))

    seen = "".join(path.read_text(errors="replace") for path in kept.rglob("*") if path.is_file())
    seen += "".join(json.dumps([task.result for task in run.tasks]) + run.text for run in runs)
    for host in hosts:
        seen += host.run(["journalctl", "--no-pager", "--output=export", "--all"]).stdout
        seen += host.run(["sh", "-c", "find /var/log -type f -exec cat {} +"]).stdout
    assert "tls_credentials" in seen
    for texts in given.values():
        for option in ("server_key", "client_key"):
            assert not [line for line in texts[option].splitlines()[1:-1] if line in seen]


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def lone(request: pytest.FixtureRequest) -> t.Iterator[rig.Host]:
    with rig.host(request.param, f"lone-{request.param}") as host:
        yield host


def lacking(host: rig.Host, authority: certificates.Authority, other: certificates.Authority) -> dict[str, Credentials]:
    good, strange = credentials(authority, host.name), credentials(other, host.name)
    again = credentials(authority, host.name)
    return {
        "server-cert.pem was issued by none of the authorities in ca-cert.pem": {
            **good, "server_cert": strange["server_cert"], "server_key": strange["server_key"]
        },
        "client-cert.pem was issued by none of the authorities in ca-cert.pem": {
            **good, "client_cert": strange["client_cert"], "client_key": strange["client_key"]
        },
        "server-key.pem is not the key of server-cert.pem": {**good, "server_key": again["server_key"]},
        "client-key.pem is not the key of client-cert.pem": {**good, "client_key": again["client_key"]},
        "server-cert.pem is not accepted: unsuitable certificate purpose (extendedKeyUsage)": credentials(
            authority, host.name, purposes=["client"]
        ),
        f"server-cert.pem does not name {host.name}": credentials(authority, host.name, names=["DNS:elsewhere"]),
        "is valid from": credentials(authority, host.name, begin=3),
        "has expired on": credentials(authority, host.name, begin=-3, days=-1),
        "says: Certificate /etc/pki/qemu/server-cert.pem usage does not permit digital signature": credentials(
            authority, host.name, usage="critical,keyAgreement"
        ),
        "server-cert.pem would hold a private key": {**good, "server_cert": good["server_cert"] + good["server_key"]},
        "server-key.pem would hold no private key": {**good, "server_key": good["server_cert"]},
        "ca-cert.pem cannot be used: no PEM certificate is in it": {**good, "ca_cert": "nonsense"},
    }  # fmt: skip


def test_what_would_not_work_is_refused_and_nothing_is_changed(
    lone: rig.Host, authority: certificates.Authority, other: certificates.Authority
) -> None:
    lone.run(["rm", "-rf", "/etc/pki", "/var/lib/hypervisor-hardening"])
    place(lone, credentials(authority, lone.name))
    call(lone)
    before = state(lone)
    for words, given in lacking(lone, authority, other).items():
        refused = call(lone, **given)
        assert refused["failed"] and not refused["changed"], words
        assert words in refused["msg"], refused["msg"]
        assert "Nothing was changed." in refused["msg"]
    assert state(lone) == before


def test_a_directory_that_qemu_cannot_enter(lone: rig.Host, authority: certificates.Authority) -> None:
    lone.run(["sh", "-ec", "rm -rf /srv/closed; mkdir -p -m 0700 /srv/closed"])
    given = credentials(authority, lone.name)
    refused = call(lone, path="/srv/closed/pki", **given)
    assert "QEMU, which runs as libvirt-qemu (uid 64055), does not get past /srv/closed" in refused["msg"]
    lone.run(["chmod", "0711", "/srv/closed"])
    done = call(lone, path="/srv/closed/pki", **given)
    assert (done["changed"], done["used_for_migration"]) == (True, False)


def test_what_another_tool_renews_on_the_host(lone: rig.Host, authority: certificates.Authority) -> None:
    """One certificate for both purposes, and a chain that ends in an authority between."""
    lone.run(["rm", "-rf", "/etc/pki", "/var/lib/hypervisor-hardening"])
    pair = authority.issue(lone.name)
    lone.run(["mkdir", "-p", "/srv/tool"])
    texts = {"ca": authority.certificate, "host.pem": pair.certificate, "host.key": pair.key}
    for name, text in texts.items():
        lone.put(f"/srv/tool/{name}", text.encode(), mode=0o600)
    both = {
        f"{side}_{kind}": f"/srv/tool/host.{end}"
        for side in ("server", "client")
        for kind, end in (("cert", "pem"), ("key", "key"))
    }
    src = {"ca_cert": "/srv/tool/ca", **both}
    assert call(lone, src=src)["changed"]
    assert not call(lone, src=src)["changed"]
    modes = lone.run(["stat", "-c", "%n %a %U %G", *(f"{DIRECTORY}/{name}" for name in FILES.values())]).stdout
    group = lone.run(["stat", "-c", "%G", "/var/lib/libvirt/qemu"]).stdout.strip()
    assert modes.splitlines() == [
        f"{DIRECTORY}/{name} {f'640 root {group}' if 'key' in name else '644 root root'}" for name in FILES.values()
    ]
    refused = call(lone, src={**src, "server_key": "/srv/tool/nosuch"})
    assert (
        refused["msg"]
        == "src.server_key: /srv/tool/nosuch cannot be read: No such file or directory. Nothing was changed."
    )


def test_what_was_there_is_in_the_journal(lone: rig.Host, authority: certificates.Authority) -> None:
    lone.run(["rm", "-rf", "/etc/pki", "/var/lib/hypervisor-hardening"])
    first, second = (credentials(authority, lone.name) for _time in range(2))
    for given in (first, second):
        assert call(lone, **given)["changed"]
    told = lone.run(["sh", "-c", "cat /var/lib/hypervisor-hardening/journal/2*.json"]).stdout
    decoder, entries = json.JSONDecoder(), []
    while told:
        entry, end = decoder.raw_decode(told)
        entries += [entry] if entry["kind"] == "file" else []
        told = told[end:]
    assert [entry["target"] for entry in entries[:5]] == [f"{DIRECTORY}/{name}" for name in FILES.values()]
    assert [entry["before"] for entry in entries[:5]] == [None] * 5
    assert [entry["target"] for entry in entries[5:]] == [f"{DIRECTORY}/{name}" for name in list(FILES.values())[1:]]
    assert {entry["before"]["mode"] for entry in entries[5:]} == {0o644, 0o640}
