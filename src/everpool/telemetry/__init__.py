"""What monitoring systems are told: see `everpool.telemetry.prometheus` and
`everpool.telemetry.otel`."""
