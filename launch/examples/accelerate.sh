#!/usr/bin/env bash
# accelerate launch without a batch system, settings as for `cami2v train`:
#   ENGINE=zero2 launch/examples/accelerate.sh data=<shards> resume=auto
# PROCESSES over all machines (default: 2). Several machines: the same line on each, with
#   NODES=2 NODE_RANK=<0 on the first> MASTER_ADDR=<the first machine>
set -euo pipefail

ENGINE=${ENGINE:-ddp}
configs=$(dirname "$(realpath "$0")")/../accelerate
exec accelerate launch --config_file "$configs/$ENGINE.yaml" --num_processes "${PROCESSES:-2}" \
  --num_machines "${NODES:-1}" --machine_rank "${NODE_RANK:-0}" \
  --main_process_ip "${MASTER_ADDR:-127.0.0.1}" --main_process_port "${MASTER_PORT:-29500}" \
  -m launch.train engine="$ENGINE" "$@"
