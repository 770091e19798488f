"""The controller's process, and what it and its deployment show to users.

1. `options` are the options of the process, and `threads` its threads.
2. `status` is the status as one document, `view` the same for the web console, and `metrics` for Prometheus.
3. `server` serves these and takes requests over a Unix socket; `client` calls it.
4. `daemon` composes the controller and runs it.
5. `trace` assembles the traces of single requests, and `otlp` exports them.
6. `reports` makes HTML files, and `web` is the web console, a process of its own.
"""
