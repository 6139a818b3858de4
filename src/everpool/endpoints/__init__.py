"""Health for platforms: answers to "shall I restart it?" and "shall I send it traffic?".

All of it reads memory (``pool.health()``) and borrows nothing, so it answers when the pool is
full, closed, or its database is gone. See docs/health.md.

* `HealthServer`: a server in a thread, for processes without one.
* `asgi_app`, `wsgi_app`: to be mounted in a program that has one.
* `everpool.endpoints.grpc.grpc_health`: gRPC's own health service.
* ``everpool check``: a probe as a command.
* `Endpoints`: the answers, for any other server.
"""

from .asgi import asgi_app
from .payload import Reply
from .questions import Endpoints
from .readiness import Readiness
from .server import HealthServer
from .wsgi import wsgi_app

__all__ = ["Endpoints", "HealthServer", "Readiness", "Reply", "asgi_app", "wsgi_app"]
