"""Benchmarks of models: throughput, latency, memory, and how much of the machine they use."""
