"""Serving: the bundle a model ships in, who promoted it on which evidence, and its forecasts."""

# runs first: sets MLflow's switches before any module of this room imports MLflow
import margincast.training  # noqa: F401
