"""What pools do, for the programs that watch services: Prometheus and OpenTelemetry."""
