"""A front: HAProxy over the gateways of a cluster's cells.

1. `model` has its settings, and `build` makes them of a front.yaml. `credentials` checks the certificates for gateways.
2. `rules` has what holds for each program that balances requests. `config` generates HAProxy's files, and `envoy` the
   configuration of an Envoy.
3. `shares` decides which share of a graph's requests each cell gets.
4. `haproxy_stats` reads HAProxy's view of the cells, and `runtime_api` asks HAProxy for it.
5. `balancer` compares what the cells report with HAProxy's weights, and changes these.
6. `process` runs all of it.
"""
