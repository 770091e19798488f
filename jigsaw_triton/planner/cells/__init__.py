"""Cells: parts of a cluster, each of some nodes with one gateway, and the division of all demand among them.

1. `nodes` assigns whole nodes to cells, so that cells are alike, and gives the plan of a cell to another one like it.
2. `gateway` computes what a plan asks of its gateway.
3. `weights` decides which cells serve a graph, and which share of its demand each of them gets.
4. `model` is the result: cells with their nodes, weights and plans; and its JSON format.
5. `validation` checks it.
6. `partition` runs these parts and chooses the number of cells.
"""
