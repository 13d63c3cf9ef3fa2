"""The served ledger: HTTP in front of a store. It needs the extra `[server]`; only `verity.cli` imports it.

A request travels through the modules in this order, and its answer back:

```
serving.py          listens, starts and stops the server (uvicorn)
tls_listener.py     accepts connections and does their TLS handshakes; tls.py loads the certificate
connections.py      limits the open connections and enforces their timeouts
  key_usage.py        counts the connections and the unread bytes of each API key
protocol.py         parses HTTP on one connection; uvicorn_names.py has what it uses of uvicorn
  transport.py        buffers answers until the client reads them; head.py writes their headers
exchange.py         one request, its body, and the way to send its answer
app.py              answers one request. It asks, in this order:
  router.py           which operation the method and the path mean
  auth.py             what the API key may touch; api_keys.py has the form of keys
  rate_limiter.py     whether the key may send a request now
  contract.py         whether parameters and body are as openapi.yaml says; json_body.py parses the body
  waiting.py          lease requests with `Prefer: wait`: waits, and asks the store again
  effect_call_limiter.py  all other calls: how many of each API key may run
  read_limiter.py     reads: how many may run
  verity._store       the store carries the call out
problems.py         the error answers that the server itself gives
metrics.py, logs.py what is counted and logged of each request
settings.py         everything that can be set
```
"""
