"""A signaling server, small enough to run inside a worker: HTTP and WebSocket on one port.

`rooms` knows who is where and who may what, `identities` who somebody is and `trust` whom the
operator believes, `hub` what each message means, `app` the routes, `connections` their bounds in
time, `server` the port.
"""
