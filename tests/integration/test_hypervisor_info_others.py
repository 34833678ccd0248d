# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""hypervisor_info on real hosts: what images hang on, networks and bridges, other services, keys of ssh, machine types
and tables of nftables are as qemu-img, virsh, ip, ss, ssh-keygen and the kernel have them, and judged so."""

from __future__ import annotations

import re
import typing as t

import pytest
import rig
from rig import guests, modules

from ansible_collections.hypervisor.hardening.plugins.filter.audit import judge

IMAGES = "/var/lib/libvirt/images"
BRIDGED = "<interface type='bridge'><source bridge='br0'/></interface>"
ON_LAB = "<interface type='network'><source network='lab'/></interface>"
# Without names and addresses to hand out it needs no dnsmasq, which not every host here has.
LAB = """<network><name>lab</name><forward mode='nat'/><bridge name='virbr9'/><dns enable='no'/>
<ip address='192.0.2.1' netmask='255.255.255.0'/></network>"""
POOL = f"<pool type='dir'><name>images</name><target><path>{IMAGES}</path></target></pool>"
# A table of nftables with a chain that looks at all input and lets it pass, by netlink alone: nft is not on the host.
# linux/netfilter/nfnetlink.h, nf_tables.h
FENCE = """
import socket, struct, sys
def attribute(kind, data): return struct.pack("=HH", len(data) + 4, kind) + data + bytes(-len(data) % 4)
def message(kind, flags, family, body=b"", resource=0):
    return struct.pack("=IHHIIBBH", 20 + len(body), kind, flags, 1, 0, family, 0, socket.htons(resource)) + body
