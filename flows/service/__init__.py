"""Prefect's server, a worker and the deployments: up, down, status."""
