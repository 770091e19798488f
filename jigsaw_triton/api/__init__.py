"""jigsaw-triton as a library. `import jigsaw_triton` gives its public names; the command line is built on it.

Each module imports only those before it in this list:

1. `reporting` receives notes and warnings, and words the names of options in messages.
2. `machine` finds the GPUs of this machine, and says what is emulated.
3. `files` reads graphs, profiles, clusters and plans, and collects the mistakes in all of them.
4. `builders` makes graphs and profiles without files.
5. `planning` makes and explains plans; `compiling` writes their model repositories.
6. `request` is a request to deploy, in a form that the controller's process reads.
7. `controller` starts, queries and cleans up after the controller's process, which runs `daemon`.
8. `deployment` deploys graphs, and operates what is running; `asynchronous` does the same for asyncio.
"""
