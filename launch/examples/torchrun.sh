#!/usr/bin/env bash
# torchrun without a batch system, settings as for `cami2v train`:
#   launch/examples/torchrun.sh engine=zero2 data=<shards> resume=auto
# One process per GPU of this machine; PROCESSES=2 says how many. Several machines: the same line on each, with
#   NODES=2 NODE_RANK=<0 on the first> MASTER_ADDR=<the first machine>
set -euo pipefail

exec torchrun \
  --nnodes "${NODES:-1}" --node-rank "${NODE_RANK:-0}" --nproc-per-node "${PROCESSES:-gpu}" \
  --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${MASTER_PORT:-29500}" \
  -m launch.train "$@"
