"""What a running process tells over HTTP: health, metrics, devices and a status page."""
