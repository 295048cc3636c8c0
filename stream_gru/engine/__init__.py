"""The model side, without Kafka or Redis: readings in, forecasts and scores out."""
