"""Transport of calls between the gateway of a deployment and its other nodes: HTTP over mutual TLS, by HAProxy.

```
backend ──► workers/NAME.sock ─┐                    ┌──► workers/NAME.sock ──► tritonserver
                               HAProxy ──mTLS──► HAProxy
controller ──► agents/NODE.sock┘   (gateway_side)   └──► agent's socket        (node_side)
```

Neither the compiled backend nor the Python code speaks TLS. Each node opens one TCP port.
"""
