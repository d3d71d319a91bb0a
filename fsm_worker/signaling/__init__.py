"""A signaling server, small enough to run inside a worker: HTTP and WebSocket on one port.

`rooms` knows who is where and who may what, `hub` what each message means, `app` the routes,
`connections` their bounds in time, `server` the port.
"""