name = b"fence\\0"
hook = attribute(4 | 0x8000, attribute(1, struct.pack(">I", 1)) + attribute(2, struct.pack(">i", 0)))
chain = attribute(1, name) + attribute(3, b"input\\0") + hook
chain += attribute(5, struct.pack(">I", 1)) + attribute(7, b"filter\\0")
begin, end = message(16, 1, 0, resource=10), message(17, 1, 0, resource=10)
make = begin + message(0xA00, 0x405, 1, attribute(1, name)) + message(0xA03, 0x405, 1, chain) + end
drop = begin + message(0xA02, 5, 1, attribute(1, name)) + end
connection = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
connection.sendto(make if sys.argv[1] == "make" else drop, (0, 0))
number = -struct.unpack_from("=i", connection.recv(4096), 16)[0]
sys.exit(number)
"""


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def host(request: pytest.FixtureRequest) -> t.Iterator[rig.Host]:
    with rig.host(request.param) as fresh:
        yield fresh


def look(host: rig.Host) -> tuple[dict[str, t.Any], dict[tuple[str, str], str]]:
    """The facts, and the state of each rule by its object."""
    result = modules.call(host, "hypervisor_info")
    assert "failed" not in result, result
    facts: dict[str, t.Any] = result["hypervisor"]
    assert [name for name, section in facts.items() if isinstance(section, dict) and set(section) == {"error"}] == []
    findings = judge({host.name: result}, level="strict")["hosts"][0]["findings"]
    return facts, {(one["rule"], one["object"]["name"]): one["state"] for one in findings}


def script(host: rig.Host, text: str) -> str:
    return host.run(["sh", "-ec", text]).stdout.strip()


def test_what_images_hang_on_is_as_qemu_img_made_it(host: rig.Host) -> None:
    host.put("/run/pool.xml", POOL.encode())
    guests.virsh(host, "pool-define", "/run/pool.xml")
    script(
        host,
        f"""
        cd {IMAGES}
        qemu-img create -q -f qcow2 base.qcow2 1G
        qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 good.qcow2
        qemu-img create -q -f raw /srv/secret.raw 1M
        qemu-img create -q -f qcow2 -b /srv/secret.raw -F raw outside.qcow2
        qemu-img create -q -f qcow2 -u -b nbd://192.0.2.1:10809/x -F raw network.qcow2 1G
        qemu-img create -q -f qcow2 -o data_file=/srv/data.raw,data_file_raw=on data.qcow2 1G
        """,
    )
    try:
        facts, states = look(host)
        layers = {layer["name"].rpartition("/")[2]: layer for layer in facts["storage"]["layers"]}
        assert {name: (layer["kind"], layer["source"]) for name, layer in layers.items()} == {
            "good.qcow2": ("backing", f"{IMAGES}/base.qcow2"),
            "outside.qcow2": ("backing", "/srv/secret.raw"),
            "network.qcow2": ("backing", "nbd://192.0.2.1:10809/x"),
            "data.qcow2": ("data", "/srv/data.raw"),
        }
        judged = {name: states["backing-chain-in-allowed-paths", f"{IMAGES}/{name}"] for name in layers}
        assert judged == {"good.qcow2": "pass", "outside.qcow2": "fail", "network.qcow2": "fail", "data.qcow2": "fail"}
        # 1 GiB each of base, good, network and data, and 1 MiB
        size = int(script(host, f"df --block-size=1 --output=size {IMAGES} | tail -n 1"))
        (pool,) = facts["storage"]["pools"]
        assert pool["promised_percent"] == ((4 << 30) + (1 << 20)) * 100 // size
    finally:
        guests.virsh(host, "pool-undefine", "images")
        script(host, f"rm -f {IMAGES}/*.qcow2 /srv/*.raw")


def test_networks_and_bridges_are_as_virsh_and_ip_say(host: rig.Host) -> None:
    # where libvirt keeps the addresses of guests, and dnsmasq its files
    script(host, "mkdir -p /var/lib/libvirt/dnsmasq")
    host.put("/run/lab.xml", LAB.encode())
    guests.virsh(host, "net-define", "/run/lab.xml")
    assert look(host)[1]["default-nat-network-unused", "lab"] == "not_applicable"
    guests.virsh(host, "net-start", "lab")
    script(host, "ip link add br0 type bridge; ip link set br0 up; sysctl -q -w net.ipv6.conf.br0.disable_ipv6=1")
    try:
        facts, states = look(host)
        network = {entry["name"]: entry for entry in facts["networks"]["networks"]}["lab"]
        assert (network["mode"], network["bridge"], network["active"], network["guests"]) == ("nat", "virbr9", True, [])
        assert states["default-nat-network-unused", "lab"] == "fail"
        assert ("mgmt-not-on-guest-bridge", "br0") not in states

        guests.start(host, guests.Guest("web", interfaces=[ON_LAB, BRIDGED]))
        for setting in ("accept_redirects", "send_redirects", "proxy_arp"):
            script(host, f"sysctl -q -w net.ipv4.conf.br0.{setting}=0")
        facts, states = look(host)
        bridges = {bridge["name"]: bridge for bridge in facts["networks"]["bridges"]}
        ports = {line.split("master ")[1].split()[0]: line.split(":")[1].strip() for line in
                 script(host, "ip -o link show type tun").splitlines()}  # fmt: skip
        assert {name: bridge["guest_ports"] for name, bridge in bridges.items()} == {
            name: [port] for name, port in ports.items()
        }
        assert set(ports) == {"br0", "virbr9"}
        assert (bridges["virbr9"]["network"], bridges["br0"]["network"]) == ("lab", "")
        assert bridges["virbr9"]["addresses"] == script(host, "ip -o -4 addr show virbr9").split()[3:4]
        assert states["default-nat-network-unused", "lab"] == "pass"
        assert states["mgmt-not-on-guest-bridge", "br0"] == states["guest-bridge-l3-quiet", "br0"] == "pass"
        assert states["mgmt-not-on-guest-bridge", "virbr9"] == "not_applicable"

        script(host, "sysctl -q -w net.ipv4.conf.br0.proxy_arp=1")
        assert look(host)[1]["guest-bridge-l3-quiet", "br0"] == "fail"
        script(host, "ip addr add 198.51.100.1/24 dev br0")
        facts, states = look(host)
        assert states["mgmt-not-on-guest-bridge", "br0"] == "fail"
        # libvirt has switched forwarding on for its network, and nothing holds what no rule names
        assert facts["firewall"]["forwarding"]["ipv4"] == "open"
        assert states["ip-forwarding-justified", host.name] == "fail"
        script(host, "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP")
        facts, states = look(host)
        assert facts["firewall"]["forwarding"] == {"ipv4": "closed", "ipv6": "closed"}
        assert states["ip-forwarding-justified", host.name] == "pass"
    finally:
        guests.stop_all(host)
        script(host, "ip link del br0; iptables -P FORWARD ACCEPT; ip6tables -P FORWARD ACCEPT")
        guests.virsh(host, "net-destroy", "lab")
        guests.virsh(host, "net-undefine", "lab")


def test_tables_that_iptables_does_not_show_make_it_unknown(host: rig.Host) -> None:
    assert host.run(["sh", "-c", "command -v nft"], check=False).returncode != 0
    script(host, "iptables -P INPUT DROP; ip6tables -P INPUT DROP; iptables -P INPUT ACCEPT; ip6tables -P INPUT ACCEPT")
    # what iptables keeps in nftables itself is nothing that it does not show
    facts, states = look(host)
    assert (facts["firewall"]["tools"], facts["firewall"]["unread"]) == (["iptables-nft-save"], [])
    assert states["host-ports-restricted", host.name] == "fail"
    host.run(["python3", "-c", FENCE, "make"])
    try:
        assert "fence" not in host.run(["iptables-save"]).stdout
        facts, states = look(host)
        assert "inet fence" in facts["firewall"]["unread"][0]["reason"]
        assert states["host-ports-restricted", host.name] == "unknown"
    finally:
        host.run(["python3", "-c", FENCE, "drop"])
    assert look(host)[1]["host-ports-restricted", host.name] == "fail"


def test_other_services_are_as_ss_says(host: rig.Host) -> None:
    program = "import socket, time; s = socket.create_server(('', 8080)); time.sleep(600)"
    script(host, f'python3 -c "{program}" >/dev/null 2>&1 & echo $! >/run/listening.pid; sleep 1')
    try:
        facts, states = look(host)
        lines = script(host, "ss -H -tulnp").splitlines()
        fields = [line.split() for line in lines if not re.search(r"\s(127\.|\[::1\]|[^ ]*%lo:)", line)]
        told = {(words[0], int(words[4].rpartition(":")[2])) for words in fields}
        assert {(entry["protocol"], entry["port"]) for entry in facts["services"]["open"]} == told
        by_port = {entry["port"]: entry for entry in facts["services"]["open"]}
        assert (by_port[22]["process"], by_port[8080]["process"][:6]) == ("sshd", "python")
        assert states["dedicated-host-services", "sshd tcp 22"] == "pass"
        assert states["dedicated-host-services", by_port[8080]["name"]] == "fail"
    finally:
        script(host, "kill $(cat /run/listening.pid)")


def test_keys_are_as_ssh_keygen_says(host: rig.Host) -> None:
    facts, states = look(host)
    printed = script(host, "ssh-keygen -l -f /root/.ssh/authorized_keys").split()[1]
    assert [key["fingerprint"] for key in facts["ssh"]["keys"]] == [printed]
    # systemd's own configuration for sockets of this machine is none of it
    assert facts["ssh"]["unchecked"] == []
    assert states["migration-ssh-trust", host.name] == "fail"


def test_a_machine_type_that_qemu_means_to_drop(host: rig.Host) -> None:
    capabilities = guests.virsh(host, "capabilities")
    of_x86_64 = capabilities.partition("<arch name='x86_64'>")[2].partition("</arch>")[0]
    deprecated = re.findall(r"<machine [^>]*deprecated='yes'[^>]*>(pc-i440fx-[\d.]+)</machine>", of_x86_64)[0]
    for name, machine in (("old", deprecated), ("new", "q35")):
        host.put(f"/run/{name}.xml", guests.Guest(name, machine=machine).xml().encode())
        guests.virsh(host, "define", f"/run/{name}.xml")
    try:
        facts, states = look(host)
        assert facts["capabilities"]["machines_deprecated"] == [deprecated]
        assert states["guest-machine-not-deprecated", "old"] == "fail"
        assert states["guest-machine-not-deprecated", "new"] == "pass"
    finally:
        guests.stop_all(host)


def test_programs_cgroups_and_passwords_of_clients(host: rig.Host) -> None:
    host.put("/etc/libvirt/auth.conf", b"[credentials-x]\npassword=kreuzott\n", mode=0o644)
    try:
        facts, states = look(host)
        assert states["libvirt-auth-conf-private", host.name] == "fail"
        host.run(["chmod", "0600", "/etc/libvirt/auth.conf"])
        assert look(host)[1]["libvirt-auth-conf-private", host.name] == "pass"
    finally:
        host.run(["rm", "/etc/libvirt/auth.conf"])
    controllers = script(host, "cat /sys/fs/cgroup/cgroup.controllers").split()
    assert facts["host"]["cgroup"] == {"version": 2, "controllers": sorted(controllers)}
    # Debian builds QEMU with all of it (debian/rules: hardening=+all)
    assert states["qemu-binary-hardened", "/usr/bin/qemu-system-x86_64"] == "pass"
