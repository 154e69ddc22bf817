"""What every page of the dashboards uses: which trace is open, cached numbers, one way to show figures and messages."""
