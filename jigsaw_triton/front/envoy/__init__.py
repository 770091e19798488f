"""The configuration of an Envoy that stands in the place of HAProxy. Pure functions without side effects.

1. `objects` has the forms that Envoy's configuration repeats.
2. `scripts` has the Lua code by which Envoy reads requests.
3. `clusters` makes a cluster for each graph and protocol, in which the gateway of each cell is an endpoint.
4. `bootstrap` makes the whole configuration.
"""
