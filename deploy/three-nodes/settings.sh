# What the scripts in this folder agree on. Each may be set in the environment, for all of them the same.

# Everything that is made lies here: data, secrets, logs. Deleting it when nothing runs starts from nothing.
folder="${FOLDER:-$PWD/bellrock-three-nodes}"
# Loopback addresses: .1, .2 and .3 are the nodes', .4 is Garage's, .53 the nameserver's. Linux has all of 127.0.0.0/8.
network="${NETWORK:-127.0.90}"
# Every node has these on its own address: for agents and people, and for the other nodes.
port="${PORT:-9009}"
peer_port="${PEER_PORT:-9010}"
# What all three are called together.
name="${NAME:-bellrock.internal}"

nodes=(1 2 3)
garage_address="$network.4"
dns_address="$network.53"

die() {
  printf '%s\n' "$*" >&2
  exit 1
}
