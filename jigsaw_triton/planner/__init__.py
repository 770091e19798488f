"""The planner: turns task graphs, a cluster and profiles into a plan of variants, slices, batch sizes and placements.

A problem becomes a plan in this order. Each folder imports only the folders before it:

1. `solver` represents mixed-integer programs and solves them in a separate process, within a deadline.
2. `domain` defines the problem and the plan, and the arithmetic of rates and paths that both share.
3. `latency` predicts a task's latency from its profile and its load.
4. `candidates` lists the configurations (variant, slice, instances, batch) that each task may use.
5. `validation` checks a finished plan; it shares only the queueing model with the code that makes plans.
6. `formulation` writes the mixed-integer program and reads budgets and shares from its solution.
7. `bounds` computes lower bounds, which remove configurations that no optimal plan uses.
8. `placement` cuts the GPUs and places the replicas; `capacity` computes the load that a plan carries, `standby` adds
   lighter variants for bursts, and `transition` finds the steps from the running plan to a new one.
9. `search` runs these parts to find a plan, or the reasons why none exists.
10. `cells` divides a cluster into cells and plans each.
11. `explain` explains a plan, or which requirements conflict.
"""
