"""What bench/run and bench/compare do once the servers are built; see bench/run."""
