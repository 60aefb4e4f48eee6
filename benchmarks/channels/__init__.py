"""Channel pruning measured: coverage, latency, accuracy, network slimming."""
