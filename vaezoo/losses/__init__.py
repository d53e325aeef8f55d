"""Objectives: a registered loss turns distributions into nats."""
