"""PostgreSQL connections that outlive the cloud."""

__version__ = "0.1.0"
