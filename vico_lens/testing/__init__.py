"""What this project tests itself with, for others to test their additions with: tiny pipelines, traces, strategies, assertions."""
