"""What a run's routers do on a fixed text, checkpoint by checkpoint: maps, figures, tables."""
