"""Where richter touches the world: files, brokers, the exchange. Adapters do not know one another."""
