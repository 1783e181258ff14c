# shellcheck shell=bash disable=SC2154,SC2034 # its variables cross files
# A world: the network that a group of machines lives in. It is made of network
# namespaces of its own and touches nothing in the host's.
#
#   machine ─── 192.0.2.0/24 ─── server (192.0.2.1, pools.test)
#                     │
#                   proxy (192.0.2.2)
#                     │   forwards no packet: only a proxy's process gets across
#   machine ── 198.51.100.0/24 (198.51.100.1, proxy.test)       booted with --only-proxy
#
# Both ranges are set aside for documentation (RFC 5737), so they collide with
# nothing. Sourced after say.sh; needs $world, the world's name.

world_server_address=192.0.2.1
world_server_name=pools.test
world_proxy_name=proxy.test
world_folder=/var/tmp/scalr-agent-machines/$world
# Of the host's available memory, in GB: how much a world needs to be in it, and
# how much it may take then.
world_memory_needed=12
world_memory=8

# world_up: make the namespaces of the server and of the proxy, if need be.
world_up() {
    mkdir -p "$world_folder/addresses" "$world_folder/machines"
    (
        flock 9
        [[ ! -e $world_folder/ready ]] || exit 0
        world_put_in_memory
        world_add_namespace server
        world_add_switch server "$world_server_address/24"
        world_add_namespace proxy
        world_add_switch proxy 198.51.100.1/24
        world_plug proxy uplink server 192.0.2.2/24
        printf '%s\n' "127.0.0.1 localhost" "$world_server_address $world_server_name" \
            "198.51.100.1 $world_proxy_name" >"$world_folder/hosts"
        touch "$world_folder/ready"
    ) 9>"$world_folder/lock"
}

# Machines live in memory where there is plenty: package managers and engines flush
# what they write all the time, and waiting for that is half of a machine's work.
world_put_in_memory() {
    local available
    available=$(awk '$1 == "MemAvailable:" { print int($2 / 1024 / 1024) }' /proc/meminfo)
    [[ $available -ge $world_memory_needed ]] || return 0
    mount -t tmpfs -o "mode=755,size=${world_memory}g" "scalr-$world" "$world_folder/machines"
}

# world_connect NAME server|proxy: give a machine its namespace and an address
# behind the server or behind the proxy, with a default route to there.
world_connect() {
    local name=$1 switch=$2 net=192.0.2 number
    [[ $switch == server ]] || net=198.51.100
    for ((number = 10; number < 250; number++)); do
        mkdir "$world_folder/addresses/$number" 2>/dev/null || continue
        world_add_namespace "$name"
        world_plug "$name" eth0 "$switch" "$net.$number/24"
        ip -n "$(world_namespace "$name")" route add default via "$net.1"
        printf '%s\n' "$number" >"$world_folder/machines/$name/number"
        return
    done
    die "the world $world is full"
}

# world_disconnect NAME: give the address back and remove the namespace.
world_disconnect() {
    ip netns delete "$(world_namespace "$1")" 2>/dev/null || true
    [[ ! -e $world_folder/machines/$1/number ]] || {
        rmdir "$world_folder/addresses/$(<"$world_folder/machines/$1/number")"
        rm "$world_folder/machines/$1/number"
    }
}

# world_run server|proxy COMMAND...: run a host's command in that namespace,
# with the world's names.
world_run() {
    local namespace
    namespace=$(world_namespace "$1")
    shift
    [[ -e /run/netns/$namespace ]] || die "there is no world \"$world\": boot a machine first"
    # The mount namespace holds the hosts file, so the host's /etc stays as it is.
    # shellcheck disable=SC2016 # expanded by the inner shell
    exec nsenter --net="/run/netns/$namespace" unshare --mount -- \
        sh -c 'mount --bind "$0" /etc/hosts && exec "$@"' "$world_folder/hosts" "$@"
}

# world_down: end what still runs in the world's namespaces and remove them.
world_down() {
    local name pid
    for name in server proxy; do
        [[ -e /run/netns/$(world_namespace "$name") ]] || continue
        for pid in $(ip netns pids "$(world_namespace "$name")"); do
            kill -KILL "$pid" 2>/dev/null || true
        done
        ip netns delete "$(world_namespace "$name")"
    done
    # Lazily: other worlds' processes, each in a mount namespace of its own, may have it.
    ! mountpoint --quiet "$world_folder/machines" || umount --lazy "$world_folder/machines"
    rm -rf --one-file-system "$world_folder"
    rmdir "${world_folder%/*}" 2>/dev/null || true
}

# The name of a namespace of this world, as ip knows it.
world_namespace() { printf 'scalr-%s-%s' "$world" "$1"; }

world_add_namespace() {
    ip netns add "$(world_namespace "$1")"
    ip -n "$(world_namespace "$1")" link set lo up
}

# A bridge that machines are plugged into. Whatever they send beyond it is
# answered with "network unreachable", at once: forwarding has to be on for that.
world_add_switch() {
    local namespace
    namespace=$(world_namespace "$1")
    ip -n "$namespace" link add lan type bridge
    ip -n "$namespace" address add "$2" dev lan
    ip -n "$namespace" link set lan up
    ip netns exec "$namespace" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
    ip -n "$namespace" rule add iif lan unreachable priority 10
}

# world_plug NAME INTERFACE SWITCH ADDRESS: a cable from a namespace to a switch.
world_plug() {
    local namespace switch port
    namespace=$(world_namespace "$1") switch=$(world_namespace "$3")
    port=p${4%/*} port=${port//./}
    ip -n "$namespace" link add "$2" type veth peer name "$port" netns "$switch"
    ip -n "$namespace" address add "$4" dev "$2"
    ip -n "$namespace" link set "$2" up
    ip -n "$switch" link set "$port" master lan up
}
