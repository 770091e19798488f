"""jigsaw-triton as a library. `import jigsaw_triton` gives its public names; the command line is built on it.

Modules import only those that `tests/test_architecture.py` lists before them. The most important ones are, in order:

1. `reporting` receives notes and warnings, and words the names of options in messages.
2. `machine` finds the GPUs of this machine, and says what is emulated.
3. `files` reads graphs, profiles, clusters and plans, and collects the mistakes in all of them.
4. `adding`, `variants` and `accuracies` change a graph.yaml. `graph_builder` and `profile_builder` make graphs and
   profiles without files.
5. `planning` makes and explains plans, `compiling` writes their model repositories, and `simulating` plays traces.
6. `controller` starts, queries and cleans up after the controller's process. `supervisor` restarts that process, and
   `daemon` is its entry point.
7. `request` is a request to deploy, in a form that the controller's process reads; `rollout` plans it.
8. `exporting` writes files for systemd, Compose and Kubernetes; `reports` and `console` show a deployment.
9. `observed`, `controlled`, `operated`, `rolled_out` and `deployment` build the class `Deployment` in layers. They read
   its state, start and end its controller, operate what is running, carry out rollouts, and change its graphs.
10. `cell_files`, `cells` and `fronts` deal with clusters that are divided into cells; `takeover` replaces a lost
    controller.
11. `deploying` deploys graphs, `rehearsing` does so with emulated models, and `asynchronous` is the API for asyncio.
"""
