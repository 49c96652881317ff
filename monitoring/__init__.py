"""What Prometheus and Grafana need: alert rules with their tests, and the dashboard."""
