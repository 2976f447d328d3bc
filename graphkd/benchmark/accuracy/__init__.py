"""Every method with the same teacher, budget and number of trials: what it scores, and what it costs."""

from graphkd.benchmark.accuracy.command import benchmark_accuracy as benchmark_accuracy
