"""Plans: from task graphs, a cluster and profiles to variants, slices, batch sizes, budgets and a placement.

Each folder imports only those before it in this list:

1. `solver` states mixed-integer programs and solves them in a process of its own, within a deadline.
2. `domain` has the problem, the plan, and the arithmetic that both share.
3. `latency` turns profiles into planned latencies.
4. `candidates` lists the configurations of each task.
5. `validation` checks a plan; its code shares only the queueing model with the code that makes plans.
6. `formulation` writes the program and reads its solution.
7. `bounds` proves which configurations no optimum uses.
8. `placement` cuts GPUs and places replicas; `capacity` and `transition` say what a plan carries, and how to get there.
9. `search` makes the plan, or finds why there is none.
10. `explain` says why a plan is what it is.
"""
