"""Engines that start the agents of nodes. Requests, orders and files never travel through an engine.

`ray` places one actor on each node (`actor.py`), which starts the node's agent and restarts it. All calls to Ray are
made in a process of their own (`ray_process.py`), because Ray ends a process whose cluster is gone.
"""
